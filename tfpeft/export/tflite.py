"""A Keras model as a .tflite file, checked before it is kept."""

import os
import typing
import warnings

import keras

from tfpeft.core.arguments import (
    ExportError,
    NoMatchError,
    check_boolean,
    check_positive,
    check_positive_integer,
    invalid,
    last_cause,
    unexpected,
)
from tfpeft.core.files import replacing
from tfpeft.core.graph import flatten_layers
from tfpeft.core.packages import check_packages
from tfpeft.core.paths import file_to_write
from tfpeft.export.check import Check
from tfpeft.export.conversion import (
    convert,
    fixed_batch_size,
    in_float32,
    initial_states,
    input_specs,
    marking_ranges,
    quantization_settings,
    signatures,
)
from tfpeft.export.converter import sparsify, start_converter
from tfpeft.export.formats import CALIBRATED, INT4, QUANTIZATIONS, check_types
from tfpeft.export.int8_options import Int8Options
from tfpeft.export.lost_layers import LayerNames
from tfpeft.export.metadata_arguments import match_labels, match_scaling
from tfpeft.export.model_samples import content_of, inputs_and_samples, split
from tfpeft.export.report import NO_SPREAD, ExportReport
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.export.tflite_signature import file_names


def export_tflite(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    quantization: str = "none",
    representative_data: typing.Any = None,
    float_layers: typing.Sequence[str] = (),
    allow_deviation: float | None = None,
    ranges: str = "mse",
    equalize: bool = False,
    correct_bias: bool = False,
    batch_size: int | None = None,
    input_type: str = "float32",
    output_type: str = "float32",
    sparse: bool = False,
    compact: bool = False,
    labels: typing.Any = None,
    input_scaling: typing.Any = None,
) -> ExportReport:
    """Writes `model` as a .tflite file, and returns a report of what the file holds.

    The file is written beside `path`, run, compared with `model(sample, training=False)`, and
    then renamed; if anything fails, a file that was there before stays. It holds built-in
    operators only, has a free batch size (recurrent layers: one sample), and float32 inputs and
    outputs, unless the arguments say otherwise. Its inputs have the names and the order of the
    model's. The signature `serving_default` returns `output_0`, `output_1`, ... or the names of a
    dict of outputs. A `SharedModel` gets a signature per task, with the outputs of that task; the
    backbone's weights are in the file once. `model` stays as it is.

    TensorFlow's converter runs in a process of its own, which is kept for the next export: a crash
    of the converter is an `ExportError`.

    "int8" takes the ranges of activations from 400 samples, drawn at random from all of the data,
    and is compared on up to 200 others. Of a dataset or generator the first 10,000 samples are
    read, or 2,000 where these have a GiB, so shuffle longer ones if they are sorted; of a
    PyDataset, as many evenly spaced ones. Masks of attention,
    such as -1e9, are clipped to what a softmax distinguishes. A table of unlike columns, such as
    ages and incomes, stays in float32 up to and including its `Normalization`. Loops of recurrent
    layers stay in float32. "int16x8" takes its ranges from the same samples; a model whose
    operators TFLite does not have in it, such as those of a transformer, raises.

    Args:
        model: A built `keras.Model`.
        path: Where the file goes; missing folders are made.
        quantization: "none" (float32), "float16" (weights), "dynamic_range" (int8 weights,
            float32 activations), "int4_embeddings" (as "dynamic_range", with 4 bits in Embedding
            layers of 1,024 weights or more), "int4_weights" (in Dense layers, too; both need
            `pip install tfpeft[quantizer]`), "int8" (both int8, float32 only at the borders) or
            "int16x8"
            (int8 weights, int16 activations: nearly the outputs of float32, and slow on x86).
        representative_data: Typical inputs of the model: an array, (x, y), a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of either, or a function that returns a generator
            of batches; several inputs are a dict of arrays by the names of the inputs, or a list
            in their order. Without data, file and model are compared on random inputs.
        float_layers: Names or patterns of layers that "int8" leaves in float32.
        allow_deviation: The largest `relative_error` of the report, such as 0.5, at which the file
            is kept, whatever its other figures: the agreement of the classes is then not checked.
            From 0.3 on, outputs that are off by at most two steps of 8 bits do not count. None for
            the limits below.
        ranges: How "int8" chooses the range of an activation of 100,000 values or more among the
            samples: "mse" (of the least squared error of rounding and clipping), "percentile" (of
            99.99% of them) or "extended" (least and largest value, so that none is cut off). Of
            fewer values all three take the least and largest, extended to what so many would have.
        equalize: Whether "int8" first moves weights between layers in a row, with no activation,
            ReLU or LeakyReLU between them, so that their channels have like ranges (cross-layer
            equalisation). The float outputs stay the same to rounding.
        correct_bias: Whether "int8" takes the mean error over samples out of the biases, layer by
            layer. Each layer takes a run of 100 samples.
        batch_size: The batch size of the file, at least 1, as devices without free shapes need
            it; None for a free one.
        input_type: The type of the inputs that are floats in the model: "float32"; with "int8"
            also "int8" and "uint8"; with "int16x8" also "int16". The file has the scales by which
            `TFLiteFile.predict` and devices convert.
        output_type: The type of the outputs, in the same way.
        sparse: Whether constants with many zeros are encoded as sparse ones, where the file gets
            smaller and has the same outputs; the report says whether they are.
        compact: Whether the names of inner tensors are left out, by which reports name layers:
            some 80 bytes for each tensor.
        labels: Names of the classes of the output, a list of text; of several outputs a dict of
            lists by the names of the outputs, of a `SharedModel` by its tasks. They go into the
            file as metadata in TFLite's format, which tools read: `TFLiteFile.labels`, and as
            text files in a ZIP archive.
        input_scaling: How raw values become inputs, (raw - mean) / std: a pair (mean, std), each a
            number or one per channel; of several inputs a dict of pairs by their names. It is
            metadata as well, see `TFLiteFile.input_scaling`: the model itself does not scale.

    Returns:
        An `ExportReport`.

    Raises:
        InputError: for an unknown quantization, "int8" without data, data that is empty, not
            finite, or not of the model's inputs, a type of inputs that the quantization does not
            have, or another batch size than the model's own.
        NoMatchError: for `float_layers` that match no layer; for `equalize` and `correct_bias`
            without layers that they change.
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
    Integer-Arithmetic-Only Inference", 2017, https://arxiv.org/abs/1712.05877. Nagel et al.,
    "Data-Free Quantization Through Weight Equalization and Bias Correction", 2019,
    https://arxiv.org/abs/1906.04721
    """
    if quantization not in QUANTIZATIONS:
        raise invalid("quantization", f"one of {QUANTIZATIONS}", quantization)
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    aware = quantization_settings(model)
    if aware is not None and quantization != aware["quantization"]:
        raise unexpected(
            f'quantization="{aware["quantization"]}" for a quantise-aware model, of which '
            "`strip_quantization` gives a plain one",
            f"quantization={quantization!r}",
        )
    if quantization in CALIBRATED and representative_data is None and aware is None:
        raise unexpected(
            f'`representative_data` with quantization="{quantization}", to take the ranges of '
            "activations from",
            "representative_data=None",
        )
    if quantization in INT4:
        check_packages(["litert_quantizer"], "quantizer")
    check_types(quantization, input_type, output_type)
    check_boolean("sparse", sparse)
    check_boolean("compact", compact)
    options = Int8Options(ranges, equalize, correct_bias)
    options.check(quantization, is_aware=aware is not None)
    path = file_to_write(path)
    if allow_deviation is not None:
        check_positive("allow_deviation", allow_deviation)
    batch_size = file_batch_size(model, batch_size)
    layers = LayerNames(model)
    _check_layers(float_layers, quantization, layers)
    inputs, samples, read_samples = inputs_and_samples(model, representative_data, quantization)
    if input_type != "float32" and not any("float" in a.dtype.name for a in samples[0]):
        expected = "'float32' for a model whose inputs are integers already"
        raise invalid("input_type", expected, input_type)
    labels = match_labels(model, labels, inputs, samples[0])
    scaling = match_scaling(input_scaling, inputs)
    calibration, compared = split(samples, quantization)
    if representative_data is None:
        calibration, compared = [], samples
    if calibration and len({content_of(sample) for sample in calibration}) == 1:
        warnings.warn(
            f"`representative_data` has one sample, or equal ones, so {quantization} cuts off the "
            "values of samples that are larger. Give a few hundred typical ones to a file that is "
            "used.",
            stacklevel=2,
        )
    start_converter()
    with replacing(path) as partial:
        check = Check(model, layers, inputs, compared, quantization, allow_deviation)
        converted = in_float32(model)
        with initial_states(model), layers.recording(converted), marking_ranges(converted):
            batch_size = write_float_file(
                converted, inputs, partial, quantization, batch_size, layers
            )
        if aware is None:
            deviation, notes = check.float_file(partial), []
        if quantization in CALIBRATED:
            from tfpeft.export.int8 import write_int8  # late: LiteRT is slow to import

            types = {"input_type": input_type, "output_type": output_type, "aware": aware}
            deviation, notes = write_int8(
                partial, layers, float_layers, calibration, check, options, **types
            )
            _put_in_order(partial, inputs)
        elif quantization in INT4:
            from tfpeft.export.int4 import write_int4  # late: LiteRT is slow to import

            deviation, notes = write_int4(partial, check)
            _put_in_order(partial, inputs)
        is_sparse, why = _write_sparse(partial, check, deviation) if sparse else (False, [])
        if is_sparse:
            _put_in_order(partial, inputs)
        notes = [*notes, *why]
        if compact:
            from tfpeft.export.file_writing import compacted  # late: LiteRT is slow to import

            partial.write_bytes(compacted(partial.read_bytes()))
        if labels or scaling:
            _describe(partial, labels, scaling)
        if compact or labels or scaling:
            check.measure(partial)
        if not deviation.has_spread:
            notes = [*notes, NO_SPREAD]
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
        input_type=input_type,
        output_type=output_type,
        sparse=is_sparse,
        int16_share=contents.int16_share,
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


def write_float_file(model, inputs, path, quantization, batch_size, layers):
    """Writes a file, in float32 for integers; returns its batch size, None if it is free."""
    try:
        content = convert(model, inputs, input_specs(inputs, batch_size), quantization, layers)
    except ExportError:
        if batch_size is not None:
            raise
        try:  # some loops need the batch size
            content = convert(model, inputs, input_specs(inputs, 1), quantization, layers)
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


def file_batch_size(model, wanted):
    """Returns the batch size that is wanted or that a model insists on; None if it is free."""
    fixed = fixed_batch_size(model)
    if wanted is None:
        has_loops = any(isinstance(layer, keras.layers.RNN) for layer in flatten_layers(model))
        return fixed or (1 if has_loops else None)
    check_positive_integer("batch_size", wanted)
    if wanted >= 2**31:
        raise invalid("batch_size", "an integer of at most 31 bits", wanted)
    if fixed not in (None, wanted):
        raise invalid("batch_size", f"{fixed}, which {model.name!r} insists on, or None", wanted)
    return int(wanted)


def _write_sparse(path, check, dense):
    """Encodes constants of many zeros as sparse ones; returns whether it pays, or why not.

    Args:
        path: The file, which is replaced if it pays.
        check: A `Check`.
        dense: The `Deviation` of the file.
    """
    from tfpeft.export.file_writing import repacked  # late: LiteRT is slow to import

    content = path.read_bytes()
    try:
        encoded = repacked(sparsify(content))
        path.write_bytes(encoded)
        if not TFLiteFile(path).has_sparse_constants() or len(encoded) >= len(content):
            path.write_bytes(content)
            return False, ["not sparse, as the file would not be smaller"]
        deviation = check.measure(path)
    except Exception as error:  # the converter raises classes of its own
        reason = last_cause(error).rpartition("Received: ")[2]
    else:
        if deviation.largest <= 1.01 * dense.largest + 1e-6:
            return True, []
        reason = "its outputs would differ"
    path.write_bytes(content)
    return False, [f"not sparse: {reason}"]


def _describe(path, labels, scaling):
    """Puts labels and input scaling into a file."""
    from tfpeft.export.metadata import with_metadata  # late: LiteRT, slow to import

    path.write_bytes(with_metadata(path.read_bytes(), labels, scaling))


def _put_in_order(path, inputs):
    """Puts the inputs of a file into the order of the model's; the converter shuffles them."""
    from tfpeft.export.tflite_contents import with_inputs_in_order  # late: LiteRT, slow to import

    names = file_names([leaf.name for leaf in keras.tree.flatten(inputs)])
    path.write_bytes(with_inputs_in_order(path.read_bytes(), names))
