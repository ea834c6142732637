"""Ranges that a quantise-aware model marks in its float file, taken out of the graph again.

A mark is a pair QUANTIZE, DEQUANTIZE, as the converter writes FakeQuant operators.
"""

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.file_writing import to_bytes
from tfpeft.export.tflite_contents import op_name

_FLOAT32 = schema.TensorType.FLOAT32


def take_marks(content):
    """Returns the bytes of a file without its marks, and the ranges that they gave.

    Args:
        content: The bytes of a float file.

    Returns:
        Bytes, and {index of a graph: {tensor: (low, high)}}.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    codes = [op_name(code) for code in model.operatorCodes]
    ranges = {}
    for index, graph in enumerate(model.subgraphs):
        ranges[index], sources = _take(graph, codes)
        for signature in model.signatureDefs or []:
            if signature.subgraphIndex == index:
                for entry in signature.outputs or []:
                    entry.tensorIndex = sources.get(entry.tensorIndex, entry.tensorIndex)
    _drop_unused_codes(model)
    return to_bytes(model), ranges


def _take(graph, codes):
    """Takes the marks out of a graph; returns {tensor: range} and {marked tensor: tensor}."""
    ranges, sources, kept = {}, {}, []
    for op in graph.operators:
        name = codes[op.opcodeIndex]
        op.inputs = np.array([sources.get(int(t), int(t)) for t in op.inputs], np.int32)
        output = int(op.outputs[0])
        if name == "QUANTIZE":
            sources[output] = int(op.inputs[0])
            ranges.setdefault(sources[output], _range(graph.tensors[output].quantization))
        elif name == "DEQUANTIZE" and graph.tensors[int(op.inputs[0])].type == _FLOAT32:
            sources[output] = int(op.inputs[0])
        else:
            kept.append(op)
            for tensor in op.outputs:
                # The converter moves what only moves values into a mark.
                if graph.tensors[int(tensor)].type == schema.TensorType.UINT8:
                    ranges[int(tensor)] = _range(graph.tensors[int(tensor)].quantization)
                    graph.tensors[int(tensor)].type = _FLOAT32
                    graph.tensors[int(tensor)].quantization = None
    graph.operators = kept
    graph.outputs = np.array([sources.get(int(t), int(t)) for t in graph.outputs], np.int32)
    return ranges, sources


def _drop_unused_codes(model):
    """Drops operator codes that no operator has: some interpreters ask for each that is listed."""
    operators = [op for graph in model.subgraphs for op in graph.operators]
    used = sorted({op.opcodeIndex for op in operators})
    model.operatorCodes = [model.operatorCodes[index] for index in used]
    for op in operators:
        op.opcodeIndex = used.index(op.opcodeIndex)


def _range(quantization):
    scale, zero = float(quantization.scale[0]), int(quantization.zeroPoint[0])
    return -zero * scale, (255 - zero) * scale
