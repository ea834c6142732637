"""How much each layer of an int8 file loses, in the file and alone."""

import contextlib
import dataclasses
import os
import pathlib
import tempfile
import typing

import keras
import numpy as np

from tfpeft.core.arguments import NoMatchError, invalid, unexpected
from tfpeft.export.conversion import quantization_settings
from tfpeft.export.layer_errors import decibels, layer_ratios, powers
from tfpeft.reports.plots import bar_plot
from tfpeft.reports.tables import markdown_table


@dataclasses.dataclass(frozen=True)
class QuantizationError:
    """What `quantization_error` returns: print it for a table.

    Attributes:
        output_snr_db: Signal-to-noise ratio of the outputs of the whole int8 file, in dB.
        rows: A dict for each layer, in the order of the file: "layer" its path, "snr_db" that of
            the tensors that it makes in the int8 file, None where that file has none of them,
            "output_snr_db" that of the outputs if this layer alone is in int8.
    """

    output_snr_db: float
    rows: list[dict]

    def worst(self) -> list[str]:
        """Returns the paths of the layers, those first that alone harm the outputs most."""
        return [row["layer"] for row in sorted(self.rows, key=lambda row: row["output_snr_db"])]

    def to_markdown(self) -> str:
        """Returns a table in Markdown, a row for each layer."""
        header = ["layer", "SNR in the int8 file, dB", "SNR of the outputs, it alone in int8, dB"]
        rows = [
            [row["layer"], _cell(row["snr_db"]), _cell(row["output_snr_db"])] for row in self.rows
        ]
        return markdown_table(header, [*rows, ["outputs", _cell(self.output_snr_db), ""]])

    def __str__(self):
        return self.to_markdown()

    def plot(self, path: str | os.PathLike) -> None:
        """Writes a PNG: for each layer the SNR of the outputs if it alone is in int8."""
        names = [row["layer"] for row in self.rows]
        values = [min(row["output_snr_db"], 200.0) for row in self.rows]
        label = "outputs, it alone in int8"
        bar_plot(path, names, {label: values}, x_label="signal-to-noise ratio, dB")


def quantization_error(model: keras.Model, data: typing.Any) -> QuantizationError:
    """Measures which layers of a model lose most in int8, on exported files.

        SNR = 10 log10(sum x^2 / sum (x - q)^2)

    where x are values of the float file and q those of an int8 file, over samples. Each layer is
    measured in the file that is int8 throughout, where it has the errors of all layers before it,
    and alone: the outputs of a file in which all other layers stay in float32. A layer counts with
    what is fused into it, such as its BatchNormalization and ReLU, and reads 8 bits as well.

    Args:
        model: A built model; it stays as it is.
        data: Typical inputs, as `export_tflite` takes `representative_data`: 400 samples give the
            ranges, up to 200 others are measured.

    Returns:
        A `QuantizationError`: print it for a table, `plot(path)` draws it, `worst()` has the order
        in which layers are worth staying in float32.

    Raises:
        InputError: if the model is not built, or is quantise-aware; for data that is empty, not
            finite, or not of its inputs.
        NoMatchError: if no layer can be in int8.
        ExportError: if the model cannot be converted.

    What it does not give: accuracy; the error of several layers together, which is not the sum.
    One file is written per layer.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]
    )
    error = tfpeft.quantization_error(model, np.random.rand(100, 8).astype("float32"))
    print(error)
    error.plot("error.png")
    ```
    """
    with int8_files(model, data) as files:
        return measure_error(files)


@contextlib.contextmanager
def int8_files(model, data, name="data"):
    """A context with the `Int8Files` of a model, in a temporary folder.

    Args:
        model, data: As of `quantization_error`, which has the errors that it raises.
        name: The argument that gave `data`, for errors.
    """
    from tfpeft.export.int8_files import Int8Files  # late: LiteRT is slow to import

    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    if not model.built:
        raise invalid("model", "a built model", model)
    if quantization_settings(model) is not None:
        expected = "a model that is not quantise-aware, as `strip_quantization` gives it"
        raise unexpected(expected, f"{model.name!r}, which has learnt the errors of all its layers")
    if data is None:
        raise invalid(name, "typical inputs of the model", data)
    with tempfile.TemporaryDirectory() as folder:
        files = Int8Files(model, data, pathlib.Path(folder), name)
        if not files.layers:
            raise unexpected(
                "layers that can be in int8", f"{model.name!r} without any", error=NoMatchError
            )
        yield files


def measure_error(files):
    """Returns the `QuantizationError` of `Int8Files`."""
    whole = files.without(())
    within = layer_ratios(files.exact, whole, files.layers, files.batches)
    rows = [
        {
            "layer": layer,
            "snr_db": within[layer],
            "output_snr_db": _output_ratio(files, files.only(layer)),
        }
        for layer in files.layers
    ]
    return QuantizationError(_output_ratio(files, whole), rows)


def _output_ratio(files, file):
    """Returns the least SNR of the outputs of all signatures, in dB."""
    ratios = []
    for name in files.exact.signatures:
        exact, found = files.exact.signature(name), file.signature(name)
        sums = {output: np.zeros(2) for output in exact.outputs}
        for arrays in files.batches(name):
            inputs = dict(zip(exact.inputs, arrays, strict=True))
            expected, outputs = exact.run(inputs), found.run(inputs)
            for output, total in sums.items():
                total += powers(expected[output], outputs[output])
        ratios += [decibels(*total) for total in sums.values()]
    return min(ratios)


def _cell(decibels):
    return "" if decibels is None else f"{decibels:.1f}"
