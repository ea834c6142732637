"""Masks of sequences are no states: units of recurrent layers behind them can be removed."""

import keras
import pytest
from keras import layers

import tfpeft


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.LSTM(8),
        lambda: layers.GRU(8, return_sequences=True),
        lambda: layers.Bidirectional(layers.LSTM(8)),
    ],
)
def test_units_behind_a_mask_are_removed(make):
    keras.utils.set_random_seed(0)
    inputs = keras.Input((5,), dtype="int32")
    recurrent = make()
    h = recurrent(layers.Embedding(10, 6, mask_zero=True)(inputs))
    model = keras.Model(inputs, layers.Dense(2, name="last")(h))
    small = tfpeft.prune_channels(model, ratio=0.5, importance="l2", scope="layer")
    widths = small.channel_report.widths
    assert all(after == before // 2 for name, (before, after) in widths.items() if name != "last")
    assert small.channel_report.fixed.keys() == {"last"}


def test_given_states_of_a_bidirectional_layer_fix_its_units():
    inputs = keras.Input((5, 3))
    states = [layers.Dense(8)(layers.Flatten()(inputs)) for _ in range(4)]
    h = layers.Bidirectional(layers.LSTM(8))(inputs, initial_state=states)
    h = layers.Dense(4, name="last")(layers.Dense(6, name="free")(h))
    small = tfpeft.prune_channels(keras.Model(inputs, h), ratio=0.5, importance="l2", scope="layer")
    fixed = small.channel_report.fixed
    assert any("is given initial states" in reason for reason in fixed.values()), fixed
    assert small.channel_report.widths["free"] == (6, 3)
