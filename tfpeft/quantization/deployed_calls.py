"""The calls of layers as a file computes them: kernels on their grid, biases beside them.

TFLite's converter leaves an addition of its own where a bias comes after a reshape, as in 1-D
convolutions and EinsumDense, and a multiplication and an addition for BatchNormalization that
stands alone. Here each is one operator with a bias.
"""

import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfpeft.core.kernel_axes import parse_einsum
from tfpeft.quantization import layer_kinds as kinds
from tfpeft.quantization.fake_quant import weights_on_grid
from tfpeft.quantization.rounded_calls import computing

layers = keras.layers
_TRANSPOSED = (layers.Conv1DTranspose, layers.Conv2DTranspose)
_DEPTHWISE = (layers.DepthwiseConv1D, layers.DepthwiseConv2D)
_LINE = (layers.Conv1D, layers.DepthwiseConv1D, layers.SeparableConv1D, layers.Conv1DTranspose)


def deploying(plan, bits, marked):
    """Returns a context in which layers compute as a file does.

    Args:
        plan: A `Plan`.
        bits: Bits of the weights.
        marked: A function `(placement, place, tensor)` that marks the range of an activation.
    """
    compute = functools.partial(_compute, plan.folded, bits)
    return computing(plan.placements, marked, compute)


def _compute(folded, bits, placement, at, call, args, kwargs):
    layer = placement.operation
    if layer in folded.values():
        return args[0]
    if isinstance(layer, layers.BatchNormalization) and _is_last_axis(layer, args[0]):
        return _alone(layer, args[0])
    if placement.kernels:
        return _with_kernels(layer, folded.get(layer), bits, at, call, args, kwargs)
    return call(*args, **kwargs)


def _with_kernels(layer, norm, bits, at, call, args, kwargs):
    with tf.init_scope():  # constants of the file
        kernels = [
            weights_on_grid(tf.convert_to_tensor(variable), axes, bits).numpy()
            for variable, axes in kinds.kernels_of(layer)
        ]
        bias = getattr(layer, "bias", None)
        bias = None if bias is None else bias.numpy()
        if norm is not None:
            factor, offset = _factor_and_offset(norm)
            kernels[-1] = kernels[-1] * _along_outputs(layer, kernels[-1], factor)
            bias = (0.0 if bias is None else bias) * factor + offset
    if not kinds.computes_as_keras(layer):
        return _in_a_call_of_its_own(layer, kernels, at, call, args, kwargs)
    if isinstance(layer, layers.Embedding):
        return ops.take(kernels[0], ops.cast(args[0], "int32"), axis=0)
    outputs = _linear(layer, args[0], kernels, bias, at)
    if outputs is None:
        outputs = _by_own_call(layer, kernels, bias, call, args, kwargs)
    activation = layer.activation
    return outputs if activation is None else activation(at("before_activation", outputs))


def _factor_and_offset(norm):
    """Returns what BatchNormalization multiplies by in inference, and what it adds."""
    factor = 1.0 / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    factor = factor if norm.gamma is None else factor * norm.gamma.numpy()
    offset = -norm.moving_mean.numpy() * factor
    return factor, offset if norm.beta is None else offset + norm.beta.numpy()


def _along_outputs(layer, kernel, values):
    """Returns values per output channel in a shape that broadcasts with a kernel."""
    if isinstance(layer, _DEPTHWISE):
        return values.reshape(kernel.shape[-2:])
    return values[:, None] if isinstance(layer, _TRANSPOSED) else values


def _is_last_axis(norm, x):
    axis = norm.axis[0] if isinstance(norm.axis, (list, tuple)) else norm.axis
    return axis in (-1, len(x.shape) - 1) and 2 <= len(x.shape) <= 4


def _alone(norm, x):
    """Computes BatchNormalization as a depthwise convolution of size 1, which has a bias."""
    with tf.init_scope():
        factor, offset = (each.astype("float32") for each in _factor_and_offset(norm))
    missing = 4 - len(x.shape)
    for _ in range(missing):
        x = tf.expand_dims(x, 1)
    x = tf.nn.depthwise_conv2d(x, factor[None, None, :, None], [1, 1, 1, 1], "VALID") + offset
    return tf.squeeze(x, [1, 2][:missing]) if missing else x


def _linear(layer, x, kernels, bias, at):
    """Returns the outputs of a layer before its activation; None for one that has no rule here."""
    if isinstance(layer, layers.Dense):
        return _biased(tf.matmul(x, kernels[0]), bias)
    if isinstance(layer, layers.EinsumDense):
        return _einsum(layer, x, kernels[0], bias)
    if layer.data_format == "channels_first":
        return None
    if isinstance(layer, _LINE):
        x = tf.expand_dims(x, 1)
        kernels = [kernel[None] for kernel in kernels]
    padding = layer.padding.upper()
    if padding == "CAUSAL":
        past = (layer.kernel_size[0] - 1) * layer.dilation_rate[0]
        x, padding = tf.pad(x, [[0, 0], [0, 0], [past, 0], [0, 0]]), "VALID"
    strides, rates = _sides(layer, layer.strides), _sides(layer, layer.dilation_rate)
    if isinstance(layer, _TRANSPOSED):
        if layer.output_padding is not None or max(rates) > 1:
            return None
        x = ops.conv_transpose(x, kernels[0], strides=strides, padding=layer.padding)
    elif isinstance(layer, (*_DEPTHWISE, *kinds.SEPARABLE)):
        # Not of `tf.nn`, which splits images for dilations.
        x = tf.raw_ops.DepthwiseConv2dNative(
            input=x,
            filter=kernels[0],
            strides=[1, *strides, 1],
            padding=padding,
            dilations=[1, *rates, 1],
        )
        if isinstance(layer, kinds.SEPARABLE):
            x = tf.nn.conv2d(at("between", x), kernels[1], 1, "VALID")
    else:
        # Not `ops.conv`, which splits images for dilations.
        x = tf.nn.conv2d(x, kernels[0], strides, padding, dilations=rates)
    x = _biased(x, bias)
    return tf.squeeze(x, 1) if isinstance(layer, _LINE) else x


def _sides(layer, sides):
    if not isinstance(layer, _LINE):
        return sides
    side = sides if isinstance(sides, int) else sides[0]
    # A depthwise convolution of TensorFlow has one stride for both sides.
    return (side, side) if isinstance(layer, (*_DEPTHWISE, layers.SeparableConv1D)) else (1, side)


def _einsum(layer, x, kernel, bias):
    """Computes EinsumDense as one matrix product, where its equation is one; else None."""
    labels = parse_einsum(layer.equation)
    inputs, sums, outputs = labels.inputs, labels.kernel, labels.outputs
    new = [label for label in sums if label not in inputs]
    gone = [label for label in sums if label in inputs]
    batch = inputs[: len(inputs) - len(gone)]
    is_product = (
        "".join([*gone, *new]) == sums
        and "".join([batch, *gone]) == inputs
        and "".join([batch, *new]) == outputs
        and "." not in sums
    )
    if not is_product:
        return None
    rows = int(np.prod(kernel.shape[: len(gone)]))
    if len(gone) > 1:
        x = ops.reshape(x, (*_known(x, len(batch)), rows))
    if bias is not None:
        bias = np.broadcast_to(bias, kernel.shape[len(gone) :]).reshape(-1)
    x = _biased(tf.matmul(x, kernel.reshape(rows, -1)), bias)
    if len(new) > 1:
        x = ops.reshape(x, (*_known(x, len(batch)), *kernel.shape[len(gone) :]))
    return x


def _known(x, count):
    """Returns the first sides of a shape, in which one may be open."""
    sides = list(x.shape[:count])
    is_open = [side is None for side in sides]
    if sum(is_open) == 1:
        return [-1 if side is None else side for side in sides]
    shape = tf.shape(x)
    return [shape[i] if side is None else side for i, side in enumerate(sides)]


def _biased(x, bias):
    return x if bias is None else x + tf.constant(bias, x.dtype)


def _in_a_call_of_its_own(layer, kernels, at, call, args, kwargs):
    """Returns the outputs of a layer of a class that derives from one of Keras."""
    activation = getattr(layer, "activation", None)

    def activated(x):
        return activation(at("before_activation", x))

    with (
        _replaced(layer, kernels, []),
        kinds.other_activation(layer, None if activation is None else activated),
    ):
        return call(*args, **kwargs)


def _replaced(layer, kernels, others):
    variables = [variable for variable, _ in kinds.kernels_of(layer)]
    replaced = [*zip(variables, kernels, strict=True), *others]
    values = [(variable, tf.constant(value)) for variable, value in replaced]
    return keras.StatelessScope(state_mapping=values)


def _by_own_call(layer, kernels, bias, call, args, kwargs):
    """Returns the outputs of the layer's own call with other kernels, before its activation."""
    has_bias = getattr(layer, "bias", None) is not None
    others = [(layer.bias, bias)] if has_bias else []
    with _replaced(layer, kernels, others), kinds.other_activation(layer, None):
        outputs = call(*args, **kwargs)
    return outputs if bias is None or has_bias else _biased(outputs, bias)
