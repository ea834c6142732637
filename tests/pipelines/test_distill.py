"""pipelines.distill: teachers of any kind, every loss, annealing, precomputed outputs."""

import json

import keras
import numpy as np
import pytest

import tfpeft
from pipelines import distill
from pipelines.common import datasets
from pipelines.common.flags import settings_of
from pipelines.common.folders import RunFolder
from pipelines.stages import STAGES, compression
from pipelines.stages.stage import Inputs
from tests.pipelines.scripts import call, read_report
from tfpeft.core.arguments import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Two teachers, one of them a .tflite file, and data of three separable classes."""
    folder = tmp_path_factory.mktemp("teaching")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 240)
    x = (rng.normal(size=(240, 6)) + 3.0 * np.eye(6)[y]).astype("float32")
    np.savez(folder / "data.npz", x_train=x[:180], y_train=y[:180], x_test=x[180:], y_test=y[180:])
    for name, units in (("a", 24), ("b", 16)):
        model = keras.Sequential(
            [
                keras.Input((6,)),
                keras.layers.Dense(units, activation="relu", name="hidden"),
                keras.layers.Dense(3, activation="softmax"),
            ]
        )
        model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
        model.fit(x[:180], y[:180], epochs=10, verbose=0)
        model.save(folder / f"{name}.keras")
    tfpeft.export_tflite(model, folder / "b.tflite", quantization="none")
    return folder


FILES = {"dataset": "data.npz", "model": "a.keras", "epochs": 10, "learning_rate": 0.02}
FLAGS = [f"--{name}={value}" for name, value in FILES.items()]


@pytest.fixture
def main(folder, monkeypatch):
    """Calls distill with flags, in this process."""
    monkeypatch.chdir(folder)
    return lambda *arguments: call(distill, *FLAGS, *arguments)


def test_two_teachers_features_annealing_and_a_folder(main, folder, capsys):
    flags = ["--teacher=a.keras", "--teacher=b.tflite", "--teacher_weights=1,2"]
    flags += ["--feature_loss=matching", "--teacher_layers=hidden", "--student_layers=hidden"]
    flags += ["--feature_weight=0.1", "--alpha=0.9", "--alpha_end=0.1", "--temperature_end=1"]
    flags += ["--soft_loss=decoupled", "--precompute=folder", "--float16"]
    assert main(*flags) == 0
    output = capsys.readouterr().out
    assert "saved_models/data-distill/report.md" in output
    rows = read_report(folder / "saved_models/data-distill")["rows"]
    assert rows["distill"]["accuracy"] > 0.8
    assert rows["distill"]["parameters"] < rows["teacher"]["parameters"]
    assert "feature_matching" in output
    assert "decoupled_kd" in output
    outputs = folder / "saved_models/data-distill/outputs"
    about = json.loads((outputs / "about.json").read_text())
    assert (len(about["models"]), about["features"], about["float16"]) == (2, ["hidden"], True)
    # The projection of the features is not in the student.
    student = keras.models.load_model(folder / "saved_models/data-distill/distill.keras")
    assert len(student.weights) == 4


def test_the_teacher_in_every_step_teaches_the_same(folder, tmp_path, monkeypatch):
    monkeypatch.chdir(folder)
    data = datasets.load("data.npz")
    flags = [*compression.RUN_FLAGS, *STAGES["distill"].flags]
    outputs = []
    for precompute in ("memory", "no"):
        given = {**FILES, "precompute": precompute, "output_dir": str(tmp_path), "name": precompute}
        settings = settings_of(flags, given)
        run_folder = RunFolder("distill", settings, flags)
        keras.utils.set_random_seed(0)
        teacher = keras.models.load_model("a.keras", compile=False)
        student = STAGES["distill"].run(settings, Inputs(data, run_folder, teacher))
        outputs.append(student.predict(data.test[0], verbose=0))
        assert student.count_params() < teacher.count_params()
    assert np.mean(outputs[0].argmax(-1) == data.test[1]) > 0.8
    np.testing.assert_allclose(outputs[1], outputs[0], rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--feature_loss=matching"], "--teacher_layers and --student_layers"),
        (["--student_layers=hidden"], "--teacher_layers and --student_layers"),
        (["--soft_loss=none"], "--soft_loss, expected another value, or a --feature_loss"),
        (["--teacher=a.keras", "--teacher_weights=1,2"], "1 positive numbers"),
        (["--teacher_weights=zero"], "numbers above 0.*=zero"),
        (["--teacher=missing.keras"], "--teacher=missing.keras"),
        (["--teacher=data.npz"], "--teacher=data.npz"),
        (
            ["--feature_loss=matching", "--teacher_layers=hiden", "--student_layers=hidden"],
            "such as hidden.*'hiden'",
        ),
    ],
)
def test_bad_flags(arguments, message, main, tmp_path):
    with pytest.raises(InputError, match=message):
        main(*arguments, f"--output_dir={tmp_path}")
    assert not list(tmp_path.glob("*/distill.keras"))


@pytest.mark.parametrize("flag", ["--temperature_end=0", "--feature_weight=-1", "--alpha_end=2"])
def test_flags_out_of_range(flag):
    with pytest.raises(InputError, match=f"Received: {flag}"):
        distill.SCRIPT.parse([flag])
