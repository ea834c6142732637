"""The parts of a graph that XNNPACK runs sparse on ARM, and what keeps others from it.

The rules are those of https://github.com/google/XNNPACK, src/subgraph.c, of 2026: a part is what is
connected by its activations. It begins with a 3x3 convolution of 3 channels, all that its operators
read comes from inside, only it reads that, and it ends with a mean over positions, or
DEPTH_TO_SPACE.
"""

import dataclasses

import numpy as np

from tfpeft.core.xnnpack import LEAST_ZEROS, is_depthwise, is_first, is_pointwise

_BEGINS, _INSIDE, _ENDS, _INSIDE_OR_END = range(4)
_UNARY = frozenset(
    (
        *("ABS", "CEIL", "COS", "ELU", "EXP", "FLOOR", "GELU", "HARD_SWISH", "LEAKY_RELU", "LOG"),
        *("LOGISTIC", "NEG", "RELU", "RELU6", "RELU_N1_TO_1", "ROUND", "RSQRT", "SIN", "SQRT"),
        *("SQUARE", "TANH"),
    )
)
_SAME = 0  # padding, as the schema writes it


@dataclasses.dataclass(frozen=True, eq=False)
class Node:
    """An operator as XNNPACK has it: a PAD before a convolution is a part of that.

    Attributes:
        op: The `Operator`.
        reads: The activations that it reads.
        padding: ((top, bottom), (left, right)) that a PAD adds; zeros without one.
    """

    op: object
    reads: list
    padding: tuple = ((0, 0), (0, 0))


def is_unpacking(op):
    """Whether an operator only unpacks a constant, of float16 or of sparse form."""
    return op.name in ("DEQUANTIZE", "DENSIFY") and bool(op.constants)


def sparse_nodes(graph):
    """Returns the `Node`s of a graph."""
    unpacked = {tensor for op in graph.operators if is_unpacking(op) for tensor in op.outputs}
    fused, nodes = {}, []  # {what a PAD writes: the PAD}
    for op in graph.operators:
        if is_unpacking(op):
            continue
        if _is_fused(op):
            fused[op.outputs[0]] = op
            continue
        reads = [tensor for tensor in op.activations if tensor not in unpacked]
        pad = fused.get(reads[0]) if reads else None
        if pad is None:
            nodes.append(Node(op, reads))
            continue
        (_, *sides, _) = pad.inputs[1].values.tolist()
        nodes.append(Node(op, [pad.inputs[0], *reads[1:]], tuple(map(tuple, sides))))
    return nodes


def _is_fused(op):
    """Whether an operator is a PAD of two sides that one convolution without padding reads."""
    readers = op.graph.readers(op.outputs[0]) if op.name == "PAD" else []
    if len(readers) != 1 or op.outputs[0] in op.graph.outputs:
        return False
    (reader,) = readers
    if reader.name not in ("CONV_2D", "DEPTHWISE_CONV_2D") or reader.options.padding == _SAME:
        return False
    sides = op.inputs[1].values
    return sides is not None and sides.shape == (4, 2) and not sides[[0, 3]].any()


def part_reasons(graph, nodes):
    """Returns {node: why XNNPACK does not skip the zeros of its kernel; None if it does}."""
    roles = {node: _role(node) for node in nodes}
    makers = {tensor: node for node in nodes for tensor in node.op.outputs}
    parts, reasons = {}, {}
    for node in nodes:
        role, reason = roles[node]
        if role is None:
            reasons[node] = reason
            continue
        producers = [makers.get(tensor) for tensor in node.reads] if role != _BEGINS else []
        outer = [p for p in producers if p not in parts or roles[p][0] == _ENDS]
        if outer or (role != _BEGINS and not producers):
            source = "the file" if not outer or outer[0] is None else outer[0].op.name
            reasons[node] = f"reads from outside of a part that could run sparse, from {source}"
            continue
        parts[node] = [node]
        for producer in producers:
            _join(parts, node, producer)
    is_hinted = any(op.name == "DENSIFY" for op in graph.operators)
    for part in {id(part): part for part in parts.values()}.values():
        problem = _problem(graph, nodes, part, roles)
        if problem is None and not is_hinted:
            problem = "no weights are stored in sparse form, so LiteRT asks for no sparse kernels"
        for node in part:
            reasons[node] = problem or _why_dense(node, roles[node][0])
    return reasons


def _join(parts, node, other):
    """Makes one part of those of two nodes."""
    ours, theirs = parts[node], parts[other]
    if ours is not theirs:
        theirs += ours
        parts.update(dict.fromkeys(ours, theirs))


def _problem(graph, nodes, part, roles):
    """Returns what keeps a part from running sparse; None if nothing does."""
    for node in part:
        may_end = roles[node][0] in (_ENDS, _INSIDE_OR_END) or node.op.name == "FULLY_CONNECTED"
        for tensor in node.op.outputs:
            readers = [other for other in nodes if any(t is tensor for t in other.reads)]
            inside = [other for other in readers if other in part and roles[other][0] != _BEGINS]
            others = [other.op.name for other in readers if other not in inside]
            others += ["the file, as an output"] if tensor in graph.outputs else []
            if others and (inside or not may_end):
                expected = "that part alone" if inside else "a mean over positions first"
                return f"{node.op.name} of its part is read by {others[0]}, not by {expected}"
    kernels = [graph.kernel(node.op) for node in part if _has_zeros(node, roles[node][0])]
    size = sum(kernel.size for kernel in kernels)
    zeros = sum(int(np.count_nonzero(kernel.values == 0)) for kernel in kernels)
    if zeros <= LEAST_ZEROS * size:
        share = zeros / max(size, 1)
        return f"{share:.1%} of the 1x1 kernels of its part are zeros, not more than 2/3"
    return None


def _has_zeros(node, role):
    return role != _BEGINS and node.op.name in ("CONV_2D", "FULLY_CONNECTED")


def _why_dense(node, role):
    """Returns why a node of a part that runs sparse has no zeros to skip; None if it has."""
    if role == _BEGINS:
        return "begins the part that runs sparse, and is dense itself"
    return None if _has_zeros(node, role) else "in the part that runs sparse, with no zeros to skip"


def _role(node):
    """Returns where in a part a node may be, or None and why in none."""
    op = node.op
    tensors = [tensor for tensor in (*op.inputs, *op.outputs) if tensor is not None]
    kernel = op.graph.kernel(op)
    numbers = [t for t in tensors if "float" in t.dtype or t.is_quantized]
    integer = [t.dtype for t in (*numbers, *([kernel] if kernel else [])) if "float" not in t.dtype]
    if integer:
        return None, f"is of {integer[0]}; the sparse kernels are of floats"
    match op.name:
        case "CONV_2D" | "DEPTHWISE_CONV_2D":
            return _role_of_convolution(node, kernel)
        case "FULLY_CONNECTED" if kernel is not None:
            return _INSIDE, None
        case "ADD" | "MUL" if all(_is_by_channel(tensor) for tensor in op.inputs):
            return _INSIDE, None
        case "MEAN" | "SUM" if _is_over_positions(op):
            return _INSIDE_OR_END, None
        case "DEPTH_TO_SPACE":
            return _ENDS, None
        case "RESIZE_BILINEAR" if min(op.inputs[0].shape[1:3]) > 1:
            return _INSIDE, None
    if op.name in _UNARY and len(op.inputs[0].shape) == 4:
        return _INSIDE, None
    shapes = ", ".join(str(list(tensor.free)) for tensor in op.activations)
    return None, f"no operator of a sparse part, on {shapes}"


def _role_of_convolution(node, kernel):
    if kernel is None:
        return None, "its kernel is no constant"
    op, options = node.op, node.op.options
    strides = options.strideH, options.strideW
    dilation = options.dilationHFactor, options.dilationWFactor
    sides, channels = kernel.shape[1:3], op.inputs[0].shape[-1]
    padding = node.padding
    if options.padding == _SAME and strides == (1, 1):
        padding = tuple(((side - 1) // 2, side // 2) for side in sides)
    text = f"{sides[0]}x{sides[1]} with strides {strides}, padding {padding}"
    if op.name == "DEPTHWISE_CONV_2D":
        if is_depthwise(sides, strides, dilation, padding, kernel.shape[3] // channels):
            return _INSIDE, None
        return None, f"{text}; a sparse part takes 3x3 or 5x5, padded alike, strides 1 or 2"
    groups = channels // kernel.shape[3]
    if is_pointwise(sides, strides, dilation, groups) and not np.any(padding):
        return _INSIDE, None
    if groups == 1 and {*dilation} == {1} and is_first(sides, channels, strides, padding):
        return _BEGINS, None
    return None, f"{text}; a sparse part takes 1x1, or 3x3 on 3 channels with strides 2 at first"


def _is_by_channel(tensor):
    """Whether a tensor has four sides; of a constant, one of them may be longer than 1."""
    is_wide = tensor.is_constant and sum(side != 1 for side in tensor.shape) > 1
    return len(tensor.shape) == 4 and not is_wide


def _is_over_positions(op):
    axes = op.inputs[1].values
    is_plane = axes is not None and {int(axis) % 4 for axis in np.ravel(axes)} == {1, 2}
    return is_plane and len(op.inputs[0].shape) == 4
