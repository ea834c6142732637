"""The loss of one task: a mean over the labels that are present, and a check of their range."""

import functools

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.arguments import invalid
from tfpeft.core.hooks import mask_of
from tfpeft.core.labels import (
    check_form,
    is_crossentropy,
    is_loss,
    named_by_shapes,
    range_checks,
    split_missing,
)


class TaskLoss:
    """The loss of a task: a mean over the labels that are present; 0 for a batch without labels.

    Missing are labels of NaN and, for a loss of Keras that takes class numbers, -1.
    """

    def __init__(self, loss, task):
        if not is_loss(loss):
            raise invalid("loss", f"a loss for the task {task}", loss)
        if is_crossentropy(loss):
            self.given, loss = loss, functools.partial(_named_loss, loss)
        else:
            self.given = loss = keras.losses.get(loss) if isinstance(loss, (str, type)) else loss
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
        y_true, present = split_missing(y_true, y_pred, self.given)
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
        """Checks that labels suit outputs and loss; see `core.labels`."""
        where = f"the task {self.task}"
        check_form(y_true, y_pred, self.given, where)
        return range_checks(y_true, y_pred, self.given, where, may_be_missing=True)


def _named_loss(name, y_true, y_pred):
    return keras.losses.get(named_by_shapes(name, y_true, y_pred))(y_true, y_pred)


class _FunctionLoss(keras.losses.Loss):
    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)
