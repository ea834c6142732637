"""The stages cluster and quantize_aware, what they keep of each other, and their files."""

import importlib.util
import inspect
import json

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfpeft
from pipelines import cluster, compress, export, prune, quantize
from pipelines.common import exporting, folders, splits
from pipelines.common.flags import settings_of
from pipelines.stages import STAGES, compression, keeping
from pipelines.stages.stage import Inputs
from tests.pipelines.scripts import call, read_report
from tfpeft.core.arguments import InputError, NoMatchError

NAMES = tuple(f"digit {number}" for number in range(10))
FLAGS = [*compression.RUN_FLAGS, *compression.ALL_FLAGS]


def model_of(units=10):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, activation="relu", name="hidden")
    return keras.Sequential([keras.Input((64,)), hidden, keras.layers.Dense(units, name="head")])


@pytest.fixture(scope="module")
def run_stage(tmp_path_factory):
    """A function that runs a stage on a model and 150 digits, with a teacher or without."""

    def run(stage, model, teacher=None, **given):
        x, y = load_digits(return_X_y=True)
        x = x.astype("float32")
        pairs = [(x[a:b], y[a:b]) for a, b in ((0, 135), (135, 150), (150, 180))]
        data = splits.Data(*pairs, classes=10, names=NAMES)
        folder = str(tmp_path_factory.mktemp("run"))
        given = {"output_dir": folder, "name": "run", "batch_size": 45, "epochs": 1, **given}
        settings = settings_of(FLAGS, given)
        STAGES[stage].check(settings)
        with folders.RunFolder("test", settings, FLAGS) as opened:
            return STAGES[stage].run(settings, Inputs(data, opened, model, teacher))

    return run


@pytest.fixture(scope="module")
def clustered(run_stage):
    """A pruned model, then clustered."""
    pruned = run_stage("prune", model_of(), final_sparsity=0.5)
    return run_stage("cluster", pruned, number_of_clusters=8, exclude=["head"])


@pytest.fixture(scope="module")
def aware(run_stage, clustered):
    """Trained on with a rate at which all weights move, from the outputs of a teacher."""
    ranges = {"freeze_after": 0.4, "range_momentum": 0.5}
    return run_stage("quantize_aware", clustered, model_of(), learning_rate=0.01, **ranges)


@pytest.fixture(scope="module")
def file(run_stage, aware, tmp_path_factory):
    path = tmp_path_factory.mktemp("file") / "model.tflite"
    types = {"input_type": "int8", "output_type": "uint8"}
    run_stage("quantize", aware, file_batch_size=1, **types)(path)
    return path


def test_a_clustered_model_has_few_values_and_the_zeros(clustered):
    kernel = clustered.get_layer("hidden").kernel.numpy()
    assert len(np.unique(kernel)) == 8
    assert np.mean(kernel == 0) >= 0.5
    head = clustered.get_layer("head").kernel.numpy()
    assert np.mean(head == 0) == 0.5
    assert len(np.unique(head)) == 81


def test_quantise_aware_training_keeps_zeros_and_clusters(clustered, aware):
    assert isinstance(aware, tfpeft.QuantizeAwareModel)
    assert not aware.compiled
    assert aware.get_config()["freeze_after"] == 1  # of three steps
    assert aware.get_config()["momentum"] == 0.5
    before, after = (m.get_layer("hidden").kernel.numpy() for m in (clustered, aware.model))
    assert not np.array_equal(before, after)
    assert np.all(after[before == 0] == 0)
    assert len(np.unique(after)) <= 8
    head = aware.model.get_layer("head").kernel.numpy()
    np.testing.assert_array_equal(clustered.get_layer("head").kernel.numpy() == 0, head == 0)
    assert len(np.unique(head)) > 60


def test_the_integer_file_has_the_zeros_and_few_values_and_labels(file):
    described = tfpeft.describe_tflite(file)
    assert described.float_operators == ()
    kernels = {constant.shape: constant for constant in described.constants}
    hidden = kernels[16, 64]
    assert hidden.dtype == "int8"
    assert hidden.zeros >= 0.5 * 64 * 16
    assert hidden.distinct_per_channel <= 8
    assert [t for t, _ in described.inputs.values()] == ["int8"]
    assert list(described.outputs.values()) == [("uint8", (1, 10))]
    ((_, labels),) = tfpeft.TFLiteFile(file).labels().items()
    assert labels == NAMES


def test_16_bits_and_learned_ranges(run_stage, tmp_path):
    given = {"activation_bits": 16, "ranges": "learned"}
    aware = run_stage("quantize_aware", model_of(), **given)
    stages = ["quantize_aware", "quantize"]
    settings = compression.with_quantization(settings_of(FLAGS, given), stages)
    assert settings.quantization == "int16x8"
    run_stage("quantize", aware, quantization=settings.quantization)(tmp_path / "m.tflite")
    assert tfpeft.TFLiteFile(tmp_path / "m.tflite").contents.int16_share == 1
    with pytest.raises(NoMatchError, match="--float_layers=no_such in float32"):
        run_stage("quantize_aware", model_of(), float_layers=["no_such"])


def kernels(*arrays):
    layers = [keras.layers.Dense(array.shape[1], name=f"d{i}") for i, array in enumerate(arrays)]
    model = keras.Sequential([keras.Input((arrays[0].shape[0],)), *layers])
    for layer, array in zip(layers, arrays, strict=True):
        layer.kernel.assign(array)
    return model


RNG = np.random.default_rng(0)
FREE = RNG.normal(size=(8, 40)).astype("float32")
FEW = RNG.choice([-0.5, 0.25, 1.0, 2.0], (40, 8)).astype("float32")
ZEROS = np.where(RNG.uniform(size=(8, 40)) < 0.5, 0, FREE)


@pytest.mark.parametrize(
    ("arrays", "words", "clusters"),
    [
        ([FREE], "", None),
        ([ZEROS], "zeros", None),
        ([FREE, FEW], "4 values per kernel", (4, False, False)),
        ([ZEROS, FEW], "zeros and 4 values per kernel", (4, False, False)),
        ([FREE, np.where(FEW == 1, 0, FEW)], "zeros and 4 values per kernel", (4, False, True)),
        ([FREE, FEW * FREE[:1, :8]], "4 values per channel", (4, True, False)),
        ([FREE.astype("float16")], "", None),
    ],
)
def test_what_training_has_to_keep(arrays, words, clusters):
    """Free kernels have as many values as weights; those of channels are the channel's own."""
    kept = keeping.kept_of(kernels(*arrays))
    assert str(kept) == words
    if clusters is None:
        assert kept.clusters is None
        return
    names = ("number_of_clusters", "per_channel", "preserve_sparsity")
    assert tuple(kept.clusters[name] for name in names) == clusters
    assert [path.split("/")[-2] for path in kept.clusters["exclude"]] == ["d0"]


def test_clusters_per_channel_are_found_again():
    model = kernels(FREE, FEW * FREE[:1, :8])
    kept = keeping.kept_of(model)
    before = model.layers[1].kernel.numpy()
    model.compile(kept.wrap(keras.optimizers.Adam(1e-9)), "mse")
    model.fit(np.ones((8, 8)), RNG.normal(size=(8, 8)), batch_size=4, verbose=0)
    kept.check(model)
    after = model.layers[1].kernel.numpy()
    np.testing.assert_allclose(after, before, rtol=1e-5)  # no two of them have become one
    assert all(len(np.unique(channel)) == 4 for channel in after.T)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder of a user: 400 digits whose classes have names, and a model that knows some."""
    monkeypatch.chdir(tmp_path)
    x, y = load_digits(return_X_y=True)
    names = np.array(NAMES)[y]
    splits_of = {"train": slice(0, 300), "val": slice(300, 350), "test": slice(350, 400)}
    arrays = {f"x_{name}": x[part] for name, part in splits_of.items()}
    arrays |= {f"y_{name}": names[part] for name, part in splits_of.items()}
    np.savez("data.npz", **arrays)
    model = model_of()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(0.01), loss)
    model.fit(x[:300], y[:300], epochs=5, verbose=0)
    model.save("model.keras")
    return tmp_path


def test_the_scripts_and_the_columns_of_devices(folder, capsys):
    data = ["--dataset=data.npz", "--epochs=1", "--batch_size=100"]
    command = [*data, "--model=model.keras"]
    assert call(quantize, *command, "--float_layers=head", "--target=xnnpack") == 0
    output = capsys.readouterr().out
    assert "In float32: head, excluded by 'head'" in output
    assert "[2/3] quantize_aware, 8-bit weights, 8-bit activations" in output
    assert "[3/3] export, quantization int8" in output
    assert "device   flash kB  RAM kB" in output
    run = folder / "saved_models" / "data-quantize"
    assert "XNNPACK on ARM: 0 of " in (run / "devices.md").read_text()
    assert "| xnnpack | - | - |" in (run / "report.md").read_text()
    report = read_report(run)
    rows = report["rows"]
    assert list(rows) == ["teacher", "quantize_aware", "model.tflite"]
    assert rows["quantize_aware"]["size_bytes"] == pytest.approx(
        rows["model.tflite"]["size_bytes"], abs=1500
    )  # but for the labels
    assert rows["model.tflite"]["size_bytes"] < rows["teacher"]["size_bytes"]
    assert rows["model.tflite"]["accuracy"] == pytest.approx(
        rows["quantize_aware"]["accuracy"], abs=0.02
    )
    assert report["devices"]["xnnpack"]["sparse_operators"] == 0
    described = tfpeft.describe_tflite(run / "model.tflite")
    assert [op.name for op in described.float_operators] == ["FULLY_CONNECTED"]
    ((_, labels),) = tfpeft.TFLiteFile(run / "model.tflite").labels().items()
    assert labels == tuple((run / "labels.txt").read_text().split("\n")[:-1])

    before = (run / "model.tflite").stat().st_mtime_ns
    assert (
        call(quantize, *command, "--float_layers=head") == 0
    )  # a report of other devices, and nothing else
    assert "Epoch" not in capsys.readouterr().out
    assert json.loads((run / "report.json").read_text())["devices"] == {}
    assert not (run / "devices.md").exists()
    assert (run / "model.tflite").stat().st_mtime_ns == before

    again = [f"--model={run}/quantize_aware.keras", "--dataset=data.npz"]
    assert call(export, *again) == 0
    assert "x smaller than the teacher's integer file" in capsys.readouterr().out
    with pytest.raises(InputError, match="a plain model, of which `strip_quantization` makes one"):
        call(prune, *again)

    # A file of floats, which the NPU does not take.
    device = "ethos-u55-128" if importlib.util.find_spec("ethosu") else "xnnpack"
    assert call(cluster, *command, "--number_of_clusters=4", f"--target={device}") == 0
    run = folder / "saved_models" / "data-cluster"
    model = keras.models.load_model(run / "cluster.keras")
    assert all(len(np.unique(layer.kernel)) <= 4 for layer in model.layers)
    figures = read_report(run)["devices"][device]
    if device != "xnnpack":
        assert f"a file of int8 activations for target='{device}'" in capsys.readouterr().out
        assert "int8 activations" in figures.pop("notes")[0]
        assert set(figures.values()) == {None}


@pytest.mark.parametrize(
    ("script", "flags", "message"),
    [
        (compress, ["--stages=quantize_aware,cluster,quantize"], "cluster and quantize_aware, in"),
        (compress, ["--stages=cluster,prune"], "cluster and quantize_aware, in this order"),
        (compress, ["--stages=quantize_aware"], "--stages, expected quantize after quantize_aware"),
        (compress, ["--weight_bits=4"], "--weight_bits belongs to the stage quantize_aware"),
        (compress, ["--number_of_clusters=8"], "--number_of_clusters belongs to the stage cluster"),
        (quantize, ["--weight_bits=7"], "--weight_bits, expected one of 8, 4. Received: --weig"),
        (quantize, ["--weight_bits=4", "--activation_bits=16"], "expected 8 with --activation_b"),
        (quantize, ["--ranges=learned", "--freeze_after=0.5"], "--freeze_after, which --ranges=le"),
        (quantize, ["--ranges=learned", "--range_momentum=1"], "--range_momentum, which --ranges="),
        (quantize, ["--quantization=float16"], "--quantization, expected int8 with --activation_"),
        (
            quantize,
            ["--activation_bits=16", "--quantization=int8"],
            "--quantization, expected int16x8 with --activation_bits=16",
        ),
        (quantize, ["--activation_bits=16", "--input_type=int8"], "--input_type, expected float32"),
        (quantize, ["--equalize"], "--equalize, which a quantise-aware model does not read"),
        (
            export,
            ["--model=m.keras", "--quantization=float16", "--correct_bias"],
            "--correct_bias, ",
        ),
        (quantize, ["--target=esp32"], "--target, expected one of tflm, xnnpack, ethos-u55-32"),
        (export, ["--model=m.keras", "--input_type=int16"], "--input_type, expected float32, or"),
        (export, ["--model=m.keras", "--output_type=float16"], "--output_type, expected one of"),
        (export, ["--model=m.keras", "--file_batch_size=0"], "--file_batch_size, expected an int"),
        (cluster, ["--number_of_clusters=1"], "--number_of_clusters, expected an integer in [2, "),
        (cluster, ["--cluster_begin=1"], "--cluster_begin, expected a number in [0, 1)"),
        (cluster, ["--quantization=int8"], "--quantization, which this script does not read"),
    ],
)
def test_bad_flags_are_one_line(script, flags, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert script.SCRIPT.status(flags) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_flags_of_the_file_are_arguments_of_the_export():
    given = {"allow_deviation": 0.5, "file_batch_size": 1, "input_type": "uint8"}
    given |= {"output_type": "int8", "sparse_encoding": True, "compact": True}
    given |= {"int8_ranges": "extended", "equalize": True, "correct_bias": True}
    found = exporting.arguments(settings_of(exporting.FLAGS, given))
    assert found == {
        **{"quantization": "int8", "allow_deviation": 0.5, "batch_size": 1},
        **{"input_type": "uint8", "output_type": "int8", "sparse": True, "compact": True},
        **{"ranges": "extended", "equalize": True, "correct_bias": True},
    }
    defaults = inspect.signature(tfpeft.export_tflite).parameters
    for name, value in exporting.arguments(settings_of(exporting.FLAGS)).items():
        assert name == "quantization" or value == defaults[name].default


def test_labels_are_names_that_say_something():
    assert exporting.labels(("0", "1", "2"), 3) is None
    assert exporting.labels(("no", "yes"), 1) is None  # one output for both
    assert exporting.labels(("a \n cat", "dog"), 2) == ["a cat", "dog"]
