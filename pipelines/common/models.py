"""Models and functions that flags name: files, custom classes, module:function."""

import importlib
import importlib.util
import json
import pathlib
import zipfile

import h5py
import keras

from pipelines.common.errors import invalid_flag, user_code
from tfpeft.core import model_files
from tfpeft.core.paths import file_to_read
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.loading.model_loading import open_model
from tfpeft.loading.saved_metadata import keras_config

KERAS_FILES = model_files.SUFFIXES
_CLASSES = (keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric)


def import_custom_objects(reference):
    """Imports the module or file of --custom_objects; returns its Keras classes by name."""
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
        if isinstance(value, type) and issubclass(value, _CLASSES)
    }


def call_function(reference, flag):
    """Calls the `package.module:function` that --`flag` names, without arguments."""
    module, _, name = reference.partition(":")
    if not all(part.isidentifier() for part in (*module.split("."), name)):
        raise invalid_flag(flag, "module:function", reference)
    with user_code(f"--{flag}={reference}"):
        function = getattr(importlib.import_module(module), name)
    if not callable(function):
        received = f"{reference}, which is of type {type(function).__name__}"
        raise invalid_flag(flag, "module:function", received)
    with user_code(f"--{flag}={reference}"):
        return function()


def load_model(path, flag="model", custom_objects=None):
    """Loads what `tfpeft.load_model` takes, not compiled; `flag` is the one an error names."""
    return open_model(path, f"--{flag}", custom_objects)


def load_teacher(path, custom_objects):
    """Loads what --teacher names: a Keras model or a `TFLiteFile`."""
    if pathlib.Path(path).suffix == ".tflite":
        file = TFLiteFile(path)
        file.signature()  # raises for a bad file
        return file
    return load_model(path, "teacher", custom_objects)


def predict(model, x):
    """Returns the outputs of a Keras model or of a `TFLiteFile`."""
    return model.predict(x) if isinstance(model, TFLiteFile) else model.predict(x, verbose=0)


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


def compiled_loss(path):
    """Returns the name of the loss that the model of a file was compiled with, or None.

    It is read as text: the loss may be one of the user's code.
    """
    try:
        if pathlib.Path(path).is_dir():
            config = (keras_config(pathlib.Path(path)) or {}).get("training_config") or {}
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                config = json.loads(file.read("config.json")).get("compile_config") or {}
        else:
            with h5py.File(path, "r") as file:
                config = json.loads(file.attrs.get("training_config", "{}"))
    except (OSError, ValueError, KeyError):
        return None
    loss = config.get("loss")
    if isinstance(loss, list) and len(loss) == 1:
        loss = loss[0]
    if isinstance(loss, dict) and "class_name" not in loss and len(loss) == 1:
        loss = next(iter(loss.values()))
    if isinstance(loss, dict):
        is_function = loss.get("class_name") == "function"
        loss = loss.get("config" if is_function else "class_name")
    return loss if isinstance(loss, str) else None
