"""Moving statistics in short trainings, against their formula."""

import keras
import numpy as np
import pytest

from tfpeft.core.moving_statistics import following_statistics


def trained(steps, momentum=0.99):
    """Returns a BatchNormalization after so many steps of samples of mean 3 and variance 4."""
    layer = keras.layers.BatchNormalization(momentum=momentum)
    model = keras.Sequential([keras.Input((1,)), keras.Sequential([layer])])
    model.compile("sgd", "mse")
    x = np.float32([[1.0], [5.0]] * steps)
    with following_statistics(model, steps):
        model.fit(x, x, batch_size=2, shuffle=False, verbose=0)
    assert layer.momentum == momentum
    return layer


@pytest.mark.parametrize(("steps", "momentum"), [(5, 0.8), (100, 0.9), (1250, 0.99)])
def test_the_average_is_as_long_as_the_training_has_time_for(steps, momentum):
    layer = trained(steps)
    left = momentum**steps
    np.testing.assert_allclose(layer.moving_mean.numpy(), [3.0 * (1 - left)], rtol=1e-5)
    np.testing.assert_allclose(layer.moving_variance.numpy(), [4.0 - 3.0 * left], rtol=1e-5)


def test_statistics_that_are_faster_stay_as_they_are():
    mean = trained(5, momentum=0.5).moving_mean.numpy()
    np.testing.assert_allclose(mean, [3 * (1 - 0.5**5)], rtol=1e-5)


def test_an_error_in_training_leaves_the_momentum():
    layer = keras.layers.BatchNormalization()
    model = keras.Sequential([keras.Input((1,)), layer])

    def fail():
        with following_statistics(model, 10):
            raise KeyError(layer.momentum)

    with pytest.raises(KeyError, match=r"0\.8"):
        fail()
    assert layer.momentum == 0.99
