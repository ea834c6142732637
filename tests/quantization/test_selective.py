"""The fewest layers in float32: a search by hand, and a model of which int8 breaks one layer."""

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.quantization.error import int8_files
from tfpeft.quantization.file_metric import FileMetric
from tfpeft.quantization.selective import fewest

layers = keras.layers
rng = np.random.default_rng(0)


@pytest.fixture(scope="module")
def model():
    """Layer `unlike` has weights of 300, which meet a zero, so that int8 has no others."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,))])
    model.add(layers.Dense(8, activation="relu", name="first"))
    model.add(layers.Dense(8, activation="relu", name="unlike"))
    model.add(layers.Dense(8, activation="relu", name="third"))
    model.add(layers.Dense(3, activation="softmax", name="head"))
    first, unlike = model.get_layer("first"), model.get_layer("unlike")
    first.kernel.assign(first.kernel * (np.arange(8) != 0))
    unlike.kernel.assign(np.where(np.arange(8)[:, None] == 0, 300.0, unlike.kernel))
    return model


@pytest.fixture(scope="module")
def data(model):
    x = rng.normal(size=(300, 6)).astype("float32")
    return x, np.argmax(model(x), axis=1)


@pytest.fixture(scope="module")
def result(model, data, tmp_path_factory):
    path = tmp_path_factory.mktemp("selective") / "m.tflite"
    return tfpeft.quantize_selectively(model, data, metric="accuracy", tolerance=0.05, path=path)


def search(layers, needed):
    """Returns what `fewest` finds where some layers are needed, and the sets that it tries."""
    tried = []

    def holds(some):
        tried.append("".join(some))
        return set(needed) <= set(some)

    return "".join(fewest(list(layers), holds)), tried


def test_search_by_hand():
    assert search("abcd", "a") == ("a", ["ab", "a"])
    # Bisection finds three; b alone, and then a alone, can go back.
    assert search("abcde", "c") == ("c", ["ab", "abc", "ac", "c"])
    assert search("abcde", "ac") == ("ac", ["ab", "abc", "ac", "c"])
    # The last layer is needed, which is no reason to keep all of them.
    assert search("abcd", "ad") == ("ad", ["ab", "abc", "abd", "ad", "d"])
    assert search("abc", "abc") == ("abc", ["a", "ab", "ac", "bc"])
    assert search("a", "a") == ("a", [])


def test_exactly_the_layer_that_int8_breaks_stays_in_float32(result):
    assert result.float_layers == ["unlike"]
    assert result.trail[-1]["float_layers"] == ["unlike"]
    assert len(result.trail) == 3  # of none, two and one layer
    whole = result.trail[0]
    assert [step["held"] for step in result.trail] == [False, True, True]
    assert whole["float_layers"] == []
    assert whole["metric"] < 0.8
    assert result.trail[-1]["metric"] >= 0.95
    assert result.baseline == 1.0


def test_metric_and_bytes_are_those_of_the_file(result, data):
    file = tfpeft.TFLiteFile(result.path)
    found = np.mean(np.argmax(file.predict(data[0]), axis=1) == data[1])
    assert result.metric == pytest.approx(found, abs=1e-6)
    assert result.metric == result.trail[-1]["metric"]
    assert result.trail[-1]["size_bytes"] == len(file.content) == result.report.size_bytes
    assert any(note == "float32: unlike" for note in result.report.notes)


def test_all_layers_in_float32_leave_nothing_in_int8(model, data):
    """A softmax at the end, whose tensor has the name of no layer, goes with the layer before."""
    with int8_files(model, data[0]) as files:
        assert list(files.layers) == ["first", "unlike", "third", "head"]
        assert files.without(list(files.layers)).contents.int8_share == 0.0


def test_table(result):
    lines = str(result).splitlines()
    assert lines[0] == "| layers in float32 | accuracy | bytes | held |"
    assert lines[2].startswith("| all | 1.0000 | ")
    assert [line.endswith(" | no |") for line in lines[3:6]] == [True, False, False]
    assert lines[-1].endswith("m.tflite, layers in float32: unlike")


def test_a_metric_that_holds_in_int8_takes_one_file(model, data, tmp_path):
    """A loss on a few samples, and ranges from others."""
    few = data[0][:50], keras.ops.convert_to_numpy(model(data[0][:50]))

    def largest_error(labels, outputs):
        return np.max(np.abs(labels - outputs))

    result = tfpeft.quantize_selectively(
        model,
        few,
        metric=largest_error,
        mode="min",
        tolerance=100.0,
        path=tmp_path / "m.tflite",
        representative_data=data[0],
    )
    assert result.float_layers == []
    assert len(result.trail) == 1
    assert result.monitor == "largest_error"
    assert result.baseline < 1e-4 < result.metric
    assert result.report.read_samples == 300


def test_a_metric_that_needs_all_layers_keeps_the_earlier_file(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,)), layers.Dense(3)])
    x = rng.normal(size=(40, 6)).astype("float32")
    path = tmp_path / "m.tflite"
    path.write_text("earlier")
    with pytest.raises(tfpeft.BudgetError, match="`tolerance`, expected at least 0.0.* the mse is"):
        tfpeft.quantize_selectively(
            model, (x, np.asarray(model(x))), metric="mse", tolerance=0.0, path=path
        )
    assert path.read_text() == "earlier"
    assert list(tmp_path.iterdir()) == [path]


def test_values_of_metrics(model, data, result):
    """Names, as Keras takes them, objects with a state, and functions."""
    file = tfpeft.TFLiteFile(result.path)
    outputs = file.predict(data[0])
    rows = np.eye(3, dtype="float32")[data[1]]

    def value(metric, labels, mode=None):
        file_metric = FileMetric(model, (data[0], labels), metric, mode, 0.01)
        file_metric.set_baseline(file)
        assert file_metric.value(file) == file_metric.baseline
        return file_metric.baseline

    accuracy = np.mean(np.argmax(outputs, axis=1) == data[1])
    for metric in ("accuracy", "acc", "SparseCategoricalAccuracy"):
        assert value(metric, data[1]) == pytest.approx(accuracy, abs=1e-6)
    assert value("accuracy", rows) == pytest.approx(accuracy, abs=1e-6)
    assert value("mse", rows) == pytest.approx(np.mean((rows - outputs) ** 2), rel=1e-5)
    metric = keras.metrics.MeanAbsoluteError(name="far")
    metric.update_state([0.0], [7.0])
    assert value(metric, rows) == pytest.approx(np.mean(np.abs(rows - outputs)), rel=1e-5)
    assert float(metric.result()) == 7.0
    total = np.sum(outputs[:, 0])
    assert value(lambda labels, outputs: np.sum(outputs[:, 0]), rows, "max") == float(total)
    with pytest.raises(tfpeft.InputError, match=r"one number, .* has shape \(300, 3\)"):
        value(lambda labels, outputs: outputs, rows, "max")
    with pytest.raises(tfpeft.InputError, match="`data`, expected data on which mse is finite"):
        value("mse", np.full((300, 3), 3e38, "float32"))
    with pytest.raises(tfpeft.InputError, match="`data`, expected data that the model"):
        value("mse", rows[:, :2])


def test_whether_a_metric_holds(model, data):
    loss, accuracy = (FileMetric(model, data, name, None, 0.25) for name in ("mse", "accuracy"))
    loss.baseline = accuracy.baseline = 0.5
    assert [loss.holds(value) for value in (0.2, 0.75, 0.8)] == [True, True, False]
    assert [accuracy.holds(value) for value in (0.2, 0.25, 0.8)] == [False, True, True]
    assert (loss.best([1.0, 2.0]), accuracy.best([1.0, 2.0])) == (1.0, 2.0)


def test_bad_arguments(model, data, tmp_path):
    def raises(match, x=data, of=model, **options):
        options = {"metric": "accuracy", "path": tmp_path / "m.tflite", **options}
        with pytest.raises(tfpeft.InputError, match=match):
            tfpeft.quantize_selectively(of, x, **options)

    raises("`metric`, expected the name", metric="nonsense")
    raises("`mode`, expected 'min' or 'max', as 'median'", metric=np.median)
    raises("`tolerance`, expected a number of at least 0", tolerance=-1)
    raises(r"`data`, expected .*\(x, y\)", data[0])
    raises("`data`, expected .* Received: sample weights", (*data, np.ones(300)))
    raises("`representative_data`, expected .*shape", representative_data=data[0][:, :4])
    raises("`model`, expected a built model", of=keras.Sequential([layers.Dense(3)]))
    raises("is not quantise-aware", of=tfpeft.quantize_aware(model))
    inputs = keras.Input((6,))
    two = keras.Model(inputs, [layers.Dense(2)(inputs), layers.Dense(3)(inputs)])
    raises("`model`, expected a model of one output", of=two)
    assert list(tmp_path.iterdir()) == []
