"""Budgets, spaces and folders that a search cannot take: what it says, and when."""

import re

import keras
import pytest

import tfpeft
from tests.automl import searches

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")


def test_an_impossible_budget_is_found_before_training(tmp_path):
    with pytest.raises(tfpeft.BudgetError, match=r"smallest has size_bytes=[23],\d{3}. Received: "):
        searches.search(tmp_path / "s", budget=tfpeft.Budget(max_size_bytes=1000))
    assert not list((tmp_path / "s" / "trials").glob("0*.json"))


def test_a_metric_that_is_not_reached_is_an_error(tmp_path):
    budget = tfpeft.Budget(max_size_bytes=searches.LIMIT, min_metric=1e-9)
    options = {"budget": budget, "max_trials": 1, "epochs": 1, "monitor": "val_loss"}
    with pytest.raises(tfpeft.BudgetError, match="above min_metric=1e-09"):
        searches.search(tmp_path / "s", **options, minutes=1)
    with pytest.raises(tfpeft.BudgetError, match="allow more `minutes`, with"):
        searches.search(tmp_path / "s", **options, minutes=2)
    assert (tmp_path / "s" / "trials" / "final_2.json").is_file()


@pytest.mark.parametrize("least", [92, 1.01, -0.5])
def test_an_accuracy_is_a_fraction(least):
    budget = tfpeft.Budget(max_size_bytes=searches.LIMIT, min_metric=least)
    with pytest.raises(tfpeft.InputError, match=r"min_metric.*in \[0, 1\] of accuracy"):
        searches.search(None, budget=budget)


def test_a_monitor_that_no_file_has_is_found_before_training(tmp_path):
    with pytest.raises(tfpeft.InputError, match="monitor.*one of accuracy, .*'sharpness'"):
        searches.search(tmp_path / "s", monitor="val_sharpness", mode="max")
    assert not list((tmp_path / "s" / "trials").glob("0*.json"))
    budget = tfpeft.Budget(min_metric=0.5)
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    with pytest.raises(tfpeft.InputError, match="for oracle='netadapt'"):
        searches.search(None, space=model, budget=budget, oracle="netadapt", techniques=None)


def test_a_budget_that_few_points_of_a_function_keep_is_reached(tmp_path):
    def dense(hp):
        width = hp.Int("width", 2, 512, default=64)
        layers = [keras.layers.Flatten(), keras.layers.Dense(width), keras.layers.Dense(2)]
        return keras.Sequential([keras.Input((8, 8, 1)), *layers])

    options = {"space": dense, "max_trials": 1, "epochs": 1}
    options |= {"budget": tfpeft.Budget(max_macs=64 * 2 + 4)}
    result = searches.search(tmp_path / "s", **options)
    assert result.best.settings["width"] == 2
    options["budget"] = tfpeft.Budget(max_macs=100)
    with pytest.raises(tfpeft.BudgetError, match="smallest has macs=132 of .* points that were"):
        searches.search(tmp_path / "t", **options)


def test_a_space_without_a_valid_point():
    def fails(hp):
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 9)])

    with pytest.raises(tfpeft.InputError, match="model_or_space|space"):
        searches.search(None, space=lambda hp: 3)
    with pytest.raises(tfpeft.InputError, match="space"):
        searches.search(None, space=fails)


@pytest.mark.parametrize(("width", "smallest"), [(8, 4 * (18 + 2)), (None, 4 * 128)])
def test_a_model_of_few_channels_is_cut_as_far_as_it_can_be(width, smallest):
    # Two channels of eight stay; a layer of outputs alone loses none.
    layers = [keras.layers.Conv2D(width, 3), keras.layers.GlobalAveragePooling2D()] if width else []
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    none, budget = tfpeft.Techniques(quantization=("none",)), tfpeft.Budget(max_size_bytes=1)
    with pytest.raises(tfpeft.BudgetError, match="the smallest") as error:
        searches.search(None, space=model, budget=budget, techniques=none)
    size = re.search(r"smallest has size_bytes=([\d,]+)", str(error.value))[1]
    assert smallest < int(size.replace(",", "")) < smallest + 2_000
    with pytest.raises(tfpeft.InputError, match="channel_ratio.*at most 0"):
        searches.search(None, space=model, techniques=tfpeft.Techniques(channel_ratio=(0.9,)))


@pytest.mark.parametrize("argument", ["space", "teacher"])
def test_a_model_without_weights_is_not_trained(argument):
    with pytest.raises(tfpeft.InputError, match="a trained model, which has weights"):
        searches.search(None, **{argument: keras.Sequential([keras.layers.Dense(2)])})


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tfpeft.InputError, match=r"pip install tfpeft\[search\]"):
        searches.search(None)
