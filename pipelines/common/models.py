"""Models and functions that flags name: files, custom classes, module:function."""

import importlib
import importlib.util
import pathlib
import types

import keras
import tensorflow as tf

from pipelines.common.errors import invalid_flag, user_code
from tfpeft.core import graph, model_files
from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.paths import file_to_read
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.loading.lambdas import ALLOWED
from tfpeft.loading.model_loading import open_model
from tfpeft.loading.named_models import APPLICATIONS, is_name
from tfpeft.loading.saved_models import is_saved_model

KERAS_FILES = model_files.SUFFIXES
_CLASSES = (keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric)


def import_custom_objects(reference):
    """Imports the module or file of --custom_objects; returns its Keras classes and functions.

    Functions are those that losses, metrics, activations and Lambda layers name. The result is
    {name: class or function}.
    """
    if reference is None:
        return {}
    is_file = reference.endswith(".py")
    if is_file:
        path = file_to_read(reference, "--custom_objects", "a module or a .py file")
    with user_code(f"--custom_objects={reference}"):
        if is_file:
            spec = importlib.util.spec_from_file_location(path.stem, path)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(reference)
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, types.FunctionType)
        or (isinstance(value, type) and issubclass(value, _CLASSES))
    }


def call_function(reference, flag):
    """Calls the `package.module:function` that --`flag` names, without arguments."""
    function = import_function(reference, flag)
    with user_code(f"--{flag}={reference}"):
        return function()


def import_function(reference, flag):
    """Returns the `package.module:function` that --`flag` names."""
    module, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise invalid_flag(flag, "module:function", reference)
    with user_code(f"--{flag}={reference}"):
        function = getattr(importlib.import_module(module), name)
    if not callable(function):
        received = f"{reference}, which is of type {type(function).__name__}"
        raise invalid_flag(flag, "module:function", received)
    return function


def load_model(path, flag="model", custom_objects=None, *, trust_code=False):
    """Loads what `tfpeft.load_model` takes, not compiled; `flag` is the one an error names.

    Outputs in a list become a dict by the names of their layers.

    Args:
        path: The file, the folder or the name.
        flag: The flag.
        custom_objects: {name: class or function} of --custom_objects.
        trust_code: Whether code in the file runs: --trust_code.
    """
    model = load_as_saved(path, f"--{flag}", custom_objects, trust_code=trust_code)
    return with_named_outputs(model)


def load_as_saved(path, argument, custom_objects=None, *, trust_code=False):
    """Loads what `load_model` does, with outputs as they are; errors name the `argument`."""
    try:
        return open_model(path, argument, custom_objects, safe_mode=not trust_code)
    except InputError as error:
        text = str(error).replace(ALLOWED, "give --trust_code")
        raise InputError(text.replace("`custom_objects`", "--custom_objects")) from error


def with_named_outputs(model):
    """Returns a functional model with outputs in a list as one with a dict, by their names.

    It shares the layers. Keras sorts the keys of a dict: nothing may go by position after that.
    Other models are returned as they are.
    """
    names = graph.output_names(model)
    if names is None or not graph.is_graph(model):
        return model
    outputs = dict(zip(names, model.outputs, strict=True))
    return keras.Model(graph.input_structure(model), outputs, name=model.name)


class NamedFile(TFLiteFile):
    """A .tflite file of a model with outputs in a list, which have the model's names here."""

    def __init__(self, path, names):
        super().__init__(path)
        self.names = {name: f"output_{i}" for i, name in enumerate(names)}

    def predict(self, x):
        """Returns {name: array}."""
        outputs = super().predict(x)
        return {name: outputs[own] for name, own in self.names.items()}

    def last_activation(self, *, output):
        """Returns the last activation of an output by its name."""
        return super().last_activation(output=self.names[output])


def with_names(file, names):
    """Returns a `TFLiteFile`, as a `NamedFile` where its outputs are those of a list of `names`."""
    is_list = set(file.signature().outputs) == {f"output_{i}" for i in range(len(names or ()))}
    return NamedFile(file.path, names) if is_list else file


def is_model(value):
    """Whether a value of a flag names what `load_model` takes, and no function or width."""
    path = pathlib.Path(value)
    return path.suffix in KERAS_FILES or path.is_dir() or is_name(value)


def is_model_of_arrays(value):
    """Whether --backbone names a file of Keras, a SavedModel or an application, and no preset."""
    is_application = value.startswith(APPLICATIONS)
    folder = pathlib.Path(value).expanduser()
    return value.endswith(KERAS_FILES) or is_application or is_saved_model(folder)


def load_teacher(path, custom_objects, *, trust_code=False):
    """Loads what --teacher names: a Keras model or a `TFLiteFile`."""
    if pathlib.Path(path).suffix == ".tflite":
        file = TFLiteFile(path)
        file.signature()  # raises for a bad file
        return file
    return load_model(path, "teacher", custom_objects, trust_code=trust_code)


def predict(model, x):
    """Returns the outputs of a Keras model or of a `TFLiteFile`."""
    return model.predict(x) if isinstance(model, TFLiteFile) else model.predict(x, verbose=0)


def call(model, x, received):
    """Returns the outputs of a Keras model or of a `TFLiteFile` for inputs x."""
    if isinstance(model, TFLiteFile):
        return model.predict(x)
    try:
        return model(x, training=False)
    except (ValueError, TypeError, KeyError, tf.errors.InvalidArgumentError) as error:
        shape = x.shape[1:] if hasattr(x, "shape") else {name: x[name].shape[1:] for name in x}
        raise InputError(
            f"Received a model and a dataset that do not fit: {received} does not take inputs of "
            f"shape {shape}. Received: --dataset with these: {last_cause(error)}"
        ) from error


def input_shape(model):
    """Returns the shape (...) of a sample for a Keras model or a `TFLiteFile`.

    Free sides are None. None if the model has several inputs, or does not know their shape.
    """
    if isinstance(model, TFLiteFile):
        shape, *others = model.signature().inputs.values()
        return None if others else tuple(None if side < 0 else side for side in shape[1:])
    shape = getattr(model, "input_shape", None)
    return shape[1:] if isinstance(shape, tuple) and not _is_nested(shape) else None


def _is_nested(shape):
    return any(isinstance(side, (tuple, list)) for side in shape)
