"""Operators of TensorFlow 2.0 to 2.3 in models: layers `TensorFlowOpLayer`, as operations of Keras.

Such a layer holds the operator as TensorFlow's graphs have it: its name, attributes, and the
constants among its inputs.
"""

import json

import keras
import numpy as np
from google.protobuf import json_format, text_format
from tensorflow.core.framework import node_def_pb2

from tfpeft.core.arguments import InputError

ops = keras.ops


def from_node_def(config, inputs):
    """Returns what the operator of a `TensorFlowOpLayer` computes.

    Args:
        config: Of the layer: `node_def`, and `constants`, {place among the inputs: value}.
        inputs: A tensor or a list of tensors.

    Raises:
        InputError: for an operator that is not in `OPERATORS`.
    """
    node = node_def_pb2.NodeDef()
    text = config["node_def"]
    if isinstance(text, dict):
        text = json.dumps(text)
    if text.lstrip().startswith("{"):
        json_format.Parse(text, node)
    else:
        text_format.Parse(text, node)
    given = list(inputs) if isinstance(inputs, (list, tuple)) else [inputs]
    constants = {int(place): value for place, value in (config.get("constants") or {}).items()}
    arguments = [
        constants[place] if place in constants else given.pop(0)
        for place in range(len(constants) + len(given))
    ]
    if node.op not in OPERATORS:
        raise InputError(f"Keras 3 has no operation for TensorFlow's {node.op}")
    return OPERATORS[node.op](node.attr, *arguments)


def entries(tensor, items):
    """Returns `tensor[items]`, without an ellipsis in the graph: no .keras file can hold it."""
    if ... in items:
        place = items.index(...)
        sides = len(tensor.shape) - sum(each is not None for each in items) + 1
        items = [*items[:place], *[slice(None)] * sides, *items[place + 1 :]]
    return tensor[tuple(items)]


def _binary(function):
    return lambda attr, x, y: function(_number(x), _number(y))


def _unary(function):
    return lambda attr, x: function(x)


def _number(value):
    """Returns a constant of one number as it is, so that the tensor's type decides."""
    if keras.backend.is_keras_tensor(value):
        return value
    array = np.asarray(value)
    return (
        array.item()
        if array.ndim == 0
        else array.astype("float32" if array.dtype.kind == "f" else array.dtype)
    )


def _axes(value):
    return tuple(np.ravel(value).tolist())


def _reduced(function):
    return lambda attr, x, axis: function(x, axis=_axes(axis), keepdims=attr["keep_dims"].b)


def _strided_slice(attr, x, begin, end, strides):
    """Returns x[begin:end:strides], with the masks of the operator for what is left out."""

    def mask(name, place):
        return bool(attr[f"{name}_mask"].i >> place & 1)

    items = []
    for place, (start, stop, step) in enumerate(zip(begin, end, strides, strict=True)):
        if mask("ellipsis", place):
            items.append(...)
        elif mask("new_axis", place):
            items.append(None)
        elif mask("shrink_axis", place):
            items.append(start)
        else:
            start = None if mask("begin", place) else start
            stop = None if mask("end", place) else stop
            items.append(slice(start, stop, step))
    return entries(x, items)


def _concat(attr, *arguments):
    *values, axis = arguments
    return ops.concatenate(values, axis=int(axis))


def _reshape(attr, x, shape):
    return ops.reshape(x, np.ravel(shape).tolist())


def _matmul(attr, a, b):
    a = ops.swapaxes(a, -1, -2) if attr["transpose_a"].b or attr["adj_x"].b else a
    b = ops.swapaxes(b, -1, -2) if attr["transpose_b"].b or attr["adj_y"].b else b
    return ops.matmul(a, b)


def _squeeze(attr, x):
    return ops.squeeze(x, axis=tuple(attr["squeeze_dims"].list.i) or None)


def _leaky_relu(attr, x):
    return ops.leaky_relu(x, negative_slope=attr["alpha"].f)


OPERATORS = {
    "Abs": _unary(ops.absolute),
    "Add": _binary(ops.add),
    "AddV2": _binary(ops.add),
    "BatchMatMul": _matmul,
    "BatchMatMulV2": _matmul,
    "ConcatV2": _concat,
    "Elu": _unary(ops.elu),
    "Exp": _unary(ops.exp),
    "ExpandDims": lambda attr, x, axis: ops.expand_dims(x, int(axis)),
    "Identity": lambda attr, x: x,
    "LeakyRelu": _leaky_relu,
    "Log": _unary(ops.log),
    "MatMul": _matmul,
    "Max": _reduced(ops.max),
    "Maximum": _binary(ops.maximum),
    "Mean": _reduced(ops.mean),
    "Min": _reduced(ops.min),
    "Minimum": _binary(ops.minimum),
    "Mul": _binary(ops.multiply),
    "Neg": _unary(ops.negative),
    "Pow": _binary(ops.power),
    "Prod": _reduced(ops.prod),
    "RealDiv": _binary(ops.true_divide),
    "Relu": _unary(ops.relu),
    "Relu6": _unary(ops.relu6),
    "Reshape": _reshape,
    "Rsqrt": _unary(ops.rsqrt),
    "Selu": _unary(ops.selu),
    "Sigmoid": _unary(ops.sigmoid),
    "Softmax": _unary(ops.softmax),
    "Softplus": _unary(ops.softplus),
    "Sqrt": _unary(ops.sqrt),
    "Square": _unary(ops.square),
    "SquaredDifference": _binary(lambda x, y: ops.square(ops.subtract(x, y))),
    "Squeeze": _squeeze,
    "StridedSlice": _strided_slice,
    "Sub": _binary(ops.subtract),
    "Sum": _reduced(ops.sum),
    "Tanh": _unary(ops.tanh),
    "Tile": lambda attr, x, multiples: ops.tile(x, np.ravel(multiples).tolist()),
    "Transpose": lambda attr, x, perm: ops.transpose(x, np.ravel(perm).tolist()),
}
"""Operator -> function of its attributes and inputs."""
