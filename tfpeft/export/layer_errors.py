"""How much each layer of an integer file loses, against the float file that it was made of."""

import contextlib
import contextvars
import math

import numpy as np

from tfpeft.export.samples import stacked

_WEIGHTED = ("CONV_2D", "CONV_3D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV")
_SAMPLES = 64  # that are measured while a file is written
_RECORD = contextvars.ContextVar("record", default=None)


@contextlib.contextmanager
def recording_layer_errors():
    """A context whose value is {layer: SNR in dB} of the integer file that is written inside.

    It is filled when `export_tflite` has written the file; of a float file it stays empty.
    """
    found = {}
    token = _RECORD.set(found)
    try:
        yield found
    finally:
        _RECORD.reset(token)


def record_layer_errors(exact, file, graphs, names, samples):
    """Records the ratios of the layers of a file, if a context asks for them.

    Args:
        exact: The float `TFLiteFile`.
        file: The integer one.
        graphs: {signature: `FloatGraph`} of the float file.
        names: The `LayerNames` of the model.
        samples: Lists of arrays (1, ...) in the order of the inputs.
    """
    found = _RECORD.get()
    if found is None or not samples:
        return
    some = samples[:_SAMPLES]

    def batches(signature):
        sizes = (opened.signature(signature).batch for opened in (exact, file))
        size = next((size for size in sizes if size is not None), len(some))
        return (arrays for arrays in stacked(some, size) if len(arrays[0]) == size)

    try:
        ratios = layer_ratios(exact, file, tensors_by_layer(graphs, names), batches)
    except (ValueError, RuntimeError):  # of a graph that cannot keep the values of its tensors
        return
    found.update({layer: ratio for layer, ratio in ratios.items() if ratio is not None})


def tensors_by_layer(graphs, names):
    """Returns {path of a layer: names of the tensors that it makes}, in the order of the file."""
    found = {}
    for graph in graphs.values():
        for op in graph.operators:
            layer = _layer_of(graph, op, names)
            if layer is not None and any(map(graph.is_float, op.outputs)):
                found.setdefault(layer, []).extend(map(graph.name, op.outputs))
    return found


def _layer_of(graph, op, names):
    """Returns the layer of the kernel, rather than that of an activation fused into it."""
    kernels = [graph.name(t) for t in op.inputs[1:2] if op.name in _WEIGHTED]
    found = (names.layer_of(name) for name in (*kernels, graph.source(op.outputs[0])))
    return next((layer for layer in found if layer is not None), None)


def layer_ratios(exact, file, layers, batches):
    """Returns {layer: the least SNR of the tensors that it makes, in dB, or None}.

    Args:
        exact: The float `TFLiteFile`.
        file: The integer one.
        layers: {layer: names of tensors}.
        batches: A function (signature) that returns lists of arrays (batch, ...).
    """
    sums = {name: np.zeros(2) for names in layers.values() for name in names}
    for signature in exact.signatures:
        programs = exact.observed(signature), file.observed(signature)
        for arrays in batches(signature):
            for program in programs:
                program.feed(dict(zip(programs[0].inputs, arrays, strict=True)))
                program.invoke()
            expected, values = (program.values() for program in programs)
            for name in sums.keys() & expected.keys() & values.keys():
                if expected[name].shape == values[name].shape:
                    sums[name] += powers(expected[name], values[name])
    return {
        layer: min((decibels(*sums[name]) for name in names if sums[name].any()), default=None)
        for layer, names in layers.items()
    }


def powers(expected, found):
    """Returns the sums of squares of the signal and of the noise."""
    expected = expected.astype(np.float64)
    return np.array([np.sum(expected**2), np.sum((expected - found) ** 2)])


def decibels(signal, noise):
    """Returns the signal-to-noise ratio of two sums of squares in dB, infinite without noise."""
    if noise == 0:
        return math.inf
    return 10 * math.log10(max(signal, 1e-300) / noise)
