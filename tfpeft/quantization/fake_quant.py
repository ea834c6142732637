"""Integers simulated in floats: values rounded to the grid of 2^bits steps, with gradients."""

import numpy as np
import tensorflow as tf


def quotient(x, number):
    """Returns `x / number`, in graphs the same as outside of them to the last bit.

    TensorFlow multiplies by the reciprocal of a constant in a graph. In float32 that moves steps by
    a last bit, and what lies in the middle of two steps to the other one.
    """
    return tf.cast(tf.cast(x, "float64") / number, x.dtype)


def weight_scales(kernel, axes, bits):
    """Returns the step of each output channel of a kernel.

    `s = max|w| / (2^(bits - 1) - 1)`, of a symmetric grid in which 0 is 0; a channel of zeros has
    the step 1.

    Args:
        kernel: A tensor.
        axes: The axes of the kernel that are output channels; () for one step for all.
        bits: Bits of an integer.

    Returns:
        A tensor that broadcasts with the kernel.
    """
    others = [axis for axis in range(len(kernel.shape)) if axis not in axes]
    largest = tf.reduce_max(tf.abs(kernel), axis=others, keepdims=True)
    scales = quotient(largest, 2 ** (bits - 1) - 1)
    return tf.where(scales > 0, scales, tf.ones_like(scales))


def weights_on_grid(kernel, axes, bits):
    """Returns `round(w / s) * s`, with the steps `s` of `weight_scales`."""
    scales = weight_scales(kernel, axes, bits)
    return tf.round(kernel / scales) * scales


def fake_quant_weights(kernel, axes, bits):
    """Returns `weights_on_grid`, of which the gradient passes straight through to the kernel."""
    return kernel + tf.stop_gradient(weights_on_grid(kernel, axes, bits) - kernel)


def fake_quant(x, low, high, bits):
    """Returns values rounded to the grid of a range, in float32.

    With 8 bits, `s = (high - low) / 255`, `z = round(-low / s)` and
    `y = (clip(round(x / s) + z, 0, 255) - z) * s`, so that 0 is on the grid. With 16 bits the grid
    is symmetric: `s = max(-low, high) / 32767`. The gradient is 1 inside the range and 0 outside.

    Args:
        x: A tensor in float32.
        low: Least value of the range, at most 0.
        high: Largest value, at least 0; above `low`.
        bits: 8 or 16.
    """
    if bits == 16:
        high = tf.maximum(-low, high)
        low = -high
    return tf.quantization.fake_quant_with_min_max_vars(
        x, low, high, num_bits=bits, narrow_range=bits == 16
    )


def learned_fake_quant(x, low, high, bits):
    """Returns the values of `fake_quant`, with gradients for the range as well.

    The gradient of the step `s` is `round(x / s) - x / s` inside the range, and that of the nearest
    end outside, scaled by `1 / sqrt(n * (2^bits - 1))` for n values, as in LSQ.

    Reference: Esser et al., "Learned Step Size Quantization", 2020,
    https://arxiv.org/abs/1902.08153
    """
    factor = 1.0 / np.sqrt(2**bits - 1) / tf.sqrt(tf.cast(tf.size(x), x.dtype))
    low, high = (_scaled_gradient(side, factor) for side in (low, high))
    if bits == 16:
        high = tf.maximum(-low, high)
        low = -high
    y, width = fake_quant(x, low, high, bits), high - low
    # 0 where x is outside: there `fake_quant` has the gradient of the end.
    rounding = tf.stop_gradient((y - tf.clip_by_value(x, low, high)) / width)
    return y + rounding * (width - tf.stop_gradient(width))


def deployed_range(low, high, bits):
    """Returns the range (low, high) as its grid has it, with 0 on the grid, in NumPy."""
    low, high = min(float(low), 0.0), max(float(high), 0.0)
    if bits == 16:
        return -max(-low, high), max(-low, high)
    scale = (high - low) / 255
    zero = np.floor(-low / scale + 0.5)
    return -zero * scale, (255 - zero) * scale


def file_grid(low, high):
    """Returns (step, zero) of the 8-bit grid of a range, to the last bit those of a file.

    The converter computes them in float32 from the ends of the grid, `deployed_range`.

    Args:
        low: A scalar in float32, at most 0.
        high: Another, at least 0; above `low`.

    Returns:
        Scalars in float32: the step, and which of 0 to 255 is the value 0.
    """
    low, high = tf.cast(low, "float64"), tf.cast(high, "float64")
    scale = (high - low) / 255
    zero = tf.floor(-low / scale + 0.5)
    low, high = (tf.cast(end * scale, "float32") for end in (-zero, 255 - zero))
    return quotient(high - low, 255), tf.cast(zero, "float32")


def _scaled_gradient(x, factor):
    return x * factor + tf.stop_gradient(x - x * factor)
