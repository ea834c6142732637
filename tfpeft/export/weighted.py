"""Operators of a parsed file that have a kernel: convolutions and matrix products."""

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.tflite_constants import NUMPY_TYPES
from tfpeft.export.tflite_contents import op_name

_PLACES = {
    "CONV_2D": (0, 1, 2),
    "DEPTHWISE_CONV_2D": (0, 1, 2),
    "FULLY_CONNECTED": (0, 1, 2),
    "TRANSPOSE_CONV": (2, 1, 3),
}
"""Which inputs are the values, the kernel and the bias."""


@dataclasses.dataclass
class Weighted:
    """An operator with a kernel. Tensors are numbers of the graph.

    Attributes:
        name: Such as "CONV_2D".
        op: The `schema.OperatorT`.
        values: The tensor that it reads.
        kernel: Its kernel: (out, ..., in), of DEPTHWISE_CONV_2D (1, height, width, out).
        bias: Its bias; -1 if there is none.
        output: The tensor that it makes.
    """

    name: str
    op: schema.OperatorT
    values: int
    kernel: int
    bias: int
    output: int


def weighted_operators(model, graph):
    """Returns the `Weighted` of a graph whose kernel is a constant, producers before consumers.

    Args:
        model: A `schema.ModelT`.
        graph: One of its graphs.
    """
    names = [op_name(code) for code in model.operatorCodes]
    found = []
    for op in graph.operators or []:
        name = names[op.opcodeIndex]
        if name in _PLACES:
            inputs = [*map(int, op.inputs), -1]
            values, kernel, bias = (inputs[place] for place in _PLACES[name])
            if constant(model, graph, kernel) is not None:
                found.append(Weighted(name, op, values, kernel, bias, int(op.outputs[0])))
    return found


def constant(model, graph, index):
    """Returns the values of a constant in their shape, to be written to; None for others."""
    if index < 0:
        return None
    tensor = graph.tensors[index]
    buffer = model.buffers[tensor.buffer]
    if buffer.data is None or not len(buffer.data) or tensor.type not in NUMPY_TYPES:
        return None
    data = np.asarray(buffer.data, np.uint8)
    buffer.data = data if data.flags.writeable else data.copy()
    # An array without axes has no list of sides.
    shape = () if tensor.shape is None else tuple(map(int, tensor.shape))
    return buffer.data.view(NUMPY_TYPES[tensor.type]).reshape(shape)


def rows(kernel, name):
    """Returns a kernel as (out, weights), a view to be written to."""
    flat = kernel.reshape(-1, kernel.shape[-1])
    return flat.T if name == "DEPTHWISE_CONV_2D" else kernel.reshape(len(kernel), -1)


def columns(kernel, name, inputs, channels):
    """Returns a kernel as (channels, weights), a view to be written to; None if it has groups.

    Args:
        kernel: The kernel.
        name: Name of its operator.
        inputs: Length of the last axis of what the operator reads.
        channels: How many channels that axis repeats: the channel of input i is i % channels.
    """
    if name == "DEPTHWISE_CONV_2D":
        parts = kernel.reshape(-1, channels, kernel.shape[-1] // inputs)
        return np.moveaxis(parts, 1, 0)
    return kernel.reshape(-1, channels).T if kernel.shape[-1] == inputs else None
