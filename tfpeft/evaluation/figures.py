"""Figures of a task: what is summed up per batch, and what the sums make, with replicates."""

import dataclasses

import numpy as np

from tfpeft.evaluation.resampling import Sums


@dataclasses.dataclass
class Figures:
    """The figures of one output of one model.

    Attributes:
        values: {figure: number}; one that is not defined is left out.
        replicates: {figure: its values for resampled samples, (resamples,)}.
        per_class: {figure: a number per class, label or target}; NaN where it is not defined.
        confusion_matrix: Sums of weights (classes, classes), a row per label; or None.
        notes: What is left out, and why.
        columns: The figures that tables show.
    """

    values: dict
    replicates: dict = dataclasses.field(default_factory=dict)
    per_class: dict = dataclasses.field(default_factory=dict)
    confusion_matrix: np.ndarray | None = None
    notes: tuple = ()
    columns: tuple = ()

    def add(self, values, replicates):
        """Adds figures, (1,) and (resamples,); those that are not finite are noted instead."""
        for name, (value,) in values.items():
            if not np.isfinite(value):
                self.notes += (f"no {name}, which these labels or outputs leave undefined",)
                continue
            self.values[name] = float(value)
            if replicates is not None:
                self.replicates[name] = replicates[name]


class Statistics:
    """Sums of statistics per sample, and the figures that they make.

    A kind of figures overrides `columns`, `statistics` and `figures`.

    Args:
        outputs: The `Outputs` of the model.
    """

    columns = ("weight",)

    def __init__(self, outputs):
        self.outputs = outputs
        self.sums = Sums(len(self.columns))

    def add(self, y, outputs, weight, groups):
        """Adds a batch of labels and outputs, with a weight per sample and its group."""
        found = self.statistics(y, outputs)
        rows = np.stack([found[name] for name in self.columns[1:]], axis=1)
        rows = np.concatenate([np.ones((len(rows), 1)), rows], axis=1)
        self.sums.add_rows(0, groups, rows * weight[:, None])

    def statistics(self, y, outputs):
        """Returns {column: a value per sample}, of all columns but the weight."""
        raise NotImplementedError

    def figures(self, sums):
        """Returns {figure: values (...,)} of {column: sums (...,)}."""
        raise NotImplementedError

    def result(self, samples):
        """Returns the `Figures` of so many samples."""
        found = Figures({})
        sums = dict(zip(self.columns, self.sums.total()[:, None], strict=True))
        resampled = dict(zip(self.columns, self.sums.resampled(samples).T, strict=True))
        with np.errstate(divide="ignore", invalid="ignore"):
            found.add(self.figures(sums), self.figures(resampled))
        return found
