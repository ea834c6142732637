"""An opened file: read once, its signatures, single runs, and what others give it."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.core.arguments import ExportError, InputError
from tfpeft.export.tflite_file import TFLiteFile

X = np.random.default_rng(0).normal(size=(20, 6)).astype("float32")
Y = np.arange(20) % 3


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, activation="softmax")])


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "m.tflite"
    tfpeft.export_tflite(model, path)
    return path


def test_nothing_is_read_after_a_file_is_opened(model, path, tmp_path):
    copy = tmp_path / "m.tflite"
    copy.write_bytes(path.read_bytes())
    file = TFLiteFile(copy)
    copy.unlink()
    assert file.signatures == ("serving_default",)
    assert file.contents.size_bytes == path.stat().st_size
    assert file.contents.parameters == 6 * 3  # a bias of zeros is left out
    assert file.macs() == 6 * 3
    assert file.is_softmax()
    np.testing.assert_allclose(file.predict(X), model.predict(X, verbose=0), atol=1e-6)


def test_a_comparison_reads_each_file_once(path, tmp_path, monkeypatch):
    other = tmp_path / "other.tflite"
    other.write_bytes(path.read_bytes())
    read, reads = type(path).read_bytes, []

    def counted(self):
        reads.append(self)
        return read(self)

    monkeypatch.setattr(type(path), "read_bytes", counted)
    comparison = tfpeft.compare({"one": path, "two": other}, (X, Y))
    assert reads == [path, other]
    assert comparison["one"].loss == comparison["two"].loss


def test_a_prepared_run_stands_beside_predictions(model, path):
    file = TFLiteFile(path)
    run = file.prepare(X[:1])
    expected = file.predict(X)
    run()
    for batch_size in (1, 7, 256):
        np.testing.assert_array_equal(file.predict(X, batch_size=batch_size), expected)
    run()
    with pytest.raises(
        InputError, match=r"of shape \(6,\) per sample, as .*Received: shape \(4,\)"
    ):
        file.prepare(X[:1, :4])


def test_a_signature_has_names_and_shapes(path):
    signature = TFLiteFile(path).signature("whatever, as there is one")
    assert signature.name == "serving_default"
    assert list(signature.inputs.values()) == [(-1, 6)]
    assert signature.outputs == {"output_0": (-1, 3)}
    assert signature.batch is None


class Batches(keras.utils.PyDataset):
    num_batches = 4

    def __getitem__(self, index):
        return X[5 * index : 5 * index + 5], Y[5 * index : 5 * index + 5]


def representative():
    for sample in X:
        yield [sample[None]]


@pytest.mark.parametrize(
    ("data", "array"),
    [
        (Batches(), X),
        (representative, X),
        (tf.data.Dataset.from_tensors((X, Y)).repeat(), np.tile(X, [10, 1])),
    ],
    ids=["PyDataset", "generator function", "endless dataset"],
)
def test_more_forms_of_representative_data_give_the_same_file(model, tmp_path, data, array):
    for name, form in (("array", array), ("other", data)):
        tfpeft.export_tflite(model, tmp_path / name, quantization="int8", representative_data=form)
    outputs = [TFLiteFile(tmp_path / name).predict(X) for name in ("array", "other")]
    # More samples of the same values: ranges are extended less.
    np.testing.assert_allclose(*outputs, atol=0.0 if array is X else 0.02)


def test_errors_of_data_are_no_errors_of_export(model, tmp_path):
    for data in (X[:0], X.astype(str), {}, X[:, :4], lambda: iter([])):
        with pytest.raises(InputError, match="`representative_data`") as error:
            tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=data)
        assert not isinstance(error.value, ExportError)
    broken = keras.models.clone_model(model)
    broken.set_weights([weight * np.nan for weight in model.get_weights()])
    with pytest.raises(ExportError, match="outputs of the file differ from"):
        tfpeft.export_tflite(broken, tmp_path / "m.tflite")
    assert list(tmp_path.iterdir()) == []


def test_more_inputs_than_ten_are_not_mixed_up(tmp_path):
    inputs = [keras.Input((1,)) for _ in range(12)]
    weighted = [(i + 1) * x for i, x in enumerate(inputs)]
    model = keras.Model(inputs, keras.layers.Add()(weighted))
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite")
    assert report.max_deviation < 1e-5
    x = [np.full((2, 1), float(i == 10)) for i in range(12)]
    np.testing.assert_allclose(TFLiteFile(tmp_path / "m.tflite").predict(x), [[11.0]] * 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"x": X.astype(str)}, "`x`, expected numbers.*texts"),
        ({"x": X.astype(object)}, "`x`, expected numbers"),
        ({"x": X + 1j}, "`x`, expected arrays of float32.*type complex"),
        ({"x": X[:0]}, "`x`, expected one or more samples.*lengths 0"),
        *(({"batch_size": size}, "`batch_size`.*at least 1") for size in (0, -1, 1.5, "8", True)),
    ],
)
def test_bad_arguments_of_predict(path, options, message):
    with pytest.raises(tfpeft.InputError, match=message):
        TFLiteFile(path).predict(**{"x": X, **options})


@pytest.mark.parametrize("dtype", ["float64", "float16", "int64", "uint8", "bool", "bfloat16"])
def test_numbers_of_all_types_are_predicted_in_float32(path, dtype):
    x = keras.ops.cast(np.abs(np.round(X)) > 1, dtype)
    expected = TFLiteFile(path).predict(np.asarray(x).astype("float32"))
    np.testing.assert_array_equal(TFLiteFile(path).predict(x), expected)
