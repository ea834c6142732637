"""The scripts as a user runs them, and what they refuse."""

import json
import os
import pathlib
import random
import resource
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from absl import flags
from absl.testing import flagsaver
from sklearn.datasets import load_digits

import tfpeft
from pipelines import common, compress, data

ROOT = pathlib.Path(__file__).parent.parent.parent
QUICK = ["--epochs=2", "--batch_size=128"]

# What a user has who never heard of tfpeft.
PLAIN_SCRIPT = """
import keras
import numpy as np


class Net(keras.Model):
    def __init__(self, units=24, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.out = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(24, activation="relu")(inputs)
    hidden = keras.layers.Add()([hidden, keras.layers.Dense(24)(hidden)])
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(24, activation="relu"), keras.layers.Dense(3)]
    )


def student():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    )


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6))
    y = rng.integers(0, 3, 600)
    x = centres[y] + rng.normal(0, 0.6, (600, 6))
    np.savez("data.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    for name, model in [
        ("functional.keras", functional()),
        ("sequential.h5", sequential()),
        ("subclassed.keras", Net()),
    ]:
        logits = name == "sequential.h5"
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        model.compile("adam", loss, metrics=["accuracy"])
        model.fit(x[:400], y[:400], epochs=10, verbose=0)
        model.save(name)
"""


def start(*arguments, cwd, **options):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen(
        [sys.executable, "-m", *arguments], cwd=cwd, env=environment, text=True, **options
    )


def run(*arguments, cwd, **options):
    with start(
        *arguments, cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.PIPE, **options
    ) as process:
        output, errors = process.communicate()
    return process.returncode, output, errors


def read_report(folder):
    """The report but for latencies, which are measured anew."""
    report = json.loads((folder / "report.json").read_text())
    for row in report["rows"].values():
        del row["latency_ms"], row["latency_p90_ms"]
    return report


@pytest.fixture(scope="module")
def digits_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits")
    status, output, errors = run("pipelines.compress", *QUICK, cwd=folder)
    assert status == 0, errors
    return folder / "saved_models" / "digits-compress", output, errors


def test_compress_writes_everything_it_says(digits_run):
    folder, output, errors = digits_run
    assert sorted(path.name for path in folder.iterdir()) == [
        "accuracy_size.png",
        "distill.keras",
        "model.tflite",
        "prune.keras",
        "report.json",
        "report.md",
        "run.json",
        "teacher.keras",
    ]
    assert "[1/4] teacher" in output
    assert "Epoch 2/2" in output
    report = json.loads((folder / "report.json").read_text())
    assert compress.headline(report) in output
    assert compress.headline(report) in (folder / "report.md").read_text()
    table = [line.split()[0] for line in output.splitlines() if line.startswith(tuple("tdpm"))]
    assert table[-4:] == ["teacher", "distill", "prune", "model.tflite"]
    assert errors == ""  # no native log, no warning


def test_the_report_is_of_the_test_data_and_of_the_files(digits_run):
    folder, _, _ = digits_run
    report = read_report(folder)
    test = data.load("digits").test
    assert report["test_samples"] == len(test[1]) == 360
    for name, row in report["rows"].items():
        path = folder / (name if name.endswith(".tflite") else f"{name}.keras")
        measured = tfpeft.evaluate(path, test)
        assert row["accuracy"] == measured.accuracy
        assert row["loss"] == pytest.approx(measured.loss, rel=1e-5)
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


def test_another_seed_gives_another_report(digits_run, tmp_path):
    """In the first stage already. That the same seed gives the same is told by the next test."""
    flag = [*QUICK, "--stages=quantize", "--seed=1"]
    status, _, errors = run("pipelines.compress", *flag, cwd=tmp_path)
    assert status == 0, errors
    other = read_report(tmp_path / "saved_models" / "digits-compress")
    assert other["rows"]["teacher"] != read_report(digits_run[0])["rows"]["teacher"]


def test_killed_at_random_moments_it_ends_in_the_same_report(digits_run, tmp_path):
    moments = random.Random(7)
    folder = tmp_path / "saved_models" / "digits-compress"
    kills = 0
    for stage in (1, 2, 2, 3, 4):
        log = tmp_path / "log"
        with log.open("w") as file:
            process = start("pipelines.compress", *QUICK, cwd=tmp_path, stdout=file, stderr=file)
            while process.poll() is None and f"[{stage}/4]" not in log.read_text():
                time.sleep(0.05)
            time.sleep(moments.uniform(0.0, 1.5))
            process.send_signal(signal.SIGKILL)
            kills += process.wait() == -signal.SIGKILL
        assert not (folder / "report.json").exists() or kills < 5
    assert kills >= 3
    status, output, errors = run("pipelines.compress", *QUICK, cwd=tmp_path)
    assert status == 0, errors
    assert read_report(folder) == read_report(digits_run[0])
    assert not list(folder.glob("*partial*"))


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    (folder / "plain.py").write_text(PLAIN_SCRIPT)
    subprocess.run([sys.executable, "plain.py"], cwd=folder, check=True, capture_output=True)
    return folder


@pytest.mark.parametrize(
    ("model", "options"),
    [
        ("functional.keras", []),
        ("sequential.h5", ["--student=plain:student"]),
        ("subclassed.keras", ["--student=plain:student", "--custom_objects=plain.py"]),
    ],
)
def test_models_of_a_plain_keras_script(plain, model, options):
    flag = ["--dataset=data.npz", "--epochs=8", "--learning_rate=0.02", f"--name={model}"]
    flag += [f"--model={model}", *options]
    status, _, errors = run("pipelines.compress", *flag, cwd=plain)
    assert status == 0, errors
    report = read_report(plain / "saved_models" / model)
    rows = report["rows"]
    assert list(rows) == ["teacher", "distill", "prune", "model.tflite"]
    assert rows["teacher"]["accuracy"] > 0.8
    assert rows["model.tflite"]["accuracy"] > 0.7
    assert rows["distill"]["parameters"] < rows["teacher"]["parameters"]
    with np.load(plain / "data.npz") as file:
        test = (file["x_test"], file["y_test"])
    script = {"__name__": "plain"}
    exec(PLAIN_SCRIPT, script)
    given = keras.models.load_model(plain / model, custom_objects={"Net": script["Net"]})
    accuracy = np.mean(given.predict(test[0], verbose=0).argmax(-1) == test[1])
    assert rows["teacher"]["accuracy"] == pytest.approx(accuracy)


def test_thin_scripts_one_after_the_other(plain):
    flag = ["--dataset=data.npz", "--epochs=2"]
    jobs = [
        ("train", []),
        ("distill", ["--model=functional.keras", "--student=0.5"]),
        ("prune", ["--model=functional.keras", "--final_sparsity=0.75"]),
        ("export", ["--model=functional.keras", "--quantization=float16"]),
    ]
    for job, options in jobs:
        more = flag[: 1 if job == "export" else 2]
        status, output, errors = run(f"pipelines.{job}", *more, *options, cwd=plain)
        assert status == 0, errors
        assert f"saved_models/data-{job}/report.md" in output
    pruned = keras.models.load_model(plain / "saved_models/data-prune/prune.keras")
    assert np.mean(pruned.layers[1].kernel.numpy() == 0) == 0.75
    files = ["functional.keras", "saved_models/data-export/model.tflite"]
    status, output, errors = run("pipelines.evaluate", flag[0], "--format=json", *files, cwd=plain)
    assert status == 0, errors
    rows = json.loads(output)
    assert list(rows) == files
    assert rows[files[0]]["accuracy"] == pytest.approx(rows[files[1]]["accuracy"], abs=0.01)


def test_too_large_a_drop_is_status_2(digits_run):
    folder, _, _ = digits_run
    flag = [*QUICK, f"--output_dir={folder.parent}", "--max_accuracy_drop=-100"]
    status, output, _ = run("pipelines.compress", *flag, cwd=folder)
    assert status == 2
    assert "points of accuracy below the teacher, expected at most" in output
    # Finished, it only tells.
    assert "[1/4]" not in output
    assert "model.tflite:" in output


def test_a_full_disk_is_one_line_and_harms_nothing(tmp_path):
    """A limit on the size of a file, which fails a write as a full disk does."""
    status, _, errors = run(
        "pipelines.compress",
        *QUICK,
        cwd=tmp_path,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (50_000, 50_000)),
    )
    assert status == 1
    assert errors.startswith("error: Cannot write saved_models/digits-compress/teacher.keras")
    assert errors.count("\n") == 1
    assert [path.name for path in (tmp_path / "saved_models").glob("*/*")] == ["run.json"]


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--final_sparsity=1.0", "--final_sparsity=1.0: expected a fraction in [0, 1)"),
        ("--no_such_flag=1", "no_such_flag"),
        ("--stages=prune,melt", "--stages, expected some of distill, sparse_train, prune"),
    ],
)
def test_bad_flags_are_one_line_and_status_1(flag, message, tmp_path):
    status, output, errors = run("pipelines.compress", flag, cwd=tmp_path)
    assert status == 1
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_flags_that_a_script_does_not_read_are_refused(tmp_path):
    status, _, errors = run("pipelines.train", "--alpha=0.5", cwd=tmp_path)
    assert (status, errors) == (1, "error: Received --alpha, which this script does not read\n")


@pytest.fixture
def main(tmp_path, monkeypatch):
    """Calls compress with flags, in this process and in an empty folder."""
    monkeypatch.chdir(tmp_path)
    # It could not be turned off again, and XLA's tests cannot have it.
    monkeypatch.setattr(tf.config.experimental, "enable_op_determinism", lambda: None)
    x, y = load_digits(return_X_y=True)

    def call(*arguments, **arrays):
        splits = {
            "x_train": x[:150],
            "y_train": y[:150],
            "x_test": x[150:180],
            "y_test": y[150:180],
        }
        np.savez("mine.npz", **{**splits, **arrays})
        keras.utils.set_random_seed(0)
        net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        net.save("mine.keras")
        with flagsaver.flagsaver():
            flags.FLAGS(["compress", *arguments])
            return compress.main()

    return call


@pytest.mark.parametrize(
    ("arguments", "arrays", "message"),
    [
        (["--dataset=none.npz"], {}, "--dataset.*none.npz, which is not there"),
        (["--dataset=mine.keras"], {}, "--dataset, expected digits.*mine.keras"),
        (["--dataset=no_module:data"], {}, "--dataset=no_module:data"),
        (["--dataset=mnist", "--data_dir=."], {}, "--dataset.*mnist.npz, which is not there"),
        (["--dataset=mine.npz"], {"x_test": np.zeros((0, 64))}, "test data with 0 samples and 30"),
        (
            ["--dataset=mine.npz"],
            {"x_train": np.full((150, 64), np.nan)},
            "NaN.*150 of 150 samples",
        ),
        (["--dataset=mine.npz"], {"y_test": np.full(30, 10)}, "0 to 9.*test data with 10 to 10"),
        (["--dataset=mine.npz"], {"y_test": np.full(30, -1)}, "0 to 9.*test data with -1 to -1"),
        (["--dataset=mine.npz"], {"y_train": np.linspace(0, 9, 150)}, "labels, expected whole"),
        (["--dataset=mine.npz"], {"y_train": np.full(150, "cat")}, "labels, expected whole"),
        (["--model=none.keras"], {}, "missing file.*--model=none.keras"),
        (["--model=mine.npz"], {}, "unreadable file.*--model=mine.npz"),
        (["--model=mine.keras", "--student=mine.npz"], {}, "--student, expected.*mine.npz"),
        (["--model=mine.keras", "--student=0.5"], {}, "--student=0.5.*`units`"),
        (["--model=mine.keras", "--student=none.h5"], {}, "missing file.*--student=none.h5"),
        (["--model=mine.keras", "--custom_objects=none.py"], {}, "--custom_objects=none.py"),
        (["--stages=quantize,prune"], {}, "--stages.*quantize last.*quantize,prune"),
        (["--stages=prune,prune"], {}, "--stages.*each once"),
        (["--stages=prune", "--student=0.5"], {}, "--student belongs to the stage distill"),
        (["--stages=distill", "--exclude=a"], {}, "--exclude belongs to.*sparse_train or prune"),
        (["--stages=prune", "--iterative", "--power=2"], {}, "--power, which.*--iterative"),
        (["--stages=prune", "--tolerance=0.1"], {}, "--tolerance, which gradual pruning"),
        (["--stages=prune", "--iterative", "--criterion=random"], {}, "--criterion.*random"),
        (
            ["--stages=prune", "--iterative", "--sensitivity", "--scope=erk"],
            {},
            "--scope, which --sensitivity does not read",
        ),
        (["--stages=sparse_train", "--l1=1"], {}, "--l1, which --technique=rigl"),
        (
            ["--stages=sparse_train", "--technique=proximal_l1", "--sparsity=0.5"],
            {},
            "--sparsity, which --technique=proximal_l1",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--n_m=2,x"],
            {},
            "--n_m, expected two integers.*--n_m=2,x",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--n_m=2"],
            {},
            "--n_m, expected two integers.*--n_m=2",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--prune_end=0"],
            {},
            "--prune_end, expected.*--prune_begin=0.0",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras", "--stages=prune", "--learning_rate=1e38"],
            {},
            "gradient that is NaN.*--learning_rate=1e.38",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras"],
            {"y_train": np.arange(150) % 4, "y_test": np.arange(30) % 4},
            "--model answers 10 classes.*--dataset with 4",
        ),
        (
            ["--dataset=mine.npz", "--model=mine.keras"],
            {"x_train": np.zeros((150, 7)), "x_test": np.zeros((30, 7))},
            r"--model expects inputs of shape \(64,\).*--dataset with \(7,\)",
        ),
    ],
)
def test_bad_input_names_the_flag(main, tmp_path, arguments, arrays, message):
    with pytest.raises(ValueError, match=message):
        main(*arguments, "--epochs=1", **arrays)
    assert not list(tmp_path.glob("**/*.tflite"))


def test_another_run_in_the_same_folder_is_refused(digits_run):
    folder, _, _ = digits_run
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    with flagsaver.flagsaver():
        flags.FLAGS(["compress", f"--output_dir={folder.parent}", *QUICK, "--alpha=0.5"])
        with pytest.raises(ValueError, match=r"other flags.*--alpha was 0.1 and is 0.5$"):
            compress.main()
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_a_refused_run_does_not_claim_its_folder(main, tmp_path):
    with pytest.raises(ValueError, match="none.keras"):
        main("--model=none.keras")
    with pytest.raises(ValueError, match="other.keras"):
        main("--model=other.keras")
    written = json.loads((tmp_path / "saved_models/digits-compress/run.json").read_text())
    assert written["flags"]["model"] == "other.keras"


def test_a_folder_of_something_else_is_refused(main, tmp_path):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "cat.png").write_text("a cat")
    with pytest.raises(ValueError, match="photos, which holds other files"):
        main("--output_dir=.", "--name=photos")
    assert [path.name for path in (tmp_path / "photos").iterdir()] == ["cat.png"]


def test_import_of_custom_objects_takes_keras_classes_only(plain):
    assert list(common.import_custom_objects(str(plain / "plain.py"))) == ["Net"]
    assert common.import_custom_objects(None) == {}


@pytest.mark.parametrize(
    ("options", "zeros"),
    [
        (["--stages=prune", "--final_sparsity=0.6"], 384),
        (["--stages=prune", "--criterion=gradient", "--scope=global"], 320),
        (["--stages=prune", "--criterion=movement", "--scope=erk", "--straight_through"], 320),
        (["--stages=prune", "--criterion=random", "--block_size=4,2"], 320),
        (["--stages=prune", "--n_m=1,4"], 480),
        (["--stages=prune", "--iterative", "--sensitivity", "--tolerance=1", "--step=0.4"], 320),
        (["--stages=sparse_train", "--sparsity=0.7"], 448),
        (["--stages=sparse_train", "--technique=set", "--distribution=uniform"], 512),
        (["--stages=sparse_train", "--technique=static"], 512),
        (["--stages=sparse_train", "--technique=targeted_dropout"], 512),
        (["--stages=sparse_train", "--technique=proximal_l1", "--l1=5"], None),
        (["--stages=sparse_train", "--technique=proximal_group_l1", "--l1=15.5"], None),
        (["--stages=sparse_train,prune", "--technique=static", "--sparsity=0.25"], 320),
    ],
)
def test_the_model_ends_with_the_zeros_that_the_flags_say(main, options, zeros):
    files = ["--dataset=mine.npz", "--model=mine.keras", "--name=run", "--epochs=4"]
    assert main(*files, *options) == 0
    folder = pathlib.Path("saved_models/run")
    last = options[0].split("=")[1].split(",")[-1]
    kernel = keras.models.load_model(folder / f"{last}.keras").layers[0].kernel.numpy()
    if zeros is None:
        assert 0 < np.sum(kernel == 0) < 640
        if "group" in options[1]:
            channels = np.sum(kernel == 0, axis=0)
            assert set(channels) == {0, 64}
    else:
        # A weight that has just been grown begins at zero.
        grown = 5 if last == "sparse_train" else 0
        assert zeros <= np.sum(kernel == 0) <= zeros + grown
    if "--n_m=1,4" in options:
        assert np.all(np.sum(kernel.reshape(16, 4, 10) != 0, axis=1) == 1)
    if "--iterative" in options:
        assert (folder / "sensitivity.png").exists()
        assert "50.00" in (folder / "rounds.md").read_text()
    if "sparse_train" in options[0] and last == "prune":
        first = keras.models.load_model(folder / "sparse_train.keras").layers[0].kernel.numpy()
        assert np.all(kernel[first == 0] == 0)
        assert np.sum(first == 0) == 160
    report = read_report(folder)
    assert report["rows"][last]["nonzero_parameters"] <= 650 - (zeros or 1)


def test_rounds_that_do_not_hold_are_an_error(main):
    x, y = load_digits(return_X_y=True)
    keras.utils.set_random_seed(0)
    net = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    net.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    net.fit(x[:150], y[:150], epochs=30, verbose=0)
    net.save("trained.keras")
    with pytest.raises(ValueError, match="No round held.*--tolerance=0"):
        main(
            *("--dataset=mine.npz", "--model=trained.keras", "--stages=prune", "--iterative"),
            *("--final_sparsity=0.99", "--step=1", "--tolerance=0", "--learning_rate=1e-9"),
        )
