"""Losses and metrics that flags name, made for the labels and the outputs that a model has."""

import dataclasses
import inspect

import keras
import numpy as np

from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.core.labels import are_class_numbers, check_form, named_by_shapes
from tfpeft.evaluation.user_metrics import accumulator

# Metrics that count outputs above 0.5, unless this argument says otherwise.
_THRESHOLDS = {
    **dict.fromkeys(("BinaryAccuracy", "BinaryIoU"), "threshold"),
    **dict.fromkeys(("Precision", "Recall"), "thresholds"),
}


@dataclasses.dataclass(frozen=True)
class Named:
    """The loss and the metrics that flags name, for an output of a model.

    Of a categorical loss or metric for class numbers the sparse one is meant. Of logits it takes
    logits.

    Attributes:
        loss_name: The name of the loss, or None.
        metric_names: Names of metrics.
        y, outputs: Some labels and outputs, arrays.
        from_logits: Whether outputs are logits.
    """

    loss_name: str | None
    metric_names: list
    y: np.ndarray | None = None
    outputs: np.ndarray | None = None
    from_logits: bool = False

    def of(self, y, outputs, from_logits):
        """Returns the same names for some labels and outputs."""
        return Named(
            self.loss_name, self.metric_names, np.asarray(y), np.asarray(outputs), from_logits
        )

    def loss(self):
        """Returns the loss; None without a name. Raises for one that does not fit."""
        name, y, outputs = self.loss_name, self.y, self.outputs
        if name is None:
            return None
        found = self._made(keras.losses, name)
        check_form(y, outputs, found, f"--loss={name}")
        try:
            found(y, outputs)
        except Exception as error:  # of Keras and TensorFlow
            received = f"--loss={name}: {last_cause(error)}"
            expected = f"a loss for outputs of shape {outputs.shape[1:]} per sample"
            raise unexpected(expected, received) from error
        return found

    def metrics(self):
        """Returns new metrics of these names. Raises for one that does not fit."""
        metrics, y, outputs = [], self.y, self.outputs
        for name in self.metric_names:
            found = self._made(keras.metrics, name)
            if not isinstance(found, keras.metrics.Metric):
                found = keras.metrics.MeanMetricWrapper(found, name=name)
            accumulator(name, found, y, outputs).add(y, outputs, None, np.zeros(len(y), int))
            metrics.append(found)
        return metrics

    def _made(self, family, name):
        """Returns a loss or metric of `keras.losses` or `keras.metrics`."""
        name = named_by_shapes(name, self.y, self.outputs)
        if are_class_numbers(self.y, self.outputs):
            sparse = (f"sparse_{name}", f"Sparse{name}")
            name = next((each for each in sparse if hasattr(family, each)), name)
        try:
            found = family.get(name)
        except TypeError as error:  # a class that cannot be made without arguments
            raise unexpected(f"a name that needs no arguments, and not {name}", error) from error
        if not self.from_logits:
            return found
        own = {"name": name} if family is keras.metrics else {}
        cls = class_of(found, family)
        if takes(cls, "from_logits"):
            return cls(from_logits=True, **own)
        threshold = _THRESHOLDS.get(getattr(cls, "__name__", None))
        return found if threshold is None else cls(**{threshold: 0.0}, **own)


def class_of(found, family):
    """Returns the class of a loss or metric, or of its function, in `keras.losses` or `.metrics`.

    None if Keras has none.
    """
    kind = getattr(found, "__name__", type(found).__name__)
    kind = kind if kind[0].isupper() else "".join(map(str.capitalize, kind.split("_")))
    return getattr(family, kind, None)


def takes(cls, argument):
    """Whether a class, or None, is made with an argument of this name."""
    return cls is not None and argument in inspect.signature(cls).parameters


def fitting(by_output):
    """Returns {output: `Named`} with the metrics that fit each; raises for one that fits none."""
    found, errors = {}, {}
    for output, named in by_output.items():
        names = []
        for name in named.metric_names:
            try:
                dataclasses.replace(named, metric_names=[name]).metrics()
                names.append(name)
            except InputError as error:
                errors[name] = error
        found[output] = dataclasses.replace(named, metric_names=names)
    for name, error in errors.items():
        if not any(name in named.metric_names for named in found.values()):
            raise error
    return found
