"""Labels of one task: which are missing, and which are class numbers."""

import keras
from keras import ops


def are_class_numbers(y_true, y_pred):
    """Whether labels are numbers of several classes; their shape shows it."""
    if y_pred.shape[-1] is None or y_pred.shape[-1] < 2:
        return False
    rank, rank_of_outputs = len(y_true.shape), len(y_pred.shape)
    return rank == rank_of_outputs - 1 or (rank == rank_of_outputs and y_true.shape[-1] == 1)


def split_missing(y_true, y_pred, loss=None):
    """Returns labels with zeros where they are missing, and a mask that is True elsewhere.

    Missing are NaN and, among class numbers, -1 and the loss's `ignore_class`. The mask has the
    shape of the loss's values: where a label is a row of numbers, all of the row must be present.
    It is None for labels that cannot be missing: integers that are not class numbers.
    """
    y_true = ops.convert_to_tensor(y_true)
    if y_pred.shape[-1] == 1 and len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)  # as Keras does for outputs with one channel
    is_float = keras.backend.is_float_dtype(y_true.dtype)
    of_classes = are_class_numbers(y_true, y_pred)
    if not is_float and not of_classes:
        return y_true, None
    if not is_float:
        y_true = ops.cast(y_true, "int64")  # unsigned numbers have no -1, and may have a 255
    present = ops.logical_not(ops.isnan(y_true)) if is_float else ops.ones_like(y_true, "bool")
    if of_classes:
        for marker in {-1, getattr(loss, "ignore_class", None)} - {None}:
            is_label = ops.not_equal(y_true, ops.cast(marker, y_true.dtype))
            present = ops.logical_and(present, is_label)
    mask = present
    if len(present.shape) == len(y_pred.shape) and len(present.shape) > 1:
        mask = ops.all(present, axis=-1)
        present = ops.broadcast_to(ops.expand_dims(mask, -1), ops.shape(y_true))
    return ops.where(present, y_true, ops.zeros_like(y_true)), mask
