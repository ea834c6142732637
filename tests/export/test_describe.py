"""What a file holds: constants against NumPy, sparse form and 4 bits by hand, reasons of floats."""

import gzip
import importlib.util

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfpeft
from tests.export import device_files
from tfpeft.core.arguments import InputError
from tfpeft.export.tflite_constants import dense_values, from_sparse, most_distinct, stored_values
from tfpeft.export.tflite_file import TFLiteFile


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(content, name="m.tflite"):
    with open(name, "wb") as file:
        file.write(content)
    return name


def described(content, target=None):
    return tfpeft.describe_tflite(written(content), target)


def test_constants_of_an_int8_file_are_those_of_numpy():
    content = device_files.in_int8()
    found = described(content)
    assert (found.size_bytes, found.gzip_bytes) == (len(content), len(gzip.compress(content, 9)))
    assert list(found.inputs.values()) == [("int8", device_files.SHAPE)]
    assert list(found.outputs.values()) == [("int8", (1, 16))]
    assert found.int8_share == 1.0
    assert found.float_operators == ()
    for name, kernel in device_files.kernels().items():
        if name == "depthwise":
            kernel = kernel[..., 0]
        largest = np.abs(kernel).max(axis=tuple(range(kernel.ndim - 1)))
        steps = np.round(127 * kernel / np.where(largest > 0, largest, 1.0))
        channels = steps.reshape(-1, steps.shape[-1]).T
        constant = next(c for c in found.constants if c.size == kernel.size and c.dtype == "int8")
        assert constant.zeros == np.sum(steps == 0), name
        assert constant.distinct == len(np.unique(steps)), name
        assert constant.distinct_per_channel == max(len(np.unique(c)) for c in channels), name
        assert constant.scales == steps.shape[-1]
        assert constant.stored_bytes == constant.size
        assert constant.channel_axis == (3 if name == "depthwise" else 0)
    second = next(c for c in found.constants if c.size == 64 * 64)
    assert second.distinct_per_channel == 3 < second.distinct
    assert second.operator == "CONV_2D"


def test_sparse_form_holds_the_kernels_of_the_dense_file():
    dense, sparse = (
        TFLiteFile(written(content)).read_graphs(
            lambda graphs: {op.name + str(i): (graphs[0].kernel(op)) for i, op in ops(graphs[0])}
        )
        for content in (device_files.in_floats(), device_files.in_sparse_form())
    )
    assert sum(kernel is not None and kernel.is_sparse for kernel in sparse.values()) == 3
    for name, kernel in dense.items():
        if kernel is not None:
            np.testing.assert_array_equal(sparse[name].values, kernel.values)
    constants = {c.shape: c for c in described(device_files.in_sparse_form()).constants}
    second = constants[(64, 1, 1, 64)]
    assert second.is_sparse
    assert second.operator == "CONV_2D"  # a DENSIFY is between them
    assert second.zeros == np.sum(device_files.kernels()["second"] == 0)
    assert second.distinct_per_channel == 3
    assert second.stored_bytes == 4 * (64 * 64 - second.zeros)


def ops(graph):
    return enumerate(op for op in graph.operators if op.name != "DENSIFY")


def level(size=None, segments=None, indices=None):
    dimension = schema.DimensionMetadataT()
    if size is not None:
        dimension.format, dimension.denseSize = schema.DimensionType.DENSE, size
        return dimension
    dimension.format = schema.DimensionType.SPARSE_CSR
    dimension.arraySegments, dimension.arrayIndices = schema.Int32VectorT(), schema.Int32VectorT()
    dimension.arraySegments.values, dimension.arrayIndices.values = segments, indices
    return dimension


def test_blocks_of_two_by_two_by_hand():
    expected = np.array([[1, 2, 0, 0], [3, 4, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 0, 5, 6]])
    expected = np.vstack([expected, [[0, 0, 7, 0]]])
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap = [0, 1, 2, 3], [0, 1]
    sparsity.dimMetadata = [
        *(level(size=3), level(segments=[0, 1, 1, 2], indices=[0, 1])),
        *(level(size=2), level(size=2)),
    ]
    values = np.array([1, 2, 3, 4, 5, 6, 7, 0])
    np.testing.assert_array_equal(from_sparse(values, (6, 4), sparsity), expected)


def test_columns_first_by_hand():
    sparsity = schema.SparsityParametersT()
    sparsity.traversalOrder, sparsity.blockMap = [1, 0], None
    sparsity.dimMetadata = [level(size=3), level(segments=[0, 2, 2, 3], indices=[0, 1, 1])]
    found = from_sparse(np.array([1, 2, 3]), (2, 3), sparsity)
    np.testing.assert_array_equal(found, [[1, 0, 0], [2, 0, 3]])


def test_four_bits_have_a_sign():
    tensor = schema.TensorT()
    tensor.type, tensor.shape = schema.TensorType.INT4, np.array([3])
    np.testing.assert_array_equal(stored_values(tensor, [0x8F, 0x07]), [-1, -8, 7])
    np.testing.assert_array_equal(dense_values(tensor, [0x8F, 0x07]), [-1, -8, 7])


def test_most_distinct_values_of_a_channel():
    values = np.array([[1, 1, 2], [3, 3, 3], [1, 2, 3], [0, 0, 0]])
    assert most_distinct(values, 0) == 3
    assert most_distinct(values, 1) == 4
    assert most_distinct(values[:2], 0) == 2


def test_float_operators_have_reasons():
    found = described(device_files.with_float_parts())
    reasons = [(op.name, op.tensor.split("/")[0], op.reason) for op in found.float_operators]
    assert reasons == [
        ("CUMSUM", "sums", "the converter has no CUMSUM in int8"),
        ("SIN", "turned", "the converter has no SIN in int8"),
        ("CUMSUM", reasons[2][1], "the converter has no CUMSUM in int8"),
    ]
    assert [op.name for op in found.operators if op.is_quantized] == ["CONV_2D"]
    assert [op.dtype for op in found.operators if op.is_quantized] == ["int8"]


@pytest.mark.parametrize(
    ("content", "of_convolution", "of_mean"),
    [
        (device_files.in_floats, *["nothing in the file is quantized"] * 2),
        (
            device_files.in_dynamic_range,
            "dynamic range: weights in int8, activations in float32",
            "the file has activations in float32",
        ),
    ],
)
def test_files_without_quantized_activations(content, of_convolution, of_mean):
    found = described(content())
    reasons = {op.name: op.reason for op in found.float_operators}  # of the last of each name
    assert (reasons["CONV_2D"], reasons["MEAN"]) == (of_convolution, of_mean)
    assert not any(op.is_quantized for op in found.operators)


def test_what_was_left_out_is_not_said_to_lack_a_kernel():
    """TANH has an int8 form; the file is edited to have it between float tensors."""

    def edit(model):
        code = schema.OperatorCodeT()
        code.builtinCode = code.deprecatedBuiltinCode = schema.BuiltinOperator.TANH
        model.operatorCodes.append(code)
        names = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
        for op in model.subgraphs[0].operators:
            if names[op.opcodeIndex] in (schema.BuiltinOperator.CUMSUM, schema.BuiltinOperator.SIN):
                op.opcodeIndex, op.inputs = len(names) - 1, op.inputs[:1]
                op.builtinOptions, op.builtinOptionsType = None, 0

    found = described(device_files.edited(device_files.with_float_parts(), edit))
    assert [op.reason for op in found.float_operators] == [
        "all its inputs are int8: it was left out, or its output has no range",
        "its input comes from TANH, which is in float",
        "its input comes from TANH, which is in float",
    ]


def test_it_prints_tables():
    found = described(device_files.with_float_parts(), "xnnpack")
    text, markdown = str(found), found.to_markdown()
    assert "float because" in text
    assert "the converter has no CUMSUM in int8" in text
    assert "| CONV_2D | " in markdown
    assert str(found.device) in text
    assert found.target == "xnnpack"


@pytest.mark.parametrize("target", ["esp32", "", 3, ["tflm"], "ethos-u55-512"])
def test_unknown_targets_are_errors(target):
    with pytest.raises(InputError, match="`target`, expected one of None, 'tflm'"):
        described(device_files.in_floats(), target)


@pytest.mark.parametrize(
    ("target", "package"), [("tflm", "tflite-micro"), ("ethos-u65-256", "vela")]
)
def test_a_missing_package_is_named_with_the_command(target, package, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=rf"{package}.* pip install 'tfpeft\[devices\]'"):
        described(device_files.in_floats(), target)


def test_damaged_files_are_errors():
    content = device_files.in_int8()
    for target in (None, "xnnpack"):
        with pytest.raises(InputError, match=r"m\.tflite"):
            described(content[: len(content) // 2], target)
    with pytest.raises(InputError, match=r"no\.tflite"):
        tfpeft.describe_tflite("no.tflite")
