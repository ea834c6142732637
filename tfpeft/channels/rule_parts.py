"""What rules share: activations, and axes that have no channels."""

import functools
import math

import keras
import numpy as np

_MASKS = 4
ELEMENTWISE = (
    *("Abs", "Absolute", "Add", "Cast", "Celu", "Clip", "Cos", "Divide", "Elu", "Equal", "Erf"),
    *("Exp", "Expm1", "Floor", "FloorDivide", "Gelu", "Greater", "GreaterEqual", "HardShrink"),
    *("HardSigmoid", "HardSilu", "HardTanh", "LeakyRelu", "Less", "LessEqual", "Log", "Log1p"),
    *("LogSigmoid", "LogicalAnd", "LogicalNot", "LogicalOr", "Maximum", "Minimum", "Mod"),
    *("Multiply", "Negative", "NotEqual", "Power", "Reciprocal", "Relu", "Relu6", "Round", "Rsqrt"),
    *("Selu", "Sigmoid", "Sign", "Silu", "Sin", "SoftShrink", "Softplus", "Softsign", "Sqrt"),
    *("Square", "Subtract", "Tanh", "TanhShrink", "Threshold", "TrueDivide", "Where"),
)
"""Operations of `keras.ops` on values alone, or on values that are at the same place."""


def activated(graph, layer, axes):
    """Returns the axes of a layer's output, whose channels are fixed if its activation mixes."""
    function = getattr(layer, "activation", None)
    if function is not None and not is_elementwise(function):
        for tags in axes:
            graph.fix(tags, layer, f"has an activation, {name_of(function)}, over channels")
    return tuple(axes)


def name_of(function):
    """Returns the name of an activation."""
    return getattr(function, "__name__", type(function).__name__)


def only_axis(graph, layer, x, axis, what="slides over"):
    """Returns a `Tagged` that has tags along one axis alone; those along others are fixed."""
    for other in x.tagged_axes():
        if other != axis:
            graph.fix(x.axes[other], layer, f"{what} their axis")
    return x._replace(axes=tuple(t if i == axis else None for i, t in enumerate(x.axes)))


def sides(shape):
    """Returns the number of places of sides, of which free ones count as 1."""
    return math.prod(side or 1 for side in shape)


@functools.lru_cache(maxsize=256)
def is_elementwise(function):
    """Whether each output of a function depends on the input at its place alone.

    It is run on random values, of which random parts are changed.
    """
    rng = np.random.default_rng(0)
    x = rng.normal(size=(2, 3, 5)).astype("float32")
    outputs = _run(function, x)
    if outputs is None or outputs.shape != x.shape:
        return False
    for _ in range(_MASKS):
        changed = rng.integers(0, 2, x.shape).astype(bool)
        others = _run(function, np.where(changed, x + rng.uniform(0.5, 1.5, x.shape), x))
        if not np.array_equal(outputs[~changed], others[~changed]):
            return False
    return True


def _run(function, x):
    try:
        return keras.ops.convert_to_numpy(function(keras.ops.convert_to_tensor(x, "float32")))
    except Exception:  # whatever a custom activation raises
        return None
