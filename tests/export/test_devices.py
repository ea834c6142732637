"""What devices make of a file: TFLite Micro run, Vela run, and XNNPACK's rules one by one."""

import importlib.util
import re
import signal

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfpeft
from tests.export import device_files
from tfpeft.core.arguments import InputError
from tfpeft.export.targets.programs import last_words, run_python
from tfpeft.export.targets.table import TARGETS
from tfpeft.export.targets.tflm_kernels import KERNELS

needs_tflm = pytest.mark.skipif(
    importlib.util.find_spec("tflite_micro") is None, reason="tflite-micro is not installed"
)
needs_vela = pytest.mark.skipif(
    importlib.util.find_spec("ethosu") is None, reason="ethos-u-vela is not installed"
)


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def describe(content, target=None):
    with open("m.tflite", "wb") as file:
        file.write(content)
    return tfpeft.describe_tflite("m.tflite", target)


def device(content, target):
    return describe(content, target).device


@needs_tflm
def test_tflm_runs_it_and_compresses_it():
    content = device_files.in_int8()
    report = device(content, "tflm")
    assert report.reference_difference == 0.0
    assert report.max_steps <= 5  # of other kernels than the reference ones
    assert 4_000 < report.arena_bytes < 64_000
    assert report.resolver == (
        "tflite::MicroMutableOpResolver<5> resolver;\n"
        "resolver.AddPad();\n"
        "resolver.AddConv2D();\n"
        "resolver.AddDepthwiseConv2D();\n"
        "resolver.AddMean();\n"
        "resolver.AddFullyConnected();"
    )
    compressed = report.compressed
    # Three values per channel: 2 bits for each weight, a table of 3 bytes for each channel. And an
    # operator, whose output has the scales and the zero points once more.
    second = 64 * 64 - (64 * 64 * 2 // 8 + 16 + 64 * 3 + 64 * (4 + 8))
    head = 64 * 16 - (64 * 16 * 2 // 8 + 16 + 16 * 3 + 16 * (4 + 8))
    left = len(content) - second - head
    assert [name.split("/")[0] for name in compressed.tensors] == ["second", "head"]
    assert left < compressed.size_bytes < left + 2 * 256
    assert compressed.arena_bytes >= report.arena_bytes + 64 * 64
    assert "MicroMutableOpResolver<6>" in compressed.resolver
    assert "resolver.AddDecode();" in compressed.resolver
    assert str(compressed) in str(report)
    described = describe(compressed.content)
    assert described.size_bytes == compressed.size_bytes
    assert described.ops["custom TFLM_DECODE"] == 2


def with_an_unknown_operator():
    def edit(model):
        for code in model.operatorCodes:
            if max(code.builtinCode, code.deprecatedBuiltinCode) == schema.BuiltinOperator.MEAN:
                code.builtinCode, code.deprecatedBuiltinCode = schema.BuiltinOperator.RFFT2D, 127

    return device_files.edited(device_files.in_int8(), edit)


@needs_tflm
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (device_files.in_sparse_form, "dense constants .*sparse=False.*with DENSIFY"),
        (with_an_unknown_operator, "TFLite Micro has kernels for. .*m.tflite with RFFT2D"),
        (device_files.in_dynamic_range, "TFLite Micro runs. .*Hybrid models are not supported"),
    ],
)
def test_what_tflm_cannot_run(content, reason):
    with pytest.raises(InputError, match=reason):
        device(content(), "tflm")


def test_kernels_of_tflm_are_operators_that_litert_has():
    builtin = {name for name in KERNELS if not name.startswith("custom")}
    assert builtin <= set(vars(schema.BuiltinOperator))
    assert all(call.startswith("Add") for call in KERNELS.values())


@needs_vela
def test_vela_places_an_int8_file_on_the_npu():
    small, large = (
        device(device_files.in_int8(), target) for target in ("ethos-u55-32", "ethos-u55-256")
    )
    for report in (small, large):
        assert report.cpu_operators == ()
        assert report.notes == ()
        assert report.operators == 7
        assert report.macs >= 8 * 8 * (27 * 8 + 8 * 64 + 9 * 64 + 64 * 64) + 64 * 16
        assert 0 < report.flash_bytes < report.compiled_bytes
        assert report.sram_bytes >= 2 * 8 * 8 * 64  # what a layer reads and writes
        assert report.dram_bytes == 0
        assert describe(report.compiled).ops == {"custom ethos-u": 1}
        assert f"{report.sram_bytes:,}" in str(report)
    # 5 M multiply-accumulates, 32 per clock.
    assert small.inference_ms >= small.macs / 32 / (1e3 * small.clock_mhz)
    assert large.inference_ms < small.inference_ms


@needs_vela
def test_vela_leaves_floats_to_the_cpu_with_reasons():
    report = device(device_files.with_float_parts(), "ethos-u65-256")
    reasons = {op.name: op.reason for op in report.cpu_operators}
    assert set(reasons) == {"QUANTIZE", "DEQUANTIZE", "CUMSUM", "SIN"}
    assert "Float32" in reasons["QUANTIZE"]
    assert "ofm" not in str(reasons)
    assert reasons["CUMSUM"]
    assert report.operators == len(report.cpu_operators) + 1
    assert report.dram_bytes > 0
    assert "input_type='int8'" in report.notes[0]
    assert report.notes[0] in str(report)


@needs_vela
def test_vela_gets_no_file_that_it_cannot_use():
    with pytest.raises(InputError, match="int8 activations .* batch_size=1, input_type='int8'"):
        device(device_files.in_floats(), "ethos-u55-128")
    with pytest.raises(InputError, match="dense constants .*sparse=False"):
        device(device_files.in_sparse_form(), "ethos-u55-128")


@needs_vela
def test_the_accelerators_are_those_of_vela():
    from ethosu.vela.architecture_features import Accelerator

    assert {name for name in TARGETS if name.startswith("ethos")} == set(Accelerator.member_list())


def of_two_signatures(model):
    other = schema.SignatureDefT()
    other.signatureKey, other.subgraphIndex, other.inputs, other.outputs = b"other", 0, [], []
    first = schema.SignatureDefT()
    first.signatureKey, first.subgraphIndex, first.inputs, first.outputs = b"first", 0, [], []
    model.signatureDefs = [first, other]


@pytest.mark.parametrize(
    "target",
    [pytest.param("tflm", marks=needs_tflm), pytest.param("ethos-u55-32", marks=needs_vela)],
)
def test_devices_run_one_signature(target):
    content = device_files.edited(device_files.in_int8(), of_two_signatures)
    assert describe(content).signatures == ("first", "other")
    with pytest.raises(InputError, match="one signature.* with first, other"):
        device(content, target)


def test_a_child_that_crashes_has_last_words(tmp_path):
    (tmp_path / "numpy.py").write_text("raise SystemExit(9)")  # not imported in its place
    killed = run_python(["-c", "import numpy, os; os.kill(os.getpid(), 11)"], tmp_path)
    assert killed.returncode == -signal.SIGSEGV
    assert last_words(killed) == "it was ended by SIGSEGV"
    failed = run_python(["-c", "print('first'); raise ValueError('the reason')"], tmp_path)
    assert last_words(failed) == "ValueError: the reason"
    assert last_words(run_python(["-c", "raise SystemExit(3)"], tmp_path)) == "its status is 3"


def xnnpack(content):
    names = ("pad", "stem", "first", "depthwise", "second", "mean", "head")
    return dict(zip(names, device(content, "xnnpack").operators, strict=True))


def test_xnnpack_runs_sparse_what_is_stored_so():
    found = xnnpack(device_files.in_sparse_form())
    assert [name for name, op in found.items() if op.is_sparse] == ["first", "second", "head"]
    kernels = device_files.kernels()
    for name in ("first", "second", "head"):
        assert found[name].zeros == pytest.approx(np.mean(kernels[name] == 0))
    assert found["stem"].reason == "begins the part that runs sparse, and is dense itself"
    assert found["depthwise"].reason == "in the part that runs sparse, with no zeros to skip"
    report = device(device_files.in_sparse_form(), "xnnpack")
    assert report.runs_sparse
    assert "3 of 7 operators run by sparse kernels" in str(report)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (device_files.in_floats, "no weights are stored in sparse form"),
        (device_files.in_int8, "is of int8; the sparse kernels are of floats"),
    ],
)
def test_xnnpack_files_that_run_dense(content, reason):
    report = device(content(), "xnnpack")
    assert not report.runs_sparse
    assert report.operators[-1].reason.startswith(reason)


def options(model, place):
    """Returns the options of a convolution, in the order of the file."""
    codes = [max(c.builtinCode, c.deprecatedBuiltinCode) for c in model.operatorCodes]
    kinds = (schema.BuiltinOperator.CONV_2D, schema.BuiltinOperator.DEPTHWISE_CONV_2D)
    found = [op for op in model.subgraphs[0].operators if codes[op.opcodeIndex] in kinds]
    return found[place].builtinOptions


def with_strides(model, place, strides):
    options(model, place).strideH = options(model, place).strideW = strides


def with_dilation(model, place):
    options(model, place).dilationHFactor = 2


def with_another_output(model):
    graph = model.subgraphs[0]
    (first,) = [op.outputs[0] for op in graph.operators if op.builtinOptions is options(model, 1)]
    graph.outputs = [*graph.outputs, first]


def without_zeros(model):
    for tensor in model.subgraphs[0].tensors:
        if list(tensor.shape) == [64, 1, 1, 64] and model.buffers[tensor.buffer].data is not None:
            ones = np.ones((64, 64), np.float32)
            model.buffers[tensor.buffer].data = np.frombuffer(ones.tobytes(), np.uint8)


@pytest.mark.parametrize(
    ("name", "edit", "reasons"),
    [
        (
            "strides 1 of the stem",
            lambda model: with_strides(model, 0, 1),
            {"stem": r"3x3 with strides \(1, 1\)", "first": "from CONV_2D", "head": "from MEAN"},
        ),
        (
            "strides 2 of a 1x1 convolution",
            lambda model: with_strides(model, 1, 2),
            {
                "stem": "CONV_2D of its part is read by CONV_2D, not by a mean over positions",
                "first": r"1x1 with strides \(2, 2\)",
                "second": "from outside of a part that could run sparse, from DEPTHWISE_CONV_2D",
            },
        ),
        (
            "a dilated depthwise convolution",
            lambda model: with_dilation(model, 2),
            {"first": "read by DEPTHWISE_CONV_2D", "depthwise": "takes 3x3 or 5x5, padded alike"},
        ),
        (
            "strides 2 of a depthwise convolution, which TensorFlow pads on one side",
            lambda model: with_strides(model, 2, 2),
            {"depthwise": r"3x3 with strides \(2, 2\), padding \(\(0, 0\), \(0, 0\)\)"},
        ),
        (
            "an output from inside",
            with_another_output,
            {"first": "read by the file, as an output, not by that part alone", "head": "as an"},
        ),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_keeps_a_part_from_running_sparse(name, edit, reasons):
    found = xnnpack(device_files.edited(device_files.in_sparse_form(), edit))
    assert not any(op.is_sparse for op in found.values())
    for operator, reason in reasons.items():
        assert re.search(reason, found[operator].reason), found[operator].reason


def test_two_thirds_of_the_zeros_of_a_part_count():
    found = xnnpack(device_files.edited(device_files.in_floats(), without_zeros))
    kernels = device_files.kernels()
    zeros = sum(np.sum(kernels[name] == 0) for name in ("first", "head"))
    share = zeros / (8 * 64 + 64 * 64 + 64 * 16)
    assert found["second"].zeros == 0.0
    assert found["head"].reason == (
        f"{share:.1%} of the 1x1 kernels of its part are zeros, not more than 2/3"
    )
