"""Quality of a classifier: accuracy, precision, recall, F1 and loss, of outputs and labels."""

import numpy as np

from tfpeft.core.arguments import unexpected


def classification_quality(outputs, labels, from_logits, name, activation=None):
    """Returns {figure: value}: accuracy, and the means over classes, as scikit-learn defines them.

    The loss is the cross-entropy of the classes; of sigmoids, one for each of several classes, it
    is the mean of their binary cross-entropies.

    Args:
        outputs: (samples, classes): logits, probabilities or sigmoids; (samples, 1) is a logit, or
            a sigmoid, of the second of two classes.
        labels: `Labels`, of class numbers (samples,).
        from_logits: Whether outputs are logits; None to recognise them, see `_recognised`.
        name: The model or file, for errors.
        activation: The last activation, "softmax", "sigmoid" or "linear"; None if not known.

    Raises:
        InputError: for outputs of another shape, or not finite, and for labels out of range; for
            one output of which it is not known that it is a class.
    """
    from sklearn import metrics  # late, as not every use of tfpeft needs it

    y, outputs = labels.numbers, _checked(outputs, labels, name)
    if from_logits is None:
        from_logits = _recognised(outputs, activation, name)
    if outputs.shape[1] == 1:
        others = np.zeros_like(outputs) if from_logits else 1 - outputs
        outputs = np.concatenate([others, outputs], axis=1)
    predictions = np.argmax(outputs, axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y, predictions, average="macro", zero_division=0
    )
    return {
        "accuracy": float(metrics.accuracy_score(y, predictions)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "loss": _loss(metrics, outputs, y, from_logits, activation),
    }


def _recognised(outputs, activation, name):
    """Whether outputs are logits: without an activation that says it, by their numbers.

    Rows that sum to 1 are a softmax; other numbers that are all in [0, 1] are sigmoids.
    """
    in_range = np.all((outputs >= 0) & (outputs <= 1))
    if outputs.shape[1] == 1:
        if activation != "sigmoid" and (activation == "linear" or not in_range):
            expected = "outputs of shape (samples, classes) or of one sigmoid, or `from_logits`"
            raise unexpected(expected, f"{name} with one output, which may be no class")
        return False
    if activation == "linear":
        return are_logits(outputs)
    return activation not in ("softmax", "sigmoid") and not in_range


def _loss(metrics, outputs, y, from_logits, activation):
    classes = np.arange(outputs.shape[1])
    if from_logits:
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    elif activation != "softmax" and are_logits(outputs):  # int8 rounds a sum away from 1
        probabilities = np.clip(np.where(y[:, None] == classes, outputs, 1 - outputs), 1e-7, 1)
        return float(-np.mean(np.log(probabilities)))
    probabilities = outputs / outputs.sum(axis=1, keepdims=True)
    return float(metrics.log_loss(y, probabilities, labels=classes))


def are_logits(outputs):
    """Whether outputs are logits: probabilities are >= 0 and sum to 1 within 1% in every row."""
    outputs = np.asarray(outputs, "float32")
    return not (np.all(outputs >= 0) and np.allclose(outputs.sum(-1), 1.0, atol=1e-2))


def _checked(outputs, labels, name):
    if isinstance(outputs, (dict, list, tuple)):
        raise unexpected(
            "a model of one output, such as `shared.task(name)` of a SharedModel",
            f"{name} with {len(outputs)}",
        )
    outputs = np.asarray(outputs, "float64")
    if outputs.ndim != 2 or not outputs.shape[1]:
        raise unexpected("outputs of shape (samples, classes)", f"{name} with {outputs.shape}")
    if not np.all(np.isfinite(outputs)):
        raise unexpected("finite outputs", f"NaN or infinity from {name}")
    classes = max(outputs.shape[1], 2)
    if labels.classes not in (None, classes):
        expected = f"one-hot labels of {classes} classes, as {name} has them"
        raise unexpected(expected, f"rows of {labels.classes}")
    if labels.numbers.max() >= classes:
        expected = f"labels from 0 to {classes - 1}, the classes of {name}"
        raise unexpected(expected, f"the label {labels.numbers.max()}")
    return outputs
