"""Bias correction: the mean error of what int8 layers compute, taken out of their biases."""

import collections

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from tensorflow.lite.python import convert as tflite_convert

from tfpeft.export.file_writing import to_bytes
from tfpeft.export.samples import stacked
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.export.weighted import constant, weighted_operators

SAMPLES = 100
"""The mean error of a layer differs little between samples, and each layer takes a run of them."""
_KINDS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")
_PADDINGS = {schema.Padding.SAME: "SAME", schema.Padding.VALID: "VALID"}


def correct_biases(path, exact, samples, batch_size):
    """Corrects the biases of an int8 file in place; returns how many layers it corrected.

        b_c <- b_c + mean(float output_c) - mean(int8 output_c)

    of the outputs before the activation, over samples and positions, layer by layer in the order
    of the graph, so that a layer reads what the corrected ones before it compute. Outputs before
    the activation are linear in what the layer reads, so their means are those of one convolution,
    of the mean of the inputs.

    Args:
        path: The int8 file.
        exact: The float `TFLiteFile` that it was made of.
        samples: Lists of arrays (1, ...) in the order of the inputs.
        batch_size: How many samples run together, of a file with a free batch.
    """
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes())
    floats = schema.ModelT.InitFromPackedBuf(exact.content)
    corrected = 0
    for signature in exact.signatures:
        program = exact.observed(signature)
        graph = floats.subgraphs[program.graph]
        # The quantizer shuffles the inputs.
        batches = [
            dict(zip(program.inputs, arrays, strict=True))
            for arrays in stacked(samples[:SAMPLES], program.batch or batch_size)
        ]
        index = TFLiteFile(path).signature(signature).graph
        pairs = _pairs(floats, graph, model, model.subgraphs[index])
        inputs = _means(program, [ours.values for ours, _ in pairs], batches)
        for ours, theirs in pairs:
            expected = _output(floats, graph, ours, inputs[ours.values])
            program = TFLiteFile(path).observed(signature)
            found = _means(program, [theirs.values], batches)[theirs.values]
            found = _output(model, model.subgraphs[index], theirs, found)
            _add(model, model.subgraphs[index], theirs, expected - found)
            path.write_bytes(to_bytes(model))
            corrected += 1
    path.write_bytes(tflite_convert.deduplicate_readonly_buffers(path.read_bytes()))
    return corrected


def _pairs(floats, float_graph, model, graph):
    """Returns (float operator, int8 operator) of the layers that are in int8."""
    left = [
        operator
        for operator in weighted_operators(model, graph)
        if operator.name in _KINDS
        and graph.tensors[operator.values].type == schema.TensorType.INT8
        and graph.tensors[operator.kernel].type == schema.TensorType.INT8
    ]
    pairs = []
    for ours in weighted_operators(floats, float_graph):
        kernel = constant(floats, float_graph, ours.kernel)
        # The quantizer numbers some names anew.
        theirs = next((o for o in left if _is_quantized(model, graph, o, ours, kernel)), None)
        if theirs is not None:
            left.remove(theirs)
            pairs.append((ours, theirs))
    return pairs


def _is_quantized(model, graph, operator, other, kernel):
    """Whether an int8 operator has the kernel of a float one, to rounding."""
    if operator.name != other.name:
        return False
    found = _dequantized(model, graph, operator.kernel)
    if found.shape != kernel.shape:
        return False
    step = max(graph.tensors[operator.kernel].quantization.scale)
    return bool(np.all(np.abs(found - kernel) <= 0.51 * step))


def _means(program, tensors, batches):
    """Returns {tensor: its mean over the first axis, which stays}, in float32."""
    sums, counts = dict.fromkeys(tensors, 0.0), collections.Counter()
    for inputs in batches:
        program.feed(inputs)
        program.invoke()
        for tensor in sums:
            values = program.values_of(tensor)
            sums[tensor] = sums[tensor] + values.sum(axis=0, keepdims=True, dtype=np.float64)
            counts[tensor] += len(values)
    return {t: (total / counts[t]).astype(np.float32) for t, total in sums.items()}


def _output(model, graph, operator, inputs):
    """Returns the mean per channel of what an operator computes before its activation."""
    kernel = _dequantized(model, graph, operator.kernel)
    options = operator.op.builtinOptions
    if operator.name == "FULLY_CONNECTED":
        outputs = inputs.reshape(-1, kernel.shape[-1]) @ kernel.T
    else:
        strides = [1, options.strideH, options.strideW, 1]
        padding = _PADDINGS[options.padding]
        dilations = [options.dilationHFactor, options.dilationWFactor]
        if operator.name == "CONV_2D":
            kernel = np.transpose(kernel, (1, 2, 3, 0))
            outputs = tf.nn.conv2d(inputs, kernel, strides, padding, dilations=dilations)
        else:
            kernel = kernel.reshape(*kernel.shape[1:3], inputs.shape[-1], -1)
            outputs = tf.nn.depthwise_conv2d(inputs, kernel, strides, padding, dilations=dilations)
        outputs = outputs.numpy()
    outputs = outputs.reshape(-1, outputs.shape[-1]).mean(axis=0)
    has_bias = constant(model, graph, operator.bias) is not None
    return outputs + _dequantized(model, graph, operator.bias) if has_bias else outputs


def _dequantized(model, graph, index):
    values = constant(model, graph, index)
    if values.dtype == np.float32:
        return values
    quantization = graph.tensors[index].quantization
    scales = np.asarray(quantization.scale, np.float32)
    shape = [1] * values.ndim
    shape[quantization.quantizedDimension] = len(scales)
    return values.astype(np.float32) * scales.reshape(shape)


def _add(model, graph, operator, change):
    """Adds to the bias of an int8 operator, which gets one of its own."""
    before = constant(model, graph, operator.bias)
    if before is None or _uses(graph, operator.bias) > 1:
        _give_bias(graph, operator, len(change))
    tensor = graph.tensors[operator.bias]
    steps = change / np.asarray(tensor.quantization.scale, np.float64)
    after = np.round(steps) + (0 if before is None else before)
    limits = np.iinfo(np.int32)
    buffer = schema.BufferT()  # layers share one of zeros
    buffer.data = np.clip(after, limits.min, limits.max).astype(np.int32).view(np.uint8)
    model.buffers.append(buffer)
    tensor.buffer = len(model.buffers) - 1


def _uses(graph, tensor):
    return sum(tensor in op.inputs for op in graph.operators)


def _give_bias(graph, operator, channels):
    """Gives an operator a bias without values: in int32, with the scale of its sums."""
    kernel, values = graph.tensors[operator.kernel], graph.tensors[operator.values]
    scales = np.asarray(kernel.quantization.scale) * values.quantization.scale[0]
    tensor = schema.TensorT()
    tensor.name = kernel.name + b"/bias"
    tensor.type, tensor.shape = schema.TensorType.INT32, np.array([channels], np.int32)
    tensor.quantization = schema.QuantizationParametersT()
    tensor.quantization.scale = scales.astype(np.float32)
    tensor.quantization.zeroPoint = np.zeros(len(scales), np.int64)
    graph.tensors.append(tensor)
    operator.bias = len(graph.tensors) - 1
    operator.op.inputs = np.array([*list(operator.op.inputs)[:2], operator.bias], np.int32)
