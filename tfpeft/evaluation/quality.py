"""Quality of a classifier: accuracy, precision, recall, F1 and loss, of outputs and labels."""

import numpy as np

from tfpeft.core.arguments import unexpected


def classification_quality(outputs, y, from_logits, name):
    """Returns {figure: value}: accuracy, and the means over classes, as scikit-learn defines them.

    Args:
        outputs: Logits or probabilities, (samples, classes).
        y: Class numbers, (samples,).
        from_logits: Whether outputs are logits; None to recognise them, see `are_logits`.
        name: The model or file, for errors.

    Raises:
        InputError: for outputs of another shape, or not finite, and for labels out of range.
    """
    from sklearn import metrics  # late, as not every use of tfpeft needs it

    outputs = _checked(outputs, y, name)
    if are_logits(outputs) if from_logits is None else from_logits:
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    probabilities = outputs / outputs.sum(axis=1, keepdims=True)
    predictions = np.argmax(outputs, axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y, predictions, average="macro", zero_division=0
    )
    return {
        "accuracy": float(metrics.accuracy_score(y, predictions)),
        "precision": float(precision),
        "recall": float(recall),
        "f1": float(f1),
        "loss": float(metrics.log_loss(y, probabilities, labels=np.arange(outputs.shape[1]))),
    }


def are_logits(outputs):
    """Whether outputs are logits: probabilities are >= 0 and sum to 1 within 1% in every row."""
    outputs = np.asarray(outputs, "float32")
    return not (np.all(outputs >= 0) and np.allclose(outputs.sum(-1), 1.0, atol=1e-2))


def _checked(outputs, y, name):
    if isinstance(outputs, (dict, list, tuple)):
        raise unexpected(
            "a model of one output, such as `shared.task(name)` of a SharedModel",
            f"{name} with {len(outputs)}",
        )
    outputs = np.asarray(outputs, "float64")
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise unexpected("outputs of shape (samples, classes)", f"{name} with {outputs.shape}")
    if not np.all(np.isfinite(outputs)):
        raise unexpected("finite outputs", f"NaN or infinity from {name}")
    classes = outputs.shape[1]
    if y.max() >= classes:
        expected = f"labels from 0 to {classes - 1}, the classes of {name}"
        raise unexpected(expected, f"the label {y.max()}")
    return outputs
