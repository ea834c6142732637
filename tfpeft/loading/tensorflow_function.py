"""A layer that calls one of TensorFlow's functions, where Keras has none that computes the same."""

import keras
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.registration import register

_MODULES = ("image", "linalg", "math", "nn", "signal", "strings")
_OTHERS = (
    *("broadcast_to", "cumsum", "einsum", "fill", "gather", "gather_nd", "meshgrid", "norm"),
    *("repeat", "reverse", "reverse_sequence", "roll", "searchsorted", "sequence_mask", "size"),
    *("slice", "sort", "strided_slice", "tensordot", "tensor_scatter_nd_update", "unique"),
    *("where", "batch_to_space", "space_to_batch", "boolean_mask", "argsort", "rank", "round"),
)
# Their functions read or write files, or call Python.
_IMPURE = ("image.decode", "image.encode", "nn.experimental", "map_fn", "numpy_function")


def is_pure(symbol):
    """Whether a public function of TensorFlow computes with its arguments and nothing else."""
    name = symbol.removeprefix("compat.v1.")
    if any(part in name for part in _IMPURE):
        return False
    module, _, function = name.partition(".")
    return name in _OTHERS or (module in _MODULES and bool(function))


@register()
class TensorFlowFunction(keras.layers.Layer):
    """Calls a public function of TensorFlow on tensors.

    Args:
        symbol: Its name after "tf.", such as "image.resize"; one that `is_pure`.
    """

    def __init__(self, symbol, **kwargs):
        super().__init__(**kwargs)
        if not is_pure(symbol):
            raise InputError(f"Expected a function of tensors. Received: tf.{symbol}")
        function = tf
        for part in symbol.split("."):
            function = getattr(function, part, None)
        if not callable(function):
            raise InputError(f"TensorFlow {tf.__version__} has no tf.{symbol}")
        self.symbol = symbol
        self._function = function

    def call(self, inputs, **kwargs):
        return self._function(inputs, **kwargs)

    def get_config(self):
        return {**super().get_config(), "symbol": self.symbol}
