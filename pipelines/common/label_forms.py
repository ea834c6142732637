"""The compiled loss and metrics of a classifier, which get class numbers in the form they take.

Scripts turn labels into class numbers. A loss may take one-hot rows of them, or a column.
"""

import dataclasses
import typing

import keras
import numpy as np
from keras import ops

from pipelines.common.keras_names import class_of, takes
from pipelines.common.request import Request
from tfpeft.core.arguments import InputError
from tfpeft.core.labels import is_crossentropy, is_of_keras, named_by_shapes
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.recognition import kind_of_loss
from tfpeft.evaluation.user_metrics import accumulator

_OF_NUMBERS = ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy")


@dataclasses.dataclass(frozen=True)
class LabelForm:
    """The form of labels: class numbers (samples,), one-hot rows, or a column (samples, 1).

    Attributes:
        classes: How wide rows are; 1 for a column, 0 for class numbers as they are.
    """

    classes: int

    def __call__(self, y):
        """Returns class numbers (samples,) in this form."""
        y = ops.reshape(ops.cast(y, "int32"), (-1,))
        return ops.one_hot(y, self.classes) if self.classes > 1 else ops.expand_dims(y, -1)

    def loss(self, loss):
        """Returns a loss of class numbers."""
        return FormedLoss(loss, self.classes) if self.classes else loss

    def metric(self, metric):
        """Returns a metric of class numbers."""
        return FormedMetric(metric, self.classes) if self.classes else metric


@keras.saving.register_keras_serializable(package="tfpeft.pipelines")
class FormedLoss(keras.losses.Loss):
    """A loss that gets class numbers in a `LabelForm`.

    Args:
        loss: A `keras.losses.Loss`, or a function (labels, outputs) -> a loss per sample.
        classes: As of `LabelForm`.
    """

    def __init__(self, loss, classes):
        loss = _deserialized(loss)
        name = getattr(loss, "name", None) or getattr(loss, "__name__", None)
        super().__init__(name=name, reduction=getattr(loss, "reduction", "sum_over_batch_size"))
        self.loss, self.form = loss, LabelForm(classes)

    def __call__(self, y_true, y_pred, sample_weight=None):
        if not isinstance(self.loss, keras.losses.Loss):
            return super().__call__(y_true, y_pred, sample_weight)
        return self.loss(self.form(y_true), y_pred, sample_weight)

    def call(self, y_true, y_pred):
        call = self.loss.call if isinstance(self.loss, keras.losses.Loss) else self.loss
        return call(self.form(y_true), y_pred)

    def get_config(self):
        return {"loss": self.loss, "classes": self.form.classes}


@keras.saving.register_keras_serializable(package="tfpeft.pipelines")
class FormedMetric(keras.metrics.Metric):
    """A metric that gets class numbers in a `LabelForm`; see `FormedLoss`."""

    def __init__(self, metric, classes):
        metric = _deserialized(metric)
        super().__init__(name=metric.name)
        self.metric, self.form = metric, LabelForm(classes)

    def update_state(self, y_true, y_pred, sample_weight=None):
        self.metric.update_state(self.form(y_true), y_pred, sample_weight=sample_weight)

    def result(self):
        return self.metric.result()

    def reset_state(self):
        self.metric.reset_state()

    def get_config(self):
        return {"metric": self.metric, "classes": self.form.classes}


def _deserialized(value):
    return keras.saving.deserialize_keras_object(value) if isinstance(value, dict) else value


@dataclasses.dataclass(frozen=True)
class Compiled:
    """What the given model is compiled with, for a classifier: it, or one that learns from it.

    Attributes:
        request: The `Request`.
        outputs: What the classifier outputs.
        data: The `splits.Data`.
        y, predictions: Some labels and outputs, which metrics must fit.
    """

    request: Request
    outputs: Outputs
    data: typing.Any
    y: np.ndarray | None = None
    predictions: np.ndarray | None = None

    def of(self, y, predictions):
        """Returns the same for some labels and outputs."""
        return dataclasses.replace(self, y=np.asarray(y), predictions=np.asarray(predictions))

    def loss(self):
        """Returns the loss, of class numbers; None without one, and for other outputs."""
        loss = self._loss()
        return None if loss is None else self._form(loss).loss(_of_logits(loss, self.outputs))

    def metrics(self):
        """Returns new metrics of class numbers, those that fit the outputs."""
        try:
            form, found = self._form(self._loss()), []
        except InputError:  # a loss of code that is not there, which only training needs
            form, found = self._form(None), []
        for given in keras.tree.flatten(self.request.compiled_metrics()):
            y = self.y if not form.classes else np.asarray(form(self.y))
            metric = keras.metrics.get(named_by_shapes(given, y, self.predictions))
            if not isinstance(metric, keras.metrics.Metric):
                metric = keras.metrics.MeanMetricWrapper(metric, name=metric.__name__)
            if isinstance(given, str):
                metric.name = given
            try:
                check = accumulator(metric.name, metric, y, self.predictions)
                check.add(y, self.predictions, None, np.zeros(len(y), int))
            except InputError:
                continue
            found.append(form.metric(metric))
        return found

    def _loss(self):
        """Returns the compiled loss as an object or a function; None where it does not fit."""
        loss = self.request.compiled_loss()
        if isinstance(loss, (list, tuple)) and len(loss) == 1:
            loss = loss[0]
        if loss is None or is_crossentropy(loss):
            return None
        loss = keras.losses.get(loss)
        kind, is_logits = kind_of_loss(loss), self.outputs.from_logits
        if self.outputs.units == 1:
            fits = kind != "classes" and not (kind == "values" and is_logits)
        else:
            fits = not (kind in ("two", "values") and is_logits)
        return loss if fits else None

    def _form(self, loss):
        """Returns the `LabelForm` of the labels that a model with this loss was trained on."""
        is_row, units = self.data.kind == "one-hot rows", self.outputs.units
        if loss is not None and _is_built_in(loss):
            is_row = not is_of_keras(loss, _OF_NUMBERS)
            return LabelForm(units if is_row and units > 1 else 0)
        if is_row and units > 1:
            return LabelForm(units)
        return LabelForm(int(self.data.in_column))


def _is_built_in(loss):
    """Whether a loss is Keras's own class or function, and no class derived from one."""
    kind = type(loss) if isinstance(loss, keras.losses.Loss) else loss
    return str(getattr(kind, "__module__", "")).startswith("keras.")


def _of_logits(loss, outputs):
    """Returns a loss of Keras that takes logits where outputs are logits, else probabilities."""
    if not _is_built_in(loss):
        return loss
    if not isinstance(loss, keras.losses.Loss):
        cls = class_of(loss, keras.losses)
        is_other = outputs.from_logits and takes(cls, "from_logits")
        return cls(from_logits=True) if is_other else loss
    config = loss.get_config()
    if config.get("from_logits", outputs.from_logits) == outputs.from_logits:
        return loss
    return type(loss).from_config({**config, "from_logits": outputs.from_logits})
