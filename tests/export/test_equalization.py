"""Cross-layer equalisation and bias correction of exported files."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfpeft
from tfpeft.export import bias_correction, equalization
from tfpeft.export.file_writing import to_bytes
from tfpeft.export.weighted import constant, weighted_operators

rng = np.random.default_rng(0)
layers = keras.layers
PAIRS = [
    ("stem", "depthwise"),
    ("depthwise", "point"),
    ("point", "six"),
    ("last", "hidden"),
    ("hidden", "head"),
]


@pytest.fixture(scope="module")
def data():
    return rng.normal(0.5, 1.0, (300, 8, 8, 4)).astype("float32")


@pytest.fixture(scope="module")
def model():
    """Layers in a row, one before ReLU6, two that read one; channels of very unlike ranges."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((8, 8, 4))
    h = layers.Conv2D(8, 3, padding="same", activation="relu", name="stem")(inputs)
    h = layers.DepthwiseConv2D(3, depth_multiplier=2, padding="same", name="depthwise")(h)
    h = layers.LeakyReLU()(h)
    h = layers.Conv2D(6, 1, name="point")(h)
    h = layers.ZeroPadding2D()(layers.MaxPooling2D()(h))
    h = layers.Conv2D(6, 3, strides=2, activation="relu6", name="six")(h)
    h = layers.Conv2D(6, 2, padding="same", activation="relu", name="read_twice")(h)
    sides = [layers.Conv2D(4, 2, dilation_rate=i, padding="same")(h) for i in (1, 2)]
    h = layers.Conv2D(5, 1, activation="relu", name="last")(layers.Add()(sides))
    h = layers.Dense(6, use_bias=False, activation="relu", name="hidden")(layers.Flatten()(h))
    model = keras.Model(inputs, layers.Dense(3, name="head")(h))
    for layer in model.layers:
        if getattr(layer, "bias", None) is not None:
            layer.bias.assign(rng.normal(0.2, 0.1, layer.bias.shape))
    unlike = np.geomspace(0.02, 5.0, 8)
    stem, depthwise = model.get_layer("stem"), model.get_layer("depthwise")
    stem.kernel.assign(stem.kernel * unlike)
    stem.bias.assign(stem.bias * unlike)
    depthwise.kernel.assign(depthwise.kernel / unlike[:, None])
    return model


@pytest.fixture(scope="module")
def exact(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("float") / "m.tflite"
    tfpeft.export_tflite(model, path)
    return tfpeft.TFLiteFile(path)


@pytest.fixture(scope="module")
def reports(model, data, tmp_path_factory):
    """{name: report} of int8 files: as they are, and with all that the options do."""
    options = {"plain": {}, "better": {"equalize": True, "correct_bias": True, "ranges": "mse"}}
    folder = tmp_path_factory.mktemp("int8")
    return {
        name: tfpeft.export_tflite(
            model,
            folder / f"{name}.tflite",
            quantization="int8",
            representative_data=data,
            allow_deviation=10.0,
            **chosen,
        )
        for name, chosen in options.items()
    }


def kernels(content):
    """Returns {name of a layer: its kernel in a file of one graph}."""
    model = schema.ModelT.InitFromPackedBuf(content)
    graph = model.subgraphs[0]
    found = {}
    for operator in weighted_operators(model, graph):
        name = graph.tensors[operator.kernel].name.decode().split("/")[1].removesuffix("_1")
        found[name] = constant(model, graph, operator.kernel)
    return found


def test_scales_by_hand():
    first = np.array([[1.0, -4.0], [1.0, 0.5], [1e-5, 0.0], [3.0, 0.0]])
    second = np.array([[1.0], [-4.0], [2.0], [0.0]])
    np.testing.assert_allclose(equalization.scales(first, second), [2.0, 0.5, 1.0, 1.0])


def test_equalised_layers_have_equal_outputs_and_ranges(exact, data, tmp_path):
    content, pairs = equalization.equalized(exact.content)
    assert pairs == len(PAIRS)
    (tmp_path / "m.tflite").write_bytes(content)
    found, expected = tfpeft.TFLiteFile(tmp_path / "m.tflite").predict(data), exact.predict(data)
    np.testing.assert_allclose(found, expected, atol=1e-5 * np.abs(expected).max())
    after, before = kernels(content), kernels(exact.content)
    for first, second in PAIRS:
        made, read = after[first], after[second]
        made = np.abs(made).max(axis=(0, 1, 2) if first == "depthwise" else _not_first(made))
        if second == "depthwise":
            read = read.reshape(9, len(made), 2).transpose(1, 0, 2)
        else:
            read = read.reshape(-1, len(made)).T
        read = np.abs(read.reshape(len(made), -1)).max(axis=1)
        np.testing.assert_allclose(made, read, rtol=1e-2)
    for name in set(before) - {name for pair in PAIRS for name in pair}:
        np.testing.assert_array_equal(after[name], before[name])
    assert np.ptp(np.log(np.abs(before["stem"]).max(axis=(1, 2, 3)))) > 5


def _not_first(array):
    return tuple(range(1, array.ndim))


def test_layers_that_share_a_kernel_are_equalised_where_all_uses_are_pairs(tmp_path):
    """Two towers of shared layers are; a kernel that another path reads as well is not."""
    pairs = [(layers.Dense(6, "relu"), layers.Dense(3)) for _ in range(2)]
    a, b = keras.Input((4,)), keras.Input((4,))
    outputs = [second(first(x)) for first, second in pairs for x in (a, b)]
    outputs.append(pairs[1][0](a + b))
    tfpeft.export_tflite(keras.Model([a, b], outputs), tmp_path / "m.tflite")
    content, count = equalization.equalized((tmp_path / "m.tflite").read_bytes())
    assert count == 1
    (tmp_path / "n.tflite").write_bytes(content)
    x = [rng.normal(size=(5, 4)).astype("float32") for _ in range(2)]
    before, after = (tfpeft.TFLiteFile(tmp_path / f"{n}.tflite").signature().run(x) for n in "mn")
    for name in before:
        np.testing.assert_allclose(after[name], before[name], rtol=1e-4, atol=1e-6)


def test_equalised_channels_lose_less_in_int8(reports):
    assert reports["plain"].relative_error > 1.5 * reports["better"].relative_error
    notes = (f"{len(PAIRS)} pairs of layers equalized", "biases of 10 layers corrected")
    assert reports["better"].notes == notes
    assert reports["plain"].size_bytes <= reports["better"].size_bytes
    assert reports["better"].size_bytes < reports["plain"].size_bytes + 2000


def test_mean_outputs_of_layers_are_those_of_their_mean_inputs(exact, data):
    """Of the layers without an activation, against the outputs of the file itself."""
    model = schema.ModelT.InitFromPackedBuf(exact.content)
    graph = model.subgraphs[0]
    program = exact.observed()
    program.feed(program.arrange(data))
    program.invoke()
    compared = set()
    for operator in weighted_operators(model, graph):
        if operator.op.builtinOptions.fusedActivationFunction == 0:
            inputs = program.tensor(operator.values).mean(axis=0, keepdims=True)
            outputs = program.tensor(operator.output)
            expected = outputs.reshape(-1, outputs.shape[-1]).mean(axis=0)
            found = bias_correction._output(model, graph, operator, inputs)
            np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
            compared.add(operator.name)
    assert compared == {"CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED"}


def mean_errors(path, exact, data):
    return (tfpeft.TFLiteFile(path).predict(data) - exact.predict(data)).mean(axis=0)


def test_corrected_biases_leave_no_mean_error(reports, exact, data):
    plain, corrected = (
        mean_errors(reports[name].path, exact, data) for name in ("plain", "better")
    )
    assert np.abs(corrected).max() < 0.3 * np.abs(plain).max()


def test_wrong_biases_are_corrected(reports, exact, data, tmp_path):
    """Biases of an int8 file are moved by a tenth of what the layers compute, and come back."""
    path = tmp_path / "m.tflite"
    model = schema.ModelT.InitFromPackedBuf(tfpeft.TFLiteFile(reports["plain"].path).content)
    graph = model.subgraphs[0]
    for operator in weighted_operators(model, graph):
        scale = graph.tensors[operator.output].quantization.scale[0]
        channels = graph.tensors[operator.output].shape[-1]
        bias_correction._add(model, graph, operator, np.full(channels, 25 * scale))
    path.write_bytes(to_bytes(model))
    moved = mean_errors(path, exact, data)
    samples = [[x[None]] for x in data[:100]]
    assert bias_correction.correct_biases(path, exact, samples, 32) == 10
    assert np.abs(mean_errors(path, exact, data)).max() < 0.05 * np.abs(moved).max()


def test_models_without_anything_to_change_raise(tmp_path):
    x = rng.normal(size=(60, 4)).astype("float32")
    model = keras.Sequential([keras.Input((4,)), layers.Dense(3)])
    options = {"quantization": "int8", "representative_data": x}
    with pytest.raises(tfpeft.NoMatchError, match="in a row.*for `equalize`"):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", equalize=True, **options)
    model = keras.Sequential([keras.Input((4,)), layers.Rescaling(0.5, name="half")])
    with pytest.raises(tfpeft.NoMatchError, match="in int8 for `correct_bias`"):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", correct_bias=True, **options)
    assert not list(tmp_path.iterdir())
