"""Zeros at the end of training, whatever weights callbacks and averages put in their place."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.networks import compiled, sequential, train, zeros

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
