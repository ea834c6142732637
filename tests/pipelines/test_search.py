"""pipelines.search: from the flags to the files, and again from its folder."""

import json
import time

import keras
import numpy as np
import pytest

from pipelines import search
from tests.pipelines.scripts import call
from tfpeft.core.arguments import BudgetError, InputError

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")
LIMITS = ("--max_macs=900", "--min_metric=0.5")  # of 1,152 multiply-accumulates


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with data, and a model that is trained on it."""
    path = tmp_path_factory.mktemp("searched")
    rng = np.random.default_rng(0)
    y = rng.integers(0, 3, 400)
    x = (np.eye(3)[y] @ rng.normal(size=(3, 16)) + rng.normal(0, 0.3, (400, 16))).astype("float32")
    np.savez(path / "mine.npz", x_train=x[:300], y_train=y[:300], x_test=x[300:], y_test=y[300:])
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(48, activation="relu"), keras.layers.Dense(3)]
    model = keras.Sequential([keras.Input((16,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(x[:300], y[:300], epochs=10, verbose=0)
    model.save(path / "mine.keras")
    return path


def run(folder, *arguments):
    flags = {"dataset": "mine.npz", "model": "mine.keras"}
    given = [f"--{name}={folder / value}" for name, value in flags.items()]
    short = ["--minutes=1", "--epochs=1", "--max_trials=1", "--oracle=random"]
    return call(search, *given, *short, f"--output_dir={folder}", "--name=run", *arguments)


def test_a_run_has_its_files_and_is_read_again(folder, capsys):
    assert run(folder, *LIMITS) == 0
    made = folder / "run"
    names = ("model.tflite", "best.keras", "report.md", "report.json", "report.html", "pareto.png")
    assert all((made / name).is_file() for name in names)
    report = json.loads((made / "report.json").read_text())
    assert report["budget"] == {"max_macs": 900, "min_metric": 0.5}
    assert set(report["rows"]) == {"model.tflite", "model"}
    assert report["rows"]["model.tflite"]["macs"] <= 900 < report["rows"]["model"]["macs"]
    assert report["test_samples"] == 100
    assert report["classes"] == ["0", "1", "2"]
    (group,) = report["disagreements"]
    assert "100 test samples" in group["summary"]
    widths = [[row[side]["width"] for side in ("teacher", "final")] for row in report["layers"]]
    assert widths[0][0] == 48 > widths[0][1]
    assert widths[1] == [3, 3]
    again, _ = report["made"]["commands"]
    assert again.startswith("python -m pipelines.search --")
    assert "--max_macs=900" in again
    assert "--max_macs=900" in (made / "report.html").read_text()
    best = next(trial for trial in report["trials"] if trial["id"] == report["best"])
    assert best["metric"] >= 0.5
    printed = capsys.readouterr().out
    assert "on 100 test samples" in printed
    began = time.monotonic()
    assert run(folder, *LIMITS) == 0
    assert time.monotonic() - began < 5
    assert "on 100 test samples" in capsys.readouterr().out
    with pytest.raises(InputError, match="--max_macs was 900 and is 800"):
        run(folder, "--max_macs=800", LIMITS[1])


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ((), "a limit or more of --max_size_bytes, "),
        (("--max_macs=900", "--space=model,small_1d"), "--space, expected model alone"),
        (("--max_macs=900", "--space=dense"), "--space, expected some of small_cnn"),
        (("--max_macs=900", "--teacher_epochs=3"), "--teacher_epochs"),
        (("--max_macs=900", "--space=small_1d", "--oracle=netadapt"), "--oracle"),
    ],
)
def test_flags_that_do_not_go_together(folder, flags, message):
    with pytest.raises(InputError, match=message):
        run(folder, *flags)


def test_an_impossible_budget_is_found_before_the_teacher_is_trained(folder):
    given = [f"--dataset={folder / 'mine.npz'}", f"--output_dir={folder}", "--name=none"]
    with pytest.raises(BudgetError, match="the smallest has size_bytes="):
        call(search, *given, "--max_size_bytes=100")
    assert not (folder / "none" / "teacher.keras").exists()
    with pytest.raises(InputError, match=r"min_metric.*in \[0, 1\]"):
        call(search, *given, "--name=percent", "--min_metric=92")
    assert not (folder / "percent" / "teacher.keras").exists()


def test_a_search_of_labels_by_chance_says_so(folder, capsys):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(400, 16)).astype("float32"), rng.integers(0, 3, 400)
    splits = {"x_train": x[:300], "y_train": y[:300], "x_test": x[300:], "y_test": y[300:]}
    np.savez(folder / "noise.npz", **splits)
    noise = f"--dataset={folder / 'noise.npz'}"
    assert run(folder, "--max_macs=900", noise, "--allow_chance", "--name=noise") == 0
    assert "What was found is no better than chance" in capsys.readouterr().out


def test_code_of_a_model_runs_where_it_is_trusted(folder):
    layers = [keras.layers.Lambda(lambda x: 2 * x), keras.layers.Dense(3)]
    keras.Sequential([keras.Input((16,)), *layers]).save(folder / "code.keras")
    code, none = f"--model={folder / 'code.keras'}", f"--dataset={folder / 'none.npz'}"
    with pytest.raises(InputError, match="give --trust_code"):
        run(folder, "--max_macs=900", code, "--name=code")
    with pytest.raises(InputError, match=r"none\.npz"):  # the model was loaded
        run(folder, "--max_macs=900", code, none, "--trust_code", "--name=trusted")
