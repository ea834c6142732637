"""A .tflite file: what it holds, and running it."""

import dataclasses
import gzip
import math
import pathlib

import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

_BORDER = ("QUANTIZE", "DEQUANTIZE")
_LOOPS = ("WHILE", "IF", "CALL_ONCE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN")
_INTEGERS = (schema.TensorType.INT32, schema.TensorType.INT64, schema.TensorType.BOOL)
_NUMPY = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
_OP_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a file holds.

    Attributes:
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        ops: Operator name -> how many there are.
        int8_share: Fraction in [0, 1] of the operators that answer in int8; QUANTIZE and
            DEQUANTIZE do not count, nor does what computes shapes, in int32.
        parameters: Numbers among the constants; shapes and axes, which are integers without a
            scale, do not count.
        nonzero_parameters: Those that do not stand for zero.
        macs: Multiply-accumulates of one sample in convolutions and matrix products; None where
            the file does not tell: loops, custom operators, free sides other than the batch.
        is_softmax: Whether what it answers comes from a SOFTMAX.
    """

    size_bytes: int
    gzip_bytes: int
    ops: dict
    int8_share: float
    parameters: int
    nonzero_parameters: int
    macs: int | None
    is_softmax: bool


def inspect(path, *, sample_shape=None):
    """Returns the `Contents` of the file at `path`.

    Args:
        path: The file.
        sample_shape: Shape of one sample, for the MACs of a file of one input whose sides are
            free, such as the length of a text.

    Raises:
        ValueError: if there is no file, or it is not a .tflite file.
    """
    content = read(path)
    try:
        return _contents(content, sample_shape)
    except Exception as error:  # whatever reading bytes at random places may raise
        raise ValueError(
            f"Expected a .tflite file. Received: {path}, which is damaged "
            f"({type(error).__name__}: {error})"
        ) from error


def _contents(content, sample_shape):
    model = schema.ModelT.InitFromPackedBuf(content)
    codes = [_op_name(code) for code in model.operatorCodes]
    ops, compute, in_int8 = {}, 0, 0
    parameters = nonzero = 0
    for graph in model.subgraphs:
        weights = {}
        for op in graph.operators or []:
            name = codes[op.opcodeIndex]
            ops[name] = ops.get(name, 0) + 1
            types = {graph.tensors[i].type for i in op.outputs}
            if name not in _BORDER and not types <= set(_INTEGERS):
                compute += 1
                in_int8 += types == {schema.TensorType.INT8}
            for index in op.inputs:
                weights[index] = graph.tensors[index] if index >= 0 else None
        for tensor in weights.values():
            if tensor is not None:
                count, count_nonzero = _count(tensor, model.buffers[tensor.buffer].data)
                parameters += count
                nonzero += count_nonzero
    untold = any(name in _LOOPS or name.startswith("custom") for name in ops)
    return Contents(
        size_bytes=len(content),
        gzip_bytes=len(gzip.compress(content, 9)),
        ops=ops,
        int8_share=in_int8 / compute if compute else 0.0,
        parameters=parameters,
        nonzero_parameters=nonzero,
        macs=None if untold else _macs(content, model.subgraphs[0], codes, sample_shape),
        is_softmax=_is_softmax(model.subgraphs[0], codes),
    )


def read(path):
    """Returns the bytes of a .tflite file, its mark checked."""
    path = pathlib.Path(path)
    if not path.is_file():
        raise ValueError(f"Expected a .tflite file. Received: {path}, which is not there")
    content = path.read_bytes()
    if content[4:8] != b"TFL3":
        raise ValueError(f"Expected a .tflite file. Received: {path}, which is something else")
    return content


def interpreter(path):
    """Returns an Interpreter for the file, on one thread."""
    content = read(path)
    try:
        loaded = Interpreter(model_content=content, num_threads=1)
        loaded.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise ValueError(
            f"Expected a file of built-in operators. Received: {path}: {error}"
        ) from error
    return loaded


def predict(path, x, *, batch_size=256):
    """Returns the outputs (samples, ...) of a file with one input and one output, in float32.

    Inputs and outputs of a file that is integer throughout are converted by its own scales.
    """
    return run(interpreter(path), path, x, batch_size=batch_size)


def run(loaded, path, x, *, batch_size=256):
    """The same as `predict`, by an interpreter of the file that is there already."""
    inputs, outputs = loaded.get_input_details(), loaded.get_output_details()
    if len(inputs) != 1 or len(outputs) != 1:
        raise ValueError(
            "Expected a file of one input and one output. "
            f"Received: {path} with {len(inputs)} and {len(outputs)}"
        )
    signature = [int(side) for side in inputs[0]["shape_signature"]]
    fits = len(signature) == x.ndim and all(
        side in (-1, wanted) for side, wanted in zip(signature[1:], x.shape[1:], strict=True)
    )
    if not fits:
        raise ValueError(
            f"Expected inputs of shape {tuple(signature[1:])}, as {path} has. "
            f"Received: {x.shape[1:]}"
        )
    step = fixed_batch(loaded) or batch_size
    answers = []
    for start in range(0, len(x), step):
        batch = x[start : start + step]
        feed(loaded, batch)
        loaded.invoke()
        answer = loaded.get_tensor(outputs[0]["index"])
        answers.append(_dequantize(answer, outputs[0])[: len(batch)])
    return np.concatenate(answers)


def fixed_batch(loaded):
    """Returns the batch that an interpreter's file insists on, or None if it is free."""
    details = loaded.get_input_details()[0]
    first = [int(side) for side in details["shape_signature"][:1]]
    return None if first in ([], [-1]) else first[0]


def feed(loaded, batch):
    """Sets the one input; a batch that is too small for the file is filled with its first."""
    details = loaded.get_input_details()[0]
    missing = max((fixed_batch(loaded) or 0) - len(batch), 0)
    batch = np.concatenate([batch, np.repeat(batch[:1], missing, axis=0)])
    if tuple(details["shape"]) != batch.shape:
        loaded.resize_tensor_input(details["index"], batch.shape)
        loaded.allocate_tensors()
    loaded.set_tensor(details["index"], _quantize(batch, details))


def _quantize(values, details):
    scale, zero_point = details["quantization"]
    if not scale or np.issubdtype(details["dtype"], np.floating):
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    steps = np.round(values / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values, details):
    scale, zero_point = details["quantization"]
    if not scale or np.issubdtype(details["dtype"], np.floating):
        return values.astype("float32")
    return (values.astype("float32") - zero_point) * np.float32(scale)


def _op_name(code):
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return f"custom {code.customCode.decode()}"
    return _OP_NAMES[builtin]


def _shape(tensor):
    """Python integers: NumPy's would overflow in products, and are no JSON."""
    return [int(side) for side in tensor.shape] if tensor.shape is not None else []


def _is_scaled(tensor):
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return scales is not None and len(scales) > 0


def _is_softmax(graph, codes):
    """Looks through what may stand between a SOFTMAX and the end."""
    makers = {index: op for op in graph.operators or [] for index in op.outputs}
    index = graph.outputs[0]
    while index in makers:
        name = codes[makers[index].opcodeIndex]
        if name not in ("RESHAPE", *_BORDER):
            return name == "SOFTMAX"
        index = makers[index].inputs[0]
    return False


def _count(tensor, data):
    """Returns how many numbers a constant holds and how many are not zero; (0, 0) if it is none."""
    if data is None or len(data) == 0 or (tensor.type in _INTEGERS and not _is_scaled(tensor)):
        return 0, 0
    size = math.prod(_shape(tensor))
    data = np.asarray(data, np.uint8)
    if tensor.type == schema.TensorType.INT4:
        values = np.stack([data & 15, data >> 4], axis=-1).reshape(-1)[:size]
    elif tensor.type in _NUMPY:
        values = data.view(_NUMPY[tensor.type])
    else:
        return 0, 0
    zero_points = tensor.quantization.zeroPoint if _is_scaled(tensor) else None
    zero = int(zero_points[0]) if zero_points is not None and len(zero_points) else 0
    # A sparsely encoded tensor stores its non-zeros (and their padding) only.
    return size, int(np.count_nonzero(values != zero))


def _run_shapes(content, sample_shape):
    """Returns the batch, and the shape that each tensor has while the file runs, by its index.

    The file itself writes 1 for every side that follows from a free batch, also where it is a
    multiple of it. Returns (None, None) where the shape of the input is not known, or does not
    fit.
    """
    loaded = Interpreter(
        model_content=content,
        num_threads=1,
        experimental_preserve_all_tensors=True,
        # A delegate would take tensors out of the graph.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    inputs = loaded.get_input_details()
    for details in inputs:
        shape = [int(side) for side in details["shape_signature"]]
        shape[:1] = [1 if side == -1 else side for side in shape[:1]]
        if -1 in shape[1:]:
            if sample_shape is None or len(inputs) != 1:
                return None, None
            shape[1:] = sample_shape
        loaded.resize_tensor_input(details["index"], shape)
    try:
        loaded.allocate_tensors()
        for details in loaded.get_input_details():
            loaded.set_tensor(details["index"], np.zeros(details["shape"], details["dtype"]))
        loaded.invoke()
    except (ValueError, RuntimeError):  # not of this shape: `predict` says so in clear words
        return None, None
    batch = fixed_batch(loaded) or 1
    shapes = {each["index"]: each["shape"].tolist() for each in loaded.get_tensor_details()}
    return batch, shapes


def _macs(content, graph, codes, sample_shape):
    batch, run_shapes = _run_shapes(content, sample_shape)
    if run_shapes is None:
        return None
    total = 0
    for op in graph.operators or []:
        shapes = [run_shapes[i] if i >= 0 else [] for i in op.inputs]
        output = math.prod(run_shapes[op.outputs[0]])
        match codes[op.opcodeIndex]:
            case "CONV_2D" | "FULLY_CONNECTED":  # kernels (out, ..., in)
                total += output * math.prod(shapes[1][1:])
            case "DEPTHWISE_CONV_2D":  # (1, height, width, out)
                total += output * math.prod(shapes[1][1:3])
            case "CONV_3D":  # (depth, height, width, in, out)
                total += output * math.prod(shapes[1][:4])
            case "TRANSPOSE_CONV":  # inputs: the shape, the kernel, the values
                total += math.prod(shapes[2]) * math.prod(shapes[1][:3])
            case "BATCH_MATMUL":
                total += output * shapes[0][-2 if op.builtinOptions.adjX else -1]
    return total // batch
