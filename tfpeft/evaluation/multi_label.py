"""Figures of several labels per sample, each 0 or 1."""

import numpy as np

from tfpeft.evaluation import class_counts
from tfpeft.evaluation.classification import add_auc
from tfpeft.evaluation.figures import Statistics
from tfpeft.evaluation.ranks import Scores
from tfpeft.evaluation.resampling import Sums


class LabelStatistics(Statistics):
    """Accuracy, binary cross-entropy, counts per label, and scores for the ROC curve.

    - accuracy, the share of samples whose labels are all right (subset accuracy);
    - precision, recall and f1 of all labels together (micro), and precision_macro, recall_macro
      and f1_macro, the means over the labels that are there or predicted;
    - auc, the mean over the labels;
    - loss, the mean binary cross-entropy in nats.
    """

    columns = ("weight", "hit", "loss")

    def __init__(self, outputs):
        super().__init__(outputs)
        self._counts = Sums(3 * outputs.units)
        self.scores = Scores(outputs.units)

    def add(self, y, outputs, weight, groups):
        super().add(y, outputs, weight, groups)
        probabilities = self.outputs.label_probabilities(outputs)
        predicted = self._predicted(outputs)
        rows = np.concatenate([y & predicted, predicted, y], axis=1) * weight[:, None]
        self._counts.add_rows(0, groups, rows)
        self.scores.add(probabilities, y, weight, groups)

    def _predicted(self, outputs):
        return outputs > (0.0 if self.outputs.from_logits else 0.5)

    def statistics(self, y, outputs):
        outputs = np.asarray(outputs, "float64")
        if self.outputs.from_logits:
            losses = np.logaddexp(0, np.where(y, -outputs, outputs))
        else:
            losses = -np.log(np.clip(np.where(y, outputs, 1 - outputs), 1e-7, 1))
        hit = np.all(self._predicted(outputs) == y, axis=1)
        return {"hit": hit, "loss": losses.mean(axis=1)}

    def figures(self, sums):
        return {"accuracy": sums["hit"] / sums["weight"], "loss": sums["loss"] / sums["weight"]}

    def result(self, samples):
        found = super().result(samples)
        units = self.outputs.units
        total = self._counts.total().reshape(3, 1, units)
        drawn = np.moveaxis(self._counts.resampled(samples).reshape(-1, 3, units), 1, 0)
        names = ("precision", "recall", "f1")
        for mean, suffix in ((class_counts.micro, ""), (class_counts.macro, "_macro")):
            both = [
                {f"{n}{suffix}": found[n] for n in names} for found in (mean(total), mean(drawn))
            ]
            found.add(*both)
        each = class_counts.per_class(total)
        found.per_class.update({name: each[name][0] for name in names})
        found.per_class["weight"] = total[2][0]
        value, replicates = self.scores.auc(lambda y, i: y[:, i], samples)
        add_auc(found, self.scores, value, replicates)
        found.per_class["auc"] = value
        return found
