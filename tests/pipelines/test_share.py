"""pipelines.share and pipelines.predict: texts and arrays, resuming, and what they do not take."""

import csv
import json
import pathlib
import shutil
import signal
import sys
import time

import keras
import numpy as np
import pytest

import tfpeft
from pipelines import predict, share
from pipelines.common import backbones
from pipelines.common.flags import settings_of, with_value
from pipelines.common.folders import RunFolder
from pipelines.common.splits import Data
from pipelines.common.texts import load_texts
from pipelines.stages import share as share_stage
from tests.pipelines.scripts import call, read_report, run, start
from tests.pipelines.tiny_bert import FILLERS, WORDS, keras_hub, save_tiny
from tfpeft.core.arguments import InputError
from tfpeft.export.tflite_file import TFLiteFile

TASKS = ["--task=sentiment=sentiment.csv:text:label", "--task=topic=topic.csv:body:about"]
TEXTS = ["--backbone=tiny", *TASKS, "--sequence_length=12", "--rank=2", "--epochs=10"]
TEXTS += ["--batch_size=16", "--learning_rate=0.03", "--quantization=none"]
ARRAYS = ["--backbone=scaled.keras", "--custom_objects=plain.py", "--task=shape=shape.npz"]
ARRAYS += ["--task=colour=colour.npz"]
QUICK = ["--epochs=8", "--learning_rate=0.05", "--adapter=none", "--name=arrays"]
QUICK += ["--quantization=dynamic_range"]

PLAIN = """
import keras


class Scale(keras.layers.Layer):
    def call(self, x):
        return 2.0 * x
"""


def write_csv(path, columns, rows):
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([columns, *rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A backbone of each kind, and data whose labels follow from one word, or one number."""
    folder = tmp_path_factory.mktemp("share")
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    save_tiny(folder / "tiny")
    for task, columns, count in (
        ("sentiment", ("text", "label"), 200),
        ("topic", ("about", "body"), 260),
    ):
        rows = []
        for label in rng.choice(list(WORDS[task]), count):
            words = [*rng.choice(FILLERS, 3), rng.choice(WORDS[task][label])]
            sentence = " ".join(rng.permutation(words)).capitalize().replace(" ", ",\n", 1)
            rows.append((sentence, label) if columns[0] == "text" else (label, sentence))
        write_csv(folder / f"{task}.csv", columns, rows)
    (folder / "plain.py").write_text(PLAIN)
    script = {"__name__": "plain"}
    exec(PLAIN, script)
    layers = [keras.layers.Dense(16, activation="relu", name="hidden"), script["Scale"]()]
    keras.Sequential([keras.Input((2, 3)), keras.layers.Flatten(), *layers]).save(
        folder / "scaled.keras"
    )
    keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Conv2D(3, 2)]).save(
        folder / "image.keras"
    )
    for task, classes in (("shape", 3), ("colour", 2)):
        y = rng.integers(0, classes, 150)
        x = (rng.normal(size=(150, 6)) + 4.0 * np.eye(6)[y]).astype("float32")
        splits = {"x_train": x[:110], "y_train": y[:110], "x_test": x[110:], "y_test": y[110:]}
        np.savez(folder / f"{task}.npz", **splits)
    np.save(folder / "samples.npy", x[110:113].reshape(3, 2, 3))
    return folder


@pytest.fixture(scope="module")
def text_run(folder):
    status, output, errors = run("pipelines.share", *TEXTS, cwd=folder)
    assert status == 0, errors
    return folder / "saved_models" / "tiny-share", output, errors


@pytest.fixture(scope="module")
def array_run(folder):
    """The heads of tasks only."""
    status, _, errors = run("pipelines.share", *ARRAYS, *QUICK, cwd=folder)
    assert status == 0, errors
    return folder / "saved_models" / "arrays"


@pytest.fixture
def main(folder, monkeypatch):
    """Calls pipelines.share with flags, in this process."""
    monkeypatch.chdir(folder)
    return lambda *arguments: call(share, *arguments)


@pytest.fixture
def ask(folder, monkeypatch, capsys):
    """Calls pipelines.predict; returns what it prints."""
    monkeypatch.chdir(folder)

    def call_predict(*arguments, texts=()):
        assert call(predict, *arguments, "--", *texts) == 0
        return capsys.readouterr().out

    return call_predict


def test_share_writes_everything_that_it_lists(text_run):
    folder, output, errors = text_run
    assert sorted(path.name for path in folder.iterdir()) == [
        "backbone.keras",
        "model.tflite",
        "model_card.md",
        "report.html",
        "report.json",
        "report.md",
        "run.json",
        "sentiment.weights.h5",
        "tasks.json",
        "tokenizer",
        "topic.weights.h5",
    ]
    report = json.loads((folder / "report.json").read_text())
    assert share.headline(report) in output
    assert share.headline(report) in (folder / "report.md").read_text()
    assert "[2/4] training of sentiment, topic, adapter lora" in output
    assert "sentiment, model.tflite  " in output
    assert json.loads((folder / "tasks.json").read_text()) == {
        "sentiment": ["bad", "good"],
        "topic": ["0", "art", "law"],
    }
    labels = TFLiteFile(folder / "model.tflite").labels("topic")
    assert list(labels.values()) == [("0", "art", "law")]
    assert errors == ""  # no native log, no warning


def test_the_report_is_of_the_files(folder, text_run):
    run_folder, _, _ = text_run
    report = read_report(run_folder)
    backbone = keras.models.load_model(run_folder / "backbone.keras")
    heads = {"sentiment": 2, "topic": 3}
    shared = tfpeft.SharedModel(backbone, heads, adapters=tfpeft.LoRA(rank=2), pooling="mean")
    preprocessor = backbones.load_preprocessor(run_folder)
    file = run_folder / "model.tflite"
    for task, columns in (("sentiment", ("text", "label")), ("topic", ("body", "about"))):
        shared.load_task(run_folder / f"{task}.weights.h5")
        loaded = load_texts(folder / f"{task}.csv", *columns, "")
        x, y = backbones.tokens(preprocessor, loaded.test[0]), loaded.test[1]
        assert x["token_ids"].shape == (len(y), 12)
        accuracy = np.mean(shared.task(task).predict(x, verbose=0).argmax(-1) == y)
        assert report["rows"][task]["accuracy"] == pytest.approx(accuracy)
        assert accuracy > 0.8
        logits = TFLiteFile(file).predict(x, task)
        row = report["rows"][f"{task}, model.tflite"]
        assert row["accuracy"] == pytest.approx(np.mean(logits.argmax(-1) == y))
        about = report["tasks"][task]
        assert about["samples"]["test"] == len(y)
        assert about["size_bytes"] == (run_folder / f"{task}.weights.h5").stat().st_size
        # Query and value of its layer, 16 channels in and out, at rank 2; and the head.
        assert about["trained_parameters"] == 2 * 2 * (16 + 16) + 17 * heads[task]
        assert about["separate_parameters"] == backbone.count_params() + about["trained_parameters"]
    assert report["size_bytes"] == file.stat().st_size < report["separate_size_bytes"]
    trained = sum(each["trained_parameters"] for each in report["tasks"].values())
    assert report["parameters"] == backbone.count_params() + trained
    assert report["separate_parameters"] == 2 * backbone.count_params() + trained


def test_without_a_task_file_and_killed_it_ends_in_the_same_report(folder, array_run, tmp_path):
    copy = tmp_path / "arrays"
    shutil.copytree(array_run, copy)
    (copy / "colour.weights.h5").unlink()
    arguments = ["pipelines.share", *ARRAYS, *QUICK, f"--output_dir={tmp_path}"]
    log = tmp_path / "log"
    log.touch()
    process = start(*arguments, cwd=folder, output=log, errors=log)
    while process.is_alive() and "[3/4]" not in log.read_text():
        time.sleep(0.02)
    time.sleep(0.2)
    process.kill()
    process.join()
    assert process.exitcode == -signal.SIGKILL, log.read_text()
    assert "Epoch 8/8" in log.read_text()
    assert not (copy / "report.json").exists()
    status, output, errors = run(*arguments, cwd=folder)
    assert status == 0, errors
    assert "Epoch" not in output
    assert read_report(copy) == read_report(array_run)
    assert sorted(p.name for p in copy.iterdir()) == sorted(p.name for p in array_run.iterdir())


def test_a_run_needs_its_own_folder_only(folder, text_run, tmp_path, monkeypatch):
    """The tokenizer of a preset that is no longer there, and one whose writing was cut off."""
    (tmp_path / "tfpeft-partial.tokenizer").mkdir()
    (tmp_path / "tfpeft-partial.tokenizer" / "tokenizer.json").write_text("{")
    monkeypatch.chdir(folder)
    flags = [*TEXTS, f"--output_dir={tmp_path.parent}", f"--name={tmp_path.name}"]
    settings, _ = share.SCRIPT.parse(flags)
    new = RunFolder("share", settings, share.FLAGS, named_after="backbone")
    models = [backbones.open_backbone(settings, new, is_text=True)[0]]
    gone = with_value(settings, "backbone", "gone")
    model, preprocessor = backbones.open_backbone(gone, new, is_text=True)
    models.append(model)
    new.close()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["backbone.keras", "run.json", "tokenizer"]
    for one, other in zip(*(model.weights for model in models), strict=True):
        np.testing.assert_array_equal(one, other)
    x = backbones.tokens(preprocessor, ["the film was great"])
    assert x["token_ids"].tolist() == [[2, 5, 17, 7, 11, 3, *[0] * 6]]
    assert x["padding_mask"].tolist() == [[1] * 6 + [0] * 6]


def test_finished_it_prints_its_report_only(main, text_run, capsys):
    assert main(*TEXTS) == 0
    output = capsys.readouterr().out
    assert "[1/4]" not in output
    assert "sentiment, model.tflite" in output
    with pytest.raises(InputError, match="the same settings.*--rank was 2 and is 3"):
        main(*[each.replace("--rank=2", "--rank=3") for each in TEXTS])


def test_predict_reads_texts(ask, text_run):
    texts = ["It was awful", "lovely  song and the film", "great"]
    output = ask("--run=saved_models/tiny-share", texts=texts)
    lines = [line.split(maxsplit=3) for line in output.splitlines()]
    assert [line[0] for line in lines] == ["sentiment", "topic"] * 3
    assert [line[1] for line in lines[::2]] == ["bad", "good", "good"]
    assert lines[3][1] == "art"
    assert all(0.33 < float(line[2]) <= 1.0 for line in lines)
    assert lines[3][3] == "lovely song and the film"


def test_predict_of_one_task_in_json(ask, folder, text_run):
    run_folder = "--run=saved_models/tiny-share"
    output = ask(run_folder, "--task=topic", "--format=json", texts=["the Vote", "ball"])
    rows = json.loads(output)
    x = backbones.tokens(backbones.load_preprocessor(text_run[0]), ["the Vote", "ball"])
    logits = TFLiteFile(text_run[0] / "model.tflite").predict(x, "topic").astype("float64")
    names = [["0", "art", "law"][number] for number in logits.argmax(1)]
    assert [(row["sample"], row["task"], row["class"]) for row in rows] == [
        ("the Vote", "topic", names[0]),
        ("ball", "topic", names[1]),
    ]
    wanted = (np.exp(logits) / np.exp(logits).sum(1, keepdims=True)).max(1)
    assert [row["probability"] for row in rows] == pytest.approx(wanted.tolist(), rel=1e-5)
    markdown = ask(run_folder, "--task=topic", "--format=markdown", texts=["ball"])
    assert markdown.splitlines()[:2] == [
        "| task | class | probability | sample |",
        "|---|---|---:|---|",
    ]


def test_arrays_on_a_custom_backbone(folder, array_run):
    report = read_report(array_run)
    assert not (array_run / "tokenizer").exists()
    for task, classes in (("shape", 3), ("colour", 2)):
        assert report["rows"][task]["accuracy"] > 0.8
        assert report["tasks"][task]["trained_parameters"] == 17 * classes
    assert report["parameters"] == 7 * 16 + 17 * 5
    flags = ["--run=saved_models/arrays", "--input=samples.npy", "--format=json"]
    status, output, errors = run("pipelines.predict", *flags, cwd=folder)
    assert (status, errors) == (0, "")
    rows = json.loads(output)
    assert [row["sample"] for row in rows] == [0, 0, 1, 1, 2, 2]
    with np.load(folder / "colour.npz") as file:
        labels = file["y_test"][:3]
    assert [row["class"] for row in rows if row["task"] == "colour"] == [str(y) for y in labels]


def test_a_missing_file_is_written_again(main, array_run, tmp_path, capsys):
    shutil.copytree(array_run, tmp_path / "arrays")
    (tmp_path / "arrays" / "model.tflite").unlink()
    assert main(*ARRAYS, *QUICK, f"--output_dir={tmp_path}") == 0
    assert "Epoch" not in capsys.readouterr().out
    x = np.load("samples.npy")
    before, after = (
        TFLiteFile(run_folder / "model.tflite").predict(x, "shape")
        for run_folder in (array_run, tmp_path / "arrays")
    )
    np.testing.assert_allclose(after, before, atol=1e-5)


@pytest.mark.parametrize(
    ("given", "pooling", "output"),
    [
        ({"pooling": "none"}, None, "pooled_output"),
        ({"pooling": "first"}, "first", None),
        ({"adapter": "ia3"}, "mean", None),
        ({"adapter": "bitfit"}, "mean", None),
        ({"adapter": "bottleneck"}, "mean", None),
        ({"adapter": "dora"}, "mean", None),
    ],
)
def test_what_a_head_reads_and_what_is_trained(folder, given, pooling, output):
    backbone = keras_hub.models.Backbone.from_preset(str(folder / "tiny"))
    ids = np.ones((4, 8), "int32")
    x = {"token_ids": ids, "segment_ids": 0 * ids, "padding_mask": ids}
    tasks = {"a": Data((x, None), None, None, classes=3)}
    settings = settings_of(share.FLAGS, {"backbone": "tiny", **given, "rank": 3})
    shared = share_stage.shared_model(settings, backbone, tasks)
    assert (shared.encoder.pooling, shared.encoder.output_key) == (pooling, output)
    assert shared(x)["a"].shape == (4, 3)
    sizes = {
        "ia3": 16 + 16 + 32,
        "bottleneck": 2 * (2 * 3 * 16 + 3 + 16),
    }
    adapter = sum(np.prod(v.shape) for v in shared.trainable_variables) - 17 * 3
    assert adapter == sizes.get(given.get("adapter"), adapter) > 0


def test_images_on_one_task_without_pooling_flags(main, folder, capsys):
    """Maps of a backbone are averaged; one task has one signature."""
    y = np.arange(120) % 2
    x = np.random.default_rng(0).normal(size=(120, 4, 4, 1)) + 3.0 * y[:, None, None, None]
    arrays = {"x_train": x[:90], "y_train": y[:90], "x_test": x[90:], "y_test": y[90:]}
    np.savez(folder / "image.npz", **arrays)
    flags = ["--backbone=image.keras", "--task=bright=image.npz", "--quantization=int8"]
    assert main(*flags, "--epochs=6", "--learning_rate=0.1", "--rank=1") == 0
    report = read_report(pathlib.Path("saved_models/image-share"))
    assert report["rows"]["bright, model.tflite"]["accuracy"] > 0.9
    assert report["size_bytes"] == pytest.approx(report["separate_size_bytes"], rel=0.05)


BAD_CSV = {
    "empty.csv": "",
    "one.csv": "text,label\n" + "a,x\n" * 40,
    "few.csv": "text,label\n" + "a,x\n" * 40 + "b,y\n",
    "small.csv": "text,label\na,x\nb,y\na,x\nb,y\na,x\nb,y\n",
    "hole.csv": "text,label\na,x\n ,y\nb,x\nb,\n",
    "comma.csv": "label,text\nx,a\ny,b, and more\n",
    "short.csv": "text,label\na,x\nb\n",
    "twice.csv": "text,label,label\na,x,y\n",
    "quote.csv": 'text,label\na,x\n"b,y\nc,x\n',
    "latin.csv": "text,label\ncaf\xe9,x\n",
}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--task=a=sentiment.csv:text:label"], "Expected a --backbone.*no --backbone"),
        (["--backbone=tiny"], "a --task once or more.*no --task"),
        (["--backbone=tiny", "--task=sentiment.csv"], "--task, expected NAME=.*--task=sentiment"),
        (["--backbone=tiny", "--task=a=sentiment.csv:text"], "--task, expected NAME="),
        (["--backbone=tiny", "--task=a=sentiment.csv::label"], "--task, expected NAME="),
        (["--backbone=tiny", "--task=a b=sentiment.csv:text:label"], "name of letters.*a b="),
        (["--backbone=tiny", *TASKS, TASKS[0]], "several names.*'sentiment' in two --task"),
        (["--backbone=tiny", *TASKS, "--task=a=shape.npz"], r"all texts \(.csv\) or all arrays"),
        (["--backbone=image.keras", *TASKS], "with a tokenizer.*--backbone=image.keras"),
        (["--backbone=tiny", *TASKS, "--adapter=ia3", "--rank=4"], "--rank, which --adapter=ia3"),
        ([*ARRAYS, "--sequence_length=8"], "--sequence_length, which a run on arrays"),
        (["--backbone=tiny", *TASKS, "--custom_objects=plain.py"], "--custom_objects, which only"),
        (["--backbone=nowhere", *TASKS], "--backbone, expected a KerasHub.*--backbone=nowhere"),
        (["--backbone=tokens", *TASKS], "--backbone, expected.*--backbone=tokens: .*config.json"),
        (["--backbone=none.keras", "--task=a=shape.npz"], "--backbone=none.keras, which is not"),
        (["--backbone=shape.npz", "--task=a=shape.npz"], "--backbone, expected.*shape.npz"),
        (["--backbone=scaled.keras", "--task=a=shape.npz"], "--backbone=scaled.keras, .*Scale"),
        ([*TEXTS, "--sequence_length=64"], "--sequence_length, expected at most 32.*64"),
        ([*ARRAYS, "--pooling=mean"], r"--pooling, expected none for .* \(1, 16\).*=mean"),
        (
            ["--backbone=image.keras", "--task=a=image.npz", "--pooling=none"],
            r"--pooling, expected mean or first for .* \(1, 3, 3, 3\)",
        ),
        (["--backbone=image.keras", "--task=a=shape.npz"], r"--backbone expects.*=shape.npz with"),
        (["--backbone=tiny", "--task=a=shape.npz"], "--backbone=tiny does not read: .*3 named"),
        ([*ARRAYS, "--task=b=few.npz"], "samples of every class.*--task=b=few.npz"),
        ([*ARRAYS, "--task=b=none.npz"], "a file for --task.*none.npz, which is not there"),
        ([*ARRAYS, "--batch_size=1"], "`batch_size`, expected at least 2"),
        (
            [*ARRAYS, "--learning_rate=1e38", "--adapter=none"],
            "NaN or infinity in .*--learning_rate=1e.38",
        ),
        (["--backbone=tiny", "--task=a=none.csv:text:label"], "--task=a=none.csv.*no file none"),
        (
            ["--backbone=tiny", "--task=a=sentiment.csv:txt:label"],
            "column among 'text', 'label', which.*--task=a=sentiment.csv:txt:label, with txt",
        ),
        (["--backbone=tiny", "--task=a=empty.csv:text:label"], "column among none.*text and label"),
        (["--backbone=tiny", "--task=a=one.csv:text:label"], "2 classes.*--task.* with 'x' only"),
        (
            ["--backbone=tiny", "--task=a=few.csv:text:label"],
            "classes, 1 of the smallest. Expected more rows.*--task.*class 'y' with 1",
        ),
        (["--backbone=tiny", "--task=a=small.csv:text:label"], "more rows.*--task.* with 6, and"),
        (["--backbone=tiny", "--task=a=hole.csv:text:label"], "in 2 of 4 rows, first in line 3"),
        (["--backbone=tiny", "--task=a=comma.csv:text:label"], "2 columns.*comma.csv.*line 3"),
        (["--backbone=tiny", "--task=a=short.csv:text:label"], "2 columns.*short.csv.*line 3"),
        (["--backbone=tiny", "--task=a=twice.csv:text:label"], "one column label.*twice.csv"),
        (["--backbone=tiny", "--task=a=quote.csv:text:label"], "Expected a CSV.*quote.csv.*: "),
        (["--backbone=tiny", "--task=a=latin.csv:text:label"], "UTF-8.*--task=a=latin.csv"),
    ],
)
def test_bad_input_names_the_flag(main, folder, tmp_path, arguments, message):
    for name, content in BAD_CSV.items():
        (folder / name).write_bytes(content.encode("latin-1"))
    (folder / "tokens").mkdir(exist_ok=True)
    x, y = np.zeros((60, 4, 4, 1)), np.arange(60) % 2
    np.savez(folder / "image.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    few = {"x_train": np.zeros((21, 6)), "y_train": np.arange(21) // 20}
    np.savez(folder / "few.npz", **few, x_test=np.zeros((2, 6)), y_test=np.arange(2))
    with pytest.raises(InputError, match=message):
        main(*arguments, f"--output_dir={tmp_path}")
    assert not list(tmp_path.glob("*/*.weights.h5"))
    assert not list(tmp_path.glob("*/*partial*"))


@pytest.mark.parametrize(
    ("arguments", "texts", "message"),
    [
        ([], ["a"], "--run=None"),
        (["--run=tiny"], ["a"], "pipelines.share that has ended.*--run=tiny"),
        (["--run=saved_models/tiny-share"], [], "Expected texts.*none"),
        (["--run=saved_models/tiny-share", "--input=a.npy"], [], "Expected texts.*--input=a.npy"),
        (["--run=saved_models/tiny-share", "--task=age"], ["a"], "sentiment or topic.*--task=age"),
        (["--run=saved_models/arrays"], [], "Expected --input.*none"),
        (["--run=saved_models/arrays"], ["a"], "Expected --input.*texts, 'a' first"),
        (["--run=saved_models/arrays", "--input=none.npy"], [], "--input=none.npy"),
        (["--run=saved_models/arrays", "--input=plain.py"], [], "--input=plain.py"),
        (["--run=saved_models/arrays", "--input=wide.npy"], [], r"of shape.*\(5,\)"),
        (["--run=saved_models/arrays", "--input=nan.npy"], [], "--input=nan.npy, with NaN"),
    ],
)
def test_predict_on_bad_input(ask, folder, text_run, array_run, arguments, texts, message):
    np.save(folder / "wide.npy", np.zeros((2, 5)))
    np.save(folder / "nan.npy", np.full((2, 2, 3), np.nan))
    with pytest.raises(InputError, match=message):
        ask(*arguments, texts=texts)


def test_without_keras_hub_one_line_says_what_to_install(main, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "keras_hub", None)
    with pytest.raises(InputError, match=r"pip install tfpeft\[text\]"):
        main(*TEXTS, f"--output_dir={tmp_path}")
