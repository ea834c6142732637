"""Why an operator of a .tflite file computes in float, as far as the file itself shows it."""

_BORDER = ("QUANTIZE", "DEQUANTIZE", "DENSIFY")
_NOT_IN_INT8 = frozenset(
    (
        *("ADD_N", "ATAN2", "CAST", "CEIL", "COMPLEX_ABS", "CONV_3D", "COS", "CUMSUM", "ELU"),
        *("FLOOR", "FLOOR_DIV", "FLOOR_MOD", "LOCAL_RESPONSE_NORMALIZATION", "NEG", "POW"),
        *("RFFT2D", "ROUND", "SIGN", "SIN", "SQUARE"),
    )
)
"""What the converter of TensorFlow 2.21 left in float when each of 76 functions of TensorFlow was
converted to int8 alone."""


def is_float(op):
    """Whether an operator computes in float; QUANTIZE and its like only convert."""
    return op.name not in _BORDER and any("float" in tensor.dtype for tensor in op.outputs)


def is_quantized(op):
    """Whether all real numbers that an operator computes are integers."""
    return op.name not in _BORDER and bool(op.outputs) and all(t.is_quantized for t in op.outputs)


def float_reason(op, graphs):
    """Returns why an operator computes in float; None if it does not.

    Args:
        op: The `Operator`.
        graphs: All `Graph`s of the file.
    """
    if not is_float(op):
        return None
    if op.name.startswith("custom"):
        return "a custom operator, which is not quantized"
    kernel = op.graph.kernel(op)
    if not any(is_quantized(other) for graph in graphs for other in graph.operators):
        return _of_float_file(kernel, graphs)
    if not op.graph.is_main:
        return "inside of a loop, which the converter does not quantize"
    if op.name == "WHILE":
        return "a loop, which the converter does not quantize"
    if op.name in _NOT_IN_INT8:
        return f"the converter has no {op.name} in int8"
    source = _float_source(op)
    if source is not None:
        return source
    return "all its inputs are int8: it was left out, or its output has no range"


def _of_float_file(kernel, graphs):
    if kernel is not None and kernel.dtype in ("int8", "int4"):
        return f"dynamic range: weights in {kernel.dtype}, activations in float32"
    if kernel is not None and kernel.dtype == "float16":
        return "weights in float16, activations in float32"
    constants = [t for graph in graphs for t in graph.tensors if t.is_constant]
    if any(tensor.is_quantized or tensor.dtype == "float16" for tensor in constants):
        return "the file has activations in float32"
    return "nothing in the file is quantized"


def _float_source(op):
    """Returns where float inputs come from; None if all of them were int8 just before."""
    for tensor in op.activations:
        if "float" not in tensor.dtype:
            continue
        maker = op.graph.makers.get(tensor)
        if maker is None:
            return f"its input {tensor.name} is {tensor.dtype}, an input of the file"
        if maker.name not in _BORDER:
            return f"its input comes from {maker.name}, which is in float"
    return None
