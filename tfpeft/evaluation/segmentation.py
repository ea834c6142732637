"""Figures of a class per position: pixels, tokens, base pairs."""

import numpy as np

from tfpeft.evaluation.class_counts import ClassCounts
from tfpeft.evaluation.classification import add_counts
from tfpeft.evaluation.figures import Statistics


class PositionStatistics(Statistics):
    """Counts of positions per class, which samples are resampled by.

    - mean_iou, the mean over classes of right / (labelled + predicted - right);
    - accuracy, the share of positions that are right;
    - precision, recall and f1, the means over the classes that are labelled or predicted;
    - loss, the cross-entropy in nats per position.
    """

    columns = ("weight", "hit", "loss")

    def __init__(self, outputs):
        super().__init__(outputs)
        self.counts = ClassCounts(outputs.classes)

    def add(self, y, outputs, weight, groups):
        weight = np.broadcast_to(
            weight.reshape(weight.shape + (1,) * (y.ndim - weight.ndim)), y.shape
        )
        predicted = self.outputs.class_numbers(outputs)
        self.counts.add(y, predicted, weight, groups)
        losses = self._losses(y, outputs)
        axes = tuple(range(1, y.ndim))
        rows = [(value * weight).sum(axis=axes) for value in (1, predicted == y, losses)]
        self.sums.add_rows(0, groups, np.stack(rows, axis=1))

    def _losses(self, y, outputs):
        logs = self.outputs.log_probabilities(outputs)
        return -np.take_along_axis(logs, y[..., None], axis=-1)[..., 0]

    def figures(self, sums):
        return {"accuracy": sums["hit"] / sums["weight"], "loss": sums["loss"] / sums["weight"]}

    def result(self, samples):
        found = super().result(samples)
        add_counts(found, self.counts, samples, ("iou", "precision", "recall", "f1"))
        found.values = {"mean_iou": found.values.pop("iou"), **found.values}
        if "iou" in found.replicates:
            found.replicates["mean_iou"] = found.replicates.pop("iou")
        return found
