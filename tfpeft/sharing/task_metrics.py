"""Metrics of one task, over the labels that are present."""

import keras
from keras import ops

from tfpeft.core import clone
from tfpeft.core.arguments import invalid
from tfpeft.core.labels import is_loss, is_metric, named_by_shapes, split_missing
from tfpeft.sharing.arguments import joined
from tfpeft.sharing.weighting import times_sample_weights


@keras.saving.register_keras_serializable(package="tfpeft")
class TaskMetric(keras.metrics.Metric):
    """A metric of a task, over the labels that are present; see `TaskLoss`."""

    def __init__(self, metric, loss=None):
        metric = keras.metrics.get(metric) if isinstance(metric, type) else metric
        name = getattr(metric, "name", None) or getattr(metric, "__name__", "metric")
        super().__init__(name=metric if isinstance(metric, str) else name)
        self.given, self._loss = metric, loss
        self.metric = metric if isinstance(metric, keras.metrics.Metric) else None

    def update_state(self, y_true, y_pred, sample_weight=None):
        if self.metric is None:  # the shapes decide what "accuracy" means
            self.metric = _resolve(self.given, y_true, y_pred)
        y_true, present = split_missing(y_true, y_pred, self._loss)
        if present is not None:
            present = ops.cast(present, self.dtype)
            if sample_weight is None:
                sample_weight = present
            else:
                sample_weight = times_sample_weights(present, sample_weight)
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


def _resolve(metric, y_true, y_pred):
    """Returns the metric that Keras uses for a name or a function."""
    found = keras.metrics.get(named_by_shapes(metric, y_true, y_pred))
    if isinstance(found, keras.metrics.Metric):
        return found
    if isinstance(found, keras.losses.Loss):
        found = found.call  # a value per sample, which counts only if its label is present
    return keras.metrics.MeanMetricWrapper(found)


def task_metrics(argument, metrics, losses, tasks):
    """Returns {task: list of `TaskMetric`} of {task: metrics}, or of metrics for all tasks.

    `losses` are {task: loss} or None.

    Raises:
        InputError: for metrics of unknown tasks; the message names `argument`.
    """
    if not metrics:
        return None
    by_task = metrics if isinstance(metrics, dict) else dict.fromkeys(tasks, metrics)
    if set(by_task) - set(tasks):
        raise invalid(argument, f"keys among the tasks {joined(tasks)}", list(by_task))
    is_shared = by_task is not metrics
    for task, given in by_task.items():
        name = argument if is_shared else f"{argument}[{task!r}]"
        for metric in given if isinstance(given, (list, tuple)) else [given]:
            if not (is_metric(metric) or is_loss(metric)):
                raise invalid(name, "metrics, functions, or names of metrics in Keras", metric)
    losses = losses or {}
    return {task: _wrap(given, losses.get(task), copy=is_shared) for task, given in by_task.items()}


def _wrap(metrics, loss, copy):
    """Returns a list of `TaskMetric`; `copy` if other tasks get the same metrics."""
    metrics = metrics if isinstance(metrics, (list, tuple)) else [metrics]
    metrics = [m.given if isinstance(m, TaskMetric) else m for m in metrics]
    if copy:
        metrics = [
            clone.copy_object(metric) if isinstance(metric, keras.metrics.Metric) else metric
            for metric in metrics
        ]
    return [TaskMetric(metric, loss) for metric in metrics]
