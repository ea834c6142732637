"""Which layer an operator of a file comes from: what lost most in int8, what does not load."""

import contextlib
import functools
import re

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


def failed_operator(file, error, layers):
    """Returns which operator of a `TFLiteFile` an error of the interpreter names, and why.

    Args:
        file: The file.
        error: What it raised when it was opened or run.
        layers: The `LayerNames` of the model.
    """
    reason = str(error.__cause__ or error).rpartition("/")[2]
    named = re.search(r"Node number (\d+) \((\w+)\)", reason)
    if named is None:
        return reason
    from ai_edge_litert import schema_py_generated as schema  # late: slow to import

    from tfpeft.export.float_graph import FloatGraph

    reason = " ".join(reason[: named.start()].split())
    model = schema.ModelT.InitFromPackedBuf(file.content)
    for index in range(len(model.subgraphs)):
        graph = FloatGraph(model, index)
        op = dict(enumerate(graph.operators)).get(int(named[1]))
        if op is not None and op.name == named[2]:
            # What goes wrong earlier may fail only here.
            chain = [op, *_before(graph, op)]
            found = (layers.layer_of(graph.source(op.outputs[0])) for op in chain if op.outputs)
            found = list(dict.fromkeys(filter(None, found)))
            names = list(dict.fromkeys(op.name for op in chain[1:]))
            after = f" after {', '.join(names)}" if names else ""
            return f"{op.name}{after} (layers: {', '.join(found)}): {reason}"
    return f"{named[2]}: {reason}"


def _before(graph, op, most=8):
    """Returns the operators that an operator's first input comes from, backwards."""
    found = []
    while len(found) < most and op.inputs and op.inputs[0] in graph.makers:
        op = graph.makers[op.inputs[0]]
        found.append(op)
    return found


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
