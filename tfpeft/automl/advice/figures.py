"""Figures of trials: of a file on a device, of its metric, and of both against the model's."""

import dataclasses
import hashlib
import math
import time

import keras
import numpy as np

from tfpeft.core.arguments import unexpected
from tfpeft.core.graph import output_names
from tfpeft.evaluation.quality import measure_quality
from tfpeft.evaluation.resampling import interval
from tfpeft.evaluation.subjects import FileSubject, KerasSubject
from tfpeft.evaluation.tasks import TASKS
from tfpeft.export.targets.table import describe_for
from tfpeft.export.targets.xnnpack import describe_xnnpack
from tfpeft.export.tflite_file import TFLiteFile

_ROUNDS, _SECONDS = 200, 4.0  # of timing, at most; of both files together
_RESAMPLES = 500


@dataclasses.dataclass(frozen=True)
class Gain:
    """A figure of a trial against that of the model.

    Attributes:
        figure: Its name, such as "gzip_bytes".
        before: That of the model.
        after: That of the trial.
        factor: before / after: 2 is half of it.
        interval: (low, high) of 95% of the factor; of a figure that is counted, the factor twice.
    """

    figure: str
    before: float
    after: float
    factor: float
    interval: tuple

    @classmethod
    def counted(cls, figure, before, after):
        """Returns that of a figure without chance, such as bytes."""
        factor = before / max(after, 1e-12)
        return cls(figure, before, after, factor, (factor, factor))

    @classmethod
    def timed(cls, figure, times):
        """Returns that of the times of both, (2, rounds), measured in turn.

        Rounds are resampled, both programs together, so that other work of the machine, which
        slows both alike, is no difference.
        """
        before, after = np.median(times, axis=1)
        rng = np.random.default_rng(0)
        rows = rng.integers(0, times.shape[1], (_RESAMPLES, times.shape[1]))
        medians = np.median(times[:, rows], axis=2)
        low, high = np.percentile(medians[0] / medians[1], [2.5, 97.5])
        return cls(
            figure, float(before), float(after), float(before / after), (float(low), float(high))
        )


@dataclasses.dataclass(frozen=True)
class Loss:
    """What a trial loses of the metric: of several outputs, of the one that loses most.

    Attributes:
        metric: The figure, such as "accuracy" or "age/rmse".
        before: That of the model.
        after: That of the trial.
        interval: (low, high) of 95% of after - before, on the same samples.
        relative: What is lost of `before`, as a fraction: 0.01 is 1%; below 0 it is better.
        relative_interval: (low, high) of 95% of it.
    """

    metric: str
    before: float
    after: float
    interval: tuple
    relative: float
    relative_interval: tuple


def digest_of(structure):
    """Returns a hash of arrays in a structure, also of texts."""
    digest = hashlib.sha256()
    for leaf in keras.tree.flatten(structure):
        if leaf is not None:
            leaf = np.ascontiguousarray(leaf)
            digest.update(f"{leaf.shape} {leaf.dtype}".encode())
            content = repr(leaf.tolist()).encode() if leaf.dtype == object else leaf.tobytes()
            digest.update(content)
    return digest.hexdigest()


class _Remembered(KerasSubject):
    """A model whose outputs are computed once for each batch, and used for all trials."""

    def __init__(self, model, names):
        super().__init__(model, names)
        self._outputs = {}

    def predict(self, x):
        key = digest_of(x)
        if key not in self._outputs:
            self._outputs[key] = super().predict(x)
        return self._outputs[key]


class Metric:
    """The metric of models and files on validation data, against a reference on the same samples.

    Args:
        reference: The `keras.Model` that others are compared with.
        validation: A `core.data.Batch`.
        task, from_logits: As of `compare`.

    Attributes:
        tasks: {output: task}.
        before: {figure: (value, replicates or None)} of the reference, of what decides.
    """

    def __init__(self, reference, validation, task=None, from_logits=None):
        self._names = output_names(reference)
        self._reference, self._validation = _Remembered(reference, self._names), validation
        self._options = {"task": task, "from_logits": from_logits}
        quality, self.tasks, _ = self._measure({"before": self._reference}, validation)
        self.before = self._headlines(quality["before"])

    @property
    def intervals(self):
        """{figure: (low, high)} of 95% of the reference, of those that have one."""
        found = {name: interval(replicates) for name, (_, replicates) in self.before.items()}
        return {name: ends for name, ends in found.items() if ends is not None}

    def _measure(self, subjects, batch):
        return measure_quality(subjects, batch.element(), **self._options)

    def _headlines(self, by_output):
        """Returns {figure: (value, replicates or None)} of what decides."""
        found = {}
        for output, figures in by_output.items():
            name = TASKS[self.tasks[output]].headline
            title = name if output is None else f"{output}/{name}"
            if name in figures.values:
                found[title] = (figures.values[name], figures.replicates.get(name))
        return found

    def _task(self, title):
        output, slash, _ = title.rpartition("/")
        keys = {str(key): task for key, task in self.tasks.items()}
        return TASKS[keys[output] if slash else self.tasks[None]]

    def on(self, batch):
        """Returns {figure: value} of the reference on other samples."""
        quality, _, _ = self._measure({"before": self._reference}, batch)
        return {title: value for title, (value, _) in self._headlines(quality["before"]).items()}

    def loss(self, model):
        """Returns the `Loss` of a Keras model or a `TFLiteFile`."""
        is_file = isinstance(model, TFLiteFile)
        names = self._names
        after = FileSubject(model, None, names) if is_file else KerasSubject(model, names)
        both = {"before": self._reference, "after": after}
        quality, _, _ = self._measure(both, self._validation)
        before, after = (self._headlines(quality[name]) for name in both)
        losses = [
            self._of(title, before[title], after[title]) for title in before if title in after
        ]
        return max(losses, key=lambda loss: loss.relative)

    def relative_loss(self, title, before, after):
        """Returns what is lost of a metric between two values, as a fraction of the first."""
        sign = -1.0 if self._task(title).higher_is_better else 1.0
        return sign * (after - before) / (abs(before) or 1.0)

    def _of(self, title, before, after):
        value = after[0] - before[0]
        ends = (value, value)
        if before[1] is not None and after[1] is not None:
            ends = interval(after[1] - before[1]) or ends
        middle, *relative = (
            self.relative_loss(title, before[0], before[0] + each) for each in (value, *ends)
        )
        return Loss(title, before[0], after[0], ends, middle, tuple(sorted(relative)))


def timed(first, second):
    """Returns the milliseconds of two functions, run in turn, (2, rounds)."""
    times, started = [], time.perf_counter()
    while len(times) < _ROUNDS and (len(times) < 5 or time.perf_counter() - started < _SECONDS):
        row = []
        for run in (first, second):
            before = time.perf_counter()
            run()
            row.append(1e3 * (time.perf_counter() - before))
        times.append(row)
    return np.array(times).T


def counted_figure(figure, file, device):
    """Returns a figure of a `TFLiteFile` that is counted, or that a device's own program says.

    Args:
        figure: One of `goals.TABLE`, but for a latency.
        file: The file.
        device: The `Device`.
    """
    if figure in ("size_bytes", "gzip_bytes"):
        return getattr(file.contents, figure)
    if figure == "macs":
        macs = file.macs()
        if macs is None:
            raise unexpected("a file whose multiply-accumulates are known", f"{file.path} has not")
        return macs - (skipped_macs(file) if device.kind == "xnnpack" else 0)
    report = describe_for(device.target, file)
    if figure == "flash_bytes" and device.kind == "tflm":
        tables = report.compressed
        return min(file.contents.size_bytes, tables.size_bytes if tables else math.inf)
    return getattr(report, figure)


def skipped_macs(file):
    """Returns the multiply-accumulates that XNNPACK's sparse kernels on ARM skip in a file.

    A weight of a 1x1 convolution is one at each position of the output; zeros are skipped.
    """
    zeros = {op.tensor: op.zeros for op in describe_xnnpack(file).operators if op.is_sparse}

    def count(graphs):
        skipped = 0
        for graph in graphs:
            for op in graph.operators:
                kernel = graph.kernel(op)
                if kernel is not None and zeros.get(op.outputs[0].name):
                    positions = math.prod(op.outputs[0].shape[1:-1])
                    skipped += round(zeros[op.outputs[0].name] * kernel.size) * positions
        return skipped

    return file.read_graphs(count)


def timed_gain(before, after, x):
    """Returns the `Gain` in latency of a `TFLiteFile` over another one, both run in turn on x."""
    return Gain.timed("latency_ms", timed(*(file.prepare(x) for file in (before, after))))
