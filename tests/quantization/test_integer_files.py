"""Files of quantise-aware models: no float operator, and the outputs of the Keras model."""

import functools

import keras
import numpy as np
import pytest

import tfpeft
from tests.quantization import networks
from tests.quantization.networks import INTEGER, samples, shaken
from tfpeft.export.tflite_contents import op_name


@functools.cache
def aware(name, **options):
    keras.utils.set_random_seed(0)
    model = shaken({**INTEGER, "transformer": networks.transformer}[name]())
    return tfpeft.quantize_aware(model, representative_data=samples(model), **dict(options))


def parsed(path):
    from ai_edge_litert import schema_py_generated as schema

    return schema.ModelT.InitFromPackedBuf(path.read_bytes())


def float_operators(path):
    """Returns the names of operators that compute floats."""
    model = parsed(path)
    graph = model.subgraphs[0]
    names = [op_name(model.operatorCodes[op.opcodeIndex]) for op in graph.operators]
    return [
        name
        for name, op in zip(names, graph.operators, strict=True)
        if name != "DEQUANTIZE" and any(graph.tensors[t].type == 0 for t in op.outputs)
    ]


def kernels(path):
    """Returns [(values, channels axis)] of the integer constants of convolutions and Dense."""
    model = parsed(path)
    found = []
    for op in model.subgraphs[0].operators:
        name = op_name(model.operatorCodes[op.opcodeIndex])
        if name in ("CONV_2D", "FULLY_CONNECTED", "DEPTHWISE_CONV_2D"):
            tensor = model.subgraphs[0].tensors[op.inputs[1]]
            values = np.asarray(model.buffers[tensor.buffer].data, np.uint8)
            if tensor.type == 17:  # INT4
                values = np.stack([values & 15, values >> 4], -1).reshape(-1)
                values = ((values.astype("int8") + 8) % 16) - 8
                values = values[: np.prod(tensor.shape)]
            values = values.astype("uint8").view("int8").reshape(tensor.shape)
            found.append(values if name != "DEPTHWISE_CONV_2D" else np.moveaxis(values, -1, 0))
            assert len(tensor.quantization.scale) == len(found[-1])  # a step per channel
    return found


def is_equal(found, expected):
    """Whether hardly a value is in another step: other machines may have other kernels."""
    return np.mean(np.abs(found - expected) > 1e-4 * np.ptp(expected)) < 0.01


def relative(found, expected):
    return np.sqrt(np.mean((found - expected) ** 2)) / np.std(expected)


@pytest.mark.parametrize("name", INTEGER)
def test_no_float_operator_and_the_same_outputs(name, tmp_path):
    model, path = aware(name), tmp_path / "model.tflite"
    report = tfpeft.export_tflite(model, path, quantization="int8")
    assert float_operators(path) == []
    assert report.int8_share == 1.0
    x = samples(model.model, seed=1)
    found, expected = tfpeft.TFLiteFile(path).predict(x), np.asarray(model(x))
    assert relative(found, expected) < 0.03
    assert relative(expected, np.asarray(model.model(x))) > 1e-4  # it is rounded
    if name in ("cnn", "mobile_net_v2"):  # of layers that are computed in integers throughout
        assert is_equal(found, expected)


def test_attention_is_in_int8_and_what_stays_float_is_named(tmp_path):
    model, path = aware("transformer"), tmp_path / "model.tflite"
    report = tfpeft.export_tflite(model, path, quantization="int8")
    assert list(model.in_float) == ["first", "second"]
    assert all(
        any(f"{name} in float32: its mean" in n for n in report.notes) for name in model.in_float
    )
    assert report.ops["BATCH_MATMUL"] == 2
    names = set(float_operators(path))
    assert names <= {"MEAN", "NEG", "SQUARED_DIFFERENCE", "ADD", "RSQRT", "MUL", "SUB"}
    x = samples(model.model, seed=1)
    assert relative(tfpeft.TFLiteFile(path).predict(x), np.asarray(model(x))) < 0.02


def test_weights_of_four_bits_are_stored_in_four(tmp_path):
    model = tfpeft.quantize_aware(
        aware("mobile_net_v2").model,
        weight_bits=4,
        representative_data=samples(aware("mobile_net_v2").model),
    )
    sizes = {}
    for each, name in ((model, "four"), (aware("mobile_net_v2"), "eight")):
        path = tmp_path / f"{name}.tflite"
        tfpeft.export_tflite(each, path, quantization="int8", allow_deviation=1.0)
        sizes[name] = sum(
            np.size(buffer.data) for buffer in parsed(path).buffers if buffer.data is not None
        )
    path = tmp_path / "four.tflite"
    assert all(np.max(np.abs(values)) == 7 for values in kernels(path))
    count = sum(values.size for values in kernels(path))
    assert sizes["eight"] - sizes["four"] == pytest.approx(count / 2, abs=len(kernels(path)) + 64)
    x = samples(model.model, seed=1)
    assert is_equal(tfpeft.TFLiteFile(path).predict(x), np.asarray(model(x)))


def test_activations_of_sixteen_bits(tmp_path):
    model = tfpeft.quantize_aware(
        aware("cnn").model, activation_bits=16, representative_data=samples(aware("cnn").model)
    )
    path = tmp_path / "model.tflite"
    report = tfpeft.export_tflite(model, path, quantization="int16x8")
    assert report.int16_share == 1.0
    x = samples(model.model, seed=1)
    assert relative(tfpeft.TFLiteFile(path).predict(x), np.asarray(model(x))) < 2e-3


def test_zeros_and_excluded_layers_reach_the_file(tmp_path):
    plain = keras.models.clone_model(aware("cnn").model)
    plain.set_weights(aware("cnn").model.get_weights())
    rng = np.random.default_rng(0)
    for layer in plain.layers:
        if hasattr(layer, "kernel"):
            layer.kernel.assign(layer.kernel * (rng.random(layer.kernel.shape) < 0.25))
    path = tmp_path / "model.tflite"
    model = tfpeft.quantize_aware(plain, representative_data=samples(plain))
    tfpeft.export_tflite(model, path, quantization="int8")
    zeros = [int(np.sum(layer.kernel == 0)) for layer in plain.layers if hasattr(layer, "kernel")]
    assert [int(np.sum(values == 0)) for values in kernels(path)] >= zeros
    excluded = tfpeft.quantize_aware(
        plain, representative_data=samples(plain), exclude=[plain.layers[-1].name]
    )
    report = tfpeft.export_tflite(excluded, path, quantization="int8")
    assert float_operators(path) == ["FULLY_CONNECTED", "SOFTMAX"]
    assert any(plain.layers[-1].name in note for note in report.notes)


def test_a_model_that_has_seen_nothing_or_another_quantization(tmp_path):
    model = tfpeft.quantize_aware(networks.cnn())
    with pytest.raises(tfpeft.InputError, match="has seen data.*representative_data"):
        tfpeft.export_tflite(model, tmp_path / "a.tflite", quantization="int8")
    for quantization in ("none", "dynamic_range", "int16x8"):
        with pytest.raises(tfpeft.InputError, match='quantization="int8".*strip_quantization'):
            tfpeft.export_tflite(model, tmp_path / "a.tflite", quantization=quantization)
    assert list(tmp_path.iterdir()) == []
