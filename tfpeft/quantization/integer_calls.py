"""The calls of layers in inference, in the integers that LiteRT computes a file in.

A value that lands one step of its grid beside that of the file moves many values behind it, which
move more: after nine convolutions a difference in one value of a thousand is as large as one in
fifty. So the sums are integers, as in the file, and rounded where and as LiteRT rounds them.
"""

import dataclasses
import functools

import keras
import numpy as np
import tensorflow as tf

from tfpeft.quantization import layer_kinds as kinds
from tfpeft.quantization.fake_quant import file_grid, quotient, weight_scales
from tfpeft.quantization.rounded_calls import activation_of, replaced_kernels

_ROUND_TWICE_IN_4_BITS = (
    *(keras.layers.Conv1D, keras.layers.Conv2D),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
)
_ENTRIES = 255
_FOUR_BITS = 7 / 127
"""Steps of weights in 4 bits to those in 8 bits, in which the converter writes them."""
_LARGEST_BIAS = 2.0**30
"""The converter widens the steps of weights for biases that are more of their steps."""


@dataclasses.dataclass
class Grid:
    """The values `(q - zero) * step`, q of 0 to 255, of an activation.

    Attributes:
        step: A scalar in float32.
        zero: A scalar in float32, integer.
    """

    step: tf.Tensor
    zero: tf.Tensor

    @classmethod
    def of_range(cls, low, high):
        """Returns the grid of a range, without gradients for it."""
        return cls(*file_grid(tf.stop_gradient(low), tf.stop_gradient(high)))

    def integers(self, x):
        """Returns `q - zero` of values on the grid."""
        return _straight(x / self.step, tf.round)

    def values(self, integers):
        """Returns the values of `q - zero`, cut off at the ends of the grid."""
        return tf.clip_by_value(integers, -self.zero, _ENTRIES - self.zero) * self.step


class IntegerCalls:
    """Computes what the layers of a model give from integers, where their grids are known.

    Args:
        plan: A `Plan`.
        quantizers: {place: its `ActivationQuantizer`}.
        bits: Bits of the weights.
        activation_bits: Bits of the activations; with 16, nothing is computed from integers.
    """

    def __init__(self, plan, quantizers, bits, activation_bits):
        self._folded, self._quantizers, self._bits = plan.folded, quantizers, bits
        self._functions = {}
        for placement in plan.placements if activation_bits == 8 else ():
            function, operation = self._function(placement), placement.operation
            if function is not None:
                self._functions[operation] = function, placement
                if operation in plan.folded:
                    self._functions[plan.folded[operation]] = _as_it_is, placement

    def _function(self, placement):
        operation, counts = placement.operation, len(placement.reads)
        if placement.writes is None or None in placement.reads:
            return None
        if placement.kernels and counts == 1 and _is_known(operation):
            return self._linear
        if kinds.is_addition(operation) and counts == 2:
            return _added
        return _averaged if kinds.averages_windows(operation) and counts == 1 else None

    def compute(self, otherwise, placement, at, call, args, kwargs):
        """Returns the outputs of a layer; those of `otherwise` where a range is not known yet."""
        plain = functools.partial(otherwise, placement, at, call, args, kwargs)
        if placement.operation not in self._functions:
            return plain()
        function, placed = self._functions[placement.operation]
        places = [*placed.reads, placed.writes]
        known = [self._quantizers[each].steps > 0.0 for each in places if isinstance(each, str)]

        def exact():
            *read, written = map(self._grid, places)
            return function(placement, at, call, args, kwargs, read, written)

        # Its activation is behind: what it notes on its outputs would not leave a branch.
        activation = activation_of(placement, at) if placement.kernels else None
        with kinds.other_activation(placement.operation, None):
            outputs = tf.cond(tf.reduce_all(known), exact, plain)
        return outputs if activation is None else activation(outputs)

    def _grid(self, place):
        ends = self._quantizers[place].ends() if isinstance(place, str) else place
        return Grid.of_range(*ends)

    def _linear(self, placement, at, call, args, kwargs, read, written):
        layer = placement.operation
        bias = getattr(layer, "bias", None)

        def sums(x, kernel):
            others = {} if bias is None else {id(bias): tf.zeros(bias.shape)}
            kernels = {id(layer.kernel): kernel, **others}
            with replaced_kernels(layer, kernels, []):
                return call(x, *args[1:], **kwargs)

        norm = self._folded.get(layer)
        return linear(layer, norm, sums, args[0], *read, written, self._bits)


def _is_known(layer):
    """Whether the sums of a layer with a kernel are computed as integers."""
    others = (*kinds.SEPARABLE, keras.layers.Embedding, keras.layers.EinsumDense)
    return (
        kinds.computes_as_keras(layer)
        and not isinstance(layer, others)
        and getattr(layer, "data_format", None) != "channels_first"
        and layer.compute_dtype == "float32"  # float16 has no room for the sums
    )


def _as_it_is(placement, at, call, args, kwargs, read, written):
    return args[0]


def linear(layer, norm, integer_sums, x, read, written, bits):
    """Returns the outputs of a layer with a kernel before its activation, on their grid.

    With integers q of the input without its zero point, k of the kernel, b of the bias, and the
    steps s of each, `y = round((sum(q k) + b) * s_in * s_k / s_out)`, where b is
    `round(bias / (s_in s_k))`. XNNPACK takes the product in float32. It has no convolutions in 4
    bits, and LiteRT's own kernels round twice: with `s_in s_k / s_out = m / 2^n` and m in
    [0.5, 1), `y = floor(floor(m (sum(q k) + b) + 0.5) / 2^n + 0.5)`.

    Args:
        layer: A layer with one kernel.
        norm: The BatchNormalization behind it, which the file folds in; or None.
        integer_sums: A function of (input, kernel) that calls the layer without bias.
        x: The input, on its grid.
        read: The `Grid` of the input.
        written: The `Grid` of the outputs.
        bits: Bits of the weights.
    """
    ((variable, axes),) = kinds.kernels_of(layer)
    kernel = tf.convert_to_tensor(variable)
    scales = tf.stop_gradient(weight_scales(kernel, axes, bits))
    integers = _straight(kernel / scales, tf.round)
    factor, bias = _factor_and_bias(layer, norm)
    largest = tf.reduce_max(
        tf.abs(tf.round(kernel / scales) * scales),
        [axis for axis in range(len(kernel.shape)) if axis not in axes],
    )
    step = quotient(tf.reshape(largest, [-1]) * tf.abs(factor), 127)
    step = tf.maximum(step, tf.abs(bias) / (read.step * _LARGEST_BIAS))
    step = tf.maximum(step, np.float32(1e-30))
    sums = integer_sums(read.integers(x), integers) * tf.sign(factor)
    sums += _integer_bias(bias, read.step, step, bits)
    if bits == 4:
        step = quotient(step, np.float64(np.float32(_FOUR_BITS)))
    multiplier = read.step * step / written.step
    rounds_twice = bits == 4 and isinstance(layer, _ROUND_TWICE_IN_4_BITS)
    product = sums * multiplier
    rounded = _rounded_twice(sums, multiplier) if rounds_twice else tf.round(product)
    return written.values(product + tf.stop_gradient(rounded - product))


def _factor_and_bias(layer, norm):
    """Returns what a file multiplies the kernel by for each output channel, and what it adds."""
    bias = getattr(layer, "bias", None)
    bias = 0.0 if bias is None else tf.reshape(tf.convert_to_tensor(bias), [-1])
    if norm is None:
        return tf.ones([]), bias
    variance = tf.convert_to_tensor(norm.moving_variance) + norm.epsilon
    # By way of float64, as a graph has a less exact function for 1 / sqrt(x) in float32.
    deviation = tf.cast(tf.sqrt(tf.cast(variance, "float64")), "float32")
    factor = tf.cast(1.0 / tf.cast(deviation, "float64"), "float32")
    factor = factor if norm.gamma is None else factor * norm.gamma
    offset = -norm.moving_mean * factor
    offset = offset if norm.beta is None else offset + norm.beta
    return factor, bias * factor + offset


def _integer_bias(bias, step_read, step, bits):
    """Returns the bias in steps of the sums, rounded as the file stores it."""
    unit = tf.cast(step_read, "float64") * tf.cast(step, "float64")
    exact = tf.cast(bias, "float64") / unit
    rounded = tf.round(tf.stop_gradient(exact))
    if bits == 4:  # as the bytes of the converter are scaled
        rounded, exact = tf.round(rounded * _FOUR_BITS), exact * _FOUR_BITS
    return tf.cast(exact + tf.stop_gradient(rounded - exact), "float32")


def _rounded_twice(sums, multiplier):
    """Returns the product as `linear` says of convolutions in 4 bits."""
    sums, multiplier = tf.cast(sums, "float64"), tf.cast(multiplier, "float64")
    power = 2.0 ** -(tf.floor(tf.math.log(multiplier) / np.log(2.0)) + 1.0)
    power = tf.maximum(power, 1.0)
    return tf.cast(tf.floor(tf.floor(sums * (multiplier * power) + 0.5) / power + 0.5), "float32")


def _added(placement, at, call, args, kwargs, read, written):
    """Adds as XNNPACK: both factors have the power of 2 with which the larger has 21 bits."""
    terms = args[0] if isinstance(args[0], (list, tuple)) else args[:2]
    factors = [tf.cast(grid.step / written.step, "float64") for grid in read]
    power = 2.0 ** (20.0 - tf.floor(tf.math.log(tf.maximum(*factors)) / np.log(2.0)))
    rounded = exact = 0.0
    for grid, term, factor in zip(read, terms, factors, strict=True):
        integers = tf.cast(grid.integers(term), "float64")
        exact, rounded = exact + integers * factor, rounded + integers * tf.round(factor * power)
    rounded = tf.floor(rounded / power + 0.5)
    return written.values(tf.cast(exact + tf.stop_gradient(rounded - exact), "float32"))


def _averaged(placement, at, call, args, kwargs, read, written):
    """Averages as AVERAGE_POOL_2D: halves of the stored integers are rounded away from 0."""
    (grid,) = read
    shift = grid.zero - 128.0
    mean = call(grid.integers(args[0]), *args[1:], **kwargs) + shift
    return written.values(_straight(mean, _away_from_zero) - shift)


def _away_from_zero(x):
    return tf.sign(x) * tf.floor(tf.abs(x) + 0.5)


def _straight(x, rounded):
    """Returns `rounded(x)`, of which the gradient passes straight through."""
    return x + tf.stop_gradient(rounded(x) - x)
