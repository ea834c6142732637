"""Inputs and class numbers to evaluate on, checked."""

import typing

import keras
import numpy as np

from tfpeft.core.arguments import InputError
from tfpeft.core.data import read


class Labels(typing.NamedTuple):
    """Class numbers (samples,), and how many classes there are; None if labels do not show it."""

    numbers: np.ndarray
    classes: int | None = None


def read_classes(data):
    """Returns inputs, as arrays in their structure, and `Labels`.

    Args:
        data: Arrays, a dataset or a PyDataset of (x, y); y are class numbers, (samples,) or
            (samples, 1), or one-hot rows.

    Raises:
        InputError: for data that is not (x, y), or of other labels. Inputs are not checked.
    """
    x, y, sample_weight = read(data).arrays()
    if y is None or sample_weight is not None:
        received = "x alone" if y is None else "sample weights"
        raise _invalid("(x, y)", received)
    numbers = _class_numbers(y)
    classes = None if y.size == numbers.size else y.shape[1]
    return keras.tree.map_structure(_in_float32, x), Labels(numbers, classes)


def _class_numbers(y):
    if not isinstance(y, np.ndarray) or y.dtype.kind not in "biuf":
        received = f"labels of type {y.dtype}" if isinstance(y, np.ndarray) else f"y of {type(y)}"
        raise _invalid("one array of numbers for y", received)
    if not np.all(np.isfinite(y)):
        raise _invalid("finite labels", "NaN or infinity in y")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
        y = np.argmax(y, axis=1)
    if y.ndim != 1 or np.any(y != np.floor(y)) or y.min() < 0:
        raise _invalid(
            "labels that are whole numbers >= 0, or one-hot",
            f"labels of shape {y.shape} and type {y.dtype} from {y.min():g} to {y.max():g}",
        )
    return y.astype("int64")


def _invalid(expected, received):
    return InputError(f"Received invalid `data`, expected {expected}. Received: {received}")


def _in_float32(array):
    return array.astype("float32") if np.issubdtype(array.dtype, np.floating) else array
