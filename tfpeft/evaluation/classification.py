"""Figures of a class per sample: of several classes, or of two."""

import numpy as np

from tfpeft.evaluation import class_counts
from tfpeft.evaluation.figures import Statistics
from tfpeft.evaluation.ranks import Scores, mean_auc

_BINS = 15  # of the calibration error
_TOP = 5


class ClassStatistics(Statistics):
    """Accuracy, cross-entropy and calibration; counts per class; scores for the ROC curve.

    - accuracy, and top_5 where there are more than 5 classes;
    - loss, the cross-entropy in nats; of a sigmoid per class, the mean of their binary ones;
    - precision, recall and f1, the means over the classes that are labelled or predicted;
    - auc, one class against the rest, the mean over the classes; of two, that of the second;
    - calibration_error, the mean over 15 bins of the confidence of its distance from the accuracy:
      C. Guo et al., "On Calibration of Modern Neural Networks" (2017), arXiv:1706.04599.
    """

    columns = ("weight", "hit", "top_5", "loss") + tuple(f"gap_{i}" for i in range(_BINS))

    def __init__(self, outputs):
        super().__init__(outputs)
        self.counts = class_counts.ClassCounts(outputs.classes)
        self.scores = Scores(1 if outputs.classes == 2 else outputs.classes)

    def add(self, y, outputs, weight, groups):
        super().add(y, outputs, weight, groups)
        self.counts.add(y, self.outputs.class_numbers(outputs), weight, groups)
        self.scores.add(self._scores(outputs), y, weight, groups)

    def _scores(self, outputs):
        """Returns what is in the order of the probabilities; small ones are not clipped."""
        if self.outputs.from_logits and self.outputs.units > 1:
            outputs = self.outputs.log_probabilities(outputs)
        return outputs[:, -1:] if self.outputs.classes == 2 else outputs

    def statistics(self, y, outputs):
        logs = self.outputs.log_probabilities(outputs)
        own = np.take_along_axis(logs, y[:, None], axis=1)
        predicted = self.outputs.class_numbers(outputs)
        hit = (predicted == y).astype("float64")
        confidence = np.exp(np.take_along_axis(logs, predicted[:, None], axis=1)[:, 0])
        bins = np.clip(np.ceil(confidence * _BINS).astype(int) - 1, 0, _BINS - 1)
        gaps = np.where(np.arange(_BINS) == bins[:, None], (confidence - hit)[:, None], 0.0)
        return {
            "hit": hit,
            # As many classes of a higher probability are before its own.
            "top_5": ((logs > own).sum(axis=1) < _TOP).astype("float64"),
            "loss": self._losses(y, outputs, own[:, 0]),
            **{f"gap_{i}": gaps[:, i] for i in range(_BINS)},
        }

    def _losses(self, y, outputs, own):
        if self.outputs.kind != "sigmoid" or self.outputs.units == 1:
            return -own
        is_own = y[:, None] == np.arange(outputs.shape[1])
        right = np.clip(np.where(is_own, outputs, 1 - np.asarray(outputs, "float64")), 1e-7, 1)
        return -np.log(right).mean(axis=1)

    def figures(self, sums):
        weight = sums["weight"]
        found = {"accuracy": sums["hit"] / weight}
        if self.outputs.classes > _TOP:
            found["top_5"] = sums["top_5"] / weight
        gaps = sum(np.abs(sums[f"gap_{i}"]) for i in range(_BINS))
        return {**found, "loss": sums["loss"] / weight, "calibration_error": gaps / weight}

    def result(self, samples):
        found = super().result(samples)
        add_counts(found, self.counts, samples, ("precision", "recall", "f1"))
        of_second = self.outputs.classes == 2
        value, replicates = self.scores.auc(lambda y, i: y == (1 if of_second else i), samples)
        add_auc(found, self.scores, value, replicates)
        if not of_second:
            found.per_class["auc"] = value
        return found


def add_counts(found, counts, samples, names):
    """Adds means over the classes, the figures of each class and the confusion matrix."""
    total, resampled = counts.total(), counts.resampled(samples)
    means = class_counts.macro(total)
    drawn = None if resampled is None else class_counts.macro(resampled)
    found.add({name: means[name] for name in names}, drawn)
    each = class_counts.per_class(total)
    found.per_class.update({name: each[name][0] for name in names})
    found.per_class["weight"] = total[2][0]
    found.confusion_matrix = counts.matrix
    if resampled is None:
        limit = class_counts.MOST_CLASSES
        found.notes += (
            f"no intervals of means over {counts.classes:,} classes, nor their confusion matrix: "
            f"there are these up to {limit:,}",
        )


def add_auc(found, scores, value, replicates):
    """Adds the mean of areas, and where samples were left out a note."""
    mean, drawn = mean_auc(value, replicates)
    found.add({"auc": mean}, {"auc": drawn})
    found.notes += scores.note() if "auc" in found.values else ()
