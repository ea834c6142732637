"""Models and functions that flags name: files, custom classes, module:function."""

import importlib
import importlib.util
import pathlib

import keras
import numpy as np

from pipelines.common.errors import invalid_flag
from tfpeft.core.arguments import InputError, last_cause
from tfpeft.evaluation.quality import are_logits
from tfpeft.export.tflite_file import TFLiteFile

KERAS_FILES = (".keras", ".h5")
_CLASSES = (keras.layers.Layer, keras.losses.Loss, keras.metrics.Metric)


def import_custom_objects(reference):
    """Imports the module or file of --custom_objects; returns its Keras classes by name."""
    if reference is None:
        return {}
    try:
        if reference.endswith(".py"):
            spec = importlib.util.spec_from_file_location(pathlib.Path(reference).stem, reference)
            module = importlib.util.module_from_spec(spec)
            spec.loader.exec_module(module)
        else:
            module = importlib.import_module(reference)
    except (ImportError, OSError, SyntaxError) as error:
        received = f"{reference}: {error}"
        raise invalid_flag("custom_objects", "a module or a .py file", received) from error
    return {
        name: value
        for name, value in vars(module).items()
        if isinstance(value, type) and issubclass(value, _CLASSES)
    }


def call_function(reference, flag):
    """Calls the `package.module:function` that --`flag` names, without arguments."""
    module, _, function = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError, ValueError) as error:  # ValueError: an empty name
        raise invalid_flag(flag, "module:function", f"{reference}: {error}") from error
    return function()


def load_model(path, flag="model", custom_objects=None):
    """Loads a .keras or .h5 model without its optimizer; `flag` is the one an error names."""
    expected = f"expected a readable .keras or .h5 model. Received: --{flag}={path}"
    if not pathlib.Path(path).is_file():
        raise InputError(f"Received a missing file, {expected}")
    try:
        return keras.models.load_model(path, custom_objects=custom_objects, compile=False)
    except Exception as error:  # zip, h5py, JSON and Keras each have their own
        raise InputError(f"Received an unreadable file, {expected}: {last_cause(error)}") from error


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
