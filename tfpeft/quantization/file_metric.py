"""A metric of .tflite files on labelled data: its value, and whether it still holds."""

import keras
import numpy as np

from tfpeft.core.arguments import invalid
from tfpeft.core.arrays import invalid_data
from tfpeft.core.clone import copy_object
from tfpeft.core.inputs import arrange
from tfpeft.core.labels import is_metric, named_by_shapes
from tfpeft.core.monitor import (
    check_tolerance,
    metric_mode,
    mode_of_metric,
    within_tolerance,
)
from tfpeft.sparsity.compiled import errors_of_data, read_labelled


class FileMetric:
    """A metric on labelled data, and by how much it may be worse than that of a float file.

    Args:
        model: The model of the files.
        data: Labelled data, which is read.
        metric: The name of a metric of Keras, a `keras.metrics.Metric`, or a function
            (labels, outputs) -> number.
        mode: "min", "max" or None, as of `core.monitor.metric_mode`.
        tolerance: A number >= 0.

    Attributes:
        name: The metric's name.
        baseline: The value of the float file; None before `set_baseline`.

    Raises:
        InputError: if an argument is not of its kind, or the mode is not known; for data that is
            not (x, y), or not of the model.
    """

    def __init__(self, model, data, metric, mode, tolerance):
        if isinstance(metric, type) or not is_metric(metric):
            expected = (
                "the name of a metric of Keras, a keras.metrics.Metric, or a function "
                "(labels, outputs) -> number"
            )
            raise invalid("metric", expected, metric)
        check_tolerance(tolerance)
        self._metric, self._tolerance = metric, tolerance
        self.name = metric if isinstance(metric, str) else _name_of(metric)
        if getattr(keras.metrics, self.name, None) is metric:
            self._metric = metric = self.name  # a function whose values are per sample
        if mode is None:
            known = _known(metric)
            mode = None if known is None else mode_of_metric(known)
        self._mode = metric_mode(self.name, mode=mode)
        samples = read_labelled(data, "data", model).arrays()
        if not isinstance(samples.y, np.ndarray) or samples.sample_weight is not None:
            is_weighted = samples.sample_weight is not None
            received = "sample weights" if is_weighted else "y that is not one array of labels"
            raise invalid_data("data", "(x, y)", received)
        self._x = keras.tree.flatten(arrange(model, samples.x, "data"))
        self._y = samples.y
        self._model, self.baseline = model, None

    def set_baseline(self, file):
        """Takes the baseline from the float `TFLiteFile`.

        Raises:
            InputError: for a file of several outputs, or a baseline that is not finite.
        """
        if len(file.signatures) != 1 or len(file.signature().outputs) != 1:
            expected = "a model of one output, such as `shared.task(name)` of a SharedModel"
            raise invalid("model", expected, self._model)
        self.baseline = self.value(file)
        if not np.isfinite(self.baseline):
            expected = f"data on which {self.name} is finite in float32"
            raise invalid_data("data", expected, self.baseline)

    def value(self, file):
        """Returns the metric of a `TFLiteFile`."""
        outputs = file.predict(self._x)
        if isinstance(self._metric, (str, keras.metrics.Metric)):
            with errors_of_data("data"):
                value = self._value_of_keras(outputs)
        else:
            value = self._metric(self._y, outputs)
        value = np.asarray(value)
        if value.size != 1 or value.dtype.kind not in "biuf":
            expected = "a metric of one number, such as the mean over the samples"
            received = f"{self.name}, whose value has shape {value.shape} and type {value.dtype}"
            raise invalid("metric", expected, received)
        return float(value.reshape(()))

    def _value_of_keras(self, outputs):
        if isinstance(self._metric, str):
            metric = keras.metrics.get(named_by_shapes(self._metric, self._y, outputs))
            if not isinstance(metric, keras.metrics.Metric):
                metric = keras.metrics.MeanMetricWrapper(metric)
        else:
            metric = copy_object(self._metric)  # the user's has a state
        metric.update_state(self._y, outputs)
        return metric.result()

    def holds(self, value):
        """Whether a value is worse than the baseline by the tolerance at most."""
        return within_tolerance(value, self.baseline, mode=self._mode, tolerance=self._tolerance)

    def best(self, values):
        """Returns the best one of some values."""
        return min(values) if self._mode == "min" else max(values)


def _name_of(metric):
    return getattr(metric, "name", None) or getattr(metric, "__name__", type(metric).__name__)


def _known(metric):
    """Returns the `keras.metrics.Metric` that an argument stands for; None for other ones."""
    if isinstance(metric, str):
        try:
            metric = keras.metrics.get(metric)
        except ValueError:  # the shapes of labels decide what "acc" and "crossentropy" are
            return None
    return metric if isinstance(metric, keras.metrics.Metric) else None
