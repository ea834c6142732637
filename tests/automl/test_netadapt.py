"""NetAdapt: a trained model loses channels against measured figures."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.automl import searches
from tfpeft.automl.trials.netadapt import NetAdapt

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")


def convolutional(width):
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(width, 3, activation="relu"),
        keras.layers.Conv2D(width, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def test_each_limit_has_its_own_steps(tmp_path, monkeypatch):
    def latency(file, first, limit):  # of no machine: it follows from the multiply-accumulates
        return file.macs(first) / 1e5, file.macs(first) / 1e5

    asked, proposals = [], NetAdapt.proposals

    def recorded(self, model, name, before, target):
        asked.append((name, before, target))
        return proposals(self, model, name, before, target)

    monkeypatch.setattr("tfpeft.automl.trials.costs.latency_of", latency)
    monkeypatch.setattr(NetAdapt, "proposals", recorded)
    monkeypatch.setattr("tfpeft.automl.trials.netadapt._ROUNDS", 2)
    budget = tfpeft.Budget(max_size_bytes=3_900, max_latency_ms=0.3)
    quantized = tfpeft.Techniques(quantization=("int8",), learning_rate=(1e-3,))
    result = searches.search(
        tmp_path / "s",
        space=convolutional(16),
        techniques=quantized,
        oracle="netadapt",
        epochs=1,
        budget=budget,
    )
    assert {name for name, _, _ in asked} == {"latency_ms", "size_bytes"}
    limits = {"size_bytes": 3_900, "latency_ms": 0.95 * 0.3}  # a latency is never the same again
    first = {"latency_ms": 42_080 / 1e5, "size_bytes": 5_280}  # of the int8 file
    for name, before, target in asked:
        step = max((first[name] - limits[name]) / 2, 0.02 * before)
        assert target == pytest.approx(max(limits[name], before - step), rel=0.01)
    assert result.best.figures["size_bytes"] <= 3_900
    names = {layer.name for layer in result.model.layers if layer.weights}
    errors = result.as_dict()["layer_snr_db"]  # of the int8 file
    assert names <= errors.keys()
    assert min(errors.values()) > 10


def test_a_trained_model_is_cut_by_measured_figures(tmp_path):
    model = convolutional(8)
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
