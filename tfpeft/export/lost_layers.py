"""Which layers of an int8 file lost most of what the float file computes."""

import contextlib
import functools

import numpy as np
import tensorflow as tf

from tfpeft.core.hooks import intercepting
from tfpeft.core.layers import layers_by_path, matching_patterns


def losses_by_tensor(file, exact, signature, graph, samples):
    """Returns {source of a tensor: how much its relative error exceeds that of what it is made of}.

    Args:
        file: The int8 `TFLiteFile`.
        exact: The float one.
        signature: The signature.
        graph: The `FloatGraph` of that signature.
        samples: A list of arrays (batch, ...), in the order of the inputs.
    """
    ours, theirs = file.observed(signature), exact.observed(signature)
    for program in (ours, theirs):
        program.feed(dict(zip(program.inputs, samples, strict=True)))
        program.invoke()
    values = ours.values()
    errors, losses = {}, {}
    for op in graph.operators:
        inherited = max((errors.get(tensor, 0.0) for tensor in op.inputs), default=0.0)
        for tensor in op.outputs:
            name = graph.name(tensor)
            expected = theirs.tensor(tensor) if graph.is_float(tensor) else None
            found = values.get(name)
            errors[tensor] = inherited
            if found is None or expected is None or found.shape != expected.shape:
                continue
            errors[tensor] = _relative(found, expected)
            losses[graph.source(tensor)] = errors[tensor] - inherited
    return losses


def _relative(found, expected):
    """Returns the error relative to the spread, the mean over columns of the last axis."""
    values = np.where(np.abs(expected) < 1e30, expected, 0.0)  # without masks
    found = np.where(np.abs(expected) < 1e30, found, 0.0)
    columns = values.shape[-1] if values.ndim > 1 else 1
    error = np.mean((found - values).reshape(-1, columns) ** 2, axis=0)
    spread = np.var(values.reshape(-1, columns), axis=0)
    least = (1e-3 * np.max(np.abs(values), initial=0.0)) ** 2 + 1e-30
    constant = spread < (1e-6 * np.max(np.abs(values), initial=0.0)) ** 2 + 1e-30
    return float(np.sqrt(np.mean(error / np.where(constant, least, spread))))


class LayerNames:
    """The layers of a model by the names of tensors in its files.

    A tensor has the name of the scope in which it was made. Which scope is that of a layer is
    recorded while the model is traced, as TensorFlow numbers scopes that repeat.

    Args:
        model: The model.
    """

    def __init__(self, model):
        self._paths = list(layers_by_path(model))
        self._scopes = {}

    @contextlib.contextmanager
    def recording(self, model):
        """A context that records the scopes of the layers of a model, or of its clone."""

        def record(path, call, *args, **kwargs):
            self._scopes[tf.get_current_name_scope()] = path
            return call(*args, **kwargs)

        layers = layers_by_path(model)
        functions = [functools.partial(record, path) for path in layers]
        with intercepting(layers.values(), functions):
            yield

    def layer_of(self, tensor):
        """Returns the path of the innermost layer that a tensor comes from; None if of none."""
        # A tensor of fused operators has the names of all, "a/MatMul;b/Relu".
        found = [self._innermost(part) for part in tensor.split(";")]
        return next((path for path in found if path is not None), None)

    def tensors_of(self, patterns, sources):
        """Returns the tensors that come from layers which match patterns, of {tensor: source}."""
        layers = set(self.matching(patterns))
        return {tensor for tensor, source in sources.items() if self._all(source) & layers}

    def matching(self, patterns):
        """Returns the paths of the layers that match patterns."""
        return [path for path in self._paths if matching_patterns(path, patterns)]

    def some(self):
        """Returns the first paths, for errors."""
        return self._paths[:10]

    def _all(self, source):
        found = set()
        for part in source.split(";"):
            path = self._innermost(part)
            while path:
                found.add(path)
                path = path.rpartition("/")[0]
        return found

    def _innermost(self, name):
        while "/" in name:
            name = name.rpartition("/")[0]
            if name in self._scopes:
                return self._scopes[name]
        return None
