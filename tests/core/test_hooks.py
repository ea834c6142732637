"""Calls that are replaced and recorded, and that are the layer's own again afterwards."""

import threading

import keras
import numpy as np
import pytest

from tests import networks
from tests.networks import X
from tfpeft.core.hooks import intercepting, mask_of, recording


def scaled(factor, shift=0.0):
    def call(call, *args, **kwargs):
        return call(*args, **kwargs) * factor + shift

    return call


def test_functions_replace_calls_and_the_first_is_outermost():
    model = networks.sequential()
    head, expected = model.layers[-1], model(X).numpy()
    with intercepting([head], [scaled(2.0)]), intercepting([head], [scaled(1.0, 1.0)]):
        np.testing.assert_allclose(model(X), (expected + 1.0) * 2.0, rtol=1e-6)
    assert "call" not in head.__dict__
    np.testing.assert_array_equal(model(X), expected)


def test_calls_are_restored_after_an_error():
    model = networks.sequential()
    own = model.layers[0].__dict__["call"] = model.layers[0].call
    with pytest.raises(RuntimeError, match="inside"), intercepting(model.layers, [scaled(2.0)] * 2):
        raise RuntimeError("inside")
    assert model.layers[0].__dict__["call"] is own
    assert "call" not in model.layers[1].__dict__


def test_another_thread_has_the_layers_own_call():
    model = networks.sequential()
    expected, found = model(X).numpy(), []
    with intercepting([model.layers[-1]], [scaled(2.0)]):
        thread = threading.Thread(target=lambda: found.append(model(X).numpy()))
        thread.start()
        thread.join()
    np.testing.assert_array_equal(found[0], expected)


def test_outputs_are_recorded_with_their_masks():
    inputs = keras.Input((4,), dtype="int32")
    embedding = keras.layers.Embedding(10, 3, mask_zero=True)
    hidden = keras.layers.Dense(2)
    model = keras.Model(inputs, hidden(embedding(inputs)))
    tokens = np.array([[3, 0, 1, 0]])
    with recording({"words": embedding, "states": hidden}) as outputs:
        expected = model(tokens)
    np.testing.assert_array_equal(outputs["words"], embedding(tokens))
    np.testing.assert_array_equal(outputs["states"], expected)
    for name in ("words", "states"):
        np.testing.assert_array_equal(mask_of(outputs[name]), tokens > 0)
    assert mask_of(np.ones(3)) is None


def test_a_layer_that_is_called_twice_cannot_be_recorded():
    model = networks.nested_shared()
    shared = model.layers[1]
    with pytest.raises(ValueError, match="called once.*shared"), recording({"shared": shared}):
        model(X)
