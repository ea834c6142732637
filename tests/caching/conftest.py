"""A teacher, and shards of few samples, for the tests of precomputed outputs."""

import keras
import pytest

from tfpeft.caching import store


@pytest.fixture(scope="module")
def teacher():
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,))
    body = keras.Sequential([keras.Input((5,)), keras.layers.Dense(7, name="deep")], name="body")
    hidden = keras.layers.BatchNormalization()(body(inputs))
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dropout(0.5)(hidden)))


@pytest.fixture
def small_shards(monkeypatch):
    monkeypatch.setattr(store, "SHARD_SAMPLES", 16)
