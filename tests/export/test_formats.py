"""Fixed batches, integer inputs and outputs, int16 activations, sparse constants: by the file."""

import keras
import numpy as np
import pytest
from ai_edge_litert.interpreter import Interpreter

import tfpeft

layers = keras.layers
X = np.random.default_rng(0).uniform(0, 255, (60, 6, 6, 3)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """Reads pixels of 0 to 255, so that uint8 inputs have a scale near 1; weights fit 8 bits."""
    keras.utils.set_random_seed(0)
    built = keras.Sequential(
        [
            keras.Input((6, 6, 3), name="pixels"),
            layers.Rescaling(1 / 128, offset=-1, name="scaled"),
            layers.Conv2D(4, 3, activation="relu", name="conv"),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )
    rng = np.random.default_rng(1)
    for layer in (built.layers[1], built.layers[3]):
        kernel = rng.integers(-126, 127, layer.kernel.shape)
        kernel.reshape(-1, kernel.shape[-1])[0] = 127  # the step of each channel is then 1/300
        layer.set_weights([kernel / 300, rng.normal(size=layer.bias.shape)])
    return built


def details(path):
    interpreter = Interpreter(model_path=str(path))
    interpreter.allocate_tensors()
    return interpreter, interpreter.get_input_details()[0], interpreter.get_output_details()[0]


def run_by_scales(path, x):
    """In batches of the file, converted by its scales, independent of the library."""
    interpreter, inputs, outputs = details(path)
    scale, zero = inputs["quantization"]
    limits = np.iinfo(inputs["dtype"])
    steps = np.clip(np.round(x / scale) + zero, limits.min, limits.max).astype(inputs["dtype"])
    found = []
    for batch in np.split(steps, len(x) // inputs["shape"][0]):
        interpreter.set_tensor(inputs["index"], batch)
        interpreter.invoke()
        scale, zero = outputs["quantization"]
        values = interpreter.get_tensor(outputs["index"]).astype("float32")
        found.append((values - zero) * np.float32(scale))
    return np.concatenate(found)


@pytest.mark.parametrize(
    ("quantization", "input_type", "output_type", "batch_size"),
    [("int8", "uint8", "int8", 4), ("int8", "int8", "uint8", 1), ("int16x8", "int16", "int16", 3)],
)
def test_integers_at_the_borders_and_fixed_batches(
    model, tmp_path, quantization, input_type, output_type, batch_size
):
    path = tmp_path / "m.tflite"
    report = tfpeft.export_tflite(
        model,
        path,
        quantization=quantization,
        representative_data=X,
        batch_size=batch_size,
        input_type=input_type,
        output_type=output_type,
    )
    _, inputs, outputs = details(path)
    assert inputs["shape"].tolist() == [batch_size, 6, 6, 3]
    assert outputs["shape"].tolist() == [batch_size, 3]
    assert (inputs["dtype"], outputs["dtype"]) == (np.dtype(input_type), np.dtype(output_type))
    found, expected = run_by_scales(path, X), model.predict(X, verbose=0)
    step = outputs["quantization"][0]
    if quantization == "int16x8":
        # Symmetric around 0, in 32767 steps; the weights have 8 bits.
        assert inputs["quantization"] == (pytest.approx(255 / 32767, rel=0.2), 0)
        assert (report.int16_share, report.int8_share) == (1.0, 0.0)
        assert "100% of the operators in int16" in str(report)
        assert np.abs(found - expected).max() < 1e-3 * np.ptp(expected)
    else:
        assert inputs["quantization"][0] == pytest.approx(1.0, rel=0.2)
        assert (report.int16_share, report.int8_share) == (0.0, 1.0)
        assert np.abs(found - expected).max() < 8 * step
    file = tfpeft.TFLiteFile(path)
    np.testing.assert_allclose(file.predict(X), found, atol=1e-6)
    assert file.signature().input_types == {"pixels": input_type}
    assert "DEQUANTIZE" not in report.ops
    assert (report.input_type, report.output_type) == (input_type, output_type)
    assert report.batch_size == batch_size
    assert f"batch_size={batch_size}, inputs {input_type}, outputs {output_type}" in str(report)
    # The last batch is not full.
    np.testing.assert_allclose(file.predict(X[:7]), found[:7], atol=1e-6)


def test_int16_activations_lose_less_than_int8(model, tmp_path):
    errors = {}
    for quantization in ("int8", "int16x8"):
        report = tfpeft.export_tflite(
            model, tmp_path / "m.tflite", quantization=quantization, representative_data=X
        )
        errors[quantization] = report.relative_error
        assert (report.input_type, report.output_type) == ("float32", "float32")
    assert errors["int16x8"] < errors["int8"] / 10


def test_signatures_of_a_shared_model_in_int16(tmp_path):
    """Constants that signatures share are quantized once for each, and shared again."""
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(60, 8)).astype("float32")
    backbone = keras.Sequential([keras.Input((8,)), layers.Dense(64, activation="relu")])
    shared = tfpeft.SharedModel(backbone, {"one": layers.Dense(2), "two": layers.Dense(3)})
    shared(x[:2])
    path = tmp_path / "m.tflite"
    options = {"quantization": "int16x8", "representative_data": x, "output_type": "int16"}
    tfpeft.export_tflite(shared, path, labels={"two": ["a", "b", "c"]}, **options)
    file = tfpeft.TFLiteFile(path)
    for task in ("one", "two"):
        expected = shared.task(task).predict(x, verbose=0)
        assert np.abs(file.predict(x, task) - expected).max() < 0.02 * np.ptp(expected)
    assert file.contents.parameters < 8 * 64 + 64 + 64 * 5 + 5 + 64
    assert file.labels("two") == {"output_0": ("a", "b", "c")}
    assert file.labels("one") == {}


def test_layers_that_int16_lacks_are_named(tmp_path):
    inputs = keras.Input((8,))
    outputs = layers.Dense(2)(layers.LayerNormalization(name="norm")(layers.Dense(4)(inputs)))
    x = np.random.default_rng(0).normal(size=(30, 8)).astype("float32")
    with pytest.raises(tfpeft.ExportError, match=r"int16x8, or .* Received: \w+ \(layers: norm\)"):
        tfpeft.export_tflite(
            keras.Model(inputs, outputs),
            tmp_path / "m.tflite",
            quantization="int16x8",
            representative_data=x,
        )
    assert not list(tmp_path.iterdir())


def test_inputs_that_stay_in_float32_raise(model, tmp_path):
    with pytest.raises(tfpeft.ExportError, match="inputs of int8 .* pixels, which stays in"):
        tfpeft.export_tflite(
            model,
            tmp_path / "m.tflite",
            quantization="int8",
            representative_data=X,
            input_type="int8",
            float_layers=["scaled", "conv"],
        )
    assert not list(tmp_path.iterdir())


def test_sparse_constants_where_they_pay(tmp_path):
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(40, 50)).astype("float32")
    model = keras.Sequential([keras.Input((50,)), layers.Dense(100, activation="relu")])
    model.add(layers.Dense(2))
    kernel = model.layers[0].kernel
    zeros = np.random.default_rng(1).random(kernel.shape) < 0.95
    kernel.assign(np.where(zeros, 0.0, kernel.numpy()))
    path = tmp_path / "m.tflite"
    options = {"representative_data": x, "sparse": True}
    report = tfpeft.export_tflite(model, path, labels=["a", "b"], **options)
    assert report.sparse
    assert "sparse constants" in str(report)
    # 5,000 numbers of 4 bytes, of which 5% are left with their indices.
    assert report.size_bytes < 8_000
    np.testing.assert_allclose(
        tfpeft.TFLiteFile(path).predict(x), model.predict(x, verbose=0), atol=1e-5
    )
    contents = tfpeft.TFLiteFile(path).contents
    # Of two rows of 100 and 102 biases, those of zero are not there.
    assert contents.nonzero_parameters == np.count_nonzero(kernel.numpy()) + 200
    assert tfpeft.TFLiteFile(path).labels() == {"output_0": ("a", "b")}
    # LiteRT does not run this one; and without zeros nothing is saved.
    report = tfpeft.export_tflite(model, path, quantization="dynamic_range", **options)
    assert not report.sparse
    assert any(note.startswith("not sparse: ") for note in report.notes)
    kernel.assign(np.ones(kernel.shape))
    report = tfpeft.export_tflite(model, path, **options)
    assert not report.sparse
    assert "not sparse, as the file would not be smaller" in report.notes


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"quantization": "int8", "input_type": "int16"}, "`input_type` of 'float32' or 'int8' or"),
        ({"input_type": "uint8"}, "`input_type` of 'float32' with quantization='none', or quanti"),
        ({"quantization": "int16x8", "output_type": "int8"}, "`output_type`.*output_type='int8'"),
        ({"input_type": "int4"}, "`input_type`, expected one of .*'int4'"),
        ({"batch_size": 0}, "`batch_size`, expected an integer of at least 1"),
        ({"sparse": 1}, "`sparse`, expected True or False"),
        ({"labels": ["a", "b"]}, "`labels`, expected 3 labels, as output_0"),
        ({"labels": "abc"}, "`labels`, expected a list of texts"),
        ({"labels": {"x": ["a", "b", "c"]}}, r"`labels`, expected names of outputs: output_0"),
        ({"input_scaling": 3.0}, r"`input_scaling`, expected a pair \(mean, std\)"),
        ({"input_scaling": (0.0, 0.0)}, r"`input_scaling`, expected a pair .* std above 0"),
        ({"input_scaling": ([1, 2], 1.0)}, "`input_scaling`, expected a pair"),
        ({"input_scaling": {"x": (0, 1)}}, "`input_scaling`, expected names of inputs: pixels"),
    ],
)
def test_bad_options_name_the_argument(model, tmp_path, options, message):
    options = {"representative_data": X, **options}
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", **options)
    assert not list(tmp_path.iterdir())


def test_models_that_insist_on_a_batch_size_or_on_integers(tmp_path):
    fixed = keras.Sequential([keras.Input((4,), batch_size=2), layers.Dense(2)])
    with pytest.raises(tfpeft.InputError, match="`batch_size`, expected 2, which"):
        tfpeft.export_tflite(fixed, tmp_path / "m.tflite", batch_size=3)
    tokens = keras.Sequential([keras.Input((4,), dtype="int32"), layers.Embedding(9, 2)])
    with pytest.raises(tfpeft.InputError, match="`input_type`, expected 'float32' for a model"):
        tfpeft.export_tflite(
            tokens,
            tmp_path / "m.tflite",
            quantization="int8",
            representative_data=np.ones((20, 4), "int32"),
            input_type="int8",
        )
