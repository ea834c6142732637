"""Attention masks in a float graph, clipped to what 8 bits hold beside the scores."""

import numpy as np

from tfpeft.export.float_graph import MASKED

_NEGLIGIBLE = 20.0
"""A softmax gives exp(-20) = 2e-9 to a score that is 20 below the largest; int8 has 1/256."""
_PASSES = (
    "RESHAPE",
    "TRANSPOSE",
    "EXPAND_DIMS",
    "SQUEEZE",
    "BROADCAST_TO",
    "TILE",
    "STRIDED_SLICE",
)


def clip_masks(graph):
    """Narrows what each softmax reads to the scores that count; returns the lowest mask, or 0.

    A softmax gives nothing to a score that is far below the largest of its row. Masks of -1e9, or
    of -infinity, would take all of the 256 steps.
    """
    lowest = 0.0
    for tensor, peak in graph.peaks.items():
        floor, is_masked = peak - _NEGLIGIBLE, graph.low[tensor] < -MASKED
        if is_masked:
            lowest = min(lowest, floor)
        if is_masked or graph.is_read_by_softmax_alone(tensor):
            _clip(graph, tensor, floor)
    return lowest


def _clip(graph, tensor, floor):
    """Lifts the least value of a tensor to `floor`, and of what it is computed from."""
    constant = graph.constant(tensor)
    if constant is not None:
        np.maximum(constant, np.float32(floor), out=constant)
        return
    if graph.low.get(tensor, 0.0) >= floor:
        return
    graph.low[tensor] = floor
    op = graph.makers.get(tensor)
    if op is None:
        return
    if op.name in ("ADD", "MAXIMUM", "MINIMUM"):
        for mask, scores in (op.inputs, op.inputs[::-1]):
            if _least(graph, mask) < -MASKED:
                above = max(0.0, _largest(graph, scores)) if op.name == "ADD" else 0.0
                _clip(graph, mask, floor - above)
    elif op.name == "SUB":
        scores, mask = op.inputs
        if _largest(graph, mask) > MASKED:
            _clip_above(graph, mask, max(0.0, _largest(graph, scores)) - floor)
    elif op.name == "MUL":
        _clip_factors(graph, op, floor)
    elif op.name in ("SELECT", "SELECT_V2"):
        for value in op.inputs[1:]:
            _clip(graph, value, floor)
    elif op.name in _PASSES:
        _clip(graph, op.inputs[0], floor)


def _clip_above(graph, tensor, ceiling):
    """Lowers the largest value of a mask that is subtracted."""
    constant = graph.constant(tensor)
    if constant is not None:
        np.minimum(constant, np.float32(ceiling), out=constant)
        return
    graph.high[tensor] = min(graph.high.get(tensor, ceiling), ceiling)
    op = graph.makers.get(tensor)
    if op is not None and op.name == "MUL":
        _clip_factors(graph, op, ceiling)
    elif op is not None and op.name in _PASSES:
        _clip_above(graph, op.inputs[0], ceiling)


def _clip_factors(graph, op, bound):
    """Makes the large constant of `mask * constant` as large as the bound."""
    for tensor in op.inputs:
        constant = graph.constant(tensor)
        if constant is not None and np.abs(constant).min() > MASKED:
            constant[:] = np.sign(constant) * np.minimum(np.abs(constant), np.float32(abs(bound)))


def _least(graph, tensor):
    constant = graph.constant(tensor)
    return graph.low.get(tensor, 0.0) if constant is None else float(constant.min())


def _largest(graph, tensor):
    constant = graph.constant(tensor)
    return graph.high.get(tensor, 0.0) if constant is None else float(constant.max())
