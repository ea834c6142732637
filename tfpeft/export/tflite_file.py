"""A .tflite file: what it holds, and running it."""

import dataclasses
import gzip
import math
import pathlib

import keras
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tfpeft.core.arguments import invalid

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

    All but the last two are of the whole file, whatever its signatures.

    Attributes:
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        ops: Operator name -> how many there are.
        int8_share: Fraction in [0, 1] of the operators that answer in int8; QUANTIZE and
            DEQUANTIZE do not count, nor does what computes shapes, in int32.
        parameters: Numbers among the constants; shapes and axes, which are integers without a
            scale, do not count. What several signatures share counts once.
        nonzero_parameters: Those that do not stand for zero.
        macs: Multiply-accumulates of one sample in convolutions and matrix products; None where
            the file does not tell: loops, custom operators, free sides other than the batch;
            several signatures, and none was asked for.
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


def inspect(path, *, sample=None, signature=None):
    """Returns the `Contents` of the file at `path`.

    Args:
        path: The file.
        sample: Inputs of one sample, as `predict` takes them, for the MACs of a file whose sides
            are free, such as the length of a text.
        signature: Of a file of several, the one whose MACs and end are told.

    Raises:
        ValueError: if there is no file, it is not a .tflite file, or lacks that signature.
    """
    content = read(path)
    if signature is not None:
        signature = choose(path, signature)
    try:
        return _contents(content, path, sample, signature)
    except Exception as error:  # whatever reading bytes at random places may raise
        raise ValueError(
            f"Expected a .tflite file. Received: {path}, which is damaged "
            f"({type(error).__name__}: {error})"
        ) from error


def _contents(content, path, sample, signature):
    model = schema.ModelT.InitFromPackedBuf(content)
    codes = [_op_name(code) for code in model.operatorCodes]
    ops, compute, in_int8 = {}, 0, 0
    parameters = nonzero = 0
    counted = set()
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
                if index >= 0 and graph.tensors[index].buffer not in counted:
                    weights[index] = graph.tensors[index]
        for tensor in weights.values():
            count, count_nonzero = _count(tensor, model.buffers[tensor.buffer].data)
            parameters += count
            nonzero += count_nonzero
            counted.add(tensor.buffer)
    macs, is_softmax = None, False
    graphs = {each.signatureKey.decode(): each.subgraphIndex for each in model.signatureDefs or []}
    if signature is not None or len(graphs) < 2:
        graph = model.subgraphs[graphs.get(signature, next(iter(graphs.values()), 0))]
        is_softmax = _is_softmax(graph, codes)
        names = {codes[op.opcodeIndex] for op in graph.operators or []}
        if not any(name in _LOOPS or name.startswith("custom") for name in names):
            macs = _macs(content, path, graph, codes, sample, signature)
    return Contents(
        size_bytes=len(content),
        gzip_bytes=len(gzip.compress(content, 9)),
        ops=ops,
        int8_share=in_int8 / compute if compute else 0.0,
        parameters=parameters,
        nonzero_parameters=nonzero,
        macs=macs,
        is_softmax=is_softmax,
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
    loaded = _load(read(path), path)
    try:
        loaded.allocate_tensors()
    except (ValueError, RuntimeError) as error:
        raise _not_built_in(path, error) from error
    return loaded


def _load(content, path, **options):
    try:
        return Interpreter(model_content=content, num_threads=1, **options)
    except (ValueError, RuntimeError) as error:
        raise _not_built_in(path, error) from error


def _not_built_in(path, error):
    return ValueError(f"Expected a .tflite file of built-in operators. Received: {path}: {error}")


def choose(path, signature=None):
    """Returns the name of the signature that runs: the only one, or of several the one named.

    A file without signatures has None. Raises ValueError where a file of several has none of
    that name.
    """
    return _choose(_load(read(path), path), path, signature)


def _choose(loaded, path, signature):
    names = list(loaded.get_signature_list())
    if len(names) < 2:
        return names[0] if names else None
    if signature not in names:
        raise invalid("signature", f"one of {names}, which {path} has", signature)
    return signature


def predict(path, x, *, batch_size=256, signature=None):
    """Returns the output (samples, ...) of a file, or of a signature of it, in float32.

    Inputs and outputs of a file that is integer throughout are converted by its own scales.

    Args:
        path: The file.
        x: An array; for several inputs a dict, tuple or list of them.
        batch_size: Samples a run, unless the file insists on a batch.
        signature: Which, of a file that has several.
    """
    return run(interpreter(path), path, x, batch_size=batch_size, signature=signature)


def run(loaded, path, x, *, batch_size=256, signature=None):
    """The same as `predict`, by an interpreter of the file that is there already."""
    return Program(loaded, path, signature).predict(x, batch_size)


class Program:
    """What an interpreter runs for one signature of its file.

    Attributes:
        graph: Index of the subgraph.
        batch: The batch that the file insists on; None if it is free.
    """

    def __init__(self, loaded, path, signature=None):
        name = _choose(loaded, path, signature)
        self._loaded, self._path = loaded, path
        if name is None:
            self.graph = 0
            self._inputs = dict(enumerate(loaded.get_input_details()))
            self._outputs = loaded.get_output_details()
        else:
            runner = loaded.get_signature_runner(name)
            self.graph = loaded._interpreter.GetSubgraphIndexFromSignature(name)
            self._inputs = runner.get_input_details()
            self._outputs = list(runner.get_output_details().values())
        self._shapes = {
            name: tuple(int(side) for side in details["shape_signature"])
            for name, details in self._inputs.items()
        }
        firsts = {side for shape in self._shapes.values() for side in shape[:1]}
        self.batch = max(firsts - {-1}, default=None)

    def arrange(self, x):
        """Returns name -> array of the inputs, checked; a file may list them in any order.

        `export_tflite` numbers inputs as `keras.tree` flattens them. Other files have one, or
        names that are the keys of a dict.
        """
        arrays = keras.tree.flatten(x)
        names = [f"input_{i}" for i in range(len(arrays))]
        if len(self._inputs) == 1:
            names = list(self._inputs)
        elif isinstance(x, dict) and set(names) != set(self._inputs):
            names = sorted(x)
        fits = len(names) == len(arrays) and set(names) == set(self._inputs)
        if not fits or not all(map(self._fits, names, arrays)):
            wanted = {name: shape[1:] for name, shape in self._shapes.items()}
            received = keras.tree.map_structure(lambda each: each.shape[1:], x)
            raise ValueError(
                f"Expected inputs of shape {wanted}, as {self._path} names them. "
                f"Received: {received}"
            )
        return dict(zip(names, arrays, strict=True))

    def _fits(self, name, array):
        shape = self._shapes[name]
        return len(shape) == array.ndim and all(
            side in (-1, given) for side, given in zip(shape[1:], array.shape[1:], strict=True)
        )

    def zeros(self):
        """Returns inputs of zeros; a side that is free, other than the batch, is a ValueError."""
        return {
            name: np.zeros([*(abs(side) for side in shape[:1]), *shape[1:]])
            for name, shape in self._shapes.items()
        }

    def feed(self, batch):
        """Sets the inputs by name; too few samples for the file are filled with their first."""
        values = {}
        for name, details in self._inputs.items():
            each = _quantize(batch[name], details)
            missing = (self.batch or 0) - len(each) if each.ndim else 0
            if missing > 0:
                each = np.concatenate([each, *[each[:1]] * missing])
            values[details["index"]] = each
        # The public calls that resize, set and run know the first graph only, and a runner
        # of a signature cannot be timed without them.
        inner = self._loaded._interpreter
        for index, each in values.items():
            inner.ResizeInputTensor(index, np.array(each.shape, "int32"), False, self.graph)
        inner.AllocateTensors(self.graph)
        for index, each in values.items():
            inner.SetTensor(index, each, self.graph)

    def invoke(self):
        """Runs on the inputs that are set."""
        self._loaded._interpreter.Invoke(self.graph)

    def predict(self, x, batch_size):
        """Returns the output for x, in float32."""
        if len(self._outputs) != 1:
            raise ValueError(
                f"Expected a file of one output. Received: {self._path} with {len(self._outputs)}"
            )
        inputs = self.arrange(x)
        samples = len(next(iter(inputs.values())))
        step = self.batch or batch_size
        answers = []
        for start in range(0, samples, step):
            self.feed({name: each[start : start + step] for name, each in inputs.items()})
            self.invoke()
            answer = self._loaded.get_tensor(self._outputs[0]["index"], self.graph)
            answers.append(_dequantize(answer, self._outputs[0]))
        return np.concatenate(answers)[:samples]


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


def _macs(content, path, graph, codes, sample, signature):
    """Counts at the shapes that the tensors have while the file runs.

    The file itself writes 1 for every side that follows from a free batch, also where it is a
    multiple of it. Returns None where the shape of an input is not known, or does not fit.
    """
    loaded = _load(
        content,
        path,
        experimental_preserve_all_tensors=True,
        # A delegate would take tensors out of the graph.
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    program = Program(loaded, path, signature)
    try:
        program.feed(program.zeros() if sample is None else program.arrange(sample))
        program.invoke()
    except (ValueError, RuntimeError):  # not of this shape: `predict` says so in clear words
        return None
    details = loaded.get_tensor_details(program.graph)
    run_shapes = {each["index"]: each["shape"].tolist() for each in details}
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
    return total // (program.batch or 1)
