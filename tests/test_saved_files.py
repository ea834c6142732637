"""Files that older versions saved: they load, predict the same, and are trained further."""

import json
import pathlib
import shutil

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.caching.frozen_model import FunctionLayer, TFLiteLayer
from tfpeft.distillation.keras_losses import KerasFeatures, KerasLogits, KerasLoss

FOLDER = pathlib.Path(__file__).parent / "saved_files" / "0.1.0"
EXPECTED = json.loads((FOLDER / "expected.json").read_text())
X, Y = np.load(FOLDER / "data.npz").values()
LABELS = {"shared": {"a": Y, "b": Y % 2}}
TRAINED = {
    "pruned": ("ProximalL1", 4),
    "rigl": ("RigL", 4),
    "distiller": ("Adam", 1),
    "adapted": ("Adam", 1),
    "shared": ("Adam", 1),
}


@pytest.fixture(scope="module")
def models():
    """Returns {name: model as it was loaded}; tests that change a model load it again."""
    return {name: load(name) for name in EXPECTED}


def load(name, **options):
    return keras.models.load_model(FOLDER / f"{name}.keras", **options)


def assert_predicts(model, expected):
    outputs = model(X, training=False)
    assert not isinstance(expected, dict) or set(outputs) == set(expected)
    keras.tree.map_structure_up_to(
        outputs,
        lambda array, values: np.testing.assert_allclose(array, np.array(values), atol=1e-6),
        outputs,
        expected,
    )


@pytest.mark.parametrize("name", EXPECTED)
def test_it_predicts_the_same(name, models):
    assert_predicts(models[name], EXPECTED[name])
    assert_predicts(load(name, compile=False), EXPECTED[name])


@pytest.mark.parametrize("name", TRAINED)
def test_it_is_trained_further(name, models):
    model, (optimizer, steps) = models[name], TRAINED[name]
    assert type(model.optimizer).__name__ == optimizer
    assert int(model.optimizer.iterations) == steps
    assert any(np.any(v.numpy()) for v in model.optimizer.variables if "momentum" in v.path)
    trained = load(name)
    trained.fit(X, LABELS.get(name, Y), batch_size=16, verbose=0)
    assert int(trained.optimizer.iterations) == steps + 1
    before, after = ([v.numpy() for v in m.trainable_variables] for m in (model, trained))
    assert any(np.any(a != b) for a, b in zip(before, after, strict=True))
    if name in ("pruned", "rigl"):
        zeros, zeros_after = ([np.count_nonzero(w == 0.0) for w in ws] for ws in (before, after))
        assert zeros_after == zeros
        assert zeros[0] >= before[0].size / 2


def test_losses_of_the_distiller(models):
    kinds = [tfpeft.SoftLabels, tfpeft.FeatureMatching, tfpeft.DIST, KerasLogits, KerasFeatures]
    losses = models["distiller"].distillation_losses
    assert list(map(type, losses)) == kinds
    assert [loss.weight for loss in losses] == [1.0, 2.0, 0.5, 1.0, 1.0]


def test_an_adapter_loads_into_its_model():
    model = load("adapted")
    model.load_adapter(FOLDER / "adapter.weights.h5", "again")
    assert model.active == "again"
    assert_predicts(model, EXPECTED["adapted"])


def test_a_task_loads_into_its_backbone():
    model = load("shared")
    assert model.load_task(FOLDER / "a.weights.h5", "again") == "again"
    expected = EXPECTED["shared"]
    assert_predicts(model, {**expected, "again": expected["a"]})
    assert_predicts(model.task("again"), expected["a"])


def test_precomputed_outputs_are_not_computed_again(models, tmp_path):
    shutil.copytree(FOLDER / "outputs", tmp_path, dirs_exist_ok=True)
    files = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    teacher = models["distiller"].teacher
    found = tfpeft.precompute(teacher, (X, Y), tmp_path)
    np.testing.assert_allclose(found.outputs, teacher(X), atol=1e-6)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == files


@pytest.mark.parametrize(
    ("old", "config", "kind"),
    [
        ("DistillationTerm", {"weight": 2.0}, tfpeft.DistillationLoss),
        ("KerasTerm", {"loss": None, "weight": 2.0}, KerasLoss),
        ("FunctionTeacher", {"function": None, "name": "teacher"}, FunctionLayer),
        ("TFLiteTeacher", {"file": "teacher.tflite", "name": "teacher"}, TFLiteLayer),
    ],
)
def test_old_names_of_classes(old, config, kind, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if kind is TFLiteLayer:
        model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
        tfpeft.export_tflite(model, "teacher.tflite", quantization="none")
    config = {
        "module": "tfpeft.older",
        "class_name": old,
        "registered_name": f"tfpeft>{old}",
        "config": config,
    }
    restored = keras.saving.deserialize_keras_object(config)
    assert type(restored) is kind
    saved = keras.saving.serialize_keras_object(restored)
    assert saved["registered_name"] == f"tfpeft>{kind.__name__}"
