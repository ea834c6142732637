"""A float .tflite file with Embedding and Dense weights of 4 bits, by litert-quantizer."""

import contextlib
import io
import math
import re

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.core.arguments import ExportError, last_cause
from tfpeft.export.embedding_lookups import with_embedding_lookups
from tfpeft.export.file_writing import to_bytes
from tfpeft.export.formats import INT4
from tfpeft.export.tflite_contents import op_name
from tfpeft.export.tflite_file import TFLiteFile

_BLOCK = 32
"""Weights that share a scale; those of a row whose length is no multiple share one."""
_FEWEST = 1024
"""Numbers of a layer that is quantized; the converter, too, leaves smaller ones in float32."""
_QUANTIZED = (
    *("BATCH_MATMUL", "CONV_2D", "CONV_2D_TRANSPOSE", "DEPTHWISE_CONV_2D"),
    *("EMBEDDING_LOOKUP", "FULLY_CONNECTED"),
)


def write_int4(path, check):
    """Replaces a float file by one with weights of 4 bits.

    Args:
        path: The float file.
        check: A `Check`.

    Returns:
        The `Deviation` of the file, and a note on how much of it is in 4 bits.

    Raises:
        ExportError: if no layer has weights of 4 bits, or the file lost what the check does not
            allow.
    """
    in_4_bits = INT4[check.quantization]
    path.write_bytes(_quantized(with_embedding_lookups(path.read_bytes()), in_4_bits))
    file = TFLiteFile(path)
    numbers = _numbers_in_4_bits(file.content)
    if not numbers:
        layer = "Embedding or Dense" if "FULLY_CONNECTED" in in_4_bits else "Embedding"
        raise ExportError(
            f"Cannot write {check.model.name!r} with quantization={check.quantization!r}, expected "
            f"a layer {layer} of {_FEWEST:,} weights or more. Received: a model without"
        )
    deviation = check.measure(path)
    if not check.allows(deviation):
        raise check.error(deviation, None)
    return deviation, [f"{numbers / file.contents.parameters:.0%} of the weights in 4 bits"]


def _quantized(content, in_4_bits):
    """Returns the bytes of the quantized file; `in_4_bits` are names of operators."""
    from litert_quantizer import quantizer  # late: an optional package

    try:
        made = quantizer.Quantizer(content, _recipe(content, in_4_bits))
        with contextlib.redirect_stderr(io.StringIO()):  # of a large model, it draws progress bars
            result = made.quantize(enable_progress_report=False)
        return _with_inner_constants(bytes(result.quantized_model))
    except Exception as error:  # whatever litert-quantizer raises
        raise ExportError(
            'Cannot quantize the model to 4 bits, expected quantization="dynamic_range" or a model '
            f"of layers that litert-quantizer takes. Received: {last_cause(error)}"
        ) from error


def _with_inner_constants(content):
    """Returns the bytes of a file whose constants are all where other tools look for them.

    Of a large model, the quantizer writes them behind the graphs, with their places in the file.
    """
    model = schema.ModelT.InitFromPackedBuf(content)
    outer = [buffer for buffer in model.buffers if buffer.offset > 1]
    for buffer in outer:
        buffer.data = np.frombuffer(content, np.uint8, buffer.size, buffer.offset)
        buffer.offset = buffer.size = 0
    return to_bytes(model) if outer else content


def _recipe(content, in_4_bits):
    """Returns the recipe for a file: 4 bits in blocks where these fit, else per row; or 8 bits."""
    from litert_quantizer import qtyping  # late: an optional package
    from litert_quantizer.algorithm_manager import AlgorithmName
    from litert_quantizer.recipe_manager import RecipeManager

    recipe = RecipeManager()

    def add(scopes, name, bits, granularity=qtyping.QuantGranularity.CHANNELWISE):
        weights = qtyping.TensorQuantizationConfig(bits, granularity=granularity)
        config = qtyping.OpQuantizationConfig(
            weight_tensor_config=weights,
            compute_precision=qtyping.ComputePrecision.INTEGER,
            min_weight_elements=_FEWEST,
        )
        # Clipped, the weights of a matrix lose less in the sum; a row of a table is read alone.
        is_clipped = bits == 4 and name == "FULLY_CONNECTED"
        algorithm = AlgorithmName.OCTAV if is_clipped else AlgorithmName.MIN_MAX_UNIFORM_QUANT
        recipe.add_quantization_config(scopes, qtyping.TFLOperationName[name], config, algorithm)

    for name in _QUANTIZED:
        add(".*", name, 4 if name in in_4_bits else 8)
    for name, scopes in _scopes_of_blocks(content, in_4_bits).items():
        # The quantizer calls an operator by its outputs.
        pattern = f"^(?:{'|'.join(map(re.escape, scopes))});$"
        add(pattern, name, 4, qtyping.QuantGranularity.BLOCKWISE_32)
    return recipe.get_quantization_recipe()


def _scopes_of_blocks(content, in_4_bits):
    """Returns {operator: names of the outputs} of those whose weights are rows of whole blocks."""
    model = schema.ModelT.InitFromPackedBuf(content)
    found = {}
    for graph in model.subgraphs:
        for op in graph.operators or []:
            name = op_name(model.operatorCodes[op.opcodeIndex])
            # Both have their weights, or the table, as the second input: (rows, row).
            if name in in_4_bits and graph.tensors[op.inputs[1]].shape[-1] % _BLOCK == 0:
                output = graph.tensors[op.outputs[0]].name.decode()
                found.setdefault(name, []).append(output)
    return found


def _numbers_in_4_bits(content):
    """Returns how many numbers the constants of 4 bits have; shared ones count once."""
    model = schema.ModelT.InitFromPackedBuf(content)
    sizes = {
        tensor.buffer: math.prod(map(int, tensor.shape))
        for graph in model.subgraphs
        for tensor in graph.tensors
        if tensor.type == schema.TensorType.INT4
    }
    return sum(sizes.values())
