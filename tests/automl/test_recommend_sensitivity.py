"""What layers lose alone: whose loss it is, and the time that it may take."""

import keras
import pytest

from tests.automl import searches
from tfpeft.automl.advice.layers import layer_rows
from tfpeft.automl.advice.sensitivity import sensitivities
from tfpeft.automl.advice.training import Training
from tfpeft.automl.advice.trials import Clock, open_store


@pytest.fixture(scope="module")
def model(batch):
    """A network with two layers of one name."""
    keras.utils.set_random_seed(0)
    inner = [keras.Sequential([keras.layers.Dense(16, "relu", name="wide")]) for _ in range(2)]
    layers = [*inner, keras.layers.Dense(8, "relu", name="narrow"), keras.layers.Dense(2)]
    return searches.trained([keras.layers.Flatten(), *layers], batch, epochs=10)


def found(model, batch, folder, minutes):
    training = Training.of(model, batch, {None: "classification"}, steps=1)
    store = open_store(folder, {}, Clock(minutes, False))
    rows = layer_rows(model, batch.x)
    with store.folder:
        left_out = sensitivities(store, model, training, rows, ("prune", "prune_channels"))
    return {row["layer"].split("/")[-1]: row for row in rows}, left_out, store


def test_a_loss_is_that_of_the_layer_and_of_no_other_with_its_name(model, batch, tmp_path):
    rows, _, store = found(model, batch, tmp_path, minutes=10)
    assert "of different paths" in store.done["layer_sensitivity"]["error"]
    losses = {row["layers"]: row["loss"] for row in store.done["channel_sensitivity"]["rows"]}
    assert rows["narrow"]["loss_of_half_channels"] == losses["narrow"]
    assert rows["wide"]["loss_of_half_channels"] is None
    assert not store.not_run


def test_layers_are_not_measured_where_it_takes_too_much_of_the_time(
    model, batch, tmp_path, monkeypatch
):
    """Four layers, a second each, are more than a fifth of 12 seconds."""
    seconds = "tfpeft.automl.advice.sensitivity._seconds_of_evaluation"
    monkeypatch.setattr(seconds, lambda model, training: 1.0)
    rows, left_out, store = found(model, batch, tmp_path, minutes=0.2)
    assert store.not_run == ["layer_sensitivity", "channel_sensitivity"]
    assert left_out == ()
    assert rows["narrow"]["loss_of_half_zeros"] is None
