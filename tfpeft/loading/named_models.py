"""Models by name: KerasHub's presets and folders, and keras.applications."""

import difflib
import inspect
import os

import keras

from tfpeft.core.arguments import last_cause, unexpected
from tfpeft.core.paths import invalid_path

APPLICATIONS = "applications:"
_UNTRAINED = ":untrained"
_HANDLES = ("hf://", "kaggle://", "modelscope://")
_FILES = ("config.json", "preprocessor.json", "tokenizer.json", "task.json")


def is_name(path):
    """Whether a text names a model of KerasHub, elsewhere than in a folder, or an application."""
    return path.startswith((APPLICATIONS, *_HANDLES)) or _is_builtin_preset(path)


def is_preset(folder):
    """Whether a folder is a preset of KerasHub, or of Hugging Face."""
    return any((folder / name).is_file() for name in _FILES)


def named_model(name, argument, expected):
    """Returns the application, or the backbone of a preset.

    Args:
        name: "applications:Name", a handle, or the path of a folder.
        argument: What names it in the user's call, for errors.
        expected: What it should be, for errors.
    """
    if name.startswith(APPLICATIONS):
        return _application(name, argument)
    try:
        import keras_hub
    except ImportError as error:
        needed = "KerasHub and what it needs for texts, which `pip install tfpeft[text]` brings"
        raise unexpected(needed, error) from error
    try:
        return keras_hub.models.Backbone.from_preset(name)
    except Exception as error:  # files, JSON, downloads and Keras each have their own
        why = f", which KerasHub cannot load: {last_cause(error)}"
        raise invalid_path(argument, expected, name, why) from error


def _is_builtin_preset(path):
    """Whether KerasHub has a preset of this name; it is imported for names without a suffix."""
    if not path or not path.replace("_", "").replace(".", "").isalnum() or "_" not in path:
        return False
    if path.endswith((".keras", ".h5", ".hdf5", ".tflite")) or os.path.exists(path):
        return False
    try:
        import keras_hub
    except ImportError:
        return False
    return path in keras_hub.models.Backbone.presets


def _application(name, argument):
    text = name.removeprefix(APPLICATIONS)
    untrained = text.endswith(_UNTRAINED)
    text = text.removesuffix(_UNTRAINED)
    functions = {
        each: function
        for each, function in vars(keras.applications).items()
        if inspect.isfunction(function) and each[0].isupper()
    }
    if text not in functions:
        close = ", ".join(difflib.get_close_matches(text, functions, 3, cutoff=0.0))
        expected = (
            f"{APPLICATIONS}Name or {APPLICATIONS}Name{_UNTRAINED}, with a name such as {close}"
        )
        raise invalid_path(argument, expected, name)
    try:
        return functions[text](weights=None if untrained else "imagenet")
    except Exception as error:  # a download, and damaged weights
        why = f", whose weights cannot be loaded: {last_cause(error)}; {_UNTRAINED} needs none"
        raise invalid_path(argument, f"{APPLICATIONS}Name", name, why) from error
