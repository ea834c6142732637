"""Cross-layer equalisation: weights moved between layers, so that channels have like ranges."""

import collections

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.file_writing import to_bytes
from tfpeft.export.tflite_contents import op_name
from tfpeft.export.weighted import columns, constant, rows, weighted_operators

_BY_CHANNEL = (
    *("RELU", "LEAKY_RELU", "PRELU", "MAX_POOL_2D", "AVERAGE_POOL_2D", "MEAN", "PAD"),
    *("RESHAPE", "SQUEEZE", "EXPAND_DIMS", "RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"),
)
"""Operators f with f(s x) = s f(x) for s > 0, that keep the channels of the last axis apart."""
_HOMOGENEOUS = (schema.ActivationFunctionType.NONE, schema.ActivationFunctionType.RELU)
_DEAD = 1e-4
_MOST_ROUNDS, _CONVERGED = 200, 1e-3


def equalized(content):
    """Returns the bytes of a float file with equalised kernels, and how many pairs of layers.

    The outputs are equal to rounding.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    pairs = _pairs(model)
    for _ in range(_MOST_ROUNDS):
        changes = [_equalize(*pair) for pair in pairs]
        if max(changes, default=0.0) < _CONVERGED:
            break
    return to_bytes(model), len(pairs)


def scales(first, second):
    """Returns what the channels between two layers are divided by, (channels,).

        s_i = sqrt(r1_i r2_i) / r2_i

    where r1_i is the largest absolute weight that makes channel i, and r2_i that reads it. After
    it both are sqrt(r1_i r2_i). Channels whose weights are next to nothing in the layer stay, as
    kernels cannot multiply int8 by any number.

    Args:
        first: Weights that make the channels, (channels, ...).
        second: Weights that read them, (channels, ...).
    """
    made, read = (np.abs(side).max(axis=tuple(range(1, side.ndim))) for side in (first, second))
    is_used = (made > _DEAD * made.max()) & (read > _DEAD * read.max())
    return np.sqrt(np.where(is_used, made, 1.0) / np.where(is_used, read, 1.0)).astype("float32")


def _equalize(first, bias, second):
    """Equalises a pair in place; returns the largest change, as a logarithm."""
    factors = scales(first, second)
    first /= factors[:, None]
    if bias is not None:
        bias /= factors
    second *= factors.reshape(-1, *[1] * (second.ndim - 1))
    return float(np.abs(np.log(factors)).max(initial=0.0))


def _pairs(model):
    """Returns the (first, bias, second) that are pairs wherever the file uses their buffers."""
    uses, found, repeats = collections.Counter(), {}, collections.Counter()
    for graph in model.subgraphs:
        for op in graph.operators or []:
            uses.update({graph.tensors[t].buffer for t in op.inputs if t >= 0})
        for first, second, channels in _neighbours(model, graph):
            buffers = [graph.tensors[t].buffer for t in (first.kernel, second.kernel)]
            bias = constant(model, graph, first.bias)
            if bias is not None and not bias.any():
                bias = None  # zeros, which layers share
            if bias is not None:
                buffers.append(graph.tensors[first.bias].buffer)
            elif first.bias >= 0 and constant(model, graph, first.bias) is None:
                continue
            kernel = constant(model, graph, second.kernel)
            width = int(graph.tensors[second.values].shape[-1])
            read = columns(kernel, second.name, width, channels)
            if read is not None:
                made = rows(constant(model, graph, first.kernel), first.name)
                found[tuple(buffers)] = made, bias, read
                repeats[tuple(buffers)] += 1
    return [
        found[buffers]
        for buffers, count in repeats.items()
        if len(set(buffers)) == len(buffers) and all(uses[buffer] == count for buffer in buffers)
    ]


def _neighbours(model, graph):
    """Yields (first, second, channels) of the layers that nothing else reads between."""
    weighted = {id(operator.op): operator for operator in weighted_operators(model, graph)}
    names = [op_name(code) for code in model.operatorCodes]
    readers = collections.defaultdict(list)
    for op in graph.operators or []:
        for tensor in op.inputs:
            if names[op.opcodeIndex] != "SHAPE":
                readers[int(tensor)].append(op)
    for first in weighted.values():
        op, tensor = first.op, first.output
        channels = int(graph.tensors[tensor].shape[-1])
        while _is_homogeneous(op) and tensor not in graph.outputs and len(readers[tensor]) == 1:
            op = readers[tensor][0]
            if id(op) in weighted:
                second = weighted[id(op)]
                if second.values == tensor and second.output not in (first.output, tensor):
                    yield first, second, channels
                break
            tensor = _next(model, graph, op, names[op.opcodeIndex], tensor, channels)
            if tensor is None:
                break


def _is_homogeneous(op):
    activation = getattr(op.builtinOptions, "fusedActivationFunction", 0)
    return activation in _HOMOGENEOUS


def _next(model, graph, op, name, tensor, channels):
    """Returns the output of an operator that keeps channels apart; None for other operators."""
    if name not in _BY_CHANNEL or op.inputs[0] != tensor:
        return None
    output = int(op.outputs[0])
    before, after = (graph.tensors[t].shape for t in (tensor, output))
    if before is None or after is None or not len(after) or after[-1] % channels:
        return None
    if name in ("MEAN", "PAD"):
        sides = constant(model, graph, int(op.inputs[1]))
        if sides is None:
            return None
        is_last = sides[-1].any() if name == "PAD" else (sides % len(before) == len(before) - 1)
        return None if np.any(is_last) else output
    return output
