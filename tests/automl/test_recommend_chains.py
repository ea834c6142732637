"""What stages of a chain make of a model: statistics, zeros and values that later stages keep."""

import keras
import numpy as np
import pytest

from tests.automl import searches
from tfpeft.automl.advice.chains import (
    QUANTIZE_AWARE,
    Chain,
    first_step,
    quantize,
    run_step,
    zeros_of,
)
from tfpeft.automl.advice.training import Training


@pytest.fixture(scope="module")
def model(batch):
    """A trained network with BatchNormalization."""
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Conv2D(16, 3), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    layers += [keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(2)]
    return searches.trained(layers, batch, epochs=5)


def ran(model, batch, *steps, updates=12):
    """Returns the model after stages of so many updates each."""
    training = Training.of(model, batch, {None: "classification"}, steps=updates)
    for count in range(1, len(steps) + 1):
        model = run_step(Chain(steps[:count]), model, training)
    return model


@pytest.mark.parametrize("stage", ["distill", "prune_channels"])
def test_moving_statistics_are_those_of_the_new_model(model, batch, stage):
    """Of 12 updates; with Keras's momentum nine tenths would be those of the model before."""
    found = ran(model, batch, first_step(stage))
    convolution, norm = found.layers[:2]
    values = convolution(batch.x)
    np.testing.assert_allclose(
        norm.moving_mean.numpy(), np.mean(values, axis=(0, 1, 2)), atol=0.15 * np.std(values)
    )
    assert norm.momentum == 0.99


def test_trained_statistics_move_as_keras_moves_them(model, batch):
    found = ran(model, batch, first_step("cluster"), updates=1)
    before, after = (each.layers[1].moving_variance.numpy() for each in (model, found))
    assert np.max(np.abs(after / before - 1)) < 0.03


def test_zeros_and_few_values_stay_in_quantise_aware_training(model, batch):
    chain = (first_step("prune"), first_step("cluster"), QUANTIZE_AWARE)
    found = ran(model, batch, *chain)
    assert zeros_of(found.model) >= 0.8
    kernels = [w.numpy() for w in found.model.trainable_variables if len(w.shape) > 1]
    assert max(len(np.unique(kernel)) for kernel in kernels) <= 16
    clustered = ran(model, batch, *chain[:2])
    assert np.any(clustered.weights[0].numpy() != found.model.weights[0].numpy())


def test_the_techniques_of_a_chain_are_those_before_its_quantization():
    prune = first_step("prune")
    assert Chain((prune, QUANTIZE_AWARE, quantize("int8"))).techniques == Chain((prune,))
    assert Chain((prune, quantize("int8"))).techniques == Chain((prune,))
    assert Chain((QUANTIZE_AWARE, quantize("int8"))).techniques == Chain((QUANTIZE_AWARE,))
    assert Chain((quantize("int8"),)).techniques == Chain(())
