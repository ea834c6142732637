"""pipelines.compress and the scripts of a single stage, as a user runs them."""

import contextlib
import json
import os
import random
import runpy
import shutil
import signal
import time

import keras
import numpy as np
import pytest

from pipelines import compress, prune, train
from pipelines import report as report_script
from pipelines.common import datasets, models
from pipelines.stages.compression_report import headline
from tests.pipelines import plain as plain_script
from tests.pipelines.scripts import call, read_report, run, run_module, start
from tfpeft.core.arguments import InputError
from tfpeft.export.tflite_file import TFLiteFile

QUICK = ["--epochs=1", "--batch_size=128"]


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    status, output, errors = run("pipelines.compress", *QUICK, cwd=folder)
    assert status == 0, errors
    return folder / "saved_models" / "digits-compress", output, errors


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The folder of a user: a script, the models that it wrote, and their data."""
    folder = tmp_path_factory.mktemp("plain")
    shutil.copy(plain_script.__file__, folder / "plain.py")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        runpy.run_path("plain.py", run_name="__main__")
    return folder


@pytest.fixture(scope="module")
def plain_runs(plain):
    """A function that compresses a model of that folder, once, and returns the run's folder."""
    options = {
        "functional.keras": ["--stages=prune_channels,prune,quantize"],
        "sequential.h5": ["--student=plain:student"],  # with all default stages
        "subclassed.keras": [
            *("--student=plain:student", "--custom_objects=plain.py"),
            "--stages=distill,prune,quantize",
        ],
    }

    def run_once(model):
        folder = plain / "saved_models" / model
        if not folder.exists():
            flags = [*plain_flags(model), *options[model]]
            status, _, errors = run("pipelines.compress", *flags, cwd=plain)
            assert status == 0, errors
        return folder

    return run_once


def plain_flags(model):
    flags = ["--dataset=data.npz", "--epochs=8", "--learning_rate=0.02"]
    return [*flags, f"--name={model}", f"--model={model}"]


def test_compress_writes_everything_that_it_lists(digits_run):
    folder, output, errors = digits_run
    assert sorted(path.name for path in folder.iterdir()) == [
        "accuracy_size.png",
        "distill.keras",
        "labels.txt",
        "model.tflite",
        "model_card.md",
        "prune.keras",
        "report.html",
        "report.json",
        "report.md",
        "report_samples.npz",
        "run.json",
        "teacher.keras",
    ]
    assert "[1/4] teacher" in output
    assert output.count("val_accuracy: ") == 3  # an epoch of each stage that trains
    report = json.loads((folder / "report.json").read_text())
    assert headline(report) in output
    assert headline(report) in (folder / "report.md").read_text()
    table = [line.split()[0] for line in output.splitlines() if line.startswith(tuple("tdpm"))]
    assert table[-4:] == ["teacher", "distill", "prune", "model.tflite"]
    assert errors == ""  # no native log, no warning


def test_the_page_is_of_all_stages_and_is_written_again_from_the_folder(digits_run, tmp_path):
    folder, _, _ = digits_run
    result = json.loads((folder / "report.json").read_text())
    assert [stage["name"] for stage in result["stages"]] == [
        *("teacher", "distill", "prune", "quantize")
    ]
    assert set(result["made"]["seconds"]) == {"teacher", "distill", "prune", "quantize"}
    assert result["made"]["commands"][0] == "python -m pipelines.compress " + " ".join(QUICK)
    assert result["settings"].items() >= {"epochs": 1, "batch_size": 128}.items()
    widths = {
        row["layer"]: (row["teacher"]["width"], row["final"]["width"]) for row in result["layers"]
    }
    assert widths["conv2d"] == (32, 16)
    assert widths["dense_1"] == (10, 10)
    assert [row["final"]["sparsity"] for row in result["layers"]] == pytest.approx(
        [0.5] * 5, abs=0.01
    )
    assert set(widths) - {"conv2d"} <= set(result["layer_snr_db"])  # fused into its ReLU
    (group,) = result["disagreements"]
    with np.load(folder / "report_samples.npz") as samples:
        assert len(samples) == len(group["shown"]) > 0
        assert {array.shape for array in samples.values()} == {(8, 8)}
    page = (folder / "report.html").read_text()
    assert page.count('<img class="sample"') == len(group["shown"])
    call(report_script, f"--run={folder}", f"--output={tmp_path / 'again.html'}")
    assert (tmp_path / "again.html").read_text() == page


@pytest.mark.parametrize(
    ("drop", "change"), [(0.0, "+0.00"), (1e-9, "+0.00"), (0.834, "-0.83"), (-1.0, "+1.00")]
)
def test_the_headline_has_a_sign_of_what_is_not_zero(drop, change):
    result = {"size_ratio": 12.94, "accuracy_drop": drop, "test_samples": 360}
    result["teacher_file"] = "float32"
    assert headline(result) == (
        f"model.tflite: 12.9x smaller than the teacher's float32 file, accuracy {change} points, "
        "on 360 test samples."
    )


def test_the_report_is_of_the_test_data_and_of_the_files(digits_run):
    folder, _, _ = digits_run
    report = read_report(folder)
    test = datasets.load("digits").test
    assert report["test_samples"] == len(test[1]) == 360
    for name, row in report["rows"].items():
        if name.endswith(".tflite"):
            logits = TFLiteFile(folder / name).predict(test[0])
        else:
            logits = keras.models.load_model(folder / f"{name}.keras").predict(test[0], verbose=0)
        assert row["accuracy"] == np.mean(logits.argmax(-1) == test[1])
        shifted = logits - logits.max(-1, keepdims=True)
        log_likelihoods = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
        expected = -log_likelihoods[np.arange(len(test[1])), test[1]].mean()
        assert row["loss"] == pytest.approx(expected, rel=1e-4)
    rows = report["rows"]
    assert rows["model.tflite"]["size_bytes"] == (folder / "model.tflite").stat().st_size
    ratio = rows["teacher"]["size_bytes"] / rows["model.tflite"]["size_bytes"]
    assert report["size_ratio"] == ratio > 10
    drop = rows["teacher"]["accuracy"] - rows["model.tflite"]["accuracy"]
    assert report["accuracy_drop"] == pytest.approx(100 * drop)
    pruned = keras.models.load_model(folder / "prune.keras")
    assert [np.mean(w.numpy() == 0) for w in pruned.weights if len(w.shape) > 1] == pytest.approx(
        [0.5] * 5, abs=0.01
    )


def test_another_seed_gives_another_report(plain, tmp_path, monkeypatch, capsys):
    """In the first stage already. That the same seed gives the same is shown by the next test."""
    monkeypatch.chdir(plain)
    reports = []
    for seed in (0, 1):
        folder = tmp_path / f"seed-{seed}"
        flags = ["--dataset=data.npz", "--epochs=1", f"--seed={seed}", f"--output_dir={folder}"]
        assert call(train, *flags) == 0
        assert f"seed-{seed}/data-train/report.md" in capsys.readouterr().out
        reports.append(read_report(folder / "data-train"))
    assert reports[0]["rows"]["teacher"] != reports[1]["rows"]["teacher"]


def test_killed_at_random_moments_it_ends_in_the_same_report(plain, plain_runs, tmp_path):
    moments = random.Random(7)
    expected = read_report(plain_runs("functional.keras"))
    flags = [*plain_flags("functional.keras"), f"--output_dir={tmp_path}"]
    flags.append("--stages=prune_channels,prune,quantize")
    folder = tmp_path / "functional.keras"
    log, errors = tmp_path / "log", tmp_path / "errors"
    kills = 0
    for stage, number in ((1, 9), (2, 9), (2, signal.SIGINT), (3, signal.SIGTERM), (4, 9)):
        log.write_text("")
        process = start("pipelines.compress", *flags, cwd=plain, output=log, errors=errors)
        while process.is_alive() and f"[{stage}/4]" not in log.read_text():
            time.sleep(0.02)
        time.sleep(moments.uniform(0.0, 0.8))
        with contextlib.suppress(ProcessLookupError):  # it has ended already
            os.kill(process.pid, number)
        process.join()
        kills += process.exitcode == (-9 if number == 9 else 128 + number)
        if process.exitcode > 0:
            name = signal.Signals(number).name
            line = f"stopped by {name}: the same command goes on after the last stage that is "
            assert errors.read_text() == f"{line}finished\n"
            assert not list(folder.glob("tfpeft-*"))
        assert not (folder / "report.json").exists() or kills < 5
    assert kills >= 3
    status, _, errors = run("pipelines.compress", *flags, cwd=plain)
    assert status == 0, errors
    assert read_report(folder) == expected
    assert not list(folder.glob("*partial*"))


@pytest.mark.parametrize("model", ["functional.keras", "sequential.h5", "subclassed.keras"])
def test_models_of_a_plain_keras_script(plain, plain_runs, model):
    folder = plain_runs(model)
    rows = read_report(folder)["rows"]
    # With a --student it learns from the model; else the model itself loses channels.
    second = "prune_channels" if model == "functional.keras" else "distill"
    tuned = ["tune"] if model == "sequential.h5" else []
    assert list(rows) == ["teacher", *tuned, second, "prune", "model.tflite"]
    assert rows["teacher"]["accuracy"] > 0.8
    assert rows["model.tflite"]["accuracy"] > 0.7
    assert rows[second]["macs"] <= 0.5 * rows["teacher"]["macs"]
    assert rows[second]["parameters"] < rows["teacher"]["parameters"]
    for name in ("channels.md", "channels.png"):
        assert (folder / name).exists() == (second == "prune_channels")
    with np.load(plain / "data.npz") as file:
        x, y = file["x_test"], file["y_test"]
    given = keras.models.load_model(plain / model, custom_objects={"Net": plain_script.Net})
    accuracy = np.mean(given.predict(x, verbose=0).argmax(-1) == y)
    assert rows["teacher"]["accuracy"] == pytest.approx(accuracy)


def test_scripts_of_one_stage_one_after_the_other(plain, monkeypatch, capsys):
    monkeypatch.chdir(plain)
    files = ["--dataset=data.npz", "--model=functional.keras"]
    assert call(prune, *files, "--final_sparsity=0.75", "--epochs=2") == 0
    assert "saved_models/data-prune/report.md" in capsys.readouterr().out
    pruned = keras.models.load_model("saved_models/data-prune/prune.keras")
    assert np.mean(pruned.layers[1].kernel.numpy() == 0) == 0.75
    zeros = sum(int(np.sum(weight.numpy() == 0)) for weight in pruned.weights)
    row = read_report("saved_models/data-prune")["rows"]["prune"]
    assert row["nonzero_parameters"] == pruned.count_params() - zeros
    status, output, errors = run("pipelines.export", *files, "--quantization=float16", cwd=plain)
    assert (status, errors) == (0, "")
    assert "saved_models/data-export/report.md" in output
    files = ["functional.keras", "saved_models/data-export/model.tflite"]
    status, output, errors = run_module(
        "pipelines.evaluate", "--dataset=data.npz", "--format=json", *files, cwd=plain
    )
    assert (status, errors) == (0, "")
    rows = json.loads(output)
    assert list(rows) == files
    assert rows[files[0]]["accuracy"] == pytest.approx(rows[files[1]]["accuracy"], abs=0.01)


def test_too_large_a_drop_is_status_2(digits_run, capsys):
    folder, _, _ = digits_run
    flags = [*QUICK, f"--output_dir={folder.parent}", "--max_accuracy_drop=-100"]
    assert call(compress, *flags) == 2
    output = capsys.readouterr().out
    assert "points of accuracy below the teacher, expected at most" in output
    # Finished, it prints its report only.
    assert "[1/4]" not in output
    assert "model.tflite:" in output


def test_a_full_disk_is_one_line_and_harms_nothing(plain, tmp_path):
    """A limit on the size of a file, which fails a write as a full disk does."""
    flags = [f"--dataset={plain}/data.npz", "--epochs=1", "--name=run"]
    status, _, errors = run("pipelines.compress", *flags, cwd=tmp_path, max_file_size=10_000)
    assert status == 1
    assert errors.startswith("error: Cannot write saved_models/run/teacher.keras")
    assert errors.count("\n") == 1
    assert [path.name for path in (tmp_path / "saved_models").glob("*/*")] == ["run.json"]


def test_damaged_files_of_a_run_are_computed_again(plain, plain_runs, tmp_path):
    """The stage, those after it, and the report: equal to those of the run that was whole."""
    expected = read_report(plain_runs("functional.keras"))
    folder = tmp_path / "functional.keras"
    shutil.copytree(plain_runs("functional.keras"), folder)
    flags = [*plain_flags("functional.keras"), f"--output_dir={tmp_path}"]
    flags.append("--stages=prune_channels,prune,quantize")
    for name, content in [("report.json", b"{}"), ("model.tflite", b""), ("prune.keras", b"PK")]:
        (folder / name).write_bytes(content)
        status, output, errors = run("pipelines.compress", *flags, cwd=plain)
        assert (status, errors) == (0, "")
        assert output.count("is damaged, so what it holds is computed again") == 1
        assert ("Epoch" in output) == (name == "prune.keras")
        assert read_report(folder) == expected


def test_another_run_in_the_same_folder_is_an_error(digits_run):
    folder, _, _ = digits_run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    flags = [f"--output_dir={folder.parent}", *QUICK, "--alpha=0.5"]
    with pytest.raises(InputError, match=r"the same settings.*--alpha was 0.1 and is 0.5$"):
        call(compress, *flags)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_custom_objects_are_classes_of_keras_and_functions(plain):
    found = models.import_custom_objects(str(plain / "plain.py"))
    assert list(found) == ["Net", "functional", "sequential", "student"]
    assert models.import_custom_objects(None) == {}
