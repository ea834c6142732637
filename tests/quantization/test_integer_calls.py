"""Inference in the integers of a file, against fixed-point arithmetic in NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.quantization.fake_quant import deployed_range, file_grid, quotient
from tfpeft.quantization.integer_calls import Grid, _added, _averaged, _integer_bias, linear

RNG = np.random.default_rng(0)


def grid(low, high):
    return Grid(*file_grid(tf.constant(low), tf.constant(high)))


def on_grid(grid, shape):
    """Returns random integers of a grid without its zero point, and their values."""
    integers = RNG.integers(0, 256, shape) - int(grid.zero)
    return integers, tf.constant(integers * grid.step.numpy(), "float32")


def fixed_point(sums, multiplier):
    """Returns the product as gemmlowp has it: with a factor of 31 bits, then a shift."""
    fraction, power = np.frexp(multiplier.astype("float64"))
    factor, shift = np.round(fraction * 2**31).astype("int64"), -power
    high = (sums * factor + 2**30) >> 31
    return (high + (1 << (shift - 1))) >> shift


def layers(kind):
    """Returns a layer with a kernel and BatchNormalization of factors of both signs."""
    layer = keras.layers.Dense(6) if kind == "Dense" else keras.layers.Conv2D(6, 2)
    layer.build((None, 5, 5, 4)[:: 3 if kind == "Dense" else 1])
    norm = keras.layers.BatchNormalization()
    norm.build((None, 6))
    for weight in (*layer.weights, *norm.weights):
        weight.assign(RNG.normal(size=weight.shape))
    norm.moving_variance.assign(RNG.uniform(0.5, 2, 6))
    return layer, norm


@pytest.mark.parametrize(("kind", "bits"), [("Conv2D", 8), ("Conv2D", 4), ("Dense", 4)])
def test_sums_are_integers_and_rounded_as_by_litert(kind, bits):
    layer, norm = layers(kind)
    read, written = grid(-1.0, 3.0), grid(-6.0, 9.0)
    q, x = on_grid(read, (64, 4) if kind == "Dense" else (8, 5, 5, 4))

    def sums(x, kernel):
        return x @ kernel if kind == "Dense" else tf.nn.conv2d(x, kernel, 1, "VALID")

    found = linear(layer, norm, sums, x, read, written, bits).numpy()
    kernel = layer.kernel.numpy()
    axes = tuple(range(kernel.ndim - 1))
    steps = np.abs(kernel).max(axes) / np.float32(2 ** (bits - 1) - 1)
    factor = norm.gamma.numpy() / np.sqrt(norm.moving_variance.numpy() + norm.epsilon)
    bias = (layer.bias.numpy() - norm.moving_mean.numpy()) * factor + norm.beta.numpy()
    k = np.round(kernel / steps).astype("int64") * np.sign(factor).astype("int64")
    steps = steps * np.abs(factor) * read.step.numpy()
    total = sums(tf.constant(q, "float64"), tf.constant(k, "float64")).numpy().astype("int64")
    total += np.round(bias / steps).astype("int64")
    multiplier = steps / written.step.numpy()
    is_twice = (kind, bits) == ("Conv2D", 4)
    expected = fixed_point(total, multiplier) if is_twice else np.round(total * multiplier)
    zero = written.zero.numpy()
    expected = np.clip(expected, -zero, 255 - zero)
    assert (np.min(expected), np.max(expected)) == (-zero, 255 - zero)
    wrong = np.round(found / written.step.numpy()) != expected
    # The steps differ from those of a file in their last bits.
    assert np.mean(wrong) < 1e-3
    is_other = np.round(total * multiplier) != fixed_point(total, multiplier)
    assert np.mean(is_other) > 2e-3 or bits == 8


@pytest.mark.parametrize("bits", [8, 4])
def test_biases_are_integers(bits):
    bias, step = RNG.normal(size=50).astype("float32"), np.full(50, 0.02, "float32")
    found = _integer_bias(tf.constant(bias), tf.constant(0.5), tf.constant(step), bits)
    expected = np.round(bias / 0.01)
    expected = np.round(expected * 7 / 127) if bits == 4 else expected
    np.testing.assert_array_equal(found, expected)


def test_both_factors_of_an_addition_have_one_power_of_two():
    half = np.nextafter(np.float32(127.5), np.float32(0))  # a factor of just less than 1 / 2
    first, second, written = grid(0.0, half), grid(-55.0, 200.0), grid(-50.0, 205.0)
    pairs = np.mgrid[:256, :256].reshape(2, -1)  # all there are
    p, q = (each - int(grid.zero) for each, grid in zip(pairs, (first, second), strict=True))
    x, y = (tf.constant(i * g.step.numpy(), "float32") for i, g in ((p, first), (q, second)))
    found = _added(None, None, None, ([x, y],), {}, [first, second], written).numpy()
    step = written.step.numpy()
    factors = [float(each.step.numpy() / step) for each in (first, second)]
    shift = 20 - int(np.floor(np.log2(max(factors))))
    a, b = (round(factor * 2**shift) for factor in factors)
    zero = int(written.zero)
    expected = np.clip((p * a + q * b + (1 << (shift - 1))) >> shift, -zero, 255 - zero)
    np.testing.assert_array_equal(np.round(found / step), expected)


def test_halves_of_an_average_go_away_from_the_zero_of_stored_integers():
    values = grid(-1.0, 3.0)  # its zero is 64, stored as -64
    q = np.array([[66, 67], [-10, -11]]) + np.zeros((2, 2))
    pairs = tf.constant((q * values.step.numpy()).reshape(1, 2, 2, 1), "float32")
    pool = keras.layers.AveragePooling2D((1, 2))
    found = _averaged(None, None, pool.call, (pairs,), {}, [values], values).numpy()
    assert np.round(found / values.step.numpy()).ravel().tolist() == [67, -11]


@pytest.mark.parametrize(("low", "high"), [(-1.3, 2.9), (0.0, 0.7), (-5.0, 0.0)])
def test_the_grid_of_a_file_is_that_of_the_deployed_range(low, high):
    step, zero = (each.numpy() for each in file_grid(tf.constant(low), tf.constant(high)))
    ends = deployed_range(np.float32(low), np.float32(high), 8)
    np.testing.assert_allclose([-zero * step, (255 - zero) * step], ends, rtol=1e-6, atol=1e-9)


@pytest.mark.as_users_run
def test_a_quotient_is_the_same_in_a_graph():
    x = RNG.normal(size=1000).astype("float32")
    np.testing.assert_array_equal(quotient(tf.constant(x), 7), x / np.float32(7))
    in_graph = tf.function(lambda x: quotient(x, 7))(x)
    np.testing.assert_array_equal(in_graph, x / np.float32(7))


def test_gradients_pass_in_inference_and_ranges_may_be_unknown():
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, activation="relu")
    plain = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3)])
    x = RNG.normal(size=(64, 8)).astype("float32")
    model = tfpeft.quantize_aware(plain, representative_data=x)
    for quantizer in model.quantizers.values():
        quantizer.trainable = False
    values = [variable.value for variable in model.model.weights]
    with tf.GradientTape(persistent=True) as tape:
        losses = [tf.reduce_sum(model(x, training=mode) ** 2) for mode in (False, True)]
    for found, expected in zip(*(tape.gradient(loss, values) for loss in losses), strict=True):
        np.testing.assert_allclose(found, expected, atol=0.02 * np.ptp(expected))
    unknown = tfpeft.quantize_aware(plain)
    np.testing.assert_allclose(unknown(x), plain(x), atol=0.1)
