"""What a layer or operation is to an integer file: kernels, activations, what only moves values."""

import contextlib
import inspect

import keras
from keras import ops

from tfpeft.core.kernel_axes import kernel_axes

layers = keras.layers

CONVOLUTIONS = (
    *(layers.Conv1D, layers.Conv2D, layers.DepthwiseConv1D, layers.DepthwiseConv2D),
    *(layers.SeparableConv1D, layers.SeparableConv2D),
    *(layers.Conv1DTranspose, layers.Conv2DTranspose),
)
WITH_KERNELS = (*CONVOLUTIONS, layers.Dense, layers.EinsumDense, layers.Embedding)
SEPARABLE = (layers.SeparableConv1D, layers.SeparableConv2D)
ATTENTION = (layers.MultiHeadAttention, layers.GroupQueryAttention)

_IDENTITIES = (
    *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.SpatialDropout3D),
    *(layers.GaussianDropout, layers.GaussianNoise, layers.AlphaDropout),
    *(layers.ActivityRegularization, layers.Identity),
)
_MOVING = (
    *(layers.Reshape, layers.Flatten, layers.Permute, layers.RepeatVector),
    *(layers.ZeroPadding1D, layers.ZeroPadding2D, layers.ZeroPadding3D),
    *(layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
    *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
    *(layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D),
    *(layers.GlobalMaxPooling2D, layers.AveragePooling1D, layers.AveragePooling2D),
)
_MOVING_OPERATIONS = (
    *("Reshape", "Transpose", "Squeeze", "ExpandDims", "GetItem", "Flip", "Repeat", "Tile"),
    *("Max", "Split", "Unstack", "BroadcastTo", "Flatten"),
)
_NO_INT8 = {
    layers.Conv3D: "TFLite has no int8 kernel of CONV_3D",
    layers.Conv3DTranspose: "TFLite has no int8 kernel of CONV_3D_TRANSPOSE",
    layers.LayerNormalization: "its mean and variance are computed in float32",
    layers.GroupNormalization: "its mean and variance are computed in float32",
    layers.RMSNormalization: "its mean square is computed in float32",
    layers.UnitNormalization: "its norm is computed in float32",
    layers.RNN: "loops stay in float32",
    layers.Bidirectional: "loops stay in float32",
    layers.SpectralNormalization: "its kernel is computed in float32",
}
FIXED_RANGES = {
    "softmax": (0.0, 255 / 256),
    "sigmoid": (0.0, 255 / 256),
    "tanh": (-1.0, 127 / 128),
}
"""Ranges that TFLite fixes for the outputs of an operator in 8 bits."""
FIXED_RANGE_OF_16_BITS = (-32767 / 32768, 32767 / 32768)
"""The range that it fixes for all of these in 16 bits."""
_MERGES = (layers.Add, layers.Multiply, layers.Average)


def why_float(operation):
    """Returns why a layer is computed in float32 in an int8 file; None if it is not."""
    for kind, reason in _NO_INT8.items():
        if isinstance(operation, kind):
            return reason
    if getattr(operation, "quantization_mode", None):
        return f"Keras has quantized it ({operation.quantization_mode})"
    if isinstance(operation, WITH_KERNELS) and getattr(operation, "lora_enabled", False):
        return "Keras's own LoRA is enabled; `merge_lora_weights` first"
    return None


def is_identity(operation):
    """Whether an operation returns its input in inference."""
    return isinstance(operation, _IDENTITIES) or activation_name(operation) == "linear"


def moves_values(operation):
    """Whether an operation returns values of its input, so that the range stays."""
    if isinstance(operation, (*_IDENTITIES, *_MOVING)) or is_identity(operation):
        return True
    is_of_keras = type(operation).__module__.startswith("keras.")
    return is_of_keras and type(operation).__name__ in _MOVING_OPERATIONS


def reads_numbers_of_rows(operation):
    """Whether an operation reads the numbers of rows of a table."""
    return isinstance(operation, layers.Embedding)


def makes_integers(operation):
    """Whether an operation casts floats to integers."""
    is_cast = type(operation).__module__.startswith("keras.") and type(operation).__name__ == "Cast"
    return is_cast and "float" not in keras.backend.standardize_dtype(operation.dtype)


def averages_values(operation):
    """Whether an operation has the range of what it reads, and rounds what it averages."""
    if isinstance(operation, layers.UpSampling2D):
        return operation.interpolation != "nearest"
    return averages_windows(operation)


def averages_windows(operation):
    """Whether an operation is an average pooling."""
    return isinstance(operation, (layers.AveragePooling1D, layers.AveragePooling2D))


def is_concatenation(operation):
    """Whether an operation joins values."""
    name = type(operation).__name__
    return isinstance(operation, layers.Concatenate) or name in ("Concatenate", "Stack")


def is_arithmetic(operation):
    """Whether an operation adds, subtracts or multiplies; TFLite fuses a ReLU behind it."""
    return isinstance(operation, (layers.Add, layers.Subtract, layers.Multiply)) or (
        type(operation).__module__.startswith("keras.")
        and type(operation).__name__ in ("Add", "Subtract", "Multiply")
    )


def is_addition(operation):
    """Whether an operation adds tensors."""
    is_of_keras = type(operation).__module__.startswith("keras.")
    return is_of_keras and type(operation).__name__ == "Add"


def merges_in_parts(operation, inputs):
    """Whether a layer adds or multiplies more tensors than an operator does, or averages them."""
    is_long = len(inputs) > (1 if isinstance(operation, layers.Average) else 2)
    return type(operation) in _MERGES and is_long and len({len(x.shape) for x in inputs}) == 1


def merged(layer, inputs, rounded):
    """Returns what Keras's Add, Multiply or Average return, with rounded results of each part."""
    operation = ops.multiply if isinstance(layer, layers.Multiply) else ops.add
    first, *others, last = inputs
    for each in others:
        first = rounded(operation(first, each))
    outputs = operation(first, last)
    return rounded(outputs) / len(inputs) if isinstance(layer, layers.Average) else outputs


def activation_name(operation):
    """Returns the name of the function that an activation layer or operation is, or None."""
    if isinstance(operation, layers.ReLU):
        plain = not operation.negative_slope and not operation.threshold
        return {None: "relu", 6: "relu6"}.get(operation.max_value) if plain else None
    if isinstance(operation, layers.Softmax):
        return "softmax"
    if isinstance(operation, layers.Activation):
        return getattr(operation.activation, "__name__", None)
    name = type(operation).__name__
    if type(operation).__module__.startswith("keras."):
        known = {"Relu": "relu", "Relu6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh"}
        return {**known, "Softmax": "softmax", "Silu": "silu"}.get(name)
    return None


def own_activation(layer):
    """Returns the name of the activation inside a layer with a kernel; "linear" for none."""
    activation = getattr(layer, "activation", None)
    return "linear" if activation is None else getattr(activation, "__name__", "custom")


def computes_as_keras(layer):
    """Whether a layer with a kernel computes as Keras's class does, and not in a call of its own.

    A class that derives from a layer of Keras may scale a kernel, or use it for something else.
    """
    return any(isinstance(layer, kind) and type(layer).call is kind.call for kind in WITH_KERNELS)


def with_first_argument(operation, args, kwargs):
    """Returns the arguments of a call, of which the first is not one by name."""
    if args:
        return args, kwargs
    _, name, *_ = inspect.signature(type(operation).call).parameters
    kwargs = dict(kwargs)
    return (kwargs.pop(name),), kwargs


def kernels_of(layer):
    """Returns [(variable, axes of its output channels)] of a layer with kernels."""
    if isinstance(layer, layers.Embedding):
        return [(layer.embeddings, ())]
    if isinstance(layer, SEPARABLE):
        depthwise, pointwise = layer.depthwise_kernel, layer.pointwise_kernel
        rank = len(depthwise.shape)
        return [(depthwise, (rank - 2, rank - 1)), (pointwise, (rank - 1,))]
    kernel = layer.kernel
    rank = len(kernel.shape)
    if isinstance(layer, (layers.DepthwiseConv1D, layers.DepthwiseConv2D)):
        return [(kernel, (rank - 2, rank - 1))]
    axes = kernel_axes(layer, kernel)
    return [(kernel, axes.outputs if axes is not None else ())]


@contextlib.contextmanager
def other_activation(layer, activation):
    """A context in which a layer has another activation."""
    before = getattr(layer, "activation", None)
    if activation is before:
        yield
        return
    layer.activation = activation
    try:
        yield
    finally:
        layer.activation = before


def attention_by_steps(call, *args, **kwargs):
    """Calls an attention layer so that it calls its layers; else Keras computes it in one step."""
    with_scores = kwargs.get("return_attention_scores", False)
    outputs = call(*args, **{**kwargs, "return_attention_scores": True})
    return outputs if with_scores else outputs[0]
