"""Frees the graphs of the training of a trial, which TensorFlow would keep for good."""

import contextlib
import gc

from tensorflow.python.framework import ops


@contextlib.contextmanager
def training_graphs_freed():
    """A context whose training graphs are freed when it ends; a search traces hundreds of them.

    Each training step that Keras traces registers a gradient in TensorFlow's registry, which holds
    the whole graph, some 30 MB. Nothing reads these gradients once the step is traced.
    """
    before = set(ops.gradient_registry.list())
    try:
        yield
    finally:
        for name in set(ops.gradient_registry.list()) - before:
            if name.startswith("CustomGrad"):
                del ops.gradient_registry._registry[name]
        gc.collect()
