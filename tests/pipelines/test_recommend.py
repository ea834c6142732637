"""pipelines.recommend, --stages=auto, and the commands and lines of code of recommendations."""

import dataclasses
import json
import shlex

import keras
import numpy as np
import pytest

import tfpeft
from pipelines import compress, recommend, share
from pipelines.common import recommending
from pipelines.stages import automatic, compression
from tests.pipelines.scripts import call
from tfpeft.automl.advice.chains import QUANTIZE_AWARE, Chain, first_step, quantize
from tfpeft.automl.advice.goals import device_of
from tfpeft.automl.advice.words import code_of, command_of
from tfpeft.core.arguments import InputError

INT8 = quantize("int8", equalize=True, correct_bias=True)
CHAINS = [
    Chain((INT8,)),
    Chain((quantize("dynamic_range"),)),
    Chain((first_step("prune_channels"), first_step("prune"))),
    Chain((first_step("prune"), quantize("none", sparse_encoding=True))),
    Chain((first_step("prune", ("head",)), first_step("cluster", ("head",)), quantize("int8"))),
    Chain((first_step("distill"), quantize("float16"))),
    Chain((QUANTIZE_AWARE, quantize("int8"))),
    Chain((first_step("prune"), QUANTIZE_AWARE, quantize("int8", sparse_encoding=True))),
    Chain((first_step("cluster"), QUANTIZE_AWARE, quantize("int8"))),
]


@pytest.mark.parametrize("target", [None, "xnnpack", "tflm"])
@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_commands_are_those_of_the_script(chain, target, monkeypatch):
    monkeypatch.setattr("tfpeft.automl.advice.goals.check_target", lambda target: None)
    monkeypatch.setattr("pipelines.common.devices.check_target", lambda target: None)
    command = command_of(chain, device_of(target), batch_size=16, learning_rate=2e-3)
    program, script, *arguments = shlex.split(command)[1:]
    assert (program, script) == ("-m", "pipelines.compress")
    settings, _ = compress.SCRIPT.parse(arguments)
    compression.check(compression.with_quantization(settings, settings.stages), settings.stages)
    assert [stage for stage in settings.stages if stage != "quantize"] == [
        stage for stage in chain.stages if stage != "quantize"
    ]
    is_trained = bool(chain.trained.steps)
    assert (settings.batch_size == 16) == (settings.learning_rate == 2e-3) == is_trained
    assert (settings.file_batch_size == 1) == (target == "tflm")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """A folder of a trained model and its data."""
    folder = tmp_path_factory.mktemp("files")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 12)).astype("float32")
    y = np.argmax(x[:, :3] + x[:, 3:6], axis=1)
    np.savez(folder / "data.npz", x_train=x[:240], y_train=y[:240], x_test=x[240:], y_test=y[240:])
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(96, "relu", name="hidden")
    model = keras.Sequential([keras.Input((12,)), hidden, keras.layers.Dense(3, name="head")])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    model.fit(x[:240], y[:240], epochs=8, verbose=0)
    model.save(folder / "model.keras")
    return folder


def arguments(files, tmp_path, *more):
    return [
        f"--model={files}/model.keras",
        f"--dataset={files}/data.npz",
        f"--output_dir={tmp_path}",
        "--name=run",
        *more,
    ]


def test_a_report_with_commands_of_these_files(files, tmp_path, capsys):
    given = arguments(files, tmp_path, "--goal=size", "--techniques=quantize", "--batch_size=16")
    assert call(recommend, *given) == 0
    output = capsys.readouterr().out
    report = json.loads((tmp_path / "run/report.json").read_text())
    assert report["job"] == "recommend"
    assert report["goal"] == "size"
    first = report["recommendations"][0]
    assert set(first["gain"]) >= {"figure", "factor", "interval", "metric_change"}
    assert f"--model={files}/model.keras --dataset={files}/data.npz" in first["command"]
    assert first["command"] in output
    assert first["title"] in (tmp_path / "run/report.md").read_text()
    assert first["title"] in (tmp_path / "run/report.html").read_text()
    assert f"{files}/model.keras" in first["code"]
    assert first["title"] in (tmp_path / "run/report.html").read_text()
    assert "without" not in output  # a page
    trials = sorted(path.name for path in (tmp_path / "run/trials").glob("*.json"))
    written = {name: (tmp_path / "run/trials" / name).stat().st_mtime_ns for name in trials}
    assert call(recommend, *given, "--minutes=0.001") == 0
    assert written == {n: (tmp_path / "run/trials" / n).stat().st_mtime_ns for n in trials}


@pytest.fixture
def found(monkeypatch):
    """What `recommend` returned, which tries quantizations alone in the test."""
    returned, original = [], tfpeft.recommend

    def with_quantization_alone(*args, **options):
        returned.append(original(*args, **{**options, "techniques": ["quantize"]}))
        return returned[-1]

    monkeypatch.setattr(tfpeft, "recommend", with_quantization_alone)
    return returned


def test_stages_auto_run_what_is_recommended_and_keep_it(files, tmp_path, capsys, found):
    given = arguments(files, tmp_path, "--stages=auto", "--goal=download", "--epochs=1")
    assert call(compress, *given, "--minutes=1e-6") == 0  # no trial: nothing is kept
    assert "No trial for download ended" in capsys.readouterr().out
    assert not (tmp_path / "run-recommend/chain.json").exists()
    found.clear()
    assert call(compress, *given) == 0
    output = capsys.readouterr().out
    first = found[0].recommendations[0]
    assert f"Recommended: {first.title}." in output
    flags = json.loads((tmp_path / "run/run.json").read_text())["flags"]
    assert flags["stages"] == ["quantize"]
    assert f"--quantization={flags['quantization']}" in first.command
    asked = json.loads((tmp_path / "run-recommend/report.json").read_text())
    assert asked["recommendations"][0]["title"] == first.title
    assert call(compress, *given) == 0  # the chain is kept: nothing is asked or run again
    assert len(found) == 1
    with pytest.raises(InputError, match="target was None"):  # another device: another chain
        call(compress, *given, "--target=xnnpack")
    again, _ = asked["made"]["commands"]
    assert "pipelines.recommend" in again
    assert call(recommend, *shlex.split(again)[3:]) == 0  # of the same folder


def test_a_budget_takes_the_first_recommendation_that_is_inside(files, tmp_path, capsys, found):
    given = [each for each in arguments(files, tmp_path) if not each.startswith("--name")]
    # Beside the folder of pipelines.recommend, which has another goal.
    few = ["--techniques=quantize", "--minutes=0.001"]
    assert call(recommend, *given, "--goal=latency", *few) == 0
    found.clear()
    given += ["--stages=auto", "--goal=size"]
    with pytest.raises(tfpeft.BudgetError, match="at most --max_size_bytes=100.*the smallest"):
        call(compress, *given, "--max_size_bytes=100")
    sizes = {each["name"]: each["size_bytes"] for each in found[0].trials if each["gain"]}
    (first,) = found[0].recommendations
    size, title = sizes[first.trial], f"Recommended: {first.title}."
    assert size < sizes["quantize-int8"] < found[0].model["size_bytes"]
    larger = dataclasses.replace(first, trial="quantize-int8", title="int8")
    both = dataclasses.replace(found[0], alternatives=[larger, first])
    assert automatic._chain(both, size)["text"].startswith(title)
    assert automatic._chain(both, 1.0)["text"].startswith("Recommended: int8.")  # of the model's
    with pytest.raises(
        tfpeft.BudgetError, match=r"at most --max_size_bytes=75\d, .* 5,\d{3} bytes"
    ):
        call(compress, *given, "--max_size_bytes=10%")  # of 7,540
    capsys.readouterr()
    assert call(compress, *given, f"--max_size_bytes={size}", "--epochs=1") == 0
    assert title in capsys.readouterr().out
    assert (tmp_path / "data-compress/model.tflite").stat().st_size <= size
    assert (tmp_path / "data-compress-recommend/report.html").is_file()
    settings, _ = compress.SCRIPT.parse(given)
    assert automatic.status_of(settings, float(size)) == 0
    assert automatic.status_of(settings, 1000.0) == 2
    assert "expected at most --max_size_bytes=1,000" in capsys.readouterr().out


def test_tasks_share_a_model_that_is_their_backbone(files, tmp_path):
    rng = np.random.default_rng(0)
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(64, "relu", name="hidden")
    keras.Sequential([keras.Input((12,)), hidden]).save(tmp_path / "backbone.keras")
    for name, column in (("left", 0), ("right", 5)):
        x = rng.normal(size=(80, 12)).astype("float32")
        y = (x[:, column] > 0).astype("int64")
        arrays = {"x_train": x[:60], "y_train": y[:60], "x_test": x[60:], "y_test": y[60:]}
        np.savez(tmp_path / f"{name}.npz", **arrays)
    flags = [f"--tasks={name}={tmp_path}/{name}.npz" for name in ("left", "right")]
    flags += [f"--model={tmp_path}/backbone.keras", f"--output_dir={tmp_path}", "--name=run"]
    assert call(recommend, *flags, "--goal=tasks", "--techniques=heads", "--trial_steps=2") == 0
    report = json.loads((tmp_path / "run/report.json").read_text())
    again, _ = report["made"]["commands"]
    assert all(flag in shlex.split(again) for flag in flags)
    (trial,) = report["trials"]
    assert trial["gain"]["before"] == trial["separate_size_bytes"] > trial["size_bytes"]
    command = report["recommendations"][0]["command"]
    settings, _ = share.SCRIPT.parse(shlex.split(command)[3:])
    assert settings.backbone == f"{tmp_path}/backbone.keras"
    assert list(settings.task) == [f"{n}={tmp_path}/{n}.npz" for n in ("left", "right")]


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        (recommend, ["--goal="], "--goal, expected one of latency"),
        (recommend, ["--minutes=0", "--goal=size"], "--minutes"),
        (recommend, [], "a --goal"),
        (recommend, ["--goal=size", "--tasks=a=a.npz"], "--tasks"),
        (recommend, ["--goal=memory"], "'tflm' or an Ethos-U"),
        (compress, ["--goal=size"], "--goal"),
        (compress, ["--stages=auto"], "--goal, expected one of latency"),
        (compress, ["--stages=auto", "--goal=tasks"], "--goal"),
        (compress, ["--stages=auto,quantize", "--goal=size"], "--goal"),
        (compress, ["--stages=auto", "--goal=size", "--quantization=int8"], "stage quantize, and"),
        (compress, ["--stages=auto", "--goal=size", "--max_size_bytes=few"], "--max_size_bytes"),
    ],
)
def test_bad_flags(files, tmp_path, script, flags, message):
    with pytest.raises(InputError, match=message):
        call(script, *arguments(files, tmp_path, *flags))


def test_a_model_is_needed(tmp_path):
    with pytest.raises(InputError, match="a --model"):
        call(recommend, "--goal=size", f"--output_dir={tmp_path}")


@pytest.mark.parametrize("chain", CHAINS, ids=lambda chain: chain.name)
def test_lines_of_code_are_python(chain):
    compile(code_of(chain, device_of(None)), "code", "exec")


def test_lines_of_code_run(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with np.load(files / "data.npz") as data:
        x, y = data["x_train"], data["y_train"]
    chain = Chain((first_step("prune_channels"), first_step("prune"), quantize("int8")))
    code = code_of(chain, device_of(None)).replace("model.keras", f"{files}/model.keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = {"x": x, "y": y, "validation": (x, y), "loss": loss, "metrics": ["accuracy"]}
    exec(code.replace("epochs=30", "epochs=1, verbose=0").replace("30 *", "1 *"), names)
    assert tfpeft.TFLiteFile("model.tflite").contents.ops["FULLY_CONNECTED"] == 2


def test_lines_of_code_keep_the_zeros_of_a_model(files, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with np.load(files / "data.npz") as data:
        x, y = data["x_train"], data["y_train"]
    model = keras.models.load_model(files / "model.keras")
    kernel = model.get_layer("hidden").kernel
    kernel.assign(np.where(np.abs(kernel) < np.median(np.abs(kernel)), 0.0, kernel))
    model.save("pruned.keras")
    chain = Chain((first_step("prune_channels"), first_step("cluster")))
    code = code_of(chain, device_of(None), has_zeros=True).replace("model.keras", "pruned.keras")
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    names = {"x": x, "y": y, "validation": (x, y), "loss": loss, "metrics": ["accuracy"]}
    exec(code.replace("epochs=30", "epochs=1, verbose=0"), names)
    trained = names["model"].get_layer("hidden").kernel.numpy()
    assert 0 < trained.shape[1] < 96
    assert np.mean(trained == 0) > 0.3
    pair = Chain((first_step("prune"), first_step("cluster")))
    assert code_of(pair, device_of(None)).count("FixedMask") == 1  # of the second stage
    assert "FixedMask" not in code_of(Chain((first_step("distill"),)), device_of(None))


def test_lines_of_code_have_the_settings_of_the_trial():
    chain = Chain((first_step("distill"), first_step("prune")))
    tasks = {"a": "classification", "b": "regression"}
    options = {"batch_size": 64, "learning_rate": 3e-4}
    code = code_of(chain, device_of(None), **options, tasks=tasks, names=["a", "b"])
    compile(code, "code", "exec")
    assert "tfpeft.SoftLabels(output=0), tfpeft.SquaredError(output=1)]" in code
    assert code.count("Adam(0.0003)") == code.count("batch_size=64, epochs=30") == 2
    assert "-(-len(x) // 64)" in code
    assert "(output='b')" in code_of(chain, device_of(None), tasks={"b": "binary"})
    one = code_of(chain, device_of(None), tasks={None: "multi_label"})
    assert "distillation_losses=[tfpeft.BinarySoftLabels()])" in one
    assert "distillation_losses" not in code_of(chain, device_of(None))


def test_commands_have_the_files_and_the_flags_of_the_model(files, tmp_path):
    given = ["--custom_objects=my layers.py", "--allow_chance", "--goal=size", "--task=regression"]
    settings, _ = recommend.SCRIPT.parse(
        [f"--model={files}/a b.keras", "--dataset=a b.npz", *given]
    )
    chain = Chain((quantize("float16"),))
    command = command_of(chain, device_of(None), batch_size=32, learning_rate=1e-3)
    found = shlex.split(recommending._command_with_files(command, settings))[3:]
    again, _ = compress.SCRIPT.parse(found)
    for name in ("model", "dataset", "custom_objects", "allow_chance", "task"):
        assert getattr(again, name) == getattr(settings, name), name


def test_lines_of_code_share_a_backbone_of_sequences(tmp_path, monkeypatch):
    from tfpeft.automl.advice.tasks import _Task, _words

    monkeypatch.chdir(tmp_path)
    inputs = keras.Input((6, 8))
    keras.Model(inputs, keras.layers.Dense(4)(inputs)).save("model.keras")
    tasks = {"a": _Task(None, None, 2, True), "b": _Task(None, None, 1, False)}
    code = _words("heads", tasks, 5e-3, "mean")["code"]
    x, y = np.ones((8, 6, 8), "float32"), np.ones(8, "int64")
    options = "epochs=1, steps_per_epoch=1, verbose=0"
    exec(code.replace("epochs=3", options), {"data": {"a": (x, y), "b": (x, y[:, None] / 2)}})
    assert len(tfpeft.TFLiteFile("model.tflite").signatures) >= 1


def test_lines_of_code_of_adapters_are_python():
    from tfpeft.automl.advice.adapters import METHODS, _words

    for name in METHODS:
        found = {
            "name": name,
            "learning_rate": 5e-3,
            "trainable_parameters": 1,
            "training_bytes": 1,
        }
        compile(_words(found)["code"], "code", "exec")
