"""Losses and metrics of one task among several: missing labels, labels out of range, weights."""

import contextlib
import re

import keras
import tensorflow as tf
from keras import ops

from tfpeft.features import mask_of

_OUT_OF_RANGE = "Received labels out of range"


@keras.saving.register_keras_serializable(package="tfpeft")
class TaskLoss(keras.losses.Loss):
    """The loss of a task over the labels that are there.

    Missing are labels of NaN and, as class numbers of a head of several classes, -1. The mean is
    taken over the others; of a batch without labels the loss is 0. With a `log_variance` s it is
    what Kendall et al. weigh tasks by, exp(-s) * L + s / 2, and exp(-s) * L / 2 + s / 2 of squared
    errors.
    """

    def __init__(self, loss, task, log_variance=None):
        is_loss = isinstance(loss, keras.losses.Loss)
        name = loss.name if is_loss else getattr(loss, "__name__", "loss")
        super().__init__(name=name, reduction=loss.reduction if is_loss else "sum_over_batch_size")
        self.loss, self.task, self.log_variance = loss, task, log_variance

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true, labelled = split_missing(y_true, y_pred, self.loss)
        self._check_range(y_true, y_pred)
        if labelled is not None:
            mask = mask_of(y_pred)
            y_pred = tf.identity(y_pred)
            y_pred._keras_mask = labelled if mask is None else labelled & mask
        compute = self.loss if isinstance(self.loss, keras.losses.Loss) else super().__call__
        value = compute(y_true, y_pred, sample_weight)
        if self.log_variance is None:
            return value
        factor = 0.5 if "squared_error" in self.name and "log" not in self.name else 1.0
        replicas = tf.distribute.get_strategy().num_replicas_in_sync
        # Keras's losses are a replica's share of the whole; so is this.
        penalty = 0.5 * self.log_variance / replicas
        return factor * ops.exp(-self.log_variance) * value + penalty

    def call(self, y_true, y_pred):
        return self.loss(y_true, y_pred)

    def _check_range(self, y_true, y_pred):
        if are_class_numbers(y_true, y_pred):
            largest = y_pred.shape[-1] - 1
        elif self.name == "binary_crossentropy":
            largest = 1
        else:
            return
        values = tf.cast(y_true, tf.float32)
        smallest_seen, largest_seen = tf.reduce_min(values), tf.reduce_max(values)
        message = f"{_OUT_OF_RANGE}, expected 0 to {largest} for the task {self.task}"
        tf.debugging.Assert(
            tf.logical_or(
                tf.equal(tf.size(values), 0),
                tf.logical_and(smallest_seen >= 0.0, largest_seen <= largest),
            ),
            [message, smallest_seen, largest_seen],
        )

    def get_config(self):
        return {"loss": keras.saving.serialize_keras_object(self.loss), "task": self.task}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["loss"]), config["task"])


@keras.saving.register_keras_serializable(package="tfpeft")
class TaskMetric(keras.metrics.Metric):
    """A metric of a task over the labels that are there; see `TaskLoss`."""

    def __init__(self, metric):
        is_metric = isinstance(metric, keras.metrics.Metric)
        named = metric if isinstance(metric, str) else getattr(metric, "__name__", "metric")
        super().__init__(name=metric.name if is_metric else named)
        self.given = metric
        self.metric = metric if is_metric else None

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.metric is None:  # what "accuracy" means shows in the shapes
            self.metric = _resolved(self.given, y_true, y_pred)
        y_true, labelled = split_missing(y_true, y_pred)
        if labelled is not None:
            labelled = ops.cast(labelled, self.dtype)
            if sample_weight is not None:
                sample_weight = ops.cast(sample_weight, self.dtype)
                while len(sample_weight.shape) < len(labelled.shape):
                    sample_weight = ops.expand_dims(sample_weight, -1)
                labelled = labelled * sample_weight
            sample_weight = labelled
        return self.metric.update_state(y_true, y_pred, sample_weight=sample_weight)

    def result(self):
        return self.metric.result()

    def reset_state(self):
        if self.metric is not None:
            self.metric.reset_state()

    def get_config(self):
        return {"metric": keras.saving.serialize_keras_object(self.given)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["metric"]))


def are_class_numbers(y_true, y_pred):
    """Whether labels are numbers of several classes, by their shape."""
    if y_pred.shape[-1] is None or y_pred.shape[-1] < 2:
        return False
    rank, rank_of_outputs = len(y_true.shape), len(y_pred.shape)
    return rank == rank_of_outputs - 1 or (rank == rank_of_outputs and y_true.shape[-1] == 1)


def split_missing(y_true, y_pred, loss=None):
    """Returns the labels with zeros where they are missing, and where they are not; or None.

    The second is of the shape of the loss's values, True for labels that are there, and None if
    none can be missing: integers that are no class numbers.
    """
    y_true = ops.convert_to_tensor(y_true)
    is_float = keras.backend.is_float_dtype(y_true.dtype)
    of_classes = are_class_numbers(y_true, y_pred)
    if not is_float and not of_classes:
        return y_true, None
    there = ops.logical_not(ops.isnan(y_true)) if is_float else ops.ones_like(y_true, "bool")
    if of_classes:
        for marker in {-1, getattr(loss, "ignore_class", None)} - {None}:
            there = ops.logical_and(there, ops.not_equal(y_true, ops.cast(marker, y_true.dtype)))
    of_samples = there
    if len(there.shape) == len(y_pred.shape) and len(there.shape) > 1:
        # Of a row of several labels, all must be there.
        of_samples = ops.all(there, axis=-1)
        there = ops.broadcast_to(ops.expand_dims(of_samples, -1), ops.shape(y_true))
    return ops.where(there, y_true, ops.zeros_like(y_true)), of_samples


def _resolved(metric, y_true, y_pred):
    """Returns the metric that Keras takes for a name or a function."""
    if metric in ("accuracy", "acc", "crossentropy", "ce"):
        kind = "categorical"
        if y_pred.shape[-1] == 1:
            kind = "binary"
        elif are_class_numbers(y_true, y_pred):
            kind = "sparse_categorical"
        metric = f"{kind}_{'accuracy' if metric.startswith('acc') else 'crossentropy'}"
    found = keras.metrics.get(metric)
    if isinstance(found, keras.metrics.Metric):
        return found
    return keras.metrics.MeanMetricWrapper(found)


@contextlib.contextmanager
def errors_about_labels():
    """Turns what a graph says of labels out of range into a `ValueError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"\[({_OUT_OF_RANGE}[^\]]*)\] \[([^\]]*)\] \[([^\]]*)\]", str(error))
        if not found:
            raise
        said, smallest, largest = found.groups()
        raise ValueError(f"{said}. Received: {float(smallest):g} to {float(largest):g}") from None
