"""L1 penalties and their proximal steps against NumPy, scikit-learn and numbers by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests import networks
from tests.networks import X, sequential, zeros
from tests.sparsity.kernel import KERNEL, variable


def test_proximal_l1_reaches_zero_where_the_penalty_alone_does_not():
    """One weight, a loss that does not depend on it: the table in the docstring."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.layers[0].kernel.assign([[0.25]])
    penalized = tfpeft.l1_regularize(model, 1.0)
    penalized.compile(keras.optimizers.SGD(0.1), "mse")
    weight = variable([[0.25]])
    proximal = tfpeft.ProximalL1(keras.optimizers.SGD(0.1), 1.0)
    table = []
    for _ in range(4):
        penalized.fit(np.zeros((1, 1)), np.zeros((1, 1)), verbose=0)
        proximal.apply([tf.zeros((1, 1))], [weight])
        table.append((float(penalized.layers[0].kernel.numpy()[0, 0]), float(weight.numpy()[0, 0])))
    expected = [(0.15, 0.15), (0.05, 0.05), (-0.05, 0.0), (0.05, 0.0)]
    np.testing.assert_allclose(table, expected, atol=1e-6)
    assert [proximal_value == 0.0 for _, proximal_value in table] == [False, False, True, True]
    for step, (penalty, shrunk) in enumerate(expected, start=1):
        assert f"| {step} | {penalty} | {shrunk} |" in tfpeft.l1_regularize.__doc__
    assert model.layers[0].kernel.numpy()[0, 0] == 0.25
    assert not model.losses


def test_proximal_l1_against_numpy():
    gradient = np.array([[0.1, 5.0], [-0.4, 0.0], [0.1, 0.4]], "float32")
    weight = variable()
    tfpeft.ProximalL1(keras.optimizers.SGD(0.1), 2.0).apply([gradient], [weight])
    moved = KERNEL - 0.1 * gradient
    expected = np.sign(moved) * np.maximum(np.abs(moved) - 0.2, 0)
    np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)
    assert zeros(weight) == 2
    assert not np.any(np.signbit(weight.numpy()[weight.numpy() == 0]))


def test_proximal_l1_finds_the_lasso():
    """Proximal gradient descent converges to what scikit-learn's coordinate descent finds."""
    from sklearn.linear_model import Lasso

    rng = np.random.default_rng(0)
    x = rng.normal(size=(200, 12)).astype("float32")
    y = x[:, :3] @ np.array([2.0, -1.0, 0.5]) + 0.1 * rng.normal(size=200)
    expected = Lasso(alpha=0.2, fit_intercept=False, tol=1e-8).fit(x, y).coef_
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(1, use_bias=False)])
    # Lasso minimizes mse / 2 + alpha |w|.
    model.compile(tfpeft.ProximalL1(keras.optimizers.SGD(0.1), 0.4), "mse")
    model.fit(tf.data.Dataset.from_tensors((x, y)).repeat(200), verbose=0)
    coefficients = model.layers[0].kernel.numpy()[:, 0]
    np.testing.assert_allclose(coefficients, expected, atol=1e-4)
    np.testing.assert_array_equal(coefficients == 0, expected == 0)


def test_proximal_l1_waits_for_accumulated_gradients():
    weight = variable()
    inner = keras.optimizers.SGD(0.1, gradient_accumulation_steps=2)
    technique = tfpeft.ProximalL1(inner, 1.0)
    technique.apply([tf.zeros((3, 2))], [weight])
    np.testing.assert_array_equal(weight.numpy(), KERNEL)
    technique.apply([tf.zeros((3, 2))], [weight])
    expected = np.sign(KERNEL) * np.maximum(np.abs(KERNEL) - 0.1, 0)
    np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)


def test_proximal_l1_takes_the_learning_rate_of_the_update():
    rates = [0.1, 0.05, 0.0]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0, 1], rates)
    weight, expected = variable(), KERNEL
    technique = tfpeft.ProximalL1(keras.optimizers.SGD(schedule), 1.0)
    for rate in rates:
        technique.apply([tf.ones((3, 2))], [weight])
        moved = expected - rate
        expected = np.sign(moved) * np.maximum(np.abs(moved) - rate, 0)
        np.testing.assert_allclose(weight.numpy(), expected, atol=1e-6)


def test_proximal_group_l1_against_numpy():
    rng = np.random.default_rng(1)
    kernel = rng.normal(size=(3, 3, 4, 5)).astype("float32") * [0.01, 0.05, 0.2, 1.0, 0.0]
    layer = keras.layers.Conv2D(5, 3)
    layer.build((None, 9, 9, 4))
    weight = layer.kernel
    weight.assign(kernel)
    technique = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.1), 1.0)
    technique.apply([tf.zeros(kernel.shape)], [weight])
    norms = np.sqrt(np.sum(np.square(kernel), axis=(0, 1, 2)))
    factors = np.maximum(1 - 0.1 * np.sqrt(36) / np.maximum(norms, 1e-9), 0)
    np.testing.assert_allclose(weight.numpy(), kernel * factors, atol=1e-6)
    assert np.all(weight.numpy() == 0, axis=(0, 1, 2)).tolist() == [True, True, False, False, True]


def test_channels_vanish_together():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(256, 4)).astype("float32")
    hidden = keras.layers.Dense(16, activation="relu")
    model = keras.Sequential([keras.Input((4,)), hidden, keras.layers.Dense(1, name="last")])
    optimizer = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.1), 0.1, exclude=["last"])
    model.compile(optimizer, "mse")
    model.fit(x, x[:, :1], epochs=20, verbose=0)
    gone = np.all(hidden.kernel.numpy() == 0, axis=0)
    assert 0 < gone.sum() < 16
    assert np.all(hidden.kernel.numpy()[:, ~gone] != 0)


def test_one_channel_is_skipped_by_the_group_penalty():
    model = networks.convolutional()
    optimizer = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.1), 0.1)
    optimizer.build(model.trainable_variables)
    skipped = {path: why for path, why in optimizer.skipped.items() if why == "one channel"}
    assert len(skipped) == 1
    assert "depthwise" in next(iter(skipped))


def test_l1_regularize_adds_the_penalty_and_keeps_what_is_there():
    model = sequential()  # its first layer has L2(0.01)
    regularized = tfpeft.l1_regularize(model, 0.1)
    first, second = (layer.kernel.numpy() for layer in model.layers)
    expected = [
        0.1 * np.abs(first).sum() + 0.01 * np.square(first).sum(),
        0.1 * np.abs(second).sum(),
    ]
    np.testing.assert_allclose([float(v) for v in regularized.losses], expected, rtol=1e-5)
    assert len(model.losses) == 1
    np.testing.assert_array_equal(regularized.predict(X, verbose=0), model.predict(X, verbose=0))
    head_only = tfpeft.l1_regularize(model, 0.1, exclude=["hid*"])
    np.testing.assert_allclose(float(head_only.losses[1]), expected[1], rtol=1e-5)
    np.testing.assert_allclose(float(head_only.losses[0]), 0.01 * np.square(first).sum(), rtol=1e-5)


@pytest.mark.parametrize("build", networks.MODELS)
def test_l1_regularize_reaches_every_model(build):
    model = build()
    if build is networks.subclassed:  # its layers are not in its configuration
        with pytest.raises(ValueError, match="no kernel to regularize"):
            tfpeft.l1_regularize(model, 0.1)
        return
    layers = {id(w): w for w in model.trainable_weights if len(w.shape) > 1}
    total = sum(0.1 * np.abs(w.numpy()).sum() for w in layers.values())
    found = sum(float(v) for v in tfpeft.l1_regularize(model, 0.1).losses)
    np.testing.assert_allclose(found - sum(float(v) for v in model.losses), total, rtol=1e-4)


def test_l1_regularize_leaves_containers_alone():
    encoder = keras.Sequential([keras.Input((4, 3)), keras.layers.Dense(3)], name="encoder")
    both = keras.layers.Bidirectional(keras.layers.LSTM(2), name="both")
    model = keras.Sequential([keras.Input((4, 3)), encoder, both, keras.layers.Dense(1)])
    assert len(tfpeft.l1_regularize(model, 0.1).losses) == 6
    assert len(tfpeft.l1_regularize(model, 0.1, exclude=["encoder"]).losses) == 5
    assert len(tfpeft.l1_regularize(model, 0.1, exclude=["encoder", "both"]).losses) == 1
    with pytest.raises(ValueError, match="`exclude`.*among.*'encoder'.*tail"):
        tfpeft.l1_regularize(model, 0.1, exclude=["tail"])
