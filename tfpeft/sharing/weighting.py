"""Weights of tasks, samples and classes in the loss of several tasks."""

from keras import ops

from tfpeft.core.arguments import invalid
from tfpeft.core.labels import are_class_numbers


def weighted_by_uncertainty(loss, log_variance, is_squared_error):
    """Returns exp(-s) * L of a task, and s / 2, the penalty that keeps s from growing.

    s is `log_variance`; squared errors get half of exp(-s).

    Reference: Kendall, Gal & Cipolla, "Multi-Task Learning Using Uncertainty to Weigh Losses for
    Scene Geometry and Semantics", 2018, https://arxiv.org/abs/1705.07115
    """
    return ops.exp(-log_variance) * loss * (0.5 if is_squared_error else 1.0), 0.5 * log_variance


def with_class_weights(y, y_pred, sample_weight, class_weight):
    """Returns {task: weights of labels}: sample weights times the weights of the labels' classes.

    Args:
        y: {task: labels}: class numbers, or rows with a number per class.
        y_pred: {task: outputs}.
        sample_weight: {task: weights}, or weights for all tasks, or None.
        class_weight: {task: {class number: weight}}; other classes have the weight 1.
    """
    if not isinstance(sample_weight, dict):
        sample_weight = dict.fromkeys(y, sample_weight)
    weights = {}
    for task, labels in y.items():
        _check_classes(task, class_weight.get(task, {}), y_pred[task].shape[-1])
        labels = _class_numbers(labels, y_pred[task])
        weights[task] = ops.ones(ops.shape(labels))
        for number, weight in class_weight.get(task, {}).items():
            is_class = ops.equal(labels, ops.cast(number, labels.dtype))
            weights[task] = ops.where(is_class, float(weight), weights[task])
        if sample_weight[task] is not None:
            weights[task] = times_sample_weights(weights[task], sample_weight[task])
    return weights


def _check_classes(task, weights, outputs):
    """Raises for weights of classes that a head of so many outputs does not have."""
    classes = 2 if outputs == 1 else outputs
    missing = [number for number in weights if classes is not None and number >= classes]
    if missing:
        expected = f"class numbers from 0 to {classes - 1}"
        raise invalid(f"class_weight[{task!r}]", expected, weights)


def _class_numbers(labels, outputs):
    """Returns labels as class numbers, without a last axis."""
    if len(labels.shape) != len(outputs.shape):
        return labels
    if are_class_numbers(labels, outputs) or outputs.shape[-1] == 1:
        return labels[..., 0]
    return ops.argmax(labels, axis=-1)


def times_sample_weights(label_weights, sample_weights):
    """Returns weights per label (samples, ...) times weights per sample, or per label."""
    sample_weights = ops.cast(sample_weights, label_weights.dtype)
    missing = len(label_weights.shape) - len(sample_weights.shape)
    shape = [*ops.shape(sample_weights), *[1] * missing]
    return label_weights * ops.reshape(sample_weights, shape)
