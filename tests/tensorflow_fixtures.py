"""Fixtures of every test, and TensorFlow as the tests need it: graphs, tracing and replicas."""

import gc
import types
import weakref

import keras
import pytest
import tensorflow as tf
from tensorflow.python.framework import ops

from tests import cheap_tracing

# Scripts that are called in this process ask for it. It is for good, and XLA cannot compile then.
tf.config.experimental.enable_op_determinism = lambda: None
# Before anything runs on the CPU: later it can no longer be split.
tf.config.set_logical_device_configuration(
    tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
)
# Graphs are many objects and little garbage, and `_free_graphs` collects it after each test.
gc.set_threshold(100_000, 50, 1000)
_LITTLE = 10_000
"""Objects of some light tests, which are not worth a search for garbage; a graph has more."""

_layers = weakref.WeakSet()
_new_layer = keras.layers.Layer.__new__


def _remember(cls, *args, **kwargs):
    layer = _new_layer(cls, *args, **kwargs)
    _layers.add(layer)
    return layer


keras.layers.Layer.__new__ = _remember


@pytest.fixture(scope="session", autouse=True)
def _known_layers():
    """Keeps a list of all layers, for `_search_for_layers`."""
    with pytest.MonkeyPatch.context() as patch:
        known = types.SimpleNamespace(get_objects=lambda: [*_layers], get_freeze_count=lambda: 0)
        patch.setattr("tfpeft.core.layers.gc", known)
        yield


@pytest.fixture(autouse=True)
def _search_for_layers(request, monkeypatch):
    """Searches for layers as users do in tests that are marked `as_users_run`.

    A sparse optimizer asks Python's garbage collector for all layers. A process of tests has so
    many objects that this takes as long as a short training.
    """
    if request.node.get_closest_marker("as_users_run") is not None:
        monkeypatch.setattr("tfpeft.core.layers.gc", gc)


@pytest.fixture(autouse=True)
def _free_graphs():
    """Frees the training graphs of a test, and takes what is left out of searches for garbage.

    Each training step that Keras traces registers the gradient of an all-reduce in TensorFlow's
    registry, which holds the whole graph for good. Nothing reads these gradients once a step is
    traced. Without them a worker of the test run stays below 2 GB, and a search for garbage, which
    Keras and the converter to TFLite make again and again, takes milliseconds, not seconds.
    """
    yield
    for name in [name for name in ops.gradient_registry.list() if name.startswith("CustomGrad")]:
        del ops.gradient_registry._registry[name]
    if gc.get_count()[0] > _LITTLE:
        gc.collect()
        gc.freeze()


@pytest.fixture(autouse=True)
def _cheap_tracing(request, monkeypatch):
    """Makes short runs of a model cheap, but in tests that are marked `as_users_run`."""
    if request.node.get_closest_marker("as_users_run") is None:
        cheap_tracing.apply(monkeypatch.setattr)
    else:
        tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.fixture(scope="session")
def mirrored():
    """One strategy for all tests: two in a process disagree about their collective operations."""
    return tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
