"""Exported files against the model, an interpreter of the test's own, and numbers by hand."""

import gzip

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfpeft
from tfpeft.export import tflite
from tfpeft.export.tflite_file import TFLiteFile

X = np.random.default_rng(0).normal(size=(64, 8, 8, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """3x3 convolution, depthwise, dense: 3*3*3*4+4, 3*3*4+4, 64*5+5 = 112 + 40 + 325 weights."""
    keras.utils.set_random_seed(0)
    built = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(4, 3, padding="same", activation="relu"),
            keras.layers.DepthwiseConv2D(3, strides=2, padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(5, activation="softmax"),
        ]
    )
    # Biases of zeros would be left out of a file, or shared.
    rng = np.random.default_rng(1)
    built.set_weights([rng.normal(0, 0.3, w.shape) for w in built.weights])
    return built


def run_file(path, x):
    """Sample by sample, independent of the library."""
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    outputs = []
    for sample in x:
        interpreter.set_tensor(interpreter.get_input_details()[0]["index"], sample[None])
        interpreter.invoke()
        outputs.append(interpreter.get_tensor(interpreter.get_output_details()[0]["index"])[0])
    return np.array(outputs)


@pytest.mark.parametrize(
    ("quantization", "tolerance"),
    [("none", 1e-6), ("float16", 1e-3), ("dynamic_range", 0.05), ("int8", 0.05)],
)
def test_the_file_predicts_as_the_model_does(model, tmp_path, quantization, tolerance):
    path = tmp_path / "deep" / "model.tflite"
    before = [weight.numpy() for weight in model.weights]
    report = tfpeft.export_tflite(model, path, quantization=quantization, representative_data=X)
    content = path.read_bytes()
    outputs, expected = run_file(path, X), model.predict(X, verbose=0)
    deviation = np.abs(outputs - expected)
    assert deviation.max() < tolerance
    assert report.max_deviation == pytest.approx(deviation[:32].max(), abs=1e-6)
    assert report.size_bytes == len(content)
    assert report.gzip_bytes == pytest.approx(len(gzip.compress(content, 9)), abs=20)
    assert report.int8_share == (1.0 if quantization == "int8" else 0.0)
    assert {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "SOFTMAX"} <= set(report.ops)
    assert [p.name for p in path.parent.iterdir()] == ["model.tflite"]
    assert str(report).startswith(f"{path}: {quantization}")
    for expected, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)
    # The same figures from the file: weights, and MACs at 8x8 outputs, then 4x4.
    file = TFLiteFile(path)
    assert file.contents.parameters == 112 + 40 + 325
    assert file.macs() == 64 * 4 * 27 + 16 * 4 * 9 + 64 * 5
    assert file.is_softmax()


WIDTHS = {"none": 4, "float16": 2, "dynamic_range": 1, "int8": 1, "int4_weights": 0.5}


def test_weights_take_the_bytes_that_they_should(tmp_path):
    model = keras.Sequential([keras.Input((200,)), keras.layers.Dense(300)])
    data = np.random.default_rng(0).normal(size=(50, 200)).astype("float32")
    sizes = {
        quantization: tfpeft.export_tflite(
            model, tmp_path / "m.tflite", quantization=quantization, representative_data=data
        ).size_bytes
        for quantization in WIDTHS
    }
    for quantization, width in WIDTHS.items():
        assert 60_000 * width < sizes[quantization] < 60_000 * width + 8_000


def test_zeros_are_counted_in_every_quantization(tmp_path):
    kernel = np.random.default_rng(0).normal(size=(20, 30)).astype("float32")
    kernel[np.abs(kernel) < 0.5] = 0.0
    kernel[np.abs(kernel) > 0] += np.sign(kernel[np.abs(kernel) > 0])  # none rounds to zero
    model = keras.Sequential([keras.Input((20,)), keras.layers.Dense(30, use_bias=False)])
    model.layers[0].kernel.assign(kernel)
    data = np.random.default_rng(0).normal(size=(50, 20)).astype("float32")
    # 600 weights are too few for 4 bits.
    for quantization in set(tflite.QUANTIZATIONS) - {"int4_embeddings", "int4_weights"}:
        path = tmp_path / f"{quantization}.tflite"
        tfpeft.export_tflite(model, path, quantization=quantization, representative_data=data)
        contents = TFLiteFile(path).contents
        # A quantised layer may get a bias of zeros that the model does not have.
        assert contents.parameters - 600 in (0, 30)
        assert contents.nonzero_parameters == np.count_nonzero(kernel)


def test_batches_are_free(model, tmp_path):
    tfpeft.export_tflite(model, tmp_path / "m.tflite")
    outputs = TFLiteFile(tmp_path / "m.tflite").predict(X, batch_size=25)
    np.testing.assert_allclose(outputs, model.predict(X, verbose=0), atol=1e-6)


@pytest.mark.parametrize(
    "data",
    [
        (X, np.zeros(64)),
        tf.data.Dataset.from_tensor_slices(X).batch(7),
        tf.data.Dataset.from_tensor_slices((X, np.zeros(64))).batch(7),
    ],
    ids=["pair", "dataset", "dataset of pairs"],
)
def test_forms_of_representative_data_give_one_file(model, tmp_path, data):
    for name, form in (("array", X), ("other", data)):
        tfpeft.export_tflite(model, tmp_path / name, quantization="int8", representative_data=form)
    outputs = [TFLiteFile(tmp_path / name).predict(X) for name in ("array", "other")]
    np.testing.assert_array_equal(*outputs)


def test_several_inputs_and_outputs_by_name(tmp_path):
    inputs = {"left": keras.Input((4,), name="left"), "right": keras.Input((3,), name="right")}
    joined = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(
        inputs, {"sum": keras.layers.Dense(2)(joined), "top": keras.layers.Dense(1)(joined)}
    )
    data = {"left": X[:, 0, :4, 0], "right": X[:, 1, 0, :]}
    for quantization in ("none", "int8"):
        report = tfpeft.export_tflite(
            model, tmp_path / "m.tflite", quantization=quantization, representative_data=data
        )
        assert report.max_deviation < 0.2
    assert set(TFLiteFile(tmp_path / "m.tflite").signature().outputs) == {"sum", "top"}


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def call(self, inputs, training=False):
        return self.dense(keras.ops.relu(inputs))


def test_subclassed_models_need_data_for_their_shape(tmp_path):
    model, data = Subclassed(), X[:, 0, :, 0]
    model(data)
    with pytest.raises(ValueError, match="`representative_data` for a subclassed"):
        tfpeft.export_tflite(model, tmp_path / "m.tflite")
    tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=data)
    np.testing.assert_allclose(
        run_file(tmp_path / "m.tflite", data), model.predict(data, verbose=0), atol=1e-6
    )


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float16", "bfloat16"])
def test_other_precisions_become_float32(tmp_path, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = keras.Sequential(
            [
                keras.Input((8,)),
                keras.layers.Dense(16, activation="relu"),
                keras.layers.BatchNormalization(),
                keras.layers.Dense(3),
            ]
        )
    finally:
        keras.config.set_dtype_policy("float32")
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite")
    assert report.max_deviation < 5e-2
    interpreter = Interpreter(model_path=str(tmp_path / "m.tflite"))
    assert interpreter.get_input_details()[0]["dtype"] is np.float32
    assert interpreter.get_output_details()[0]["dtype"] is np.float32
    assert model.layers[0].compute_dtype == policy.removeprefix("mixed_")


class WithoutConfig(keras.Model):
    def __init__(self, units):
        super().__init__()
        self.dense = keras.layers.Dense(units, dtype="mixed_float16")

    def call(self, inputs):
        return self.dense(inputs)


def test_mixed_precision_that_cannot_be_rebuilt_raises(tmp_path):
    model, data = WithoutConfig(3), X[:, 0, :, 0]
    model(data)
    with pytest.raises(ValueError, match="Cannot rebuild .* from its configuration"):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=data)


class NeedsFlex(keras.layers.Layer):
    def call(self, inputs):
        return tf.raw_ops.Lgamma(x=tf.raw_ops.Betainc(a=inputs, b=inputs, x=inputs))

    def compute_output_shape(self, shape):
        return shape


def test_operators_that_tflite_lacks_are_named_and_nothing_is_harmed(tmp_path):
    path = tmp_path / "m.tflite"
    path.write_bytes(b"an earlier file")
    model = keras.Sequential([keras.Input((4,)), NeedsFlex()])
    with pytest.raises(ValueError, match="built in. Received: Betainc"):
        tfpeft.export_tflite(model, path)
    assert path.read_bytes() == b"an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def test_layers_that_keras_quantized_are_named(tmp_path):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="hidden")])
    model.quantize("int8")
    path = tmp_path / "quantized.tflite"
    with pytest.raises(tfpeft.ExportError, match=r"Received: layers .* such as hidden \(int8\);"):
        tfpeft.export_tflite(model, path)
    assert not any(tmp_path.iterdir())


def test_a_type_that_tflite_lacks_is_named(tmp_path):
    inputs = keras.Input((8,))
    narrow = keras.ops.cast(inputs, "float8_e4m3fn")
    model = keras.Model(inputs, keras.ops.cast(narrow, "float32"))
    with pytest.raises(tfpeft.ExportError, match="Received: Failed to convert .* 'f8E4M3FN'"):
        tfpeft.export_tflite(model, tmp_path / "narrow.tflite")


class Fourier(keras.layers.Layer):
    """The converter writes an operator of another meaning, whose output has another shape."""

    def call(self, inputs):
        return tf.math.real(tf.signal.fft(tf.cast(inputs, tf.complex64)))


@pytest.mark.parametrize("shape", [(8,), (None, 8)], ids=["fails to load", "fails to run"])
def test_a_file_that_does_not_run_is_an_error_of_the_model(tmp_path, shape):
    inputs = keras.Input(shape)
    outputs = keras.layers.Dense(2)(Fourier(name="spectrum")(inputs))
    model = keras.Model(inputs, outputs, name="of_sounds")
    expected = r"file of 'of_sounds'.* RESHAPE after .*RFFT2D.* \(layers: .*spectrum\)"
    with pytest.raises(tfpeft.ExportError, match=expected) as error:
        tfpeft.export_tflite(model, tmp_path / "m.tflite")
    assert "\n" not in str(error.value)
    assert "partial" not in str(error.value)
    assert not list(tmp_path.iterdir())


def test_a_file_of_other_outputs_raises(model, tmp_path, monkeypatch):
    """What is converted is another model: as good as a converter that lost the weights."""
    path = tmp_path / "m.tflite"
    path.write_bytes(b"an earlier file")
    convert = tflite.convert
    other = keras.models.clone_model(model)

    monkeypatch.setattr(tflite, "convert", lambda _, *rest: convert(other, *rest))
    with pytest.raises(ValueError, match="outputs of the file differ .* a deviation of at most"):
        tfpeft.export_tflite(model, path, representative_data=X)
    assert path.read_bytes() == b"an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def test_lost_weights_raise(tmp_path):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    model.layers[0].kernel.assign(np.full((4, 3), np.nan))
    with pytest.raises(ValueError, match="0% finite"):
        tfpeft.export_tflite(model, tmp_path / "m.tflite")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int4"}, "`quantization`.*'int4'"),
        ({"quantization": "int8"}, "`representative_data`.*None"),
        ({"representative_data": X[:0]}, "`representative_data`, expected data with samples"),
        ({"representative_data": X * np.nan}, "`representative_data`, expected finite"),
        ({"representative_data": X[:, :4]}, r"`representative_data`.*\(8, 8, 3\).*\(4, 8, 3\)"),
        ({"model": "m.keras"}, "`model`.*'m.keras'"),
    ],
)
def test_bad_input_names_the_argument(model, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.export_tflite(**{"model": model, "path": tmp_path / "m.tflite", **options})
    assert not list(tmp_path.iterdir())


def test_damaged_files(model, tmp_path):
    path = tmp_path / "m.tflite"
    tfpeft.export_tflite(model, path)
    content = path.read_bytes()
    for damaged in (content[: len(content) // 3], content[:8] + b"\xff" * 300):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match="m.tflite, which is damaged"):
            TFLiteFile(path).contents  # noqa: B018


def test_a_file_of_something_else(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"PK" * 100)
    with pytest.raises(ValueError, match="m.tflite, which is something else"):
        TFLiteFile(tmp_path / "m.tflite")
    with pytest.raises(ValueError, match="which is not there"):
        TFLiteFile(tmp_path / "none.tflite")
