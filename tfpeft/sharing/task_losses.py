"""Losses and metrics of one task among several: missing labels, labels out of range, weights."""

import contextlib
import numbers
import re

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.arguments import invalid
from tfpeft.core.hooks import mask_of

_OUT_OF_RANGE = "Received labels out of range"
_BINARY = ("binary_crossentropy", "binary_focal_crossentropy")
_BINARY_LOSSES = (keras.losses.BinaryCrossentropy, keras.losses.BinaryFocalCrossentropy)


class TaskLoss:
    """The loss of a task over the labels that are there.

    Missing are labels of NaN and, as class numbers of a head of several classes, -1. The mean is
    taken over the others; of a batch without labels the loss is 0.
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
        """Returns the loss, computed after the operations `after`, and of how many labels it is."""
        y_true, there = split_missing(y_true, y_pred, self.loss)
        mask = mask_of(y_pred)
        if there is not None:
            mask = there if mask is None else there & ops.cast(mask, "bool")
        with tf.control_dependencies(after):
            y_pred = tf.identity(y_pred)
        if mask is not None:
            y_pred._keras_mask = mask
        count = ops.shape(y_true)[0] if mask is None else ops.sum(ops.cast(mask, "float32"))
        return self.loss(y_true, y_pred, sample_weight), count

    def check(self, y_true, y_pred):
        """Returns operations, in a graph, that fail where labels are none that the head has."""
        if are_class_numbers(y_true, y_pred):
            largest = y_pred.shape[-1] - 1
        elif self.loss.name in _BINARY or isinstance(self.loss, _BINARY_LOSSES):
            largest = 1
        else:
            return []
        values = ops.cast(split_missing(y_true, y_pred, self.loss)[0], "float32")
        message = f"{_OUT_OF_RANGE}, expected 0 to {largest} for the task {self.task}"
        check = tf.debugging.Assert(
            tf.reduce_all((values >= 0.0) & (values <= largest)),
            [message, tf.reduce_min(values), tf.reduce_max(values)],
        )
        return [] if check is None else [check]


class _FunctionLoss(keras.losses.Loss):
    def __init__(self, function):
        super().__init__(name=getattr(function, "__name__", "loss"))
        self.function = function

    def call(self, y_true, y_pred):
        return self.function(y_true, y_pred)


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
            sample_weight = labelled if sample_weight is None else _times(labelled, sample_weight)
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
    if y_pred.shape[-1] == 1 and len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)  # as Keras has it for outputs of one number
    is_float = keras.backend.is_float_dtype(y_true.dtype)
    of_classes = are_class_numbers(y_true, y_pred)
    if not is_float and not of_classes:
        return y_true, None
    if not is_float:
        y_true = ops.cast(y_true, "int64")  # unsigned numbers have no -1, and may have a 255
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


def task_metrics(argument, metrics, tasks):
    """Returns {task: list of `TaskMetric`} of such a dict, or of one list for all."""
    if not metrics:
        return None
    by_task = metrics if isinstance(metrics, dict) else dict.fromkeys(tasks, metrics)
    if set(by_task) - set(tasks):
        raise invalid(argument, f"keys among the tasks {listed(tasks)}", sorted(by_task))
    wrapped = {}
    for task, given in by_task.items():
        given = given if isinstance(given, (list, tuple)) else [given]
        given = [each.given if isinstance(each, TaskMetric) else each for each in given]
        if by_task is not metrics:  # each task counts for itself
            given = [
                type(each).from_config(each.get_config())
                if isinstance(each, keras.metrics.Metric)
                else each
                for each in given
            ]
        wrapped[task] = [TaskMetric(each) for each in given]
    return wrapped


def check_class_weight(class_weight, tasks):
    """Raises unless it is {task: {class number: weight}}."""
    is_nested = isinstance(class_weight, dict) and all(
        isinstance(of_task, dict)
        and all(
            isinstance(number, numbers.Integral)
            and isinstance(weight, numbers.Real)
            and number >= 0
            and 0.0 <= weight < float("inf")
            for number, weight in of_task.items()
        )
        for of_task in class_weight.values()
    )
    if not is_nested or set(class_weight) - set(tasks):
        expected = f"{{task: {{class number: weight >= 0}}}} of the tasks {listed(tasks)}"
        raise invalid("class_weight", expected, class_weight)


def with_class_weights(y, y_pred, sample_weight, class_weight):
    """Returns {task: weights of labels}, those of samples times those of their classes.

    Args:
        y: {task: labels}: class numbers, or rows with a number a class.
        y_pred: {task: outputs}.
        sample_weight: {task: weights}, or weights for all tasks, or None.
        class_weight: {task: {class number: weight}}; what is not named weighs 1.
    """
    if not isinstance(sample_weight, dict):
        sample_weight = dict.fromkeys(y, sample_weight)
    weights = {}
    for task, labels in y.items():
        if len(labels.shape) == len(y_pred[task].shape):
            of_classes = are_class_numbers(labels, y_pred[task]) or y_pred[task].shape[-1] == 1
            labels = labels[..., 0] if of_classes else ops.argmax(labels, axis=-1)
        weights[task] = ops.ones(ops.shape(labels))
        for number, weight in class_weight.get(task, {}).items():
            chosen = ops.equal(labels, ops.cast(number, labels.dtype))
            weights[task] = ops.where(chosen, float(weight), weights[task])
        if sample_weight[task] is not None:
            weights[task] = _times(weights[task], sample_weight[task])
    return weights


def _times(of_labels, of_samples):
    """Returns weights a label (samples, ...) times weights a sample, or a label."""
    of_samples = ops.cast(of_samples, of_labels.dtype)
    missing = len(of_labels.shape) - len(of_samples.shape)
    return of_labels * ops.reshape(of_samples, [*ops.shape(of_samples), *[1] * missing])


def check_tasks(what, by_task, tasks):
    """Raises unless data is a dict of all tasks."""
    if not isinstance(by_task, dict) or set(by_task) != set(tasks):
        got = listed(by_task) if isinstance(by_task, dict) else type(by_task).__name__
        raise ValueError(
            f"Expected {what} of every task, a dict of {listed(tasks)}. Received: {got}"
        )


def of_every_task(argument, given, tasks):
    """Returns {task: value} of such a dict, or of one value for all; None for None."""
    if given is None:
        return None
    if not isinstance(given, dict):
        return dict.fromkeys(tasks, given)
    if set(given) != set(tasks):
        raise invalid(argument, f"a value for each of the tasks {listed(tasks)}", sorted(given))
    return {task: given[task] for task in tasks}


def listed(names):
    """Returns names as an error tells them."""
    return ", ".join(map(str, names)) or "none"


@contextlib.contextmanager
def errors_about_labels():
    """Turns what a graph says of labels out of range into a `ValueError`."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        # In a graph each value stands in brackets, in eager code on a line.
        number = r"[\]'\s\[]+([-+.\de]+|nan|inf)"
        found = re.search(rf"({_OUT_OF_RANGE}[^\]'\n]*){number}{number}", str(error))
        if not found:
            raise
        said, smallest, largest = found.groups()
        raise ValueError(f"{said}. Received: {float(smallest):g} to {float(largest):g}") from None
