"""TFMOT, imported on first use and without its side effects, whoever imports it.

TFMOT sets TF_USE_LEGACY_KERAS, and a `tf.keras` that nobody has touched before becomes tf_keras for
the whole process. So this module touches `tf.keras`, which is cheap as Keras is there already, and
puts the variable back after TFMOT's import, which may be the user's, later on.
"""

import contextlib
import importlib
import importlib.machinery
import os
import sys

import tensorflow as tf

_NAME = "tensorflow_model_optimization"

tf.keras.Model  # noqa: B018


def import_tfmot():
    """Returns the module `tensorflow_model_optimization`; the first call imports it."""
    return importlib.import_module(_NAME)


@contextlib.contextmanager
def _environment_kept():
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        yield
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before


class _Finder:
    """Finds TFMOT for Python's import, with a loader that keeps the environment."""

    def find_spec(self, name, path=None, target=None):
        if name != _NAME:
            return None
        spec = importlib.machinery.PathFinder.find_spec(name, path, target)
        if spec is not None:
            spec.loader.exec_module = _keeping_environment(spec.loader.exec_module)
        return spec


def _keeping_environment(exec_module):
    def execute(module):
        with _environment_kept():
            exec_module(module)

    return execute


sys.meta_path.insert(0, _Finder())
