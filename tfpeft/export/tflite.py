"""A Keras model as a .tflite file, checked before it is kept."""

import dataclasses
import os
import typing
import warnings

import keras

from tfpeft.core.arguments import (
    ExportError,
    NoMatchError,
    check_positive,
    invalid,
    last_cause,
    unexpected,
)
from tfpeft.core.data import read
from tfpeft.core.files import replacing
from tfpeft.core.graph import flatten_layers
from tfpeft.core.inputs import arrange, match
from tfpeft.core.paths import file_to_write
from tfpeft.export.check import Check
from tfpeft.export.conversion import (
    SIGNATURE,
    convert,
    fixed_batch_size,
    in_float32,
    initial_states,
    input_specs,
    known_inputs,
    signatures,
)
from tfpeft.export.lost_layers import LayerNames
from tfpeft.export.samples import random_samples, spread
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.export.tflite_signature import file_names

QUANTIZATIONS = ("none", "dynamic_range", "float16", "int8")
_CALIBRATED, _COMPARED = 400, 200
_FEWEST = 10
"""Samples that can be held out from calibration; with fewer, all calibrate and are compared."""
_NO_SPREAD = "the spread of the outputs is not known, as they are the same for all samples"
_SIDES = (32, 64, 128, 256)
"""Lengths of free sides that are tried in turn, without samples."""


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
        max_deviation: Largest |file - model| over the outputs of the compared samples, in the unit
            of the outputs.
        signatures: Names of the signatures: `serving_default`, or the tasks of a `SharedModel`.
        relative_error: Root mean square of file - model, relative to the standard deviation of the
            model's outputs over the compared samples; of the worst output. Relative to the size of
            the outputs if they are the same for all samples, which `notes` then has.
        agreement: Fraction in [0, 1] of the compared samples (with softmax over positions or
            tokens: of these) whose largest output is the same; None for outputs without classes.
        clear_agreement: The same, of the samples that the model predicts clearly: the largest
            output is above the next one by more than a tenth of the standard deviation of the
            outputs, and by two steps of 8 bits. None without any.
        clear_share: Fraction in [0, 1] of the compared samples that are predicted clearly.
        calibration_samples: How many samples the ranges of int8 come from; 0 for others.
        read_samples: How many samples of the data all these were drawn from.
        compared_samples: How many samples file and model were compared on.
        held_out: Whether these are other samples than those of the calibration.
        batch_size: The batch size of the file; None if it is free. `TFLiteFile.predict` and
            `evaluate` run a file of one sample by sample.
        notes: What stays in float32 in an int8 file, what was clipped, and whether the spread of
            the outputs is not known.
    """

    path: str
    quantization: str
    size_bytes: int
    gzip_bytes: int
    ops: dict[str, int]
    int8_share: float
    max_deviation: float
    signatures: tuple[str, ...] = (SIGNATURE,)
    relative_error: float = 0.0
    agreement: float | None = None
    clear_agreement: float | None = None
    clear_share: float = 0.0
    calibration_samples: int = 0
    compared_samples: int = 0
    read_samples: int = 0
    held_out: bool = True
    batch_size: int | None = None
    notes: tuple[str, ...] = ()

    def __str__(self) -> str:
        figures = [
            f"{self.path}: {self.quantization}, {self.size_bytes:,} bytes ({self.gzip_bytes:,} "
            f"gzipped), {self.int8_share:.0%} of the operators in int8",
            f"largest deviation {self.max_deviation:.3g}",
        ]
        if self.quantization not in ("none", "float16"):
            of = "size" if _NO_SPREAD in self.notes else "spread"
            figures.append(f"error {self.relative_error:.1%} of the {of} of the outputs")
            if self.agreement is not None:
                figures.append(f"{self.agreement:.1%} of the classes agree")
            if self.clear_agreement is not None:
                figures.append(
                    f"{self.clear_agreement:.1%} of the {self.clear_share:.0%} predicted clearly"
                )
        if self.calibration_samples:
            other = "others" if self.held_out else "the same, as there are few"
            figures.append(
                f"calibrated on {self.calibration_samples} samples, compared on "
                f"{self.compared_samples} {other}, drawn from {self.read_samples:,}"
            )
        if len(self.signatures) > 1:
            figures.append(f"signatures {', '.join(self.signatures)}")
        if self.batch_size is not None:
            figures.append(f"batch_size={self.batch_size}")
        return ", ".join([*figures, *self.notes])


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    quantization: str = "none",
    representative_data: typing.Any = None,
    float_layers: typing.Sequence[str] = (),
    allow_deviation: float | None = None,
) -> ExportReport:
    """Writes `model` as a .tflite file, and returns a report of what the file holds.

    The file is written beside `path`, run, compared with `model(sample, training=False)`, and
    then renamed; if anything fails, a file that was there before stays. It holds built-in
    operators only, has a free batch size (recurrent layers: one sample), and float32 inputs and
    outputs whatever its quantization. Its inputs have the names and the order of the model's. The
    signature `serving_default` returns `output_0`, `output_1`, ... or the names of a dict of
    outputs. A `SharedModel` gets a signature per task, with the outputs of that task; the
    backbone's weights are in the file once. `model` stays as it is.

    "int8" takes the ranges of activations from 400 samples, drawn at random from all of the data,
    and is compared on up to 200 others. Of a dataset or generator the first 10,000 samples are
    read, or 2,000 where these have a GiB, so shuffle longer ones if they are sorted; of a
    PyDataset, as many evenly spaced ones. Masks of attention,
    such as -1e9, are clipped to what a softmax distinguishes. A table of unlike columns, such as
    ages and incomes, stays in float32 up to and including its `Normalization`. Loops of recurrent
    layers stay in float32.

    Args:
        model: A built `keras.Model`.
        path: Where the file goes; missing folders are made.
        quantization: "none" (float32), "float16" (weights), "dynamic_range" (int8 weights,
            float32 activations) or "int8" (both int8, float32 only at the borders).
        representative_data: Typical inputs of the model: an array, (x, y), a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of either, or a function that returns a generator
            of batches; several inputs are a dict of arrays by the names of the inputs, or a list
            in their order. Without data, file and model are compared on random inputs.
        float_layers: Names or patterns of layers that "int8" leaves in float32.
        allow_deviation: The largest `relative_error` of the report, such as 0.5, at which the file
            is kept, whatever its other figures: the agreement of the classes is then not checked.
            From 0.3 on, outputs that are off by at most two steps of 8 bits do not count. None for
            the limits below.

    Returns:
        An `ExportReport`.

    Raises:
        InputError: for an unknown quantization, "int8" without data, or data that is empty, not
            finite, or not of the model's inputs.
        NoMatchError: for `float_layers` that match no layer.
        ExportError: for operators that TFLite lacks, which are named; for a file whose outputs
            are not finite, or not the model's: off by more than 1e-3 ("none") or 2e-2 ("float16")
            of the largest value of a column (and of 1), or, for integers, by a `relative_error`
            above 0.3 or a `clear_agreement` below 0.9. Two steps of 8 bits are no such error, as
            int8 can have no smaller one: 1/128 for softmax, sigmoid and tanh, 2/255 of the range
            of several outputs of like spread. For "int8" the error names the layer that lost most.
            Outputs such as -1e9 beside logits count as masks: they must be masks in the file, and
            the other outputs are compared without them.

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
    if allow_deviation is not None:
        check_positive("allow_deviation", allow_deviation)
    layers = LayerNames(model)
    _check_layers(float_layers, quantization, layers)
    inputs, samples, read_samples = _inputs_and_samples(model, representative_data, quantization)
    calibration, compared = _split(samples, quantization)
    if quantization == "int8" and len({_content(sample) for sample in calibration}) == 1:
        warnings.warn(
            "`representative_data` has one sample, or equal ones, so int8 cuts off the values of "
            "samples that are larger. Give a few hundred typical ones to a file that is used.",
            stacklevel=2,
        )
    with replacing(path) as partial:
        check = Check(model, layers, inputs, compared, quantization, allow_deviation)
        converted = in_float32(model)
        with initial_states(model), layers.recording(converted):
            batch_size = _write(converted, inputs, partial, quantization)
        deviation, notes = check.float_file(partial), []
        if quantization == "int8":
            from tfpeft.export.int8 import write_int8  # late: LiteRT is slow to import

            deviation, notes = write_int8(partial, layers, float_layers, calibration, check)
            _put_in_order(partial, inputs)
        if not deviation.has_spread:
            notes = [*notes, _NO_SPREAD]
        check.other_sides(partial)
        contents = TFLiteFile(partial).contents
    return ExportReport(
        path=str(path),
        quantization=quantization,
        size_bytes=contents.size_bytes,
        gzip_bytes=contents.gzip_bytes,
        ops=contents.ops,
        int8_share=contents.int8_share,
        max_deviation=deviation.largest,
        signatures=tuple(signatures(model)),
        relative_error=deviation.relative,
        agreement=deviation.agreement,
        clear_agreement=deviation.clear_agreement,
        clear_share=deviation.clear_share,
        calibration_samples=len(calibration),
        compared_samples=len(compared),
        read_samples=read_samples,
        held_out=calibration is not compared,
        batch_size=batch_size,
        notes=tuple(notes),
    )


def _check_layers(float_layers, quantization, layers):
    is_list = isinstance(float_layers, (list, tuple))
    if not is_list or not all(isinstance(name, str) for name in float_layers):
        raise invalid("float_layers", "a list or tuple of names", float_layers)
    if float_layers and quantization != "int8":
        raise unexpected('quantization="int8" with `float_layers`', f"{quantization!r}")
    for pattern in float_layers:
        if not layers.matching([pattern]):
            expected = f"names or patterns of layers, such as {', '.join(layers.some())}"
            raise invalid("float_layers", expected, pattern, error=NoMatchError)


def _inputs_and_samples(model, representative_data, quantization):
    """Returns `ModelInput`s, samples (lists of arrays in their order), and how many were read."""
    if representative_data is None:
        inputs = known_inputs(model, None)
        samples = _random_samples(model, inputs)
        return inputs, samples, len(samples)
    name = "representative_data"
    data = read(representative_data, name)
    inputs = known_inputs(model, arrange(model, data.inputs(1), name))
    count = _CALIBRATED + _COMPARED if quantization == "int8" else _COMPARED
    # All samples of floats are alike: those of the first batches will do.
    limits = {} if quantization == "int8" else {"most_read": count}
    samples, read_samples = spread(
        data, count, arranged=lambda x: match(inputs, x, name, repr(model.name)), **limits
    )
    leaves = keras.tree.flatten(inputs)
    types = ["float32" if "float" in leaf.dtype else leaf.dtype for leaf in leaves]
    return (
        inputs,
        [
            [array.astype(dtype) for array, dtype in zip(sample, types, strict=True)]
            for sample in samples
        ],
        read_samples,
    )


def _random_samples(model, inputs):
    """Returns random samples; free sides get the first length that the model takes."""
    leaves = keras.tree.flatten(inputs)
    are_free = any(side is None for leaf in leaves for side in leaf.shape)
    for side in _SIDES if are_free else _SIDES[:1]:
        samples = random_samples(leaves, 16, side)
        try:
            model(keras.tree.pack_sequence_as(inputs, samples[0]), training=False)
        except Exception as error:
            last = error
        else:
            return samples
    raise unexpected(
        f"`representative_data` for {model.name!r}, which does not take inputs of sides "
        f"{', '.join(map(str, _SIDES))}",
        last_cause(last),
    )


def _split(samples, quantization):
    """Returns the samples that calibrate, and those that file and model are compared on."""
    if quantization != "int8":
        return [], samples
    count = min(_COMPARED, len(samples) // 3)
    calibration = samples[count:]
    # Data that repeats has the same samples again.
    known = {_content(sample) for sample in calibration}
    others = [sample for sample in samples[:count] if _content(sample) not in known]
    if len(others) < _FEWEST:
        return samples, samples
    return calibration, others


def _content(sample):
    return b"".join(array.tobytes() for array in sample)


def _write(model, inputs, path, quantization):
    """Writes a file, for int8 one in float32; returns its batch size, None if it is free."""
    batch_size = _batch_size(model)
    try:
        content = convert(model, inputs, input_specs(inputs, batch_size), quantization)
    except ExportError:
        if batch_size is not None:
            raise
        try:  # some loops need the batch size
            content = convert(model, inputs, input_specs(inputs, 1), quantization)
            batch_size = 1
        except ExportError:
            content = None
        if content is None:
            raise
    path.write_bytes(content)
    _put_in_order(path, inputs)
    file = TFLiteFile(path)
    custom = [name for name in file.contents.ops if name.startswith("custom")]
    if custom:
        expected = "operators that TFLite has built in"
        raise unexpected(expected, ", ".join(custom), error=ExportError)
    return batch_size


def _batch_size(model):
    """Returns the batch size that a model insists on, or 1 for loops; None if it is free."""
    has_loops = any(isinstance(layer, keras.layers.RNN) for layer in flatten_layers(model))
    return fixed_batch_size(model) or (1 if has_loops else None)


def _put_in_order(path, inputs):
    """Puts the inputs of a file into the order of the model's; the converter shuffles them."""
    from tfpeft.export.tflite_contents import with_inputs_in_order  # late: LiteRT, slow to import

    names = file_names([leaf.name for leaf in keras.tree.flatten(inputs)])
    path.write_bytes(with_inputs_in_order(path.read_bytes(), names))
