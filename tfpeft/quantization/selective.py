"""int8 for all layers but the fewest that a metric needs in float32."""

import dataclasses
import os
import sys
from collections.abc import Callable
from typing import Any

import keras

from tfpeft.core.arguments import BudgetError, ExportError, invalid, unexpected
from tfpeft.core.files import replacing
from tfpeft.core.paths import file_to_write
from tfpeft.export.report import ExportReport
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.quantization.error import int8_files, measure_error
from tfpeft.quantization.file_metric import FileMetric
from tfpeft.reports.tables import markdown_table


@dataclasses.dataclass(frozen=True)
class SelectiveQuantizationResult:
    """What `quantize_selectively` returns: print it for a table.

    Attributes:
        report: The `ExportReport` of the file.
        float_layers: Paths of the layers that stay in float32, those first that alone harm most.
        monitor: The metric's name.
        metric: The metric of the file.
        baseline: The metric of the float32 file.
        float_bytes: Bytes of the float32 file.
        trail: A dict for each file that was tried: "float_layers" a list of paths, "metric",
            "size_bytes", and whether it "held".
    """

    report: ExportReport
    float_layers: list[str]
    monitor: str
    metric: float
    baseline: float
    float_bytes: int
    trail: list[dict]

    @property
    def path(self) -> str:
        """The file."""
        return self.report.path

    def to_markdown(self) -> str:
        """Returns a table in Markdown, a row for each file that was tried."""
        rows = [["all", f"{self.baseline:.4f}", f"{self.float_bytes:,}", ""]]
        for step in self.trail:
            kept = ", ".join(step["float_layers"]) or "none"
            held = "yes" if step["held"] else "no"
            rows.append([kept, f"{step['metric']:.4f}", f"{step['size_bytes']:,}", held])
        header = ["layers in float32", self.monitor, "bytes", "held"]
        return markdown_table(header, rows, align=["left", "right", "right", "left"])

    def __str__(self):
        kept = ", ".join(self.float_layers) or "none"
        return f"{self.to_markdown()}\n\n{self.path}, layers in float32: {kept}"


def quantize_selectively(
    model: keras.Model,
    data: Any,
    *,
    metric: str | keras.metrics.Metric | Callable,
    path: str | os.PathLike,
    tolerance: float = 0.01,
    mode: str | None = None,
    representative_data: Any = None,
) -> SelectiveQuantizationResult:
    """Writes an int8 file with the fewest layers in float32 that a metric needs.

    The metric is that of exported files, and it holds if it is worse than that of the float32 file
    by `tolerance` at most. A file with all layers in int8 comes first. If its metric does not hold,
    layers are put in order by `quantization_error`, and bisection finds how many of the first ones
    must stay in float32: log2(n) files for n layers. Then each of them is tried in int8 once more,
    so that of those that stay none can be left out.

    Args:
        model: A built model of one output; it stays as it is.
        data: Labelled data for the metric: (x, y), or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of these, with an end. It is held in memory.
        metric: The name of a metric of Keras, such as "accuracy", a `keras.metrics.Metric`, or a
            function (labels, outputs) -> number; both are arrays (samples, ...).
        path: Where the file goes.
        tolerance: Number >= 0, in the unit of the metric: 0.01 of an accuracy is one point.
        mode: "min" if lower values of the metric are better, "max" if higher ones are; None finds
            it for the metrics and losses of Keras.
        representative_data: Typical inputs, as `export_tflite` takes them, for the ranges of
            activations and the order of the layers; None for the inputs of `data`. Better is the
            data that the model was trained on.

    Returns:
        A `SelectiveQuantizationResult`. Its `float_layers` are those of `export_tflite`, which
        writes the file with other options.

    Raises:
        InputError: if an argument is not of its kind; if the model is not built, is quantise-aware,
            or has several outputs; for data that is empty, without an end, not finite, or not of
            its inputs; if `mode` is None and the metric is not one of Keras's.
        NoMatchError: if no layer can be in int8.
        BudgetError: if the metric needs all layers in float32.
        ExportError: if the model cannot be converted; if the metric of the file is not the one
            that was found, as representative data that is shuffled makes it.

    What it does not give: the best choice of all. Layers are tried in the order of their own
    errors, and that of several layers together is not the sum. Layers in int16, as TFLite's
    quantizer writes a file with activations of one type. If the metric needs many layers in
    float32, `quantization="int16x8"` or `quantize_aware` keeps more of it.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]
    )
    x = np.random.rand(200, 8).astype("float32")
    y = np.argmax(model(x), axis=1)
    result = tfpeft.quantize_selectively(
        model, (x, y), metric="accuracy", tolerance=0.1, path="model.tflite"
    )
    print(result)
    print(result.float_layers)  # []
    ```
    """
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    path = file_to_write(path)
    file_metric = FileMetric(model, data, metric, mode, tolerance)
    name = "data" if representative_data is None else "representative_data"
    typical = data if representative_data is None else representative_data
    with int8_files(model, typical, name) as files:
        file_metric.set_baseline(files.exact)
        trials = Trials(files, file_metric)
        float_layers = []
        if not trials.hold([]):
            float_layers = fewest(measure_error(files).worst(), trials.hold)
        if len(float_layers) == len(files.layers):
            raise trials.budget_error(tolerance)
        float_bytes = len(files.exact.content)
    with replacing(path) as partial:
        report = export_tflite(
            model,
            partial,
            quantization="int8",
            representative_data=typical,
            float_layers=float_layers,
            allow_deviation=sys.float_info.max,  # the metric decides which file is kept
        )
        value = file_metric.value(TFLiteFile(partial))
        if not file_metric.holds(value):
            raise unexpected(
                f"a `{name}` that is the same whenever it is read, and a file of the same metric",
                f"{file_metric.name} of {value:.4g} in the file, which held before",
                error=ExportError,
            )
    return SelectiveQuantizationResult(
        report=dataclasses.replace(report, path=str(path)),
        float_layers=float_layers,
        monitor=file_metric.name,
        metric=value,
        baseline=file_metric.baseline,
        float_bytes=float_bytes,
        trail=trials.trail,
    )


class Trials:
    """Measures int8 files with some layers in float32.

    Args:
        files: `Int8Files`.
        metric: A `FileMetric`.

    Attributes:
        trail: As of `SelectiveQuantizationResult`.
    """

    def __init__(self, files, metric):
        self._files, self._metric = files, metric
        self.trail = []

    def hold(self, layers):
        """Whether the metric of the file with these layers in float32 holds."""
        file = self._files.without(layers)
        value = self._metric.value(file)
        held = self._metric.holds(value)
        step = {"metric": value, "size_bytes": len(file.content), "held": held}
        self.trail.append({"float_layers": list(layers), **step})
        return held

    def budget_error(self, tolerance):
        """Returns the error if no file held."""
        name, best = self._metric.name, self._metric.best(step["metric"] for step in self.trail)
        expected = (
            f"at least {abs(self._metric.baseline - best):.6g}: the {name} is "
            f"{self._metric.baseline:.4g} in float32, and {best:.4g} in the best file with a layer "
            "in int8"
        )
        return invalid("tolerance", expected, tolerance, error=BudgetError)


def fewest(layers, holds):
    """Returns the fewest layers that must stay in float32, as far as the search finds them.

    Args:
        layers: All layers, those first that alone harm most. For all of them the metric holds,
            and for none it does not.
        holds: A function of a list of layers: whether the metric holds with these in float32.
    """
    too_few, enough = 0, len(layers)
    while enough - too_few > 1:
        middle = (too_few + enough) // 2
        if holds(layers[:middle]):
            enough = middle
        else:
            too_few = middle
    found = layers[:enough]
    for layer in reversed(found[:-1]):  # without the last one it has just failed
        others = [each for each in found if each != layer]
        if holds(others):
            found = others
    return found
