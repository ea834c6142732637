"""Ranges of tensors that follow from those of others: what only moves, scales or cuts values."""

import numpy as np

_MOVES = (
    *("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "STRIDED_SLICE", "SLICE", "GATHER"),
    *("MAX_POOL_2D", "BROADCAST_TO", "TILE", "SPLIT", "UNPACK", "REDUCE_MAX", "MIRROR_PAD"),
    *("SPACE_TO_BATCH_ND", "BATCH_TO_SPACE_ND", "PAD"),
)
_CUTS = {"RELU": (0.0, np.inf), "RELU6": (0.0, 6.0), "RELU_N1_TO_1": (-1.0, 1.0)}
_FIXED = {"LOGISTIC": (0.0, 255 / 256), "SOFTMAX": (0.0, 255 / 256), "TANH": (-1.0, 127 / 128)}
_CHOICES = ("MAXIMUM", "MINIMUM", "SELECT", "SELECT_V2")
_ARITHMETIC = {"ADD": np.add, "SUB": np.subtract, "MUL": np.multiply, "DIV": np.divide}


def complete_ranges(graph):
    """Gives ranges to the tensors of a `FloatGraph` whose values follow from a range.

    Forwards: values that are moved; cut, as by a ReLU; scaled or shifted by constants, for which
    the range is that of all columns; and those of which TFLite fixes the range. Backwards: what is
    only moved, or only cut, needs the range of what becomes of it.
    """
    for op in graph.operators:
        _forward(graph, op)
    for op in reversed(graph.operators):
        _backward(graph, op)
    for op in graph.operators:
        _forward(graph, op)


def unite_ranges(graph):
    """Gives what chooses between tensors, such as a maximum, and these tensors one range.

    The quantizer gives the inputs the range of the output, and other operators that read them
    would find their values cut.
    """
    choices = [op for op in graph.operators if op.name in _CHOICES]
    for _ in choices:  # of those in a row, the last reaches the first
        for op in choices:
            known = [t for t in (*op.inputs, *op.outputs) if t in graph.low]
            ranges = [_range(graph, t) for t in (*known, *op.inputs) if graph.is_float(t)]
            ranges = [each for each in ranges if each is not None and np.isfinite(each).all()]
            if known and ranges:
                low, high = (
                    side(ends)
                    for side, ends in zip((min, max), zip(*ranges, strict=True), strict=True)
                )
                graph.set_ranges(dict.fromkeys(known, (low, high)))


def _forward(graph, op):
    known = [_range(graph, tensor) for tensor in op.inputs if graph.is_float(tensor)]
    if any(graph.is_float(t) and t in graph.low for t in op.outputs) or not known:
        return
    if op.name in _FIXED:
        low, high = _FIXED[op.name]
    elif None in known:
        return
    elif op.name in _MOVES:
        (low, high), *_ = known
        low, high = (min(low, 0.0), max(high, 0.0)) if op.name == "PAD" else (low, high)
    elif op.name in _CUTS:
        low, high = np.clip(known[0], *_CUTS[op.name])
    elif op.name in _ARITHMETIC and len(known) == 2:
        constants = [graph.constant(tensor) for tensor in op.inputs]
        if all(constant is None for constant in constants):
            return
        sides = [
            np.array(known[i])[:, None] if constants[i] is None else constants[i].reshape(1, -1)
            for i in range(2)
        ]
        with np.errstate(divide="ignore", invalid="ignore"):
            values = _ARITHMETIC[op.name](*sides)
        low, high = float(values.min()), float(values.max())
    else:
        return
    if np.isfinite([low, high]).all():
        graph.set_ranges({t: (float(low), float(high)) for t in op.outputs if graph.is_float(t)})


def _backward(graph, op):
    if op.name not in (*_MOVES, *_CUTS) or op.outputs[0] not in graph.low:
        return
    source = op.inputs[0]
    readers = [each for each in graph.operators if source in each.inputs]
    is_open = graph.is_float(source) and source not in graph.low
    if is_open and len(readers) == 1 and graph.constant(source) is None:
        output = op.outputs[0]
        graph.set_ranges({source: (graph.low[output], graph.high[output])})


def _range(graph, tensor):
    """Returns the range of a tensor; None if it is not known."""
    constant = graph.constant(tensor)
    if constant is not None:
        return float(constant.min()), float(constant.max())
    return (graph.low[tensor], graph.high[tensor]) if tensor in graph.low else None
