"""The loss of one task: a mean over the labels that are present, and a check of their range."""

import dataclasses

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.arguments import InputError, invalid
from tfpeft.core.checks import assert_in_graph
from tfpeft.core.hooks import mask_of
from tfpeft.sharing.labels import are_class_numbers, split_missing

_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_BINARY_LOSSES = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)


class TaskLoss:
    """The loss of a task: a mean over the labels that are present; 0 for a batch without labels.

    Missing are labels of NaN and, as class numbers, -1.
    """

    def __init__(self, loss, task):
        loss = keras.losses.get(loss) if isinstance(loss, str) else loss
        if not callable(loss):
            raise invalid("loss", f"a loss for the task {task}", loss)
        self.loss = loss if isinstance(loss, keras.losses.Loss) else _FunctionLoss(loss)
        self.task = task

    @property
    def is_squared_error(self):
        return isinstance(self.loss, keras.losses.MeanSquaredError) or self.loss.name in (
            "mean_squared_error",
            "mse",
        )

    def __call__(self, y_true, y_pred, sample_weight=None, *, after=()):
        """Returns the loss, computed after the operations `after`, and the number of labels."""
        y_true, present = split_missing(y_true, y_pred, self.loss)
        mask = mask_of(y_pred)
        if present is not None:
            mask = present if mask is None else present & ops.cast(mask, "bool")
        with tf.control_dependencies(after):
            y_pred = tf.identity(y_pred)
        if mask is not None:
            y_pred._keras_mask = mask
        count = ops.shape(y_true)[0] if mask is None else ops.sum(ops.cast(mask, "float32"))
        return self.loss(y_true, y_pred, sample_weight), count

    def check(self, y_true, y_pred):
        """Checks that labels are class numbers of the task's head; see `assert_in_graph`."""
        if are_class_numbers(y_true, y_pred):
            limit = y_pred.shape[-1] - 1
        elif self.loss.name in _BINARY or isinstance(self.loss, _BINARY_LOSSES):
            limit = 1
        else:
            return []
        labels = ops.cast(split_missing(y_true, y_pred, self.loss)[0], "float32")
        smallest, largest = tf.reduce_min(labels), tf.reduce_max(labels)
        error = _LabelsOutOfRange(self.task, limit)
        return assert_in_graph(
            (smallest >= 0.0) & (largest <= limit),
            error,
            values=[smallest, largest],
            shown=lambda: [error.expected, "Received:", smallest, largest],
        )


@dataclasses.dataclass(frozen=True)
class _LabelsOutOfRange:
    """Makes the error for labels of a task that are not 0 to `limit`."""

    task: str
    limit: int

    @property
    def expected(self):
        return f"Received labels out of range, expected 0 to {self.limit} for the task {self.task}."

    def __call__(self, smallest, largest):
        return InputError(f"{self.expected} Received: {smallest:g} to {largest:g}")


class _FunctionLoss(keras.losses.Loss):
    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)
