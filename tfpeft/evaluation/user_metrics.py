"""Metrics that users give: those of Keras, and functions of labels and outputs."""

import keras
import numpy as np

from tfpeft.core.arguments import InputError, invalid, last_cause
from tfpeft.core.clone import copy_object
from tfpeft.core.graph import metric_values
from tfpeft.core.labels import is_loss, is_metric, named_by_shapes
from tfpeft.evaluation.resampling import Sums

MOST_NUMBERS = 2**26
"""Labels and outputs that are kept for a function that takes all of them, in numbers."""


def named_metrics(metrics, argument="metrics"):
    """Returns {name: metric} of what a user gives: one, a list, or a dict {name: metric}.

    Raises:
        InputError: for what is no metric, and for two of one name.
    """
    if metrics is None:
        return {}
    if isinstance(metrics, dict):
        pairs = list(metrics.items())
    else:
        listed = metrics if isinstance(metrics, (list, tuple)) else [metrics]
        pairs = [(_name(metric), metric) for metric in listed]
    for name, metric in pairs:
        if not isinstance(name, str) or isinstance(metric, type) or not _is_known(metric):
            expected = (
                "metrics of Keras, their names, or functions (labels, outputs) -> number, in a "
                "list or a dict by name"
            )
            raise invalid(argument, expected, metric if isinstance(name, str) else name)
    names = [name for name, _ in pairs]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise invalid(argument, "metrics of different names, as in a dict {name: metric}", twice)
    return dict(pairs)


def _is_known(metric):
    return is_metric(metric) or is_loss(metric) or callable(metric)


def _name(metric):
    if isinstance(metric, str):
        return metric
    return getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__)


def accumulator(name, metric, y, outputs):
    """Returns what sums up a metric over batches, of the labels and outputs of the first one.

    Raises:
        InputError: if the metric does not fit them.
    """
    if isinstance(metric, str):
        found = keras.metrics.get(named_by_shapes(metric, y, outputs))
        if isinstance(found, type):
            found = found()
        metric = found if isinstance(found, keras.metrics.Metric) else found
    if isinstance(metric, keras.metrics.Metric):
        return _KerasMetric(name, metric)
    with _Errors(name, y, outputs):
        value = np.asarray(_call(metric, y, outputs))
    if value.ndim and value.shape[0] == len(y):
        return _SampleMean(name, metric)
    if value.size == 1 and value.dtype.kind in "biuf":
        return _OfAll(name, metric)
    expected = f"a function whose value is a number, or one per sample, for {name!r}"
    raise invalid("metrics", expected, f"an array of shape {value.shape}")


class _KerasMetric:
    """A copy of a metric of Keras, whose state is updated batch by batch."""

    def __init__(self, name, metric):
        self.name, self._metric = name, copy_object(metric)  # the user's has a state of its own
        self._metric.reset_state()
        self._mean = _Mean() if isinstance(metric, keras.metrics.MeanMetricWrapper) else None

    def add(self, y, outputs, weight, groups):
        with _Errors(self.name, y, outputs):
            self._metric.update_state(y, outputs, sample_weight=weight)
            if self._mean is not None:
                self._mean.add(metric_values(self._metric, y, outputs), weight, groups)

    def result(self, samples):
        """Returns the value, and its replicates or None."""
        value = np.asarray(self._metric.result())
        return value, None if self._mean is None else self._mean.replicates(samples)


class _SampleMean:
    """The mean of a function that has a value per sample."""

    def __init__(self, name, function):
        self.name, self._function, self._mean = name, function, _Mean()

    def add(self, y, outputs, weight, groups):
        with _Errors(self.name, y, outputs):
            self._mean.add(_call(self._function, y, outputs), weight, groups)

    def result(self, samples):
        return self._mean.value(), self._mean.replicates(samples)


class _OfAll:
    """A function that takes the labels and outputs of all samples, which are kept."""

    def __init__(self, name, function):
        self.name, self._function = name, function
        self._kept, self._count = [], 0

    def add(self, y, outputs, weight, groups):
        if weight is not None:
            expected = (
                f"data without sample weights for the function {self.name!r}, which takes none"
            )
            raise InputError(f"Received invalid `data`, expected {expected}. Received: weights")
        self._kept.append((y, outputs))
        self._count += y.size + outputs.size
        if self._count > MOST_NUMBERS:
            expected = (
                f"metrics of Keras or functions with a value per sample, as {self.name!r} has one "
                f"for all samples, and more than {MOST_NUMBERS:,} labels and outputs are not kept"
            )
            raise invalid("metrics", expected, self._function)

    def result(self, samples):
        with _Errors(self.name, *self._kept[0]):
            y, outputs = (np.concatenate(parts) for parts in zip(*self._kept, strict=True))
            return np.asarray(_call(self._function, y, outputs)), None


class _Mean:
    """The weighted mean of values per sample, or per position of a sample."""

    def __init__(self):
        self._sums = Sums(2)

    def add(self, values, weight, groups):
        values = np.asarray(values, "float64")
        weight = np.ones(len(values)) if weight is None else np.asarray(weight, "float64")
        weight = weight.reshape(weight.shape + (1,) * (values.ndim - weight.ndim))
        weight = np.broadcast_to(weight, values.shape).reshape(len(values), -1)
        values = values.reshape(weight.shape)
        rows = [(values * weight).sum(axis=1), weight.sum(axis=1)]
        self._sums.add_rows(0, groups, np.stack(rows, axis=1))

    def value(self):
        total, weight = self._sums.total()
        return np.asarray(total / weight)

    def replicates(self, samples):
        total, weight = self._sums.resampled(samples).T
        with np.errstate(divide="ignore", invalid="ignore"):
            return total / weight


def _call(function, y, outputs):
    return (
        function.call(y, outputs)
        if isinstance(function, keras.losses.Loss)
        else function(y, outputs)
    )


class _Errors:
    """A context in which errors of a metric are one line that names it."""

    def __init__(self, name, y, outputs):
        self._where = f"{self._shape(outputs)} and labels {self._shape(y)}"
        self._name = name

    def _shape(self, array):
        return tuple(map(int, np.shape(array)))

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        if error is None or not isinstance(error, Exception) or isinstance(error, InputError):
            return False
        expected = f"metrics that take outputs of shape {self._where}"
        received = f"{self._name!r}, which raises {type(error).__name__}: {last_cause(error)}"
        raise InputError(
            f"Received an invalid value for `metrics`, expected {expected}. Received: {received}"
        ) from error
