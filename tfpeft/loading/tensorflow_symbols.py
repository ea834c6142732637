"""TensorFlow's functions in models of Keras 2: as operations of Keras 3.

A functional model of Keras 2 notes `x + 1` or `tf.concat([a, b], -1)` as a layer `TFOpLambda` with
the public name of the function. `FUNCTIONS` has what Keras 3 computes in its place. Functions of
`math`, `nn` and a few other modules that it lacks run as TensorFlow has them, in a
`TensorFlowFunction` layer. All others, those of files and Python code among them, are an error.
"""

import keras
import numpy as np

from tfpeft.core.arguments import InputError
from tfpeft.core.graph import origin
from tfpeft.loading.tensorflow_function import TensorFlowFunction, is_pure
from tfpeft.loading.tensorflow_ops import entries, from_node_def

ops = keras.ops


class Shape(tuple):
    """What `tf.shape` returns: the known sides, and None for those that a batch decides."""


def apply(layer, inputs, kwargs, name):
    """Returns what a layer of a TensorFlow function computes.

    Args:
        layer: The configuration of a TFOpLambda, SlicingOpLambda or TensorFlowOpLayer.
        inputs: The first argument.
        kwargs: The others.
        name: What the operation is called; it has no other operation's name then.

    Raises:
        InputError: for a function that Keras 3 has no equal for.
    """
    outputs = _computed(layer, inputs, kwargs, name)
    _rename(outputs, [inputs, kwargs], name)
    return outputs


def _computed(layer, inputs, kwargs, layer_name):
    if layer["class_name"].rsplit(">", 1)[-1] == "TensorFlowOpLayer":
        return from_node_def(layer["config"], inputs)
    symbol = layer["config"]["function"]
    # Arguments of TensorFlow 1 have two names.
    kwargs = {_RENAMED.get(key, key): each for key, each in kwargs.items() if _is_given(key, each)}
    name = symbol.removeprefix("compat.v1.")
    if not _has_tensor([inputs, kwargs]):
        return _of_shapes(name, inputs, kwargs)
    if name in FUNCTIONS:
        try:
            return FUNCTIONS[name](inputs, **kwargs)
        except TypeError:
            if not is_pure(name):
                raise
    if is_pure(name) and not _has_shape([inputs, kwargs]):
        return TensorFlowFunction(symbol, name=layer_name)(inputs, **kwargs)
    raise InputError(f"Keras 3 has no operation for tf.{symbol}")


_RENAMED = {
    "dim": "axis",
    "keep_dims": "keepdims",
    "reduction_indices": "axis",
    "input_tensor": "x",
}


def _is_given(key, value):
    return key != "name" and value is not None


def _rename(outputs, inputs, name):
    """Names the operations between inputs and outputs after the layer of the file."""
    known = {id(each) for each in _leaves(inputs)}
    tensors, count = [each for each in _leaves(outputs) if id(each) not in known], 0
    seen = set()
    while tensors:
        tensor = tensors.pop(0)
        if id(tensor) in known or not keras.backend.is_keras_tensor(tensor):
            continue
        made = origin(tensor)
        if id(made.operation) not in seen:
            seen.add(id(made.operation))
            made.operation.name = f"{name}.{count}" if count else name
            count += 1
            tensors += made.inputs


def _leaves(structure):
    if isinstance(structure, dict):
        structure = list(structure.values())
    if isinstance(structure, slice):
        structure = [structure.start, structure.stop, structure.step]
    if isinstance(structure, (list, tuple)):
        for each in structure:
            yield from _leaves(each)
    else:
        yield structure


def _has_tensor(structure):
    return any(keras.backend.is_keras_tensor(each) for each in _leaves(structure))


def _has_shape(structure):
    """Whether a side that a batch decides is among the arguments."""
    if isinstance(structure, Shape):
        return True
    if isinstance(structure, dict):
        structure = list(structure.values())
    return isinstance(structure, (list, tuple)) and any(map(_has_shape, structure))


def _of_shapes(name, x, kwargs):
    """Computes with the sides of a shape; None, a side that a batch decides, stays None."""
    if name in ("stack", "concat", "convert_to_tensor", "cast", "identity"):
        if name == "concat":
            return Shape(each for part in x for each in part)
        return Shape(x) if isinstance(x, (list, tuple)) else x
    if name == "__operators__.getitem":
        spec = _first(kwargs["slice_spec"])
        return Shape(x[spec]) if isinstance(spec, slice) else x[spec]
    if name in _SIDES:
        y = kwargs["y"]
        return None if x is None or y is None else _SIDES[name](x, y)
    raise InputError(f"Keras 3 cannot compute tf.{name} of a shape")


_SIDES = {
    "__operators__.add": lambda x, y: x + y,
    "math.add": lambda x, y: x + y,
    "math.floordiv": lambda x, y: x // y,
    "math.multiply": lambda x, y: x * y,
    "math.subtract": lambda x, y: x - y,
}


def _first(items):
    return items[0] if isinstance(items, (list, tuple)) and len(items) == 1 else items


def _reshape(tensor, shape):
    sides = [-1 if side is None else side for side in shape]
    if sides.count(-1) > 1:
        # One of them is the batch, which keeps its place.
        if sides[0] == -1 and shape[0] is None and tensor.shape[0] is None:
            return keras.layers.Reshape(sides[1:])(tensor)
        raise InputError("its shape has two sides that a batch decides")
    return ops.reshape(tensor, sides)


def _getitem(tensor, slice_spec):
    spec = list(slice_spec) if isinstance(slice_spec, (list, tuple)) else [slice_spec]
    if any(keras.backend.is_keras_tensor(each) for each in _leaves(spec)):
        raise InputError("it takes entries at places that are computed")
    return entries(tensor, spec)


def _split(value, num_or_size_splits, axis=0):
    if isinstance(num_or_size_splits, (list, tuple)):
        ends, end = [], 0
        for size in num_or_size_splits[:-1]:
            end += size
            ends.append(end)
        num_or_size_splits = ends
    return ops.split(value, num_or_size_splits, axis=axis)


def _pad(tensor, paddings, mode="CONSTANT", constant_values=0):
    mode = mode.lower()
    if mode == "constant":
        return ops.pad(tensor, paddings, mode, constant_values=constant_values)
    return ops.pad(tensor, paddings, mode)


def _cast(x, dtype):
    return ops.cast(x, dtype)


def _softmax(logits, axis=-1):
    return ops.softmax(logits, axis=axis)


def _matmul(a, b, transpose_a=False, transpose_b=False):
    a = ops.swapaxes(a, -1, -2) if transpose_a else a
    b = ops.swapaxes(b, -1, -2) if transpose_b else b
    return ops.matmul(a, b)


def _transpose(a, perm=None, conjugate=False):
    return ops.transpose(a, perm)


def _clip(t, clip_value_min, clip_value_max):
    return ops.clip(t, clip_value_min, clip_value_max)


def _squeeze(input, axis=None):
    axis = tuple(axis) if isinstance(axis, list) else axis
    return ops.squeeze(input, axis=axis)


def _l2_normalize(x, axis=None, epsilon=1e-12):
    squares = ops.sum(ops.square(x), axis=_axes(axis), keepdims=True)
    return x * ops.rsqrt(ops.maximum(squares, epsilon))


def _axes(axis):
    return tuple(axis) if isinstance(axis, list) else axis


def _reduced(function):
    return lambda x, axis=None, keepdims=False: function(x, axis=_axes(axis), keepdims=keepdims)


def _unary(function):
    return lambda x: function(x)


def _binary(function):
    return lambda x, y: function(_like(y, x), _like(x, y))


def _like(tensor, value):
    """Returns a constant of several numbers as an array, of a tensor's type if there is one."""
    if not isinstance(value, list):
        return value
    dtype = getattr(tensor, "dtype", None)
    return np.asarray(value, keras.backend.standardize_dtype(dtype))


def _where(condition, x, y):
    return ops.where(condition, _like(y, x), _like(x, y))


def _arg(function):
    return lambda x, axis=0, output_type="int64": ops.cast(function(x, axis=axis), output_type)


def _stack(values, axis=0):
    return ops.stack(values, axis=axis)


def _unstack(value, num=None, axis=0):
    return ops.unstack(value, num, axis=axis)


def _one_hot(indices, depth, on_value=1, off_value=0, axis=-1, dtype="float32"):
    if (on_value, off_value) != (1, 0):
        raise TypeError("other values")
    return ops.one_hot(indices, depth, axis=axis, dtype=dtype)


def _cumsum(x, axis=0, exclusive=False, reverse=False):
    if exclusive or reverse:
        raise TypeError("another order")
    return ops.cumsum(x, axis=axis)


def _tile(input, multiples):
    if None in multiples:
        raise InputError("it repeats as often as a batch decides")
    return ops.tile(input, multiples)


FUNCTIONS = {
    "__operators__.add": _binary(ops.add),
    "__operators__.getitem": _getitem,
    "abs": _unary(ops.absolute),
    "cast": _cast,
    "clip_by_value": _clip,
    "concat": lambda values, axis: ops.concatenate(values, axis=axis),
    "convert_to_tensor": lambda value, dtype=None: value if dtype is None else _cast(value, dtype),
    "expand_dims": lambda input, axis: ops.expand_dims(input, axis),
    "identity": lambda input: input,
    "linalg.matmul": _matmul,
    "math.abs": _unary(ops.absolute),
    "math.add": _binary(ops.add),
    "math.argmax": _arg(ops.argmax),
    "math.argmin": _arg(ops.argmin),
    "math.cos": _unary(ops.cos),
    "math.cumsum": _cumsum,
    "math.divide": _binary(ops.true_divide),
    "math.equal": _binary(ops.equal),
    "math.exp": _unary(ops.exp),
    "math.floor": _unary(ops.floor),
    "math.floordiv": _binary(ops.floor_divide),
    "math.floormod": _binary(ops.mod),
    "math.greater": _binary(ops.greater),
    "math.greater_equal": _binary(ops.greater_equal),
    "math.l2_normalize": _l2_normalize,
    "math.less": _binary(ops.less),
    "math.less_equal": _binary(ops.less_equal),
    "math.log": _unary(ops.log),
    "math.log1p": _unary(ops.log1p),
    "math.logical_and": _binary(ops.logical_and),
    "math.logical_not": _unary(ops.logical_not),
    "math.logical_or": _binary(ops.logical_or),
    "math.maximum": _binary(ops.maximum),
    "math.minimum": _binary(ops.minimum),
    "math.multiply": _binary(ops.multiply),
    "math.negative": _unary(ops.negative),
    "math.not_equal": _binary(ops.not_equal),
    "math.pow": _binary(ops.power),
    "math.reciprocal": _unary(ops.reciprocal),
    "math.reduce_max": _reduced(ops.max),
    "math.reduce_mean": _reduced(ops.mean),
    "math.reduce_min": _reduced(ops.min),
    "math.reduce_prod": _reduced(ops.prod),
    "math.reduce_std": _reduced(ops.std),
    "math.reduce_sum": _reduced(ops.sum),
    "math.reduce_variance": _reduced(ops.var),
    "math.round": _unary(ops.round),
    "math.rsqrt": _unary(ops.rsqrt),
    "math.scalar_mul": lambda scalar, x: ops.multiply(scalar, x),
    "math.sigmoid": _unary(ops.sigmoid),
    "math.sign": _unary(ops.sign),
    "math.sin": _unary(ops.sin),
    "math.softplus": _unary(ops.softplus),
    "math.sqrt": _unary(ops.sqrt),
    "math.square": _unary(ops.square),
    "math.squared_difference": _binary(lambda x, y: ops.square(ops.subtract(x, y))),
    "math.subtract": _binary(ops.subtract),
    "math.tanh": _unary(ops.tanh),
    "math.truediv": _binary(ops.true_divide),
    "nn.elu": lambda features: ops.elu(features),
    "nn.gelu": lambda features, approximate=False: ops.gelu(features, approximate=approximate),
    "nn.leaky_relu": lambda features, alpha=0.2: ops.leaky_relu(features, negative_slope=alpha),
    "nn.log_softmax": lambda logits, axis=-1: ops.log_softmax(logits, axis=axis),
    "nn.relu": lambda features: ops.relu(features),
    "nn.relu6": lambda features: ops.relu6(features),
    "nn.selu": lambda features: ops.selu(features),
    "nn.sigmoid": _unary(ops.sigmoid),
    "nn.silu": lambda features, beta=1.0: features * ops.sigmoid(beta * features),
    "nn.softmax": _softmax,
    "nn.softplus": lambda features: ops.softplus(features),
    "nn.softsign": lambda features: ops.softsign(features),
    "nn.tanh": _unary(ops.tanh),
    "one_hot": _one_hot,
    "ones_like": lambda input, dtype=None: ops.ones_like(input, dtype=dtype),
    "pad": _pad,
    "reshape": _reshape,
    "shape": lambda input, out_type="int32": Shape(input.shape),
    "split": _split,
    "squeeze": _squeeze,
    "stack": _stack,
    "stop_gradient": lambda input: ops.stop_gradient(input),
    "tile": _tile,
    "transpose": _transpose,
    "unstack": _unstack,
    "where": _where,
    "zeros_like": lambda input, dtype=None: ops.zeros_like(input, dtype=dtype),
}
FUNCTIONS |= {
    "add": FUNCTIONS["math.add"],
    "divide": FUNCTIONS["math.divide"],
    "matmul": _matmul,
    "multiply": FUNCTIONS["math.multiply"],
    "nn.l2_normalize": _l2_normalize,
    "nn.swish": FUNCTIONS["nn.silu"],
    "subtract": FUNCTIONS["math.subtract"],
}
"""Public name in TensorFlow -> function of its arguments, with the names that they have there."""
