"""Models and functions that flags name: files, custom classes, module:function."""

import importlib
import importlib.util
import pathlib

import keras
import numpy as np

from pipelines.common.errors import invalid_flag, user_code
from tfpeft.core import model_files
from tfpeft.core.paths import file_to_read
from tfpeft.evaluation.quality import are_logits
from tfpeft.export.tflite_file import TFLiteFile

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
        received = f"{reference}, which is a {type(function).__name__}"
        raise invalid_flag(flag, "module:function", received)
    with user_code(f"--{flag}={reference}"):
        return function()


def load_model(path, flag="model", custom_objects=None):
    """Loads a .keras or .h5 model without its optimizer; `flag` is the one an error names."""
    return model_files.load_model(path, f"--{flag}", custom_objects)


def load_teacher(path, custom_objects):
    """Loads what --teacher names: a Keras model; a .tflite file stays the path that it is."""
    if pathlib.Path(path).suffix == ".tflite":
        TFLiteFile(path).signature()  # raises for a bad file
        return path
    return load_model(path, "teacher", custom_objects)


def predict(model, x):
    """Returns the outputs of a Keras model or of a .tflite file."""
    if isinstance(model, str):
        return TFLiteFile(model).predict(x)
    return model.predict(x, verbose=0)


def outputs_logits(model, x):
    """Whether outputs of a model are logits; else they are probabilities."""
    return are_logits(np.asarray(model(x, training=False)))
