"""NetAdapt: a trained model loses channels against measured figures."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.automl import searches

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")


def test_a_trained_model_is_cut_by_measured_figures(tmp_path):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    weights = [weight.numpy() for weight in model.weights]
    options = {"oracle": "netadapt", "epochs": 1, "techniques": None}
    options["budget"] = tfpeft.Budget(max_macs=9_000)  # of 11,824
    result = searches.search(tmp_path / "s", space=model, **options)
    assert result.evaluation.macs <= 9_000
    rounds = [trial for trial in result.trials if trial.id.startswith("round")]
    assert all(trial.settings["removed"] > 0 for trial in rounds)
    assert result.rows["model"].macs == 36 * 9 * 8 + 16 * 9 * 8 * 8 + 8 * 2
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, after)
    again = searches.search(tmp_path / "s", space=model, minutes=4, **options)
    assert {t.id for t in again.trials} == {*(t.id for t in result.trials), "final_4"}
    assert again.evaluation.macs <= 9_000
    assert again.best.metric >= result.best.metric
