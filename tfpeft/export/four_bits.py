"""Weights of 4 bits in an integer file, two of them in a byte."""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.file_writing import to_bytes
from tfpeft.export.tflite_contents import op_name

_WEIGHTS = {"CONV_2D": 1, "DEPTHWISE_CONV_2D": 1, "FULLY_CONNECTED": 1, "TRANSPOSE_CONV": 1}
"""{operator: which input its weights are}."""
_PACKED = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
"""Operators that read two weights from one byte."""
_RATIO = 7 / 127


def with_four_bit_weights(content):
    """Returns the bytes of a file whose weights are on a grid of 15 steps, stored in 4 bits.

    The converter writes such weights in 8 bits, `q8 = round(q4 * 127 / 7)`. They become
    `q4 = round(q8 * 7 / 127)` with the step `s4 = s8 * 127 / 7`, and the bias, whose step is that
    of the inputs times that of the weights, is scaled likewise. Where an operator does not read
    two weights from a byte, they stay in bytes.

    Args:
        content: The bytes of an int8 file.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    codes = [op_name(code) for code in model.operatorCodes]
    found = {}  # by graph and number, as layers that are called twice share weights and not biases
    for index, graph in enumerate(model.subgraphs):
        for op in graph.operators or []:
            name = codes[op.opcodeIndex]
            if name not in _WEIGHTS:
                continue
            weights, *bias = [int(t) for t in op.inputs[_WEIGHTS[name] :]]
            bias = [int(op.inputs[3])] if name == "TRANSPOSE_CONV" and len(op.inputs) > 3 else bias
            if not _is_on_grid(graph.tensors[weights], model):
                continue
            found[index, weights] = graph.tensors[weights], np.int8, name in _PACKED
            for number in bias[:1]:
                if number >= 0:
                    found[index, number] = graph.tensors[number], np.int32, False
    written = set()  # buffers, which tensors may share
    for tensor, dtype, is_packed in found.values():
        if tensor.buffer not in written:
            written.add(tensor.buffer)
            _rescale(model.buffers[tensor.buffer], dtype, is_packed)
        tensor.quantization.scale = np.asarray(tensor.quantization.scale, np.float32) / _RATIO
        if is_packed:
            tensor.type = schema.TensorType.INT4
    return to_bytes(model)


def _is_on_grid(tensor, model):
    data = model.buffers[tensor.buffer].data
    if tensor.type != schema.TensorType.INT8 or data is None:
        return False
    values = np.asarray(data, np.uint8).view(np.int8).astype(np.int32)
    return bool(np.all(values == np.round(np.round(values * _RATIO) / _RATIO)))


def _rescale(buffer, dtype, is_packed):
    """Scales the integers of a buffer by 7 / 127, and packs two of them into a byte."""
    values = np.asarray(buffer.data, np.uint8).view(dtype)
    values = np.round(values * _RATIO).astype(dtype)
    buffer.data = values.view(np.uint8)
    if is_packed:
        values = np.append(values, np.zeros(values.size % 2, np.int8)).view(np.uint8) & 15
        buffer.data = values[0::2] | (values[1::2] << 4)
