"""What the bytes of a .tflite file hold: operators, constants, multiply-accumulates."""

import dataclasses
import functools
import gzip
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.metadata import read_metadata
from tfpeft.export.tflite_constants import is_scaled, shape_of, stored_values, zero_of
from tfpeft.export.tflite_graph import Graph

_BORDER = ("QUANTIZE", "DEQUANTIZE", "DENSIFY")
_LOOPS = ("WHILE", "IF", "CALL_ONCE", "UNIDIRECTIONAL_SEQUENCE_LSTM", "UNIDIRECTIONAL_SEQUENCE_RNN")
_INTEGERS = (schema.TensorType.INT32, schema.TensorType.INT64, schema.TensorType.BOOL)
_CONVERTED, _IN_ORDER = b"MLIR Converted.", b"MLIR, in order."
"""Descriptions that the converter writes, and that `with_inputs_in_order` puts in its place."""
_OP_NAMES = {v: k for k, v in vars(schema.BuiltinOperator).items() if isinstance(v, int)}


@dataclasses.dataclass(frozen=True)
class Contents:
    """What a whole file holds, all its signatures together.

    Attributes:
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        ops: {operator name: how many there are}.
        int8_share: Fraction in [0, 1] of the operators whose outputs are int8; QUANTIZE,
            DEQUANTIZE and DENSIFY do not count, nor do operators that compute shapes, in int32.
        int16_share: The same of int16.
        parameters: Numbers among the constants; shapes and axes, which are integers without a
            scale, do not count. Constants that several signatures share count once.
        nonzero_parameters: Parameters that do not stand for zero.
    """

    size_bytes: int
    gzip_bytes: int
    ops: dict
    int8_share: float
    parameters: int
    nonzero_parameters: int
    int16_share: float = 0.0


class Flatbuffer:
    """The parsed bytes of a file: its graphs, operators and constants.

    Parsing damaged bytes, and reading what was parsed of them, may raise any exception.
    """

    def __init__(self, content):
        self._content = content
        self._model = schema.ModelT.InitFromPackedBuf(content)
        self._codes = [op_name(code) for code in self._model.operatorCodes]

    def contents(self):
        """Returns the `Contents` of the file."""
        ops, compute, in_int8, in_int16 = {}, 0, 0, 0
        for graph in self._model.subgraphs:
            for op in graph.operators or []:
                name = self._name(op)
                ops[name] = ops.get(name, 0) + 1
                types = {graph.tensors[i].type for i in op.outputs}
                if name not in _BORDER and not types <= set(_INTEGERS):
                    compute += 1
                    in_int8 += types == {schema.TensorType.INT8}
                    in_int16 += types == {schema.TensorType.INT16}
        parameters, nonzero_parameters = self._count_parameters()
        return Contents(
            size_bytes=len(self._content),
            gzip_bytes=len(gzip.compress(self._content, 9)),
            ops=ops,
            int8_share=in_int8 / compute if compute else 0.0,
            parameters=parameters,
            nonzero_parameters=nonzero_parameters,
            int16_share=in_int16 / compute if compute else 0.0,
        )

    @functools.cached_property
    def graphs(self):
        """The `Graph`s of the file: its operators with their tensors."""
        names = {}  # index of a graph -> the signatures that run it
        for signature in self._model.signatureDefs or []:
            key = signature.signatureKey.decode()
            names.setdefault(signature.subgraphIndex, []).append(key)
        main = names or {0: []}
        return [
            Graph(self._model, i, self._codes, main.get(i, []), is_main=i in main)
            for i in range(len(self._model.subgraphs))
        ]

    def inputs(self, index):
        """Returns the inputs of the graph `index` in the model's order; None if it is not known."""
        is_ordered = self._model.description == _IN_ORDER
        return [int(t) for t in self._model.subgraphs[index].inputs] if is_ordered else None

    def metadata(self):
        """Returns {signature: ({output: labels}, {input: (means, standard deviations)})}."""
        return read_metadata(self._model, self._content)

    def is_softmax(self, index):
        """Whether the first output of the graph `index` comes from a SOFTMAX."""
        return self.last_operator(index) == "SOFTMAX"

    def last_operator(self, index, tensor=None):
        """Returns the name of the operator that makes an output of the graph `index`, or None.

        Those that change only shape and type are passed over.

        Args:
            tensor: The index of the output; None for the first one.
        """
        graph = self._model.subgraphs[index]
        makers = {output: op for op in graph.operators or [] for output in op.outputs}
        tensor = graph.outputs[0] if tensor is None else tensor
        while tensor in makers:
            name = self._name(makers[tensor])
            if name not in ("RESHAPE", *_BORDER):
                return name
            tensor = makers[tensor].inputs[0]
        return None

    def is_sparse(self):
        """Whether a constant is encoded as a sparse one."""
        graphs = self._model.subgraphs
        return any(tensor.sparsity is not None for graph in graphs for tensor in graph.tensors)

    def is_countable(self, index):
        """Whether the MACs of the graph `index` follow from the shapes of its tensors."""
        names = [self._name(op) for op in self._model.subgraphs[index].operators or []]
        return not any(name in _LOOPS or name.startswith("custom") for name in names)

    def macs(self, index, shapes):
        """Returns the multiply-accumulates of the graph `index`, of {tensor index: shape}."""
        total = 0
        for op in self._model.subgraphs[index].operators or []:
            inputs = [shapes[i] if i >= 0 else [] for i in op.inputs]
            output = math.prod(shapes[op.outputs[0]])
            match self._name(op):
                case "CONV_2D" | "FULLY_CONNECTED":  # kernels (out, ..., in)
                    total += output * math.prod(inputs[1][1:])
                case "DEPTHWISE_CONV_2D":  # (1, height, width, out)
                    total += output * math.prod(inputs[1][1:3])
                case "CONV_3D":  # (depth, height, width, in, out)
                    total += output * math.prod(inputs[1][:4])
                case "TRANSPOSE_CONV":  # inputs: the shape, the kernel, the values
                    total += math.prod(inputs[2]) * math.prod(inputs[1][:3])
                case "BATCH_MATMUL":
                    total += output * inputs[0][-2 if op.builtinOptions.adjX else -1]
        return total

    def _name(self, op):
        return self._codes[op.opcodeIndex]

    def _count_parameters(self):
        """Returns how many numbers the constants have, and how many of them are not zero."""
        parameters = nonzero = 0
        counted = set()
        for graph in self._model.subgraphs:
            constants = {
                i: graph.tensors[i]
                for op in graph.operators or []
                for i in op.inputs
                if i >= 0 and graph.tensors[i].buffer not in counted
            }
            for tensor in constants.values():
                count, count_nonzero = _count(tensor, self._model.buffers[tensor.buffer].data)
                parameters += count
                nonzero += count_nonzero
                counted.add(tensor.buffer)
        return parameters, nonzero


def with_inputs_in_order(content, names):
    """Returns the bytes of a file whose graphs list their inputs in the order of `names`.

    Signatures give the inputs by name, so that the order is free. The description of the file
    says that they are in order.
    """
    content = bytearray(content)
    place = content.find(_CONVERTED)
    if place >= 0:
        content[place : place + len(_CONVERTED)] = _IN_ORDER
    model = schema.Model.GetRootAs(content)
    for i in range(model.SignatureDefsLength()):
        signature = model.SignatureDefs(i)
        maps = [signature.Inputs(j) for j in range(signature.InputsLength())]
        tensors = {entry.Name().decode(): entry.TensorIndex() for entry in maps}
        inputs = model.Subgraphs(signature.SubgraphIndex()).InputsAsNumpy()
        inputs[:] = [tensors[name] for name in names if name in tensors]
    return bytes(content)


def op_name(code):
    """Returns the name of an operator code, such as "CONV_2D" or "custom Betainc"."""
    builtin = max(code.builtinCode, code.deprecatedBuiltinCode)
    if builtin == schema.BuiltinOperator.CUSTOM:
        return f"custom {code.customCode.decode()}"
    return _OP_NAMES[builtin]


def _count(tensor, data):
    """Returns (numbers, numbers that are not zero) of a constant; (0, 0) if it is none."""
    if data is None or len(data) == 0 or (tensor.type in _INTEGERS and not is_scaled(tensor)):
        return 0, 0
    values = stored_values(tensor, data)
    if values is None:
        return 0, 0
    return math.prod(shape_of(tensor)), int(np.count_nonzero(values != zero_of(tensor)))
