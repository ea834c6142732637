"""Labels of a batch: checked against a task and the outputs, in the one form that figures take."""

import numpy as np

from tfpeft.core.arguments import InputError, unexpected


def check_array(y, where="y"):
    """Returns labels as an array of finite numbers; raises for others."""
    if isinstance(y, (dict, list, tuple)):
        raise invalid_labels("one array of numbers for y", f"{where} of {type(y)}")
    y = np.asarray(y)
    if y.dtype.kind not in "biuf" and y.dtype.name != "bfloat16":
        raise invalid_labels("one array of numbers for y", f"labels of type {y.dtype}")
    if y.dtype.kind not in "biu" and not np.all(np.isfinite(y)):
        raise invalid_labels("finite labels", "NaN or infinity in y")
    return y


def class_numbers(y, shape, name, task):
    """Returns class numbers (samples, ...) of class numbers or one-hot rows.

    Args:
        y: Labels: (samples, ...), (samples, ..., 1) or rows (samples, ..., classes).
        shape: The shape of the outputs, (samples, ..., units); one unit is the second of 2 classes.
        name, task: The model and the task, for errors.
    """
    classes = max(shape[-1], 2)
    if y.shape == (*shape[:-1], 1):
        y = y[..., 0]
    elif y.ndim == len(shape) and y.shape[:-1] == shape[:-1] and is_one_hot(y):
        if y.shape[-1] != classes:
            expected = f"one-hot labels of {classes} classes, as {name} has them"
            raise unexpected(expected, f"rows of {y.shape[-1]}")
        y = np.argmax(y, axis=-1)
    if y.shape != shape[:-1] or np.any(y != np.floor(y)) or y.min() < 0:
        raise invalid_labels(
            f"labels that are whole numbers >= 0, or one-hot, for the task {task!r}",
            f"labels of shape {y.shape} and type {y.dtype} from {y.min():g} to {y.max():g}",
        )
    if y.max() >= classes:
        expected = f"labels from 0 to {classes - 1}, the classes of {name}"
        raise unexpected(expected, f"the label {int(y.max())}")
    return y.astype("int64")


def zeros_and_ones(y, shape, name, task):
    """Returns labels of 0 and 1 (samples, labels) as booleans."""
    if y.ndim == 1 and shape[-1] == 1:
        y = y[:, None]
    if y.shape != shape or not is_zero_one(y):
        raise invalid_labels(
            f"labels of 0 and 1 for the task {task!r}, of shape {_with_samples(shape)} as the "
            f"outputs of {name}",
            f"labels of shape {y.shape} from {y.min():g} to {y.max():g}",
        )
    return y.astype(bool)


def values(y, shape, name, task):
    """Returns labels of the shape of the outputs, in float64."""
    if y.shape == shape[:-1] and shape[-1] == 1:
        y = y[..., None]
    if y.shape != shape:
        raise invalid_labels(
            f"labels of shape {_with_samples(shape)} for the task {task!r}, as the outputs of "
            f"{name} have it",
            f"labels of shape {y.shape}",
        )
    return y.astype("float64")


def _with_samples(shape):
    return f"({', '.join(map(str, ('samples', *shape[1:])))})"


def is_zero_one(y):
    """Whether labels are zeros and ones."""
    return y.dtype == bool or bool(np.all((y == 0) | (y == 1)))


def is_one_hot(y):
    """Whether rows have a single one each, and zeros."""
    return y.shape[-1] > 1 and is_zero_one(y) and bool(np.all(y.sum(axis=-1) == 1))


def invalid_labels(expected, received):
    """Returns the error for labels, or their weights, in `data`."""
    return InputError(f"Received invalid `data`, expected {expected}. Received: {received}")
