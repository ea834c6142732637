"""A Keras model as the bytes of a .tflite file: signatures, input specs, the converter."""

import functools
import itertools
import re
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.arguments import ExportError, InputError, last_cause, unexpected
from tfpeft.core.graph import flatten_layers, input_structure

SIGNATURE = "serving_default"
_OTHER_FLOATS = ("float16", "bfloat16", "float64")


def signatures(model):
    """Returns {name: model} of the signatures that a file gets.

    A model of several has `serving_signatures`, a method that returns them.
    """
    several = getattr(model, "serving_signatures", None)
    return {SIGNATURE: model} if several is None else several()


def input_specs(model, data):
    """Returns a TensorSpec per input, in the structure that the model is called with."""
    structure = input_structure(model)
    if structure is None:
        structure = data
    if structure is None:
        raise unexpected(
            "`representative_data` for a subclassed model, whose input shapes are not known",
            f"{model.name!r} without",
        )
    names = (f"input_{i}" for i in itertools.count())

    def spec(tensor):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        return tf.TensorSpec(
            [None, *tensor.shape[1:]],
            "float32" if dtype in _OTHER_FLOATS else dtype,
            name=next(names),
        )

    return keras.tree.map_structure(spec, structure)


def flat_samples(data, specs):
    """Returns the samples in the order and types of flat specs; without data, random ones."""
    if data is None:
        return _random_samples(specs)
    arrays = keras.tree.flatten(data)
    shapes = [tuple(array.shape[1:]) for array in arrays]
    if len(arrays) != len(specs) or not all(
        spec.shape[1:].is_compatible_with(shape) for spec, shape in zip(specs, shapes, strict=True)
    ):
        raise InputError(
            "Received invalid `representative_data`, expected inputs of shape "
            f"{[tuple(spec.shape[1:]) for spec in specs]}. Received: {shapes}"
        )
    return [
        array.astype(spec.dtype.as_numpy_dtype) for array, spec in zip(arrays, specs, strict=True)
    ]


def _random_samples(specs):
    rng = np.random.default_rng(0)
    samples = []
    for spec in specs:
        shape = [16, *(32 if side is None else side for side in spec.shape[1:])]
        values = rng.normal(size=shape) if spec.dtype.is_floating else rng.integers(0, 2, shape)
        samples.append(values.astype(spec.dtype.as_numpy_dtype))
    return samples


def computes_in_float32(model):
    """Whether all layers of a model compute in float32."""
    return not any(layer.compute_dtype in _OTHER_FLOATS for layer in flatten_layers(model))


def in_float32(model):
    """Returns the model, or a clone in float32, in which TFLite computes."""
    if computes_in_float32(model):
        return model

    def edit(config, parents):
        policy = config.get("dtype")
        name = policy["config"].get("name") if isinstance(policy, dict) else policy
        if str(name).removeprefix("mixed_") in _OTHER_FLOATS:
            return {**config, "dtype": "float32"}
        return config

    try:
        return clone.rebuild(model, edit)
    except ValueError as error:
        raise ExportError(str(error)) from error


def named_outputs(outputs):
    """Returns {name: output}, by the names that an exported signature gives them."""
    if isinstance(outputs, dict):
        return outputs
    return {f"output_{i}": output for i, output in enumerate(keras.tree.flatten(outputs))}


def convert(model, specs, quantization, samples):
    """Returns the bytes of a .tflite file.

    Args:
        model: A model that computes in float32.
        specs: What `input_specs` returns.
        quantization: As `export_tflite` takes it.
        samples: What `flat_samples` returns; int8 takes the ranges of activations from them.

    Raises:
        ExportError: naming the operators that TFLite lacks.
    """
    flat_specs = keras.tree.flatten(specs)
    models = signatures(model)
    with tempfile.TemporaryDirectory() as folder:
        try:
            _save(model, models, specs, folder)
        except InputError:
            raise
        except Exception as error:  # whatever the code of a custom layer raises
            raise ExportError(
                f"Cannot export {model.name!r}, expected a model that runs on inputs of shape "
                f"{[tuple(spec.shape) for spec in flat_specs]}. Received: {last_cause(error)}"
            ) from error
        converter = tf.lite.TFLiteConverter.from_saved_model(folder, signature_keys=list(models))
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
                (key, {n: array[i : i + 1] for n, array in zip(names, samples, strict=True)})
                for key in models
                for i in range(len(samples[0]))
            )
        try:
            return converter.convert()
        except Exception as error:  # the converter raises classes of its own, and RuntimeError
            raise ExportError(
                f"Cannot convert {model.name!r} with quantization={quantization!r}, expected "
                f"operators that TFLite has built in. Received: {_reason(error)}"
            ) from error


def _save(model, models, specs, folder):
    """Writes a SavedModel with an endpoint per signature."""

    def serve(model, *inputs):
        outputs = model(keras.tree.pack_sequence_as(specs, inputs), training=False)
        return {name: tf.cast(v, tf.float32) for name, v in named_outputs(outputs).items()}

    archive = keras.export.ExportArchive()
    archive.track(model)
    for name, served in models.items():
        function = functools.partial(serve, served)
        archive.add_endpoint(name, function, input_signature=keras.tree.flatten(specs))
    archive.write_out(folder, verbose=False)


def _reason(error):
    """Returns the operators that the converter names, or else the gist of its first line."""
    named = re.findall(r"(?:TF Select|Flex|Custom) ops: ([^\n]*)", str(error))
    return ", ".join(named) or str(error).strip().splitlines()[0].rsplit("): ", 1)[-1]
