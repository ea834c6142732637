"""Stages by themselves: plain settings and no command line; and a stage that is added."""

import dataclasses

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import pipelines.stages
import tfpeft
from pipelines import compress
from pipelines.common import folders, splits
from pipelines.common.flags import Flag, settings_of
from pipelines.common.request import Request
from pipelines.stages import STAGES, compression, teacher
from pipelines.stages.stage import Inputs, Stage
from tests.pipelines.scripts import call, read_report
from tfpeft.core.arguments import BudgetError, ExportError, InputError


@pytest.fixture(scope="module")
def data():
    """A hundred and fifty digits, and what else a run needs of data."""
    x, y = load_digits(return_X_y=True)
    x = x.astype("float32")
    train, validation, test = ((x[a:b], y[a:b]) for a, b in ((0, 135), (135, 150), (150, 180)))
    return splits.Data(train, validation, test, classes=10)


@pytest.fixture
def run_stage(data, tmp_path):
    """A function that runs a stage on a new model; returns its result and the run's folder."""

    given_data = data

    def run(stage, /, *, model=None, data=given_data, **given):
        stage = STAGES[stage]
        given = {"output_dir": str(tmp_path), "name": "run", "epochs": 4, **given}
        flags = [*compression.RUN_FLAGS, *stage.flags]
        settings = settings_of(flags, given)
        stage.check(settings)
        keras.utils.set_random_seed(0)
        model = model or keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
        folder = folders.RunFolder("test", settings, flags)
        return stage.run(settings, Inputs(data, folder, model)), folder

    return run


@pytest.mark.parametrize(
    ("stage", "given", "zeros"),
    [
        ("prune", {"final_sparsity": 0.6}, 384),
        ("prune", {"criterion": "gradient", "scope": "global"}, 320),
        ("prune", {"criterion": "movement", "scope": "erk", "straight_through": True}, 320),
        ("prune", {"criterion": "random", "block_size": ["4", "2"]}, 320),
        ("prune", {"n_m": ["1", "4"]}, 480),
        ("prune", {"iterative": True, "sensitivity": True, "tolerance": 1.0, "step": 0.4}, 320),
        ("sparse_train", {"sparsity": 0.7}, 448),
        ("sparse_train", {"technique": "set", "distribution": "uniform"}, 512),
        ("sparse_train", {"technique": "static"}, 512),
        ("sparse_train", {"technique": "targeted_dropout"}, 512),
        ("sparse_train", {"technique": "proximal_l1", "l1": 5.0}, None),
        ("sparse_train", {"technique": "proximal_group_l1", "l1": 15.5}, None),
    ],
)
def test_the_model_ends_with_the_zeros_that_the_settings_ask_for(run_stage, stage, given, zeros):
    model, folder = run_stage(stage, **given)
    kernel = model.layers[0].kernel.numpy()
    if zeros is None:
        assert 0 < np.sum(kernel == 0) < 640
        if "group" in given["technique"]:
            assert set(np.sum(kernel == 0, axis=0)) == {0, 64}
    else:
        # A weight that has just been grown begins at zero.
        grown = 5 if stage == "sparse_train" else 0
        assert zeros <= np.sum(kernel == 0) <= zeros + grown
    if "n_m" in given:
        assert np.all(np.sum(kernel.reshape(16, 4, 10) != 0, axis=1) == 1)
    if "iterative" in given:
        assert (folder / "sensitivity.png").exists()
        assert "50.00" in (folder / "rounds.md").read_text()


def test_zeros_of_sparse_training_stay_in_pruning(run_stage):
    sparse, _ = run_stage("sparse_train", technique="static", sparsity=0.25, name="first")
    first = sparse.layers[0].kernel.numpy()
    pruned, _ = run_stage("prune", model=sparse, name="second")
    last = pruned.layers[0].kernel.numpy()
    assert np.all(last[first == 0] == 0)
    assert (np.sum(first == 0), np.sum(last == 0)) == (160, 320)


@keras.saving.register_keras_serializable(package="tests.stages")
class Projection(keras.layers.Layer):
    def build(self, shape):
        self.w = self.add_weight(shape=(shape[-1], 10), name="w")

    def call(self, x):
        return x @ self.w


def test_custom_layers_that_are_included(run_stage):
    """In sparse training, then with its zeros in gradual pruning; and in rounds."""
    layers = {"include": ["mine"], "exclude": ["dense"], "epochs": 2}

    def model():
        inner = [Projection(name="mine"), keras.layers.Dense(10, name="dense")]
        return keras.Sequential([keras.Input((64,)), *inner])

    given = {"technique": "static", "sparsity": 0.25, "distribution": "uniform"}
    sparse, _ = run_stage("sparse_train", model=model(), name="first", **given, **layers)
    first = sparse.layers[0].w.numpy()
    pruned, _ = run_stage("prune", model=sparse, name="second", **layers)
    last = pruned.layers[0].w.numpy()
    assert np.all(last[first == 0] == 0)
    assert (np.sum(first == 0), np.sum(last == 0)) == (160, 320)
    rounds = {"iterative": True, "sensitivity": True, "tolerance": 1.0, "step": 0.5}
    pruned, _ = run_stage("prune", model=model(), name="third", **rounds, **layers)
    assert np.sum(pruned.layers[0].w == 0) == 320
    assert np.all(pruned.layers[1].kernel)


def test_rounds_that_do_not_hold_are_an_error(run_stage, data):
    x, y = (np.concatenate(pair) for pair in zip(data.train, data.validation, strict=True))
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    kernel, *_ = np.linalg.lstsq(x, 10.0 * np.eye(10)[y], rcond=None)
    model.layers[0].kernel.assign(kernel)
    given = {"final_sparsity": 0.99, "step": 1.0, "tolerance": 0.0, "learning_rate": 1e-9}
    with pytest.raises(BudgetError, match="No round held.*--tolerance=0"):
        run_stage("prune", model=model, iterative=True, **given)


def test_the_file_of_the_last_stage(run_stage, data, tmp_path):
    write, _ = run_stage("quantize", quantization="float16")
    write(tmp_path / "model.tflite")
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    rows = tfpeft.compare({"model": model, "file": tmp_path / "model.tflite"}, data.test)
    assert rows["file"].accuracy == pytest.approx(rows["model"].accuracy, abs=0.05)
    title = STAGES["quantize"].heading(settings_of(STAGES["quantize"].flags))
    assert title == "export, quantization int8"


def test_a_network_that_is_trained_beside_a_given_teacher_is_named():
    flags = [*teacher.STAGE.flags, *STAGES["distill"].flags]
    files = {"model": "a.keras", "teacher": ("b.keras",)}
    titles = {
        given: teacher.STAGE.heading(settings_of(flags, {name: files[name] for name in given}))
        for given in [(), ("model",), ("model", "teacher"), ("teacher",)]
    }
    assert set(titles.values()) == {"teacher", titles["teacher",]}
    assert [given for given in titles if titles[given] != "teacher"] == [("teacher",)]


def test_what_int8_may_lose_and_leaves_in_float(run_stage, tmp_path):
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(8, activation="relu", name="first"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((64,)), *layers])
    write, _ = run_stage("quantize", model=model, float_layers=["first"])
    write(tmp_path / "model.tflite")
    assert 0 < tfpeft.TFLiteFile(tmp_path / "model.tflite").contents.int8_share < 1
    write, _ = run_stage("quantize", model=model, name="strict", allow_deviation=1e-6)
    with pytest.raises(ExportError, match="allow_deviation"):
        write(tmp_path / "strict.tflite")


def halve(settings, inputs):
    model = keras.models.clone_model(inputs.model)
    model.set_weights([settings.part * weight for weight in inputs.model.get_weights()])
    return model


def check_halve(settings):
    if settings.part == 0.125:
        raise InputError("not an eighth")


def test_a_stage_is_added_by_a_file_and_a_line(data, tmp_path, monkeypatch, capsys):
    """As the package's docstring describes it."""
    monkeypatch.chdir(tmp_path)
    flags = (Flag("part", float, 0.5, "Factor of all weights.", above=0.0),)
    stage = Stage("halve", flags, halve, check=check_halve)
    monkeypatch.setitem(pipelines.stages.STAGES, stage.name, stage)
    groups = {**compress.SCRIPT.groups, "stage halve": stage.flags}
    script = dataclasses.replace(compress.SCRIPT, groups=groups)
    monkeypatch.setattr(compress, "SCRIPT", script)
    parts = {"train": data.train, "val": data.validation, "test": data.test}
    arrays = {
        f"{axis}_{name}": part[i] for name, part in parts.items() for i, axis in enumerate("xy")
    }
    np.savez("data.npz", **arrays)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    model.save("model.keras")
    files = ["--dataset=data.npz", "--model=model.keras", "--name=run", "--allow_chance"]
    assert call(compress, *files, "--stages=halve", "--part=0.25") == 0
    assert "[2/3] halve" in capsys.readouterr().out
    halved = keras.models.load_model("saved_models/run/halve.keras")
    for before, after in zip(model.get_weights(), halved.get_weights(), strict=True):
        np.testing.assert_array_equal(after, 0.25 * before)
    assert list(read_report("saved_models/run")["rows"]) == ["teacher", "halve", "model.tflite"]
    with pytest.raises(InputError, match="not an eighth"):
        call(compress, *files, "--stages=halve", "--part=0.125")
    with pytest.raises(InputError, match="--part, expected a number above 0"):
        call(compress, *files, "--stages=halve", "--part=0")
    with pytest.raises(InputError, match="--part belongs to the stage halve"):
        call(compress, *files, "--stages=quantize", "--part=1")
    script.status(["--help"])
    assert "stage halve: --part" in capsys.readouterr().out


def test_the_default_model_reads_raw_pixels_and_no_channels_first(data):
    """The same outputs for pixels in [0, 16] and [0, 1]: its normalization is of the data."""
    x, y = (part[:40] for part in data.train)
    logits = []
    for scale in (1.0, 1 / 16):
        scaled = (scale * x.reshape(-1, 8, 8, 1), y)
        keras.utils.set_random_seed(0)
        model = teacher.default_model(splits.Data(scaled, scaled, scaled, classes=10))
        logits.append(model(scaled[0], training=False))
    np.testing.assert_array_equal(*logits)
    first = (np.zeros((4, 3, 8, 8)), np.arange(4))
    with pytest.raises(InputError, match=r"channels last.*--dataset with \(3, 8, 8\)"):
        teacher.default_model(splits.Data(first, first, first, classes=4))


@pytest.mark.parametrize(
    ("inputs", "targets", "kind"),
    [
        ((6, 5, 3), (6, 5, 2), "Conv2D"),
        ((6, 5), (6, 5, 2), "Conv2D"),
        ((7, 3), (7, 2), "Conv1D"),
        ((6, 5, 3), (2, 4), "Dense"),
        ((3,), (4, 2, 2), "Dense"),
    ],
)
def test_the_default_model_has_the_shape_of_numbers_to_predict(inputs, targets, kind):
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(20, *inputs)), 50 + 3 * rng.normal(size=(20, *targets))
    data = splits.checked({"train": pair}, "mine")
    assert data.task == "regression"
    model = teacher.default_model(data)
    assert model.output_shape == (None, *targets)
    assert any(type(layer).__name__ == kind for layer in model.layers)
    data, objective = data.for_model(model)
    objective.compile(model, "sgd")
    found = model.evaluate(*data.train, verbose=0, return_dict=True)
    assert found["rmse"] < 30  # numbers around 50, in their unit
    outputs = model.predict(data.train[0], verbose=0)
    assert found["rmse"] == pytest.approx(
        np.sqrt(np.mean((outputs - data.train[1]) ** 2)), rel=1e-4
    )


def test_a_metric_to_monitor_is_checked_before_the_first_epoch(run_stage, data, capsys):
    def monitored(name):
        return dataclasses.replace(data, request=Request(monitor=name))

    for stage in ("tune", "prune"):
        with pytest.raises(InputError, match=r"--monitor, expected one of accuracy, loss\. .*=auc"):
            run_stage(stage, data=monitored("auc"))
    assert "Epoch" not in capsys.readouterr().out
    run_stage("tune", data=monitored("loss"), epochs=1)


def test_tuning_is_kept_only_where_it_is_better(run_stage, data, capsys):
    keras.utils.set_random_seed(1)
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    model.layers[0].kernel.assign(np.where(np.arange(640).reshape(64, 10) % 3, 0.01, 0.0))
    tuned, _ = run_stage("tune", model=model, learning_rate=0.01)
    assert "Validation accuracy" in capsys.readouterr().out
    accuracies = [
        np.mean(each.predict(data.test[0], verbose=0).argmax(1) == data.test[1])
        for each in (model, tuned)
    ]
    assert accuracies[1] > accuracies[0] + 0.3
    is_zero = model.layers[0].kernel.numpy() == 0
    assert np.all(tuned.layers[0].kernel.numpy()[is_zero] == 0)  # zeros stay
    worse, _ = run_stage("tune", model=tuned, learning_rate=10.0, epochs=1)
    np.testing.assert_array_equal(worse.layers[0].kernel, tuned.layers[0].kernel)
