"""What `evaluate` and `compare` return: the figures of a model, and of several side by side."""

import dataclasses
import json

import numpy as np

from tfpeft.core.arguments import invalid
from tfpeft.evaluation.resampling import interval
from tfpeft.evaluation.tables import difference_lines, evaluations_markdown, evaluations_text

FIGURES = (
    *("accuracy", "precision", "recall", "f1", "loss", "parameters", "nonzero_parameters", "macs"),
    *("size_bytes", "gzip_bytes", "latency_ms", "latency_p90_ms"),
)
"""The figures of `Evaluation.as_dict()` that are numbers, or None."""


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The figures of one model or file; a missing figure is None, with the reason in `notes`.

    What `evaluate` returns, and `compare` for each of its models. `accuracy`, `precision`,
    `recall`, `f1` and `loss` are those of `metrics`, and None for tasks without them.

    Attributes:
        task: "classification", "binary", "multi_label", "regression", "segmentation" or
            "reconstruction"; of several outputs a dict, {output: task}.
        metrics: {figure: number}, those of the task first; of several outputs the keys are
            "output/figure". docs/evaluation.md has their formulas.
        intervals: {figure: (low, high)}, of 95%, by the bootstrap over samples: the percentiles
            2.5 and 97.5 of 1,000 resamples. Figures that are no function of sums over samples,
            as of most Keras metrics, have none.
        per_class: {figure: numbers} of each class, of each label of a multi_label task, or of each
            target of a regression; NaN where it is not defined.
        confusion_matrix: Sums of weights (classes, classes), a row per label, for tasks of up to
            1,000 classes; of several outputs {output: matrix}; None for other tasks.
        parameters: Weights of a model; constants of a file, of all its signatures together.
        nonzero_parameters: Parameters that are not zero.
        macs: Multiply-accumulates of one sample, in convolutions and matrix products; biases,
            activations and normalisation do not count.
        size_bytes: Bytes of the whole .tflite file; of a Keras model: of its float32 export, or
            its integer one if it is quantise-aware.
        gzip_bytes: The same, compressed by gzip.
        latency_ms: Median milliseconds of one run of that file on one thread of this machine: of
            one sample, unless the file insists on a larger batch.
        latency_p90_ms: The 90th percentile.
        notes: Why a figure is missing.
        columns: The figures that tables show.
        replicates: {figure: its values for each resample, (resamples,)}, of which intervals are.
    """

    task: str | dict[str, str]
    metrics: dict[str, float]
    intervals: dict[str, tuple[float, float]]
    per_class: dict[str, np.ndarray] = dataclasses.field(compare=False)
    confusion_matrix: np.ndarray | dict[str, np.ndarray] | None = dataclasses.field(compare=False)
    parameters: int
    nonzero_parameters: int
    macs: int | None
    size_bytes: int | None
    gzip_bytes: int | None
    latency_ms: float | None
    latency_p90_ms: float | None
    notes: tuple[str, ...] = ()
    columns: tuple[str, ...] = ()
    replicates: dict[str, np.ndarray] = dataclasses.field(
        default_factory=dict, repr=False, compare=False
    )

    @property
    def accuracy(self) -> float | None:
        """Fraction of samples, labels or positions that are right, in [0, 1]."""
        return self.metrics.get("accuracy")

    @property
    def precision(self) -> float | None:
        """Mean over classes (macro); of a multi_label task, of all labels together."""
        return self.metrics.get("precision")

    @property
    def recall(self) -> float | None:
        """Mean over classes (macro); of a multi_label task, of all labels together."""
        return self.metrics.get("recall")

    @property
    def f1(self) -> float | None:
        """Mean over classes (macro); of a multi_label task, of all labels together."""
        return self.metrics.get("f1")

    @property
    def loss(self) -> float | None:
        """Cross-entropy in nats."""
        return self.metrics.get("loss")

    def as_dict(self) -> dict:
        """Returns the figures as plain JSON values; NaN is None."""
        matrix = self.confusion_matrix
        if isinstance(matrix, dict):
            matrix = {output: _plain(each) for output, each in matrix.items()}
        return {
            **{name: getattr(self, name) for name in FIGURES},
            "task": self.task,
            "metrics": dict(self.metrics),
            "intervals": {name: list(each) for name, each in self.intervals.items()},
            "per_class": {name: _plain(each) for name, each in self.per_class.items()},
            "confusion_matrix": matrix if isinstance(matrix, dict) else _plain(matrix),
            "columns": list(self.columns),
            "notes": list(self.notes),
        }


@dataclasses.dataclass(frozen=True)
class Difference:
    """The difference of a figure between two rows, on the same samples.

    Attributes:
        metric: The figure.
        value: The figure of the first row minus that of the second one.
        interval: (low, high) of 95%, by the bootstrap: both rows have the same resamples.
    """

    metric: str
    value: float
    interval: tuple[float, float]

    @property
    def is_clear(self) -> bool:
        """Whether 0, which is no difference, is outside of the interval."""
        low, high = self.interval
        return low > 0 or high < 0


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` returns, an `Evaluation` by name: print it for a table.

    Attributes:
        rows: {name: `Evaluation`}.
        headlines: The figures that decide, one per output.
    """

    rows: dict[str, Evaluation]
    headlines: tuple[str, ...] = ()

    def __getitem__(self, name: str) -> Evaluation:
        return self.rows[name]

    def __str__(self) -> str:
        return evaluations_text(self._dicts(), self.difference_lines())

    def to_markdown(self) -> str:
        """Returns the table in Markdown."""
        return evaluations_markdown(self._dicts(), self.difference_lines())

    def to_json(self) -> str:
        """Returns all figures as a JSON text, by name."""
        return json.dumps(self._dicts(), indent=2)

    def difference(self, a: str, b: str, metric: str | None = None) -> Difference:
        """Returns the `Difference` of a figure between two rows, a minus b.

        Args:
            a, b: Names of rows.
            metric: A figure that has replicates; None for the one that decides.

        Raises:
            InputError: for names that are not there, and figures without an interval.
        """
        for name, row in (("a", a), ("b", b)):
            if row not in self.rows:
                raise invalid(name, f"one of {', '.join(self.rows)}", row)
        metric = self.headlines[0] if metric is None and self.headlines else metric
        both = [self.rows[row].replicates for row in (a, b)]
        known = [name for name in both[0] if name in both[1]]
        if metric not in known:
            raise invalid("metric", f"one of {', '.join(known)}, which have an interval", metric)
        values = [self.rows[row].metrics[metric] for row in (a, b)]
        found = interval(both[0][metric] - both[1][metric])
        return Difference(metric, values[0] - values[1], found or (float("nan"),) * 2)

    def difference_lines(self) -> list[str]:
        """Returns a line per figure that decides and row: its difference from the first row."""
        first, *others = self.rows
        found = {
            (metric, name): self.difference(name, first, metric)
            for metric in self.headlines
            for name in others
            if all(metric in self.rows[row].replicates for row in (first, name))
        }
        return difference_lines(first, found)

    def _dicts(self):
        return {name: row.as_dict() for name, row in self.rows.items()}


def _plain(value):
    """Returns an array as lists, of integers where all are, and None for NaN."""
    if value is None:
        return None
    value = np.asarray(value, "float64")
    if value.ndim > 1:
        return [_plain(row) for row in value]
    whole = np.all(value == np.floor(value))
    return [None if np.isnan(v) else int(v) if whole else float(v) for v in value]
