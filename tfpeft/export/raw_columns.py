"""Operators on raw inputs that stay in float32, as 8 bits lose a column of what they read."""

_STEPS = 16
"""A column that gets fewer of the 256 steps is lost."""
_TO_WHOLE = (
    "EQUAL",
    "NOT_EQUAL",
    "GREATER",
    "GREATER_EQUAL",
    "LESS",
    "LESS_EQUAL",
    "FLOOR",
    "ROUND",
)


def raw_columns(graph):
    """Returns names of tensors to make in float32, as 8 bits lose a column of what they read.

    Columns of a table may be unlike, such as ages and incomes: one scale for all leaves the small
    ones without a step. Operators that work column by column, such as those of `Normalization`,
    stay in float32 up to the one that makes the columns alike; numbers that stand for categories
    up to where they become integers.

    Returns:
        Two sets: the above, and what else reads such columns, which a file may need in float32.
    """
    raw = graph.raw_tensors()
    above = {}  # tensor -> names of the operators between the inputs and it
    alike, readers = set(), set()
    for op in graph.operators:
        read = [tensor for tensor in op.inputs if tensor in raw]
        if not read:
            continue
        names = {graph.name(tensor) for tensor in op.outputs}
        names = names.union(*(above.get(tensor, ()) for tensor in read))
        above.update(dict.fromkeys(op.outputs, names))
        if op.name in _TO_WHOLE or (op.name == "CAST" and not graph.is_float(op.outputs[0])):
            alike |= names
        elif any(_loses_a_column(graph, tensor) for tensor in read):
            stays = any(_loses_a_column(graph, tensor) for tensor in op.outputs)
            is_alike = op.outputs[0] in raw and not stays
            (alike if is_alike else readers).update(names)
    return alike, readers


def _loses_a_column(graph, tensor):
    if tensor not in graph.columns:
        return False
    low, high = graph.columns[tensor]
    widths = (high - low)[high > low]
    step = (max(0.0, graph.high[tensor]) - min(0.0, graph.low[tensor])) / 255
    return bool(widths.size) and widths.min() < _STEPS * step
