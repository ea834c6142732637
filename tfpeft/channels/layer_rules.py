"""How channels pass through the layers of Keras: a function per kind of layer.

A rule has the arguments (graph, call, inputs): the `DependencyGraph`, a `core.graph.Call`, and the
`Tagged` of its inputs. It notes which slices of the layer's weights belong to which channels, and
returns the tags along each axis of each output.
"""

import math

import keras
import numpy as np

from tfpeft.channels import attention_rules, moving_rules
from tfpeft.channels.rule_parts import activated, is_elementwise, name_of, only_axis, sides
from tfpeft.core.graph import Call
from tfpeft.core.kernel_axes import parse_einsum

layers = keras.layers


def rule_of(operation):
    """Returns the rule of an operation; None if there is none."""
    return _RULES.get(type(operation)) or moving_rules.rule_of(operation) or _by_name(operation)


def _by_name(operation):
    package = type(operation).__module__.split(".")[0]
    return _BY_NAME.get((package, type(operation).__name__))


def problem_of(layer):
    """Returns why the weights of a layer are not those that its rule knows; None if they are."""
    mode = getattr(layer, "quantization_mode", None)
    if mode:
        return f"is quantized ({mode})"
    if getattr(layer, "lora_enabled", False):
        return "has adapters of Keras (enable_lora)"
    return None


def dense(graph, call, inputs):
    """Dense: kernel (inputs, outputs)."""
    layer, (x,) = call.operation, inputs
    graph.consume(layer, layer.kernel, 0, x.axes[-1])
    made = graph.produce(layer, layer.kernel, 1)
    graph.slice(layer, layer.bias, 0, made, "produces")
    graph.size(layer, "units", made)
    graph.product(sides(x.shape[1:-1]), *_widths(x, -1), made)
    return [activated(graph, layer, (*x.axes[:-1], made))]


def convolution(graph, call, inputs):
    """Conv1D, 2D, 3D: kernel (positions..., inputs of a group, outputs)."""
    layer, (x,) = call.operation, inputs
    axis, out = _channel_axis(layer, x), call.outputs[0].shape
    x = only_axis(graph, layer, x, axis)
    rank, groups = layer.kernel.ndim, layer.groups
    tags = x.axes[axis]
    positions = math.prod(layer.kernel.shape[:-2]) * _positions(out, axis)
    inner = layer.kernel.shape[-2]
    if groups > 1 and inner == 1:  # depthwise: a channel goes with what its group makes
        made = None if tags is None else np.repeat(tags, layer.filters // groups)
        graph.slice(layer, layer.kernel, rank - 1, made, "carries")
        graph.size(layer, "groups", tags)
        graph.product(positions, layer.filters if made is None else made)
    else:
        if groups > 1:  # the same positions in each group
            _tie_groups(graph, tags, groups)
            tags = None if tags is None else tags[:inner]
        graph.consume(layer, layer.kernel, rank - 2, tags)
        made = graph.produce(layer, layer.kernel, rank - 1)
        if groups > 1:
            _tie_groups(graph, made, groups)
        graph.product(positions, inner if tags is None else tags, made)
    graph.slice(layer, layer.bias, 0, made, "produces")
    graph.size(layer, "filters", made)
    return [activated(graph, layer, x.replace(axis, made).axes)]


def transposed_convolution(graph, call, inputs):
    """Conv1DTranspose, 2D, 3D: kernel (positions..., outputs, inputs)."""
    layer, (x,) = call.operation, inputs
    axis = _channel_axis(layer, x)
    x = only_axis(graph, layer, x, axis)
    rank = layer.kernel.ndim
    graph.consume(layer, layer.kernel, rank - 1, x.axes[axis])
    made = graph.produce(layer, layer.kernel, rank - 2)
    graph.slice(layer, layer.bias, 0, made, "produces")
    graph.size(layer, "filters", made)
    positions = math.prod(layer.kernel.shape[:-2]) * _positions(x.shape, axis)
    graph.product(positions, *_widths(x, axis), made)
    return [activated(graph, layer, x.replace(axis, made).axes)]


def depthwise_convolution(graph, call, inputs):
    """DepthwiseConv1D, 2D: kernel (positions..., channels, multiplier)."""
    layer, (x,) = call.operation, inputs
    axis, out = _channel_axis(layer, x), call.outputs[0].shape
    x = only_axis(graph, layer, x, axis)
    tags = x.axes[axis]
    graph.slice(layer, layer.kernel, layer.kernel.ndim - 2, tags, "carries")
    made = None if tags is None else np.repeat(tags, layer.depth_multiplier)
    graph.slice(layer, layer.bias, 0, made, "carries")
    positions = math.prod(layer.kernel.shape[:-2]) * _positions(out, axis)
    graph.product(positions * layer.depth_multiplier, *_widths(x, axis))
    return [activated(graph, layer, x.replace(axis, made).axes)]


def separable_convolution(graph, call, inputs):
    """SeparableConv1D, 2D: depthwise, then pointwise of (1..., channels x multiplier, outputs)."""
    layer, (x,) = call.operation, inputs
    axis, out = _channel_axis(layer, x), call.outputs[0].shape
    x = only_axis(graph, layer, x, axis)
    tags, rank = x.axes[axis], layer.depthwise_kernel.ndim
    graph.slice(layer, layer.depthwise_kernel, rank - 2, tags, "carries")
    inner = None if tags is None else np.repeat(tags, layer.depth_multiplier)
    graph.consume(layer, layer.pointwise_kernel, rank - 2, inner)
    made = graph.produce(layer, layer.pointwise_kernel, rank - 1)
    graph.slice(layer, layer.bias, 0, made, "produces")
    graph.size(layer, "filters", made)
    positions = _positions(out, axis)
    window = math.prod(layer.depthwise_kernel.shape[:-2]) * layer.depth_multiplier
    graph.product(positions * window, *_widths(x, axis))
    graph.product(positions * layer.depth_multiplier, *_widths(x, axis), made)
    return [activated(graph, layer, x.replace(axis, made).axes)]


def einsum_dense(graph, call, inputs):
    """EinsumDense: as the labels of its equation say."""
    layer, (x,) = call.operation, inputs
    labels = parse_einsum(layer.equation)
    if "..." in labels.kernel:
        return graph.stop(call, inputs, "has an equation with an ellipsis in the kernel")
    rank, out_rank = len(x.shape), len(call.outputs[0].shape)
    sources = _labelled(labels.inputs, rank)
    targets = _labelled(labels.outputs, out_rank)
    axes, widths, factor = {}, [], 1
    for label, axis in sources.items():
        axes[label] = x.axes[axis]
    for index, label in enumerate(labels.kernel):
        side = layer.kernel.shape[index]
        if label in sources and label in targets:  # a matrix for each channel
            graph.slice(layer, layer.kernel, index, axes[label], "carries")
        elif label in sources:
            graph.consume(layer, layer.kernel, index, axes[label])
        else:
            axes[label] = graph.produce(layer, layer.kernel, index)
        widths.append(side if axes[label] is None else axes[label])
    for label, axis in sources.items():
        if label in targets and label not in labels.kernel and axis:
            factor *= x.shape[axis] or 1
    graph.product(factor, *widths)
    made = [None] * out_rank
    for label, axis in targets.items():
        made[axis] = axes[label]
    given = layer.get_config()["output_shape"]
    given = (given,) if isinstance(given, int) else tuple(given)
    for index, side in enumerate(given):
        axis = out_rank - len(given) + index
        if side is not None:
            graph.size(layer, "output_shape", made[axis], index)
    if layer.bias is not None:
        # It begins with the first label that it has, and sides of 1 stand for the others.
        spec = labels.outputs.replace("...", "")
        spec = spec[min(map(spec.index, layer.bias_axes)) :]
        for axis, label in enumerate(spec):
            if label in layer.bias_axes:
                graph.slice(layer, layer.bias, axis, made[targets[label]], "produces")
    return [activated(graph, layer, made)]


def _labelled(labels, rank):
    """Returns {label: axis}; the axes of an ellipsis are named by numbers from the left."""
    before, dots, after = labels.partition("...")
    hidden = [str(i) for i in range(rank - len(before) - len(after))] if dots else []
    return {label: axis for axis, label in enumerate([*before, *hidden, *after])}


def embedding(graph, call, inputs):
    """Embedding: table (tokens, channels)."""
    layer = call.operation
    graph.fix(inputs[0], layer, "looks its inputs up")
    made = graph.produce(layer, layer.embeddings, 1)
    graph.size(layer, "output_dim", made)
    return [(*(None,) * len(inputs[0].shape), made)]


def recurrent(gates):
    """Returns the rule of a recurrent layer whose kernels have a block for each of its gates."""

    def rule(graph, call, inputs):
        made, axes = _units(graph, call.operation, call.operation.cell, inputs[0], gates)
        graph.size(call.operation, "units", made)
        for state in _states(call, inputs):
            _join(graph, call.operation, state, made)
        return [(*axes, made), *[(None, made)] * (len(call.outputs) - 1)]

    return rule


def _states(call, inputs):
    """Returns the given initial states; other inputs but the first are masks."""
    pairs = zip(call.inputs[1:], inputs[1:], strict=True)
    return [state for tensor, state in pairs if tensor.dtype != "bool"]


def _units(graph, layer, cell, x, gates):
    """Notes the weights of a cell; returns its channels, and the axes of a sequence before them."""
    x = only_axis(graph, layer, x, 2, "runs over")
    graph.consume(cell, cell.kernel, 0, x.axes[2])
    made = graph.produce(cell, cell.kernel, 1, repeats=gates)
    blocks = np.tile(made, gates)
    graph.slice(cell, cell.recurrent_kernel, 0, made, "consumes")
    graph.slice(cell, cell.recurrent_kernel, 1, blocks, "produces")
    bias = cell.bias
    if bias is not None:
        graph.slice(cell, bias, bias.ndim - 1, blocks, "produces")
    graph.product(gates * (x.shape[1] or 1), *_widths(x, 2), made)
    graph.product(gates * (x.shape[1] or 1), made, made)
    for name in ("activation", "recurrent_activation"):
        function = getattr(cell, name, None)
        if function is not None and not is_elementwise(function):
            graph.fix(made, layer, f"has an activation, {name_of(function)}, over channels")
    return made, (None, None) if layer.return_sequences else (None,)


def bidirectional(graph, call, inputs):
    """Bidirectional: a layer in each direction, joined."""
    layer = call.operation
    parts = (layer.forward_layer, layer.backward_layer)
    if any(type(part) not in _GATES for part in parts):
        return graph.stop(call, inputs, "runs a layer that is not LSTM, GRU or SimpleRNN")
    if _states(call, inputs):
        return graph.stop(call, inputs, "is given initial states")
    made = []
    for part in parts:
        tags, axes = _units(graph, part, part.cell, inputs[0], _GATES[type(part)])
        graph.size(part, "units", tags)
        made.append(tags)
    graph.unite(*made)  # Keras wants both of one width
    if layer.merge_mode is None:
        joined = [(*axes, tags) for tags in made]
    else:
        joined = [(*axes, np.concatenate(made) if layer.merge_mode == "concat" else made[0])]
    states = (len(call.outputs) - len(joined)) // 2
    return [*joined, *[(None, tags) for tags in made for _ in range(states)]]


def time_distributed(graph, call, inputs):
    """TimeDistributed: the rule of the layer inside, without the axis of time."""
    inner, (x,) = call.operation.layer, inputs
    rule = rule_of(inner)
    problem = problem_of(inner)
    if problem:
        return graph.stop(call, inputs, f"runs a layer that {problem}")
    if rule is None or getattr(inner, "layers", None):
        return graph.stop(call, inputs, f"runs a {type(inner).__name__} at each step")
    outputs = [_WithoutTime(tensor) for tensor in call.outputs]
    seen = x._replace(shape=(x.shape[0], *x.shape[2:]), axes=(x.axes[0], *x.axes[2:]))
    before = len(graph.products)
    made = rule(graph, Call(inner, call.inputs, outputs, call.args, call.kwargs), [seen])
    steps = x.shape[1] or 1
    graph.products[before:] = [
        each._replace(factor=each.factor * steps) for each in graph.products[before:]
    ]
    return [(axes[0], x.axes[1], *axes[1:]) for axes in made]


class _WithoutTime:
    """The output of the layer inside a TimeDistributed: its shape."""

    def __init__(self, tensor):
        self.shape = (tensor.shape[0], *tensor.shape[2:])


def batch_normalization(graph, call, inputs):
    """BatchNormalization: a scale, an offset and statistics per channel."""
    layer, x = call.operation, inputs[0]
    tags = x.axes[layer.axis]
    for variable in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        graph.slice(layer, variable, 0, tags, "carries")
    return [x.axes]


def layer_normalization(graph, call, inputs):
    """LayerNormalization, RMSNormalization: statistics over channels, a scale per channel."""
    layer, (x,) = call.operation, inputs
    axes = [axis % len(x.shape) for axis in _as_list(layer.axis)]
    tags = x.axes[-1]
    if not graph.through_statistics or axes != [len(x.shape) - 1]:
        for axis in axes:
            graph.fix(x.axes[axis], layer, "has statistics over the channels")
        return [x.axes]
    for name in ("gamma", "beta", "scale"):
        variable = getattr(layer, name, None)
        if isinstance(variable, keras.Variable):  # `scale` is an argument, too
            graph.slice(layer, variable, 0, tags, "carries")
    graph.normalize(layer, tags)
    return [x.axes]


def group_normalization(graph, call, inputs):
    """GroupNormalization: with a group per channel a channel stands alone."""
    layer, (x,) = call.operation, inputs
    axis = layer.axis % len(x.shape)
    x = only_axis(graph, layer, x, axis, "has statistics over")
    if layer.groups not in (-1, x.shape[axis]):
        graph.fix(x.axes[axis], layer, "has statistics over the channels")
        return [x.axes]
    for variable in (layer.gamma, layer.beta):
        graph.slice(layer, variable, 0, x.axes[axis], "carries")
    if layer.groups != -1:
        graph.size(layer, "groups", x.axes[axis])
    return [x.axes]


def prelu(graph, call, inputs):
    """PReLU: a slope per value of a sample, or shared along axes."""
    layer, (x,) = call.operation, inputs
    for axis in range(1, len(x.shape)):
        if layer.alpha.shape[axis - 1] == x.shape[axis]:
            graph.slice(layer, layer.alpha, axis - 1, x.axes[axis], "carries")
    return [x.axes]


def layer_scale(graph, call, inputs):
    """The LayerScale of ConvNeXt: a factor per channel."""
    layer, (x,) = call.operation, inputs
    graph.slice(layer, layer.gamma, 0, x.axes[-1], "carries")
    graph.size(layer, "projection_dim", x.axes[-1])
    return [x.axes]


def _as_list(axis):
    return [axis] if isinstance(axis, int) else list(axis)


def _channel_axis(layer, x):
    return 1 if layer.data_format == "channels_first" else len(x.shape) - 1


def _join(graph, layer, x, tags):
    """Makes the channels of the last axis of a tensor one with `tags`."""
    if x.axes[-1] is None:
        graph.fix(tags, layer, "has states that are given")
    else:
        graph.unite(x.axes[-1], tags)


def _tie_groups(graph, tags, groups):
    if tags is not None:
        by_group = tags.reshape(groups, -1)
        graph.unite(by_group, by_group[:1])


def _widths(x, axis):
    return [x.shape[axis] if x.axes[axis] is None else x.axes[axis]]


def _positions(shape, axis):
    return sides(side for i, side in enumerate(shape) if i not in (0, axis))


_GATES = {layers.SimpleRNN: 1, layers.LSTM: 4, layers.GRU: 3}
_RULES = {
    layers.Dense: dense,
    **dict.fromkeys((layers.Conv1D, layers.Conv2D, layers.Conv3D), convolution),
    **dict.fromkeys(
        (layers.Conv1DTranspose, layers.Conv2DTranspose, layers.Conv3DTranspose),
        transposed_convolution,
    ),
    **dict.fromkeys((layers.DepthwiseConv1D, layers.DepthwiseConv2D), depthwise_convolution),
    **dict.fromkeys((layers.SeparableConv1D, layers.SeparableConv2D), separable_convolution),
    layers.EinsumDense: einsum_dense,
    layers.Embedding: embedding,
    **{layer: recurrent(gates) for layer, gates in _GATES.items()},
    layers.Bidirectional: bidirectional,
    layers.TimeDistributed: time_distributed,
    layers.BatchNormalization: batch_normalization,
    **dict.fromkeys((layers.LayerNormalization, layers.RMSNormalization), layer_normalization),
    layers.GroupNormalization: group_normalization,
    layers.PReLU: prelu,
    layers.MultiHeadAttention: attention_rules.multi_head_attention,
    layers.GroupQueryAttention: attention_rules.group_query_attention,
}
# Layers that have no public name, or are of a package that may be missing.
_BY_NAME = {
    ("keras", "LayerScale"): layer_scale,
    ("keras_hub", "TransformerEncoder"): attention_rules.transformer,
    ("keras_hub", "TransformerDecoder"): attention_rules.transformer,
}
