"""A Keras model as the bytes of a .tflite file: signatures, input specs, the converter."""

import bisect
import contextlib
import functools
import itertools
import re
import tempfile

import keras
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.arguments import ExportError, InputError, last_cause, unexpected
from tfpeft.core.graph import calls, flatten_layers, input_structure, is_graph
from tfpeft.core.inputs import ModelInput, model_inputs
from tfpeft.export.converter import convert_saved_model
from tfpeft.export.tflite_signature import file_names

SIGNATURE = "serving_default"
_FLAGS = {
    "float16": {"post_training_quantize": True, "quantize_to_float16": True},
    "dynamic_range": {"post_training_quantize": True, "enable_mlir_dynamic_range_quantizer": True},
}
_OTHER_FLOATS = ("float16", "bfloat16", "float64")


def signatures(model):
    """Returns {name: model} of the signatures that a file gets.

    A model of several has `serving_signatures`, a method that returns them.
    """
    several = getattr(model, "serving_signatures", None)
    return {SIGNATURE: model} if several is None else several()


def known_inputs(model, data):
    """Returns a `ModelInput` for each input, in the structure that the model is called with.

    Args:
        model: The model.
        data: Some samples, which give a subclassed model its shapes and types; or None.

    Raises:
        InputError: for a subclassed model without data.
    """
    if input_structure(model) is not None:
        return model_inputs(model)
    if data is None:
        raise unexpected(
            "`representative_data` for a subclassed model, whose input shapes are not known",
            f"{model.name!r} without",
        )
    names = (f"input_{i}" for i in itertools.count())

    def described(path, tensor):
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        keys = [key for key in path if isinstance(key, str)]
        name = ".".join(keys) if len(keys) == len(path) and keys else next(names)
        return ModelInput(name, tuple(tensor.shape[1:]), dtype)

    found = keras.tree.flatten_with_path(data)
    return keras.tree.pack_sequence_as(data, [described(*pair) for pair in found])


@contextlib.contextmanager
def initial_states(model):
    """A context in which stateful layers begin at their initial states; their own come back."""
    layers = [layer for layer in flatten_layers(model) if getattr(layer, "stateful", False)]
    layers = [layer for layer in layers if hasattr(layer, "reset_state")]
    states = [keras.tree.flatten(getattr(layer, "states", None) or []) for layer in layers]
    before = [[state.numpy() for state in of_layer] for of_layer in states]
    for layer in layers:
        layer.reset_state()
    try:
        yield
    finally:
        for of_layer, values in zip(states, before, strict=True):
            for state, value in zip(of_layer, values, strict=True):
                state.assign(value)


def fixed_batch_size(model):
    """Returns the batch size that a model insists on; None if it is free."""
    structure = input_structure(model)
    tensors = [] if structure is None else keras.tree.flatten(structure)
    return max({tensor.shape[0] for tensor in tensors} - {None}, default=None)


def input_specs(inputs, batch_size):
    """Returns a TensorSpec per input, in order, by the names that a file gives them."""
    leaves = keras.tree.flatten(inputs)
    names = file_names([leaf.name for leaf in leaves])
    return [
        tf.TensorSpec(
            [batch_size, *leaf.shape],
            "float32" if leaf.dtype in _OTHER_FLOATS else leaf.dtype,
            name=name,
        )
        for name, leaf in zip(names, leaves, strict=True)
    ]


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


def quantization_settings(model):
    """Returns what a quantise-aware model says of its file; None for other models.

    Such a model, or one in it, has `export_settings`, a dict of "weight_bits", "activation_bits",
    "float_layers" (patterns) and "in_float" ({layer: why}), and `exporting`.

    Returns:
        These, and "quantization", the argument of `export_tflite` that fits; or None.

    Raises:
        InputError: if several models inside one model differ in their bits.
    """
    found = [each.export_settings for each in _quantise_aware(model)]
    if not found:
        return None
    bits = {(each["weight_bits"], each["activation_bits"]) for each in found}
    if len(bits) > 1:
        raise unexpected("quantise-aware models of the same bits inside one model", sorted(bits))
    kept = [pattern for each in found for pattern in each["float_layers"]]
    quantization = "int8" if found[0]["activation_bits"] == 8 else "int16x8"
    in_float = {path: why for each in found for path, why in each["in_float"].items()}
    joined = {"float_layers": kept, "in_float": in_float, "quantization": quantization}
    return {**found[0], **joined}


@contextlib.contextmanager
def marking_ranges(model):
    """A context in which quantise-aware models mark their ranges; see `quantization_marks`."""
    with contextlib.ExitStack() as stack:
        for each in _quantise_aware(model):
            stack.enter_context(each.exporting())
        yield


def _quantise_aware(model):
    return [layer for layer in flatten_layers(model) if hasattr(layer, "export_settings")]


def named_outputs(outputs):
    """Returns {name: output}, by the names that an exported signature gives them."""
    if isinstance(outputs, dict):
        return outputs
    return {f"output_{i}": output for i, output in enumerate(keras.tree.flatten(outputs))}


def convert(model, inputs, specs, quantization, layers=None):
    """Returns the bytes of a .tflite file, in float32 for int8.

    Args:
        model: A model that computes in float32.
        inputs: What `known_inputs` returns.
        specs: What `input_specs` returns.
        quantization: As `export_tflite` takes it.
        layers: The `LayerNames` of the model, for errors.

    Raises:
        ExportError: naming the operators that TFLite lacks, and their layers.
    """
    try:
        return _converted(model, inputs, specs, quantization)
    except ConversionError as error:
        raise ExportError(
            f"Cannot convert {model.name!r} with quantization={quantization!r}, expected "
            "operators that TFLite has built in. Received: "
            f"{_reason(model, inputs, specs, quantization, layers, error.__cause__)}"
        ) from error.__cause__


class ConversionError(Exception):
    """The converter raised, or ended its process; the cause is the exception."""


def _converted(model, inputs, specs, quantization):
    """Returns the bytes of a .tflite file, or raises a `ConversionError`."""
    models = signatures(model)
    with tempfile.TemporaryDirectory() as folder:
        write_saved_model(model, models, inputs, specs, folder, output_dtype="float32")
        try:
            return convert_saved_model(folder, list(models), **_FLAGS.get(quantization, {}))
        except Exception as error:  # the converter raises classes of its own, and RuntimeError
            raise ConversionError from error


def write_saved_model(model, models, inputs, specs, folder, *, output_dtype=None):
    """Writes a SavedModel with an endpoint per signature.

    Args:
        model: The model.
        models: {signature: model}, as `signatures` returns it.
        inputs: What `known_inputs` returns.
        specs: What `input_specs` returns.
        folder: Where it goes.
        output_dtype: The type of all outputs; None for those of the model.

    Raises:
        ExportError: if the model does not run on such inputs.
    """

    def serve(model, *tensors):
        outputs = model(keras.tree.pack_sequence_as(inputs, tensors), training=False)
        named = named_outputs(outputs)
        if output_dtype is None:
            return named
        return {name: tf.cast(v, output_dtype) for name, v in named.items()}

    archive = keras.export.ExportArchive()
    with running_on(model, specs):
        # Traced here, as older versions of Keras give every signature a free batch size.
        functions = {
            name: tf.function(functools.partial(serve, served), specs, autograph=False)
            for name, served in models.items()
        }
        if any(_reads_tables(each.get_concrete_function()) for each in functions.values()):
            archive.track(model)  # Keras searches all that the model holds for its tables
        # Keras tracks its own variables beside TensorFlow's in them: each weight is saved twice.
        for name in ("variables", "trainable_variables", "non_trainable_variables"):
            archive.add_variable_collection(name, [each.value for each in getattr(model, name)])
        for name, function in functions.items():
            archive.add_endpoint(name, function)
        archive.write_out(folder, verbose=False)


def _reads_tables(function):
    """Whether a concrete function reads what is neither constant nor variable: lookup tables."""
    variables = {id(variable.handle) for variable in function.graph.variables}
    return any(
        each.dtype == tf.resource and id(each) not in variables for each in function.captured_inputs
    )


@contextlib.contextmanager
def running_on(model, specs):
    """A context in which what a model raises, as it is traced, is an ExportError of one line."""
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:  # whatever the code of a custom layer raises
        raise ExportError(
            f"Cannot export {model.name!r}, expected a model that runs on inputs of shape "
            f"{[tuple(spec.shape) for spec in specs]}. Received: {last_cause(error)}"
        ) from error


def _reason(model, inputs, specs, quantization, layers, error):
    """Returns the operators that the converter names, or the gist of its error, and the layers."""
    quantized = [
        f"{layer.name} ({layer.quantization_mode})"
        for layer in flatten_layers(model)
        if getattr(layer, "quantization_mode", None)
    ]
    named = re.findall(r"(?:TF Select|Flex|Custom) ops: ([^\n]*)", str(error))
    if quantized and not named:
        return (
            f"layers that Keras quantized, such as {quantized[0]}; export the model as it was "
            "before `quantize`"
        )
    first = str(error).split("\n<unknown>")[0]
    reason = ", ".join(named) or last_cause(
        RuntimeError(re.sub(r"^.*error: loc\(.*\)\): ", "", first, flags=re.DOTALL))
    )
    found = [] if layers is None else _located(error, layers)
    if not found:
        found = [_first_failing(model, inputs, specs, quantization)]
    found = ", ".join(filter(None, found))
    if not found:
        return f"{reason}; no single layer is the cause"
    return f"{reason} (layers: {found}); use other operations in them, or a model without them"


def _located(error, layers):
    """Returns the layers that an error of the converter names by the scopes of operators."""
    places = re.findall(r'error: loc\([^\n]*?"([^"@]+)@__inference', str(error))
    return list(dict.fromkeys(filter(None, map(layers.layer_of, places))))


def _first_failing(model, inputs, specs, quantization):
    """Returns the first layer of a model up to which it cannot be converted; None if of none.

    The converter does not always name an operator, as when it ends its process. Then parts of the
    model are converted, half of what is in question in each step.
    """
    if not is_graph(model) or len(signatures(model)) > 1:
        return None
    made = calls(model)

    def converts(count):
        outputs = [tensor for call in made[:count] for tensor in call.outputs]
        part = keras.Model(input_structure(model), outputs)
        try:
            _converted(part, inputs, specs, quantization)
        except (ConversionError, ExportError):
            return False
        return True

    count = bisect.bisect_left(range(1, len(made) + 1), True, key=lambda n: not converts(n))
    return made[count].operation.name if count < len(made) else None
