"""Files written from their parsed form: aligned constants, zero points stored once."""

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfpeft
from tfpeft.export.file_writing import compacted, repacked, to_bytes


@pytest.fixture(scope="module")
def content(tmp_path_factory):
    path = tmp_path_factory.mktemp("files") / "model.tflite"
    layers = [keras.layers.Dense(64, activation="relu"), keras.layers.Dense(64)]
    model = keras.Sequential([keras.Input((8,)), *layers])
    data = np.random.default_rng(0).normal(size=(64, 8)).astype("float32")
    tfpeft.export_tflite(model, path, quantization="int8", representative_data=data)
    return path.read_bytes()


def zero_points(content):
    """Returns {tensor: (place in the file, values)} of the constants with zero points."""
    model, found = schema.Model.GetRootAs(content), {}
    graph = model.Subgraphs(0)
    for i in range(graph.TensorsLength()):
        quantization = graph.Tensors(i).Quantization()
        if quantization is not None and quantization.ZeroPointLength() > 1:
            table = quantization._tab
            found[i] = table.Vector(table.Offset(10)), list(quantization.ZeroPointAsNumpy())
    return found


def test_equal_zero_points_are_in_the_file_once(content):
    found = zero_points(content)
    assert len(found) >= 2  # a kernel and its bias
    assert all(values == [0] * 64 for _, values in found.values())
    assert len({place for place, _ in found.values()}) == 1


def test_constants_are_aligned(content):
    model = schema.Model.GetRootAs(content)
    tables = [model.Buffers(i)._tab for i in range(model.BuffersLength())]
    places = [table.Vector(table.Offset(4)) for table in tables if table.Offset(4)]
    assert places
    assert all(place % 16 == 0 for place in places)


def test_different_zero_points_stay_apart(content):
    model = schema.ModelT.InitFromPackedBuf(content)
    (first, (_, _)), *others = zero_points(content).items()
    model.subgraphs[0].tensors[first].quantization.zeroPoint = np.arange(64)
    again = zero_points(to_bytes(model))
    assert again[first][1] == list(range(64))
    assert all(again[i][1] == [0] * 64 for i, _ in others)


def test_a_file_is_the_same_when_it_is_written_again(content):
    assert repacked(content) == content


def test_a_compact_file_has_the_names_of_inputs_and_outputs_alone(content, tmp_path):
    (tmp_path / "model.tflite").write_bytes(compacted(content))
    graph = schema.ModelT.InitFromPackedBuf(compacted(content)).subgraphs[0]
    named = [i for i, tensor in enumerate(graph.tensors) if tensor.name]
    assert named == sorted([*graph.inputs, *graph.outputs])
    before = schema.ModelT.InitFromPackedBuf(content).subgraphs[0]
    names = sum(len(tensor.name) for tensor in before.tensors)
    assert len(compacted(content)) < len(content) - names / 2
    (tmp_path / "long.tflite").write_bytes(content)
    x = np.random.default_rng(1).normal(size=(5, 8))
    files = [tfpeft.TFLiteFile(tmp_path / name) for name in ("model.tflite", "long.tflite")]
    np.testing.assert_array_equal(*(file.predict(x) for file in files))
