"""Counts per class: predicted, labelled and both; precision, recall, F1 and IoU of these."""

import numpy as np

from tfpeft.evaluation.resampling import Sums

MOST_CLASSES = 1000
"""Classes up to which there are a confusion matrix, and intervals of means over classes."""


class ClassCounts:
    """Sums of weights of each class: right ones, predicted ones and labelled ones.

    Args:
        classes: How many classes.
    """

    def __init__(self, classes):
        self.classes = classes
        has_matrix = classes <= MOST_CLASSES
        self.matrix = np.zeros((classes, classes)) if has_matrix else None
        self._totals = np.zeros(3 * classes)
        self._sums = Sums(3 * classes) if has_matrix else None

    def add(self, y, predicted, weight, groups):
        """Adds classes (samples, ...), with weights of the same shape and groups (samples,)."""
        hits = np.where(y == predicted, weight, 0.0)
        if self._sums is None:
            counted = ((y, hits), (predicted, weight), (y, weight))
            self._totals += np.concatenate(
                [np.bincount(c.ravel(), w.ravel(), self.classes) for c, w in counted]
            )
            return
        cells = y * self.classes + predicted
        counts = np.bincount(cells.ravel(), weight.ravel(), self.classes**2)
        self.matrix += counts.reshape(self.matrix.shape)
        first = self.classes * np.arange(len(y)).reshape(-1, *[1] * (y.ndim - 1))
        for i, (classes, weights) in enumerate(((y, hits), (predicted, weight), (y, weight))):
            rows = np.bincount((classes + first).ravel(), weights.ravel(), len(y) * self.classes)
            self._sums.add_rows(i * self.classes, groups, rows.reshape(len(y), self.classes))

    def total(self):
        """Returns (right, predicted, labelled), each (1, classes)."""
        total = self._totals if self._sums is None else self._sums.total()
        return total.reshape(3, 1, self.classes)

    def resampled(self, samples):
        """Returns (right, predicted, labelled), each (resamples, classes); None for many."""
        if self._sums is None:
            return None
        sums = self._sums.resampled(samples)
        return np.moveaxis(sums.reshape(-1, 3, self.classes), 1, 0)


def per_class(counts):
    """Returns {figure: (..., classes)} of (right, predicted, labelled); 0 where it divides by 0."""
    right, predicted, labelled = counts
    both = predicted + labelled
    return {
        "precision": _ratio(right, predicted),
        "recall": _ratio(right, labelled),
        "f1": _ratio(2 * right, both),
        "iou": _ratio(right, both - right),
    }


def macro(counts):
    """Returns {figure: (...,)}, the means over the classes that are labelled or predicted."""
    is_there = counts[1] + counts[2] > 0
    with np.errstate(divide="ignore", invalid="ignore"):
        return {
            name: np.where(is_there, found, 0).sum(axis=-1) / is_there.sum(axis=-1)
            for name, found in per_class(counts).items()
        }


def micro(counts):
    """Returns {figure: (...,)} of the sums over all classes."""
    sums = [each.sum(axis=-1, keepdims=True) for each in counts]
    return {name: found[..., 0] for name, found in per_class(sums).items()}


def _ratio(a, b):
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b > 0)
