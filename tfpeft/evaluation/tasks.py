"""The tasks: what decides, how a model of each is trained, its figures, and what chance gives."""

import dataclasses
import math
import typing

import keras
import numpy as np

from tfpeft.core.arguments import unexpected
from tfpeft.evaluation import labels as label_forms
from tfpeft.evaluation.chance import Chance, compare_with_chance, constant_predictions
from tfpeft.evaluation.classification import ClassStatistics
from tfpeft.evaluation.figures import Figures, Statistics
from tfpeft.evaluation.labels import check_array
from tfpeft.evaluation.multi_label import LabelStatistics
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.regression import SampleStatistics, ValueStatistics
from tfpeft.evaluation.resampling import GROUPS, Groups
from tfpeft.evaluation.segmentation import PositionStatistics
from tfpeft.evaluation.training_metrics import LabelF1, sigmoid_crossentropy

_NUMBERS = 2**22  # outputs that statistics take in one go: these need several times as much


@dataclasses.dataclass(frozen=True)
class Task:
    """A kind of work of a model; `TASKS` has one of each.

    Attributes:
        name: The task.
        headline: The figure that decides: what is monitored in training, and whose loss counts.
        higher_is_better: Whether a higher headline is better. Of errors, where it is False, a loss
            of quality is relative: 2% of an error, as it has a unit.
        columns: The figures that tables show.
        statistics: The class of its `Statistics`.
        labels: A function (labels, shape of the outputs, names of model and task) that checks
            labels and returns them as `statistics` takes them.
    """

    name: str
    headline: str
    higher_is_better: bool
    columns: tuple
    statistics: type[Statistics]
    labels: typing.Callable

    def loss(self, outputs: Outputs):
        """Returns the loss of Keras to train a model with that has these outputs."""
        if outputs.kind == "values":
            return keras.losses.MeanSquaredError()
        if self.name == "multi_label" or outputs.units == 1:
            return keras.losses.BinaryCrossentropy(from_logits=outputs.from_logits)
        if not outputs.is_softmax:
            return keras.losses.BinaryCrossentropy() if outputs.one_hot else sigmoid_crossentropy
        if outputs.one_hot:
            return keras.losses.CategoricalCrossentropy(from_logits=outputs.from_logits)
        return keras.losses.SparseCategoricalCrossentropy(from_logits=outputs.from_logits)

    def training_metric(self, outputs: Outputs) -> keras.metrics.Metric:
        """Returns the headline as a metric for `fit`, of the name `headline`."""
        # IoU counts in integers by default, and makes 0 of sample weights below 1.
        threshold = 0.0 if outputs.from_logits else 0.5
        match self.name:
            case "classification" if outputs.units > 1:
                kind = "" if outputs.one_hot else "Sparse"
                return getattr(keras.metrics, f"{kind}CategoricalAccuracy")(name=self.headline)
            case "classification" | "binary":
                return keras.metrics.BinaryAccuracy(name=self.headline, threshold=threshold)
            case "multi_label":
                return LabelF1(from_logits=outputs.from_logits, name=self.headline)
            case "segmentation" if outputs.units == 1:
                return keras.metrics.BinaryIoU(
                    name=self.headline, threshold=threshold, dtype="float32"
                )
            case "segmentation":
                return keras.metrics.MeanIoU(
                    outputs.units,
                    name=self.headline,
                    sparse_y_true=not outputs.one_hot,
                    sparse_y_pred=False,
                    dtype="float32",
                )
            case "regression":
                return keras.metrics.RootMeanSquaredError(name=self.headline)
            case _:
                return keras.metrics.MeanSquaredError(name=self.headline)

    def figures(
        self,
        y: np.ndarray,
        predictions: np.ndarray,
        outputs: Outputs,
        sample_weight: np.ndarray | None = None,
    ) -> Figures:
        """Returns the `Figures` of labels and predictions in arrays.

        Args:
            y: Labels.
            predictions: What a model outputs for them, (samples, ..., units).
            outputs: What that is.
            sample_weight: A weight >= 0 per sample, or per position; None for 1.
        """
        accumulator, groups = Accumulator(self, outputs, "the model"), Groups()
        for start in range(0, len(y), GROUPS):
            part = slice(start, start + GROUPS)
            weight = None if sample_weight is None else sample_weight[part]
            count = len(y[part])
            accumulator.add(y[part], predictions[part], weight, groups.take(count))
        return accumulator.result(groups.samples)

    def is_better_than_chance(
        self,
        y: np.ndarray,
        predictions: np.ndarray,
        outputs: Outputs,
        sample_weight: np.ndarray | None = None,
    ) -> Chance:
        """Returns the `Chance` of labels and predictions in arrays; see `figures`."""
        found = self.figures(y, predictions, outputs, sample_weight)
        shape = np.shape(predictions)
        shape = (*shape, 1) if len(shape) == 1 else shape
        weight, y = check_weight(sample_weight, shape, self), np.asarray(y)
        y = check_array(y if weight is None else _without_ignored(y, weight))
        y = self.labels(y, shape, "the model", self.name)
        constant = constant_predictions(self.name, y, outputs.classes, weight)
        return compare_with_chance(self, found, self.figures(y, *constant, weight), y)


class Accumulator:
    """Sums up the figures of one output of one model, batch by batch.

    Args:
        task: The `Task`.
        outputs: The `Outputs`.
        name: The model, for errors.
    """

    def __init__(self, task, outputs, name):
        self.task, self.outputs, self.name = task, outputs, name
        self._statistics = task.statistics(outputs)
        self._has_weight = False

    def add(self, y, predictions, sample_weight, groups):
        """Adds a batch: labels, outputs, weights or None, and the groups of its samples."""
        predictions = np.asarray(predictions)
        if predictions.ndim == 1:
            predictions = predictions[:, None]
        _check_shape(self.task.name, predictions.shape, self.name)
        weight = check_weight(sample_weight, predictions.shape, self.task)
        y = np.asarray(y)
        if weight is None:
            weight = np.ones(len(y))
        elif not weight.any():
            return
        else:
            y = _without_ignored(y, weight)
        y = self.task.labels(check_array(y), predictions.shape, self.name, self.task.name)
        self._has_weight = True
        step = max(_NUMBERS // math.prod(predictions.shape[1:]), 1)
        for start in range(0, len(y), step):
            part = slice(start, start + step)
            self.outputs.check(predictions[part], self.name)
            self._statistics.add(y[part], predictions[part], weight[part], groups[part])

    def result(self, samples):
        """Returns the `Figures`."""
        if not self._has_weight:
            raise label_forms.invalid_labels("sample weights of which some are above 0", "zeros")
        return self._statistics.result(samples)


def _check_shape(task, shape, name):
    """Raises unless outputs of a shape are those of a task."""
    has_positions = len(shape) > 2
    expected = None
    if task in ("classification", "binary", "multi_label") and has_positions:
        expected = "outputs of shape (samples, classes)"
    elif task == "segmentation" and not has_positions:
        expected = "outputs of shape (samples, ..., classes)"
    elif task == "binary" and shape[-1] > 2:
        expected = "one output, or two,"
    if expected is not None:
        raise unexpected(f"{expected} for the task {task!r}", f"{name} with {shape[1:]} per sample")


def check_weight(weight, shape, task):
    """Returns sample weights in float64, per sample or, of a segmentation, per position."""
    if weight is None:
        return None
    weight = np.asarray(weight)
    if weight.dtype.kind not in "biuf":
        received = f"weights of type {weight.dtype}"
        raise label_forms.invalid_labels("sample weights that are numbers", received)
    forms = [shape[:1], (shape[0], 1)]
    if task.name == "segmentation":
        forms += [shape[:-1], (*shape[:-1], 1)]
    if weight.shape not in forms:
        expected = "a sample weight per sample"
        if task.name == "segmentation":
            expected += f", or per position, of shape {shape[1:-1]}"
        raise label_forms.invalid_labels(
            expected, f"weights of shape {weight.shape[1:]} per sample"
        )
    if weight.shape != shape[:-1] and weight.ndim > 1:
        weight = weight[..., 0]
    weight = weight.astype("float64")
    if not np.all(np.isfinite(weight)) or np.any(weight < 0):
        raise label_forms.invalid_labels(
            "sample weights that are finite and >= 0",
            f"weights from {weight.min():g} to {weight.max():g}",
        )
    return weight


def _without_ignored(y, weight):
    """Returns labels with those that weigh nothing replaced by one that counts.

    They may be anything, such as -1 where a position has no class.
    """
    ignored = weight == 0
    if not ignored.any() or weight.shape != y.shape[: weight.ndim]:
        return y
    y = y.copy()
    y[ignored] = y[~ignored][0]
    return y


_OF_CLASSES = ("accuracy", "precision", "recall", "f1", "loss")
_numbers, _values = label_forms.class_numbers, label_forms.values

TASKS = {
    task.name: task
    for task in (
        Task("classification", "accuracy", True, _OF_CLASSES, ClassStatistics, _numbers),
        Task("binary", "accuracy", True, _OF_CLASSES, ClassStatistics, _numbers),
        Task(
            *("multi_label", "f1", True, ("f1", "precision", "recall", "accuracy", "loss")),
            *(LabelStatistics, label_forms.zeros_and_ones),
        ),
        Task(
            *("regression", "rmse", False, ("rmse", "mae", "r2", "pearson")),
            *(ValueStatistics, _values),
        ),
        Task(
            *("segmentation", "mean_iou", True, ("mean_iou", "accuracy", "f1", "loss")),
            *(PositionStatistics, _numbers),
        ),
        Task(
            *("reconstruction", "mse", False, ("mse", "mae", "psnr", "r2")),
            *(SampleStatistics, _values),
        ),
    )
}
"""{name: `Task`}."""
