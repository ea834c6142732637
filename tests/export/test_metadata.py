"""Labels and input scaling: the bytes by the schema's numbers, the ZIP archive, and read back."""

import zipfile

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tfpeft

layers = keras.layers
X = np.random.default_rng(0).normal(size=(30, 4, 4, 3)).astype("float32")


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    keras.utils.set_random_seed(0)
    images, age = keras.Input((4, 4, 3), name="image"), keras.Input((2,), name="age")
    joined = layers.Concatenate()([layers.Flatten()(images), age])
    outputs = {"kind": layers.Dense(2)(joined), "size": layers.Dense(1)(joined)}
    model = keras.Model({"image": images, "age": age}, outputs)
    path = tmp_path_factory.mktemp("metadata") / "m.tflite"
    tfpeft.export_tflite(
        model,
        path,
        representative_data={"image": X, "age": X[:, 0, 0, :2]},
        labels={"kind": ["cat", "a dog"]},
        input_scaling={"image": ([10, 20, 30.5], 255), "age": (40, [12.5, 3])},
    )
    return path


def test_labels_and_scaling_are_read_back(path):
    file = tfpeft.TFLiteFile(path)
    assert file.labels() == {"kind": ("cat", "a dog")}
    assert file.input_scaling() == {
        "image": ((10.0, 20.0, 30.5), (255.0,)),
        "age": ((40.0,), (12.5, 3.0)),
    }


def test_labels_are_a_file_in_a_zip_archive(path):
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == ["labels.txt"]
        assert archive.read("labels.txt") == b"cat\na dog\n"
        assert archive.testzip() is None


class Reader:
    """Fields of a table by the numbers of the schema, written out for this test."""

    def __init__(self, buffer, place):
        self.table = flatbuffers.table.Table(buffer, place)

    def place(self, number):
        return self.table.Offset(4 + 2 * number)

    def tables(self, number):
        start, length = self.table.Vector(self.place(number)), self.place(number)
        return [
            Reader(self.table.Bytes, self.table.Indirect(start + 4 * i))
            for i in range(self.table.VectorLen(length))
        ]

    def text(self, number):
        return self.table.String(self.table.Pos + self.place(number)).decode()


def test_the_metadata_is_that_of_the_schema(path):
    content = path.read_bytes()
    model = schema.ModelT.InitFromPackedBuf(content)
    (entry,) = [m for m in model.metadata if m.name == b"TFLITE_METADATA"]
    buffer = bytearray(bytes(model.buffers[entry.buffer].data))
    assert buffer[4:8] == b"M001"
    root = Reader(buffer, int.from_bytes(buffer[:4], "little"))
    assert root.text(7) == "1.0.0"  # min_parser_version
    (graph,) = root.tables(3)  # subgraph_metadata
    interpreter = Interpreter(model_content=content)
    # One entry for each tensor, in the order of the graph.
    shapes = [tuple(d["shape"][1:]) for d in interpreter.get_input_details()]
    shape_of = {"image": (4, 4, 3), "age": (2,)}
    assert [shape_of[tensor.text(0)] for tensor in graph.tables(2)] == shapes
    assert sorted(tensor.text(0) for tensor in graph.tables(3)) == ["kind", "size"]
    kind = next(tensor for tensor in graph.tables(3) if tensor.text(0) == "kind")
    (file,) = kind.tables(6)  # associated_files
    assert file.text(0) == "labels.txt"
    assert file.table.Get(flatbuffers.number_types.Int8Flags, file.table.Pos + file.place(2)) == 2
    (unit,) = graph.tables(2)[0].tables(4)  # process_units: NormalizationOptions
    assert unit.table.Get(flatbuffers.number_types.Int8Flags, unit.table.Pos + unit.place(0)) == 1


def test_files_without_metadata_have_no_labels(tmp_path):
    model = keras.Sequential([keras.Input((3,)), layers.Dense(2)])
    tfpeft.export_tflite(model, tmp_path / "m.tflite")
    file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
    assert file.labels() == {}
    assert file.input_scaling() == {}
