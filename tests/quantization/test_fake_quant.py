"""The formulas of rounding, against NumPy and TFMOT."""

import numpy as np
import pytest
import tensorflow as tf

from tfpeft.quantization.fake_quant import (
    deployed_range,
    fake_quant,
    fake_quant_weights,
    learned_fake_quant,
    weight_scales,
    weights_on_grid,
)

KERNEL = np.random.default_rng(0).normal(size=(3, 3, 4, 5)).astype("float32")
KERNEL[..., 1] = 0.0
X = np.random.default_rng(1).normal(size=(50, 7)).astype("float32") * 2


@pytest.mark.parametrize("bits", [8, 4])
@pytest.mark.parametrize("axes", [(3,), (2, 3), ()])
def test_weights_on_their_grid(axes, bits):
    others = tuple(axis for axis in range(4) if axis not in axes)
    steps = np.abs(KERNEL).max(others, keepdims=True) / (2 ** (bits - 1) - 1)
    steps[steps == 0] = 1.0
    np.testing.assert_allclose(weight_scales(KERNEL, axes, bits), steps, rtol=1e-6)
    rounded = np.asarray(weights_on_grid(KERNEL, axes, bits))
    np.testing.assert_allclose(rounded, np.round(KERNEL / steps) * steps, atol=1e-6)
    integers = rounded / steps
    np.testing.assert_allclose(integers, np.round(integers), atol=1e-4)
    assert np.max(np.abs(integers)) == pytest.approx(2 ** (bits - 1) - 1)
    assert np.all(rounded[KERNEL == 0] == 0)


def test_weights_are_those_of_tfmot():
    from tfpeft.sparsity.tfmot_import import import_tfmot

    import_tfmot()
    from tensorflow_model_optimization.python.core.quantization.keras import quantizers

    quantizer = quantizers.LastValueQuantizer(
        num_bits=8, per_axis=True, symmetric=True, narrow_range=True
    )
    weights = {name: tf.Variable(tf.zeros(KERNEL.shape[-1])) for name in ("min_var", "max_var")}
    theirs = quantizer(tf.constant(KERNEL), training=True, weights=weights)
    np.testing.assert_allclose(weights_on_grid(KERNEL, (3,), 8), theirs, atol=1e-6)


def test_the_gradient_of_weights_passes_straight_through():
    kernel = tf.Variable(KERNEL)
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(fake_quant_weights(kernel, (3,), 8) * KERNEL)
    np.testing.assert_allclose(tape.gradient(loss, kernel), KERNEL)


def by_hand(x, low, high, bits):
    if bits == 16:
        step = max(-low, high) / 32767
        return np.clip(np.round(x / step), -32767, 32767) * step
    step = (high - low) / 255
    zero = np.round(-low / step)
    return (np.clip(np.round(x / step) + zero, 0, 255) - zero) * step


@pytest.mark.parametrize("function", [fake_quant, learned_fake_quant])
@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize(("low", "high"), [(-1.5, 3.25), (0.0, 4.0), (-6.0, 0.0)])
def test_activations_on_their_grid(function, bits, low, high):
    y = np.asarray(function(X, tf.constant(low), tf.constant(high), bits))
    step = (high - low) / 255 if bits == 8 else max(-low, high) / 32767
    expected = by_hand(X, low, high, bits)
    # A value in the middle of two steps may go to either.
    assert np.max(np.abs(y - expected)) <= step * 1.01
    assert np.mean(np.abs(y - expected) > 0.1 * step) < 0.01
    least, largest = deployed_range(low, high, bits)
    assert y.min() >= least - 1e-5
    assert y.max() <= largest + 1e-5
    assert np.any(np.asarray(function(np.zeros((1, 1), "float32"), low, high, bits)) == 0)


def test_the_gradient_of_activations_is_cut_outside():
    x = tf.constant([-2.0, -0.5, 0.3, 5.0])
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = fake_quant(x, tf.constant(-1.0), tf.constant(2.0), 8)
    np.testing.assert_array_equal(tape.gradient(y, x), [0, 1, 1, 0])


def test_the_gradient_of_a_learned_range():
    """LSQ: round(x / s) - x / s inside, the end of the grid outside, over sqrt(n * 255)."""
    x = np.array([0.3, 1.234, 9.0], "float32")
    high = tf.Variable(2.55)  # s = 0.01
    with tf.GradientTape() as tape:
        y = learned_fake_quant(tf.constant(x), tf.constant(0.0), high, 8)
    inside = np.round(x[:2] / 0.01) - x[:2] / 0.01
    expected = (inside.sum() + 255) / 255 / np.sqrt(3 * 255)
    np.testing.assert_allclose(tape.gradient(y, high), expected, rtol=1e-3)


def test_a_deployed_range_has_zero_on_its_grid():
    low, high = deployed_range(-0.3004, 1.0, 8)
    step = (high - low) / 255
    assert -low / step == pytest.approx(round(-low / step))
    assert deployed_range(0.5, 2.0, 8) == (0.0, 2.0)
    assert deployed_range(-3.0, 2.0, 16) == (-3.0, 3.0)
