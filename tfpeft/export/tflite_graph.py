"""The operators of a .tflite file, and the tensors that each reads and writes."""

import dataclasses
import functools
import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.tflite_constants import dense_values, is_scaled, shape_of, zero_of

_TYPES = {v: k.lower() for k, v in vars(schema.TensorType).items() if isinstance(v, int)}
_UNPACKING = ("DEQUANTIZE", "DENSIFY")
_KERNEL_AXIS = {  # operator -> (which input is its kernel, the axis of the output channels)
    "CONV_2D": (1, 0),
    "CONV_3D": (1, 4),
    "DEPTHWISE_CONV_2D": (1, 3),
    "FULLY_CONNECTED": (1, 0),
    "TRANSPOSE_CONV": (1, 0),
}


class Tensor:
    """A tensor of a graph.

    Args:
        index: Its number in the graph.
        tensor: The tensor of the schema.
        data: The bytes of its buffer; None if it has none.

    Attributes:
        index: As above.
        buffer: The number of its buffer, which tensors may share.
        name: Its name; a tensor of fused operators has the names of all, "a/MatMul;b/Relu".
        dtype: Its type in TFLite's words: "float32", "int8", "int4".
        shape: Its shape; 1 is also written where a side is free.
        free: The same, with -1 for free sides.
        scales: Its scales: none, one, or one per channel.
        channel_axis: The axis of the channels, if there are several scales; else None.
        is_constant: Whether the file holds its values.
        is_sparse: Whether it is stored in sparse form.
        stored_bytes: Bytes of its values in the file.
    """

    def __init__(self, index, tensor, data):
        self._tensor, self._data = tensor, data
        self.index, self.buffer = index, int(tensor.buffer)
        self.name = (tensor.name or b"").decode(errors="replace")
        self.dtype = _TYPES.get(tensor.type, f"type {tensor.type}")
        self.shape = shape_of(tensor)
        free = tensor.shapeSignature
        self.free = tuple(map(int, free)) if free is not None and len(free) else self.shape
        self.scales = tuple(map(float, tensor.quantization.scale)) if is_scaled(tensor) else ()
        self.is_constant = data is not None and len(data) > 0
        self.is_sparse = tensor.sparsity is not None
        self.stored_bytes = len(data) if self.is_constant else 0

    @property
    def channel_axis(self):
        return int(self._tensor.quantization.quantizedDimension) if len(self.scales) > 1 else None

    @property
    def zero(self):
        """The stored value that stands for zero."""
        return zero_of(self._tensor)

    @property
    def scale_bytes(self):
        """Bytes of its scales, zero points and ranges in the file."""
        parts = self._tensor.quantization
        if parts is None:
            return 0
        sizes = ((parts.scale, 4), (parts.zeroPoint, 8), (parts.min, 4), (parts.max, 4))
        return sum(size * len(_or_empty(numbers)) for numbers, size in sizes)

    @property
    def size(self):
        """How many numbers it has."""
        return math.prod(self.shape)

    @property
    def is_quantized(self):
        """Whether it holds real numbers as integers."""
        return bool(self.scales) and "float" not in self.dtype

    @functools.cached_property
    def values(self):
        """The values of a constant, an array of its shape; None for types without numbers."""
        return dense_values(self._tensor, self._data) if self.is_constant else None


@dataclasses.dataclass(frozen=True, eq=False)
class Operator:
    """An operator.

    Attributes:
        name: "CONV_2D", or "custom NAME".
        graph: The `Graph` that it is in.
        inputs: Its `Tensor`s; None where one is left out.
        outputs: Its `Tensor`s.
        options: The options of the schema, such as strides; None without any.
    """

    name: str
    graph: "Graph"
    inputs: list
    outputs: list
    options: object

    @property
    def activations(self):
        """The inputs that are no constants."""
        return [tensor for tensor in self.inputs if tensor is not None and not tensor.is_constant]

    @property
    def constants(self):
        """The inputs that are constants."""
        return [tensor for tensor in self.inputs if tensor is not None and tensor.is_constant]


class Graph:
    """A graph of a parsed file.

    Args:
        model: A `schema.ModelT`.
        index: Which graph of the file.
        codes: The names of its operator codes.
        signatures: The names of the signatures that run it.
        is_main: Whether it is run from outside, and is not that of a loop.

    Attributes:
        index, signatures, is_main: As above.
        tensors: Its `Tensor`s.
        operators: Its `Operator`s, producers before consumers.
        inputs: Its input `Tensor`s.
        outputs: Its output `Tensor`s.
        makers: {tensor: the operator that writes it}.
    """

    def __init__(self, model, index, codes, signatures, *, is_main):
        graph = model.subgraphs[index]
        self.index, self.signatures, self.is_main = index, signatures, is_main
        self.tensors = [
            Tensor(i, tensor, model.buffers[tensor.buffer].data)
            for i, tensor in enumerate(graph.tensors)
        ]
        self.inputs, self.outputs = self._named(graph.inputs), self._named(graph.outputs)
        self.operators = [
            Operator(
                codes[op.opcodeIndex],
                self,
                self._named(op.inputs),
                self._named(op.outputs),
                op.builtinOptions,
            )
            for op in graph.operators or []
        ]
        self.makers = {tensor: op for op in self.operators for tensor in op.outputs}

    def _named(self, indices):
        return [self.tensors[i] if i >= 0 else None for i in map(int, _or_empty(indices))]

    def readers(self, tensor):
        """Returns the operators that read a tensor."""
        return [op for op in self.operators if any(each is tensor for each in op.inputs)]

    def user(self, op):
        """Returns the operator that uses the constants of `op`: behind a DEQUANTIZE or DENSIFY."""
        while op.name in _UNPACKING and op.constants and self.readers(op.outputs[0]):
            op = self.readers(op.outputs[0])[0]
        return op

    def kernel(self, op):
        """Returns the constant that holds the kernel of an operator, or None.

        It is found behind a DEQUANTIZE (float16) or a DENSIFY (sparse form) as well.
        """
        place, _ = _KERNEL_AXIS.get(op.name, (None, None))
        if place is None or len(op.inputs) <= place:
            return None
        tensor = op.inputs[place]
        while tensor in self.makers and self.makers[tensor].name in _UNPACKING:
            tensor = self.makers[tensor].inputs[0]
        return tensor if tensor is not None and tensor.is_constant else None

    def channel_axes(self):
        """Returns {constant: the axis of its output channels}: of kernels, and by their scales."""
        kernels = {self.kernel(op): _KERNEL_AXIS.get(op.name) for op in self.operators}
        axes = {tensor: place[1] for tensor, place in kernels.items() if tensor is not None}
        scaled = [t for t in self.tensors if t.channel_axis is not None and len(t.shape) > 1]
        return {**axes, **{tensor: tensor.channel_axis for tensor in scaled}}


def _or_empty(indices):
    return np.array([], int) if indices is None else indices
