"""A Keras model as a .tflite file, checked before it is kept."""

import dataclasses
import os
import typing

import keras

from tfpeft.core.arguments import ExportError, invalid, unexpected
from tfpeft.core.arrays import check_numbers
from tfpeft.core.data import read
from tfpeft.core.files import replacing
from tfpeft.core.paths import file_to_write
from tfpeft.export.conversion import (
    SIGNATURE,
    convert,
    flat_samples,
    in_float32,
    input_specs,
    signatures,
)
from tfpeft.export.deviation import largest_deviation
from tfpeft.export.tflite_file import TFLiteFile

QUANTIZATIONS = ("none", "dynamic_range", "float16", "int8")
_SAMPLES = 200


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_tflite` wrote; see `export_tflite`.

    Attributes:
        path: The file.
        quantization: The argument.
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        ops: {operator name: how many there are}.
        int8_share: Fraction in [0, 1] of the operators whose outputs are int8; QUANTIZE and
            DEQUANTIZE do not count, nor do operators that compute shapes.
        max_deviation: Largest |file - model| over the outputs of some samples, in the unit of the
            outputs.
        signatures: Names of the signatures: `serving_default`, or the tasks of a `SharedModel`.
    """

    path: str
    quantization: str
    size_bytes: int
    gzip_bytes: int
    ops: dict[str, int]
    int8_share: float
    max_deviation: float
    signatures: tuple[str, ...] = (SIGNATURE,)

    def __str__(self) -> str:
        return (
            f"{self.path}: {self.quantization}, {self.size_bytes:,} bytes ({self.gzip_bytes:,} "
            f"gzipped), {self.int8_share:.0%} of the operators in int8, "
            f"largest deviation {self.max_deviation:.3g}"
            + (f", signatures {', '.join(self.signatures)}" if len(self.signatures) > 1 else "")
        )


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    quantization: str = "none",
    representative_data: typing.Any = None,
) -> ExportReport:
    """Writes `model` as a .tflite file, and returns a report of what the file holds.

    The file is written beside `path`, run, compared with `model(sample, training=False)`, and
    then renamed; if anything fails, a file that was there before stays. It holds built-in
    operators only, has a free batch size, and float32 inputs and outputs whatever its
    quantization. The signature `serving_default` returns `output_0`, `output_1`, ... or the
    names of a dict of outputs. A `SharedModel` gets a signature per task, with the outputs of
    that task; the backbone's weights are in the file once. `model` stays as it is.

    Args:
        model: A built `keras.Model`.
        path: Where the file goes; missing folders are made.
        quantization: "none" (float32), "float16" (weights), "dynamic_range" (int8 weights,
            float32 activations) or "int8" (both int8, float32 only at the borders).
        representative_data: Typical inputs of the model: an array, (x, y), a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of either, or a function that returns a generator
            of batches; several inputs are a list or dict of arrays. "int8" takes the ranges of
            activations from the first 200. File and model are compared on the first 32; without
            data, on random inputs.

    Returns:
        An `ExportReport`.

    Raises:
        InputError: for an unknown quantization, "int8" without data, or data that is empty, not
            finite, or not of the model's input shapes.
        ExportError: for operators that TFLite lacks, which are named; for a file whose outputs
            differ from the model's: not finite, off by more than 1e-3 ("none") or 2e-2 ("float16")
            of the largest output, or, for integers, by more than the whole range of the outputs.
        OSError: if the file cannot be written.

    What it does not give: accuracy after quantization (see `evaluate`); speed from int8 on a
    machine without instructions for it.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, activation="softmax")])
    data = np.random.rand(100, 8).astype("float32")
    print(tfpeft.export_tflite(model, "m.tflite", quantization="int8", representative_data=data))
    ```

    Reference: Jacob et al., "Quantization and Training of Neural Networks for Efficient
    Integer-Arithmetic-Only Inference", 2017, https://arxiv.org/abs/1712.05877
    """
    if quantization not in QUANTIZATIONS:
        raise invalid("quantization", f"one of {QUANTIZATIONS}", quantization)
    if quantization == "int8" and representative_data is None:
        raise unexpected(
            '`representative_data` with quantization="int8", to take the ranges of activations '
            "from",
            "representative_data=None",
        )
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    path = file_to_write(path)
    data = None if representative_data is None else _first_inputs(representative_data)
    specs = input_specs(model, data)
    samples = flat_samples(data, keras.tree.flatten(specs))
    with replacing(path) as partial:
        partial.write_bytes(convert(in_float32(model), specs, quantization, samples))
        file = TFLiteFile(partial)
        contents = file.contents
        custom = [name for name in contents.ops if name.startswith("custom")]
        if custom:
            raise unexpected(
                "operators that TFLite has built in", ", ".join(custom), error=ExportError
            )
        models = signatures(model)
        deviation = max(
            largest_deviation(file, name, served, specs, samples, quantization)
            for name, served in models.items()
        )
    return ExportReport(
        path=str(path),
        quantization=quantization,
        size_bytes=contents.size_bytes,
        gzip_bytes=contents.gzip_bytes,
        ops=contents.ops,
        int8_share=contents.int8_share,
        max_deviation=deviation,
        signatures=tuple(models),
    )


def _first_inputs(data):
    """Returns up to 200 inputs, in their structure, as arrays."""
    inputs = read(data, "representative_data").inputs(_SAMPLES)
    check_numbers(inputs, "representative_data")
    return inputs
