"""A Keras model as a .tflite file, checked before it is kept."""

import dataclasses
import functools
import itertools
import os
import pathlib
import re
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.graph import flatten_layers, input_structure
from tfpeft.export import tflite_file

QUANTIZATIONS = ("none", "dynamic_range", "float16", "int8")
_SIGNATURE = "serving_default"
_SAMPLES = 200
_OTHER_FLOATS = ("float16", "bfloat16", "float64")


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What `export_tflite` wrote.

    Attributes:
        path: The file.
        quantization: As it was asked for.
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        ops: Operator name -> how many there are.
        int8_share: Fraction in [0, 1] of the operators that answer in int8; QUANTIZE and
            DEQUANTIZE at the borders do not count, nor does what computes shapes.
        max_deviation: Largest |file - model| over the outputs of a sample, in their own unit.
        signatures: Names of what the file can be asked for: `serving_default`, or the tasks of a
            `SharedModel`.
    """

    path: str
    quantization: str
    size_bytes: int
    gzip_bytes: int
    ops: dict
    int8_share: float
    max_deviation: float
    signatures: tuple = (_SIGNATURE,)

    def __str__(self):
        return (
            f"{self.path}: {self.quantization}, {self.size_bytes:,} bytes ({self.gzip_bytes:,} "
            f"gzipped), {self.int8_share:.0%} of the operators in int8, "
            f"largest deviation {self.max_deviation:.3g}"
            + (f", signatures {', '.join(self.signatures)}" if len(self.signatures) > 1 else "")
        )


def export_tflite(model, path, *, quantization="none", representative_data=None):
    """Writes `model` as a .tflite file and returns what the file really holds.

    The file is written beside `path`, run, compared with `model(sample, training=False)`, and
    only then renamed; a file that was there before stays if anything fails. It holds built-in
    operators only, has a free batch size, and float32 inputs and outputs whatever its
    quantization; the signature `serving_default` answers `output_0`, `output_1`, ... or the
    names of a dict of outputs. A `SharedModel` gets a signature a task, each with that task's
    outputs, and the backbone's weights are in the file once. `model` stays as it is.

    Args:
        model: A built `keras.Model`.
        path: Where the file goes; missing folders are made.
        quantization: "none" (float32), "float16" (weights), "dynamic_range" (int8 weights,
            float32 activations) or "int8" (both int8, float32 only at the borders).
        representative_data: Inputs that the model will meet: an array, (x, y), or a
            `tf.data.Dataset` of batches of either; several inputs as a list or dict of arrays.
            "int8" takes the ranges of activations from up to 200 of them. The comparison is made
            on some of them; without any, on random inputs.

    Returns:
        An `ExportReport`.

    Raises:
        ValueError: for an unknown quantization, "int8" without data, operators that TFLite lacks
            (they are named), and a file whose outputs are not those of the model: not finite,
            off by more than 1e-3 ("none") or 2e-2 ("float16") of the largest output, or, for
            integers, by more than the whole range of the outputs.
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
        raise ValueError(
            f"Received an invalid value for `quantization`, expected one of {QUANTIZATIONS}. "
            f"Received: quantization={quantization!r}"
        )
    if quantization == "int8" and representative_data is None:
        raise ValueError(
            'Expected `representative_data` with quantization="int8", to take the ranges of '
            "activations from. Received: representative_data=None"
        )
    if not isinstance(model, keras.Model):
        raise ValueError(
            "Received an invalid value for `model`, expected a keras.Model. "
            f"Received: model={model!r}"
        )
    data = None if representative_data is None else _samples(representative_data)
    specs = _input_specs(model, data)
    flat_specs = keras.tree.flatten(specs)
    flat_data = _flat_data(data, flat_specs)
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    content = _convert(_in_float32(model), specs, quantization, flat_data)
    partial = path.with_name(f"{path.name}.partial")
    try:
        partial.write_bytes(content)
        contents = tflite_file.inspect(partial)
        beyond = [name for name in contents.ops if name.startswith("custom")]
        if beyond:
            raise ValueError(f"TFLite has no built-in operator for: {', '.join(beyond)}")
        signatures = _signatures(model)
        deviation = max(
            _compare(each, name, partial, specs, flat_data, quantization)
            for name, each in signatures.items()
        )
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
    return ExportReport(
        path=str(path),
        quantization=quantization,
        size_bytes=contents.size_bytes,
        gzip_bytes=contents.gzip_bytes,
        ops=contents.ops,
        int8_share=contents.int8_share,
        max_deviation=deviation,
        signatures=tuple(signatures),
    )


def _signatures(model):
    """Returns {name: model}: what a file is made to answer."""
    several = getattr(model, "serving_signatures", None)
    return {_SIGNATURE: model} if several is None else several()


def _samples(data):
    """Returns up to 200 inputs, in their structure, as arrays."""
    if isinstance(data, tf.data.Dataset):
        batches, count = [], 0
        for batch in data.as_numpy_iterator():
            batches.append(batch[0] if isinstance(batch, tuple) else batch)
            count += len(keras.tree.flatten(batches[-1])[0])
            if count >= _SAMPLES:
                break
        if not batches:
            raise ValueError("Expected `representative_data` with samples. Received none")
        data = keras.tree.map_structure(lambda *each: np.concatenate(each), *batches)
    elif isinstance(data, tuple) and len(data) == 2:
        data = data[0]
    data = keras.tree.map_structure(lambda each: np.asarray(each)[:_SAMPLES], data)
    for each in keras.tree.flatten(data):
        if each.ndim == 0 or len(each) == 0:
            raise ValueError("Expected `representative_data` with samples. Received none")
        if not np.all(np.isfinite(each)):
            raise ValueError(
                "Expected `representative_data` of finite numbers. Received: NaN or infinity"
            )
    return data


def _input_specs(model, data):
    """Returns a TensorSpec an input, in the structure that the model is called with."""
    structure = input_structure(model)
    if structure is None:
        structure = data
    if structure is None:
        raise ValueError(
            "Expected `representative_data` for a subclassed model, which does not tell the shape "
            f"of its inputs. Received: {model.name!r} without"
        )
    names = (f"input_{i}" for i in itertools.count())

    def spec(each):
        dtype = keras.backend.standardize_dtype(each.dtype)
        return tf.TensorSpec(
            [None, *each.shape[1:]],
            "float32" if dtype in _OTHER_FLOATS else dtype,
            name=next(names),
        )

    return keras.tree.map_structure(spec, structure)


def _flat_data(data, specs):
    """Returns the samples in the order and types of the specs; without data, a random few."""
    if data is None:
        rng = np.random.default_rng(0)
        shapes = [[16, *(32 if side is None else side for side in s.shape[1:])] for s in specs]
        return [
            (
                rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
            ).astype(spec.dtype.as_numpy_dtype)
            for spec, shape in zip(specs, shapes, strict=True)
        ]
    arrays = keras.tree.flatten(data)
    shapes = [tuple(each.shape[1:]) for each in arrays]
    if len(arrays) != len(specs) or not all(
        spec.shape[1:].is_compatible_with(shape) for spec, shape in zip(specs, shapes, strict=True)
    ):
        raise ValueError(
            "Received invalid `representative_data`, expected inputs of shape "
            f"{[tuple(spec.shape[1:]) for spec in specs]}. Received: {shapes}"
        )
    return [
        each.astype(spec.dtype.as_numpy_dtype) for each, spec in zip(arrays, specs, strict=True)
    ]


def _computes_in_float32(model):
    return not any(layer.compute_dtype in _OTHER_FLOATS for layer in flatten_layers(model))


def _in_float32(model):
    """TFLite computes in float32; a model of another precision is made again in it."""
    if _computes_in_float32(model):
        return model

    def edit(config, parents):
        policy = config.get("dtype")
        name = policy["config"].get("name") if isinstance(policy, dict) else policy
        if str(name).removeprefix("mixed_") in _OTHER_FLOATS:
            return {**config, "dtype": "float32"}
        return config

    return clone.rebuild(model, edit)


def _named_outputs(outputs):
    if isinstance(outputs, dict):
        return outputs
    return {f"output_{i}": each for i, each in enumerate(keras.tree.flatten(outputs))}


def _convert(model, specs, quantization, flat_data):
    flat_specs = keras.tree.flatten(specs)
    signatures = _signatures(model)

    def serve(model, *inputs):
        outputs = model(keras.tree.pack_sequence_as(specs, inputs), training=False)
        return {name: tf.cast(v, tf.float32) for name, v in _named_outputs(outputs).items()}

    with tempfile.TemporaryDirectory() as folder:
        archive = keras.export.ExportArchive()
        archive.track(model)
        for name, each in signatures.items():
            function = functools.partial(serve, each)
            archive.add_endpoint(name, function, input_signature=flat_specs)
        archive.write_out(folder, verbose=False)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=list(signatures)
        )
        # Never SELECT_TF_OPS: such a file converts, and then does not load on a phone.
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        if quantization != "none":
            converter.optimizations = [tf.lite.Optimize.DEFAULT]
        if quantization == "float16":
            converter.target_spec.supported_types = [tf.float16]
        if quantization == "int8":
            converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
            names = [spec.name for spec in flat_specs]
            converter.representative_dataset = lambda: (
                (name, {n: each[i : i + 1] for n, each in zip(names, flat_data, strict=True)})
                for name in signatures
                for i in range(len(flat_data[0]))
            )
        try:
            return converter.convert()
        except Exception as error:  # the converter raises classes of its own, and RuntimeError
            named = re.findall(r"(?:TF Select|Flex|Custom) ops: ([^\n]*)", str(error))
            reason = ", ".join(named) or str(error).strip().splitlines()[0].rsplit("): ", 1)[-1]
            raise ValueError(
                f"Cannot convert {model.name!r} with quantization={quantization!r}, expected "
                f"operators that TFLite has built in. Received: {reason}"
            ) from error


def _compare(model, signature, path, specs, flat_data, quantization):
    """Returns the largest |file - model|; raises where the file is another model."""
    sample = [each[:32] for each in flat_data]
    runner = tflite_file.interpreter(path).get_signature_runner(signature)
    names = [spec.name for spec in keras.tree.flatten(specs)]
    answers = runner(**dict(zip(names, sample, strict=True)))
    expected = _named_outputs(model(keras.tree.pack_sequence_as(specs, sample), training=False))
    deviation = 0.0
    for name, wanted in expected.items():
        wanted = keras.ops.convert_to_numpy(keras.ops.cast(wanted, "float32"))
        answer = answers[name].astype("float32")
        peak = max(1.0, float(np.max(np.abs(wanted))))
        spread = max(float(np.ptp(wanted)), 1e-3 * peak)
        allowed = {"none": 1e-3 * peak, "float16": 2e-2 * peak}.get(quantization, spread)
        if not _computes_in_float32(model):
            allowed = spread  # the model itself computed in half precision
        if answer.shape != wanted.shape or not np.all(np.isfinite(answer)):
            raise ValueError(
                f"The file does not answer as {model.name!r} does, expected finite outputs of "
                f"shape {wanted.shape}. Received: {name} of {answer.shape}, "
                f"{np.mean(np.isfinite(answer)):.0%} finite"
            )
        largest = float(np.max(np.abs(answer - wanted)))
        if largest > allowed:
            raise ValueError(
                f"The file does not answer as {model.name!r} does, expected a deviation of at most "
                f"{allowed:.3g}. Received: {largest:.3g} in {name}"
            )
        deviation = max(deviation, largest)
    return deviation
