"""Zeros in averages of weights, and whatever weights callbacks put in their place."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.networks import X, Y, compiled, sequential, train, zeros
from tfpeft.sparsity.moments import wrapped

HALF = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=8, frequency=1)
TECHNIQUES = {
    "magnitude": lambda o: tfpeft.MagnitudePruning(o, HALF),
    "straight_through": lambda o: tfpeft.MagnitudePruning(o, HALF, straight_through=True),
    "rigl": lambda o: tfpeft.RigL(o, 0.5, distribution="uniform", end_step=8, frequency=2),
    "dropout": lambda o: tfpeft.TargetedDropout(o, 0.5, 0.5),
}


def averaging(**options):
    return keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.5, **options)


@pytest.mark.parametrize("name", TECHNIQUES)
def test_averages_that_are_swapped_in_after_epochs(name):
    model = compiled(sequential(), TECHNIQUES[name](averaging()))
    train(model, epochs=2, callbacks=[keras.callbacks.SwapEMAWeights(swap_on_epoch=True)])
    assert [zeros(layer.kernel) for layer in tfpeft.strip_pruning(model).layers] == [30, 15]


def test_averages_with_proximal_steps_have_the_zeros_of_the_weights():
    model = compiled(sequential(), tfpeft.ProximalL1(averaging(), 0.3))
    seen = []

    class Seen(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            seen.append([layer.kernel.numpy() == 0 for layer in self.model.layers])

    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    train(model, epochs=2, callbacks=[Seen(), swap])
    assert np.any(seen[-1][0])
    for layer, expected in zip(model.layers, seen[-1], strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy() == 0, expected)


def test_weights_that_a_callback_sets_lose_their_masked_part():
    class Lookahead(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.model.set_weights([weight + 1.0 for weight in self.model.get_weights()])

    model = compiled(sequential(), TECHNIQUES["magnitude"](keras.optimizers.SGD(0.1)))
    train(model, epochs=1, callbacks=[Lookahead()])
    assert [zeros(layer.kernel) for layer in model.layers] == [30, 15]


def test_final_values_of_variables_that_are_not_named_stay():
    model = compiled(sequential(), TECHNIQUES["magnitude"](keras.optimizers.SGD(0.0)))
    train(model, epochs=1)
    for layer in model.layers:
        layer.kernel.assign(np.ones(layer.kernel.shape))
    model.optimizer.finalize_variable_values(model.layers[1].trainable_variables)
    assert [zeros(layer.kernel) for layer in model.layers] == [0, 15]


WITH_AVERAGES = {
    "static": tfpeft.StaticSparse(averaging(), 0.5),
    "decay": tfpeft.MagnitudePruning(
        averaging(), tfpeft.polynomial_decay(0.75, begin=0, end=4, steps_per_epoch=1, frequency=1)
    ),
    "straight_through": TECHNIQUES["straight_through"](averaging()),
    "rigl": TECHNIQUES["rigl"](averaging()),
    "proximal": tfpeft.ProximalL1(averaging(), 1.0),
    "two": tfpeft.ProximalL1(tfpeft.StaticSparse(averaging(), 0.5), 1.0),
    "overwritten": tfpeft.StaticSparse(averaging(ema_overwrite_frequency=2), 0.5),
}


@pytest.mark.parametrize("name", WITH_AVERAGES)
def test_averages_of_each_step_are_those_of_numpy_with_the_zeros_of_the_weights(name):
    optimizer = WITH_AVERAGES[name]
    rng = np.random.default_rng(0)
    kernel = keras.Variable(rng.normal(size=(4, 4)), name="kernel")
    plain = wrapped(optimizer)[-1]
    for step in range(5):
        before = plain._model_variables_moving_average[0].numpy() if step else kernel.numpy()
        optimizer.apply([keras.ops.convert_to_tensor(rng.normal(size=(4, 4)))], [kernel])
        weights = kernel.numpy()
        average = plain._model_variables_moving_average[0].numpy()
        # Keras averages weights before a proximal step shrinks them.
        if name not in ("overwritten", "proximal", "two"):
            momentum = 0.5 if step else 0.0
            expected = momentum * before + (1 - momentum) * weights
            np.testing.assert_allclose(average[weights != 0], expected[weights != 0], rtol=1e-5)
        np.testing.assert_array_equal(average[weights == 0], 0.0)
        assert np.all(average[weights != 0])
    assert 2 <= np.sum(weights == 0) <= 14


def test_averages_of_weights_that_are_dropped_for_some_steps_stay_until_the_end_step():
    optimizer = tfpeft.TargetedDropout(averaging(), 0.9, 0.5, end_step=3)
    kernel = keras.Variable(np.arange(1.0, 17.0).reshape(4, 4), name="kernel")
    for count in (16, 16, 8, 8):
        optimizer.apply([keras.ops.zeros((4, 4))], [kernel])
        average = optimizer.inner_optimizer._model_variables_moving_average[0]
        assert np.count_nonzero(average) == count
        assert np.count_nonzero(kernel) < 16


@pytest.mark.parametrize("order", ["swapped before", "swapped after", "for validation only"])
def test_the_best_weights_are_the_sparse_averages_that_were_validated(order):
    model = compiled(sequential(), TECHNIQUES["magnitude"](averaging()))
    best = tfpeft.KeepBest("val_loss", mode="max")  # an early epoch: averages of others differ
    swap = keras.callbacks.SwapEMAWeights(swap_on_epoch=order != "for validation only")
    seen = []

    class Validated(keras.callbacks.Callback):
        def on_test_batch_begin(self, batch, logs=None):
            seen.append([zeros(layer.kernel) for layer in self.model.layers])

    callbacks = [best, swap] if order == "swapped after" else [swap, best]
    data = {"validation_data": (X, Y), "validation_batch_size": len(X)}
    train(model, epochs=4, callbacks=[*callbacks, Validated()], **data)
    assert seen == [[30, 15]] * 4
    assert best.best_epoch < 3
    np.testing.assert_allclose(model.evaluate(X, Y, verbose=0), best.best, rtol=1e-5)
    assert [zeros(layer.kernel) for layer in tfpeft.strip_pruning(model).layers] == [30, 15]
