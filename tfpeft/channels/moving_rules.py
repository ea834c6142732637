"""How channels pass through operations without weights: they join, move, or stay in their place."""

import math

import keras
import numpy as np

from tfpeft.channels import unknown_layers
from tfpeft.channels.rule_parts import ELEMENTWISE, activated, only_axis
from tfpeft.channels.tags import FIXED
from tfpeft.core.arguments import InputError

layers = keras.layers
_SIDE = 3
"""What stands for a free side where operations are run on numbers."""


def rule_of(operation):
    """Returns the rule of an operation; None if there is none."""
    found = _RULES.get(type(operation))
    if (
        found is None
        and type(operation).__module__.startswith("keras.")
        and not isinstance(operation, layers.Layer)
    ):
        found = _OPERATIONS.get(type(operation).__name__)
    return found


def unchanged(graph, call, inputs):
    """Dropout, noise, masking: values stay where they are."""
    return [inputs[0].axes]


def activation(graph, call, inputs):
    """Activation: as `activated`."""
    return [activated(graph, call.operation, inputs[0].axes)]


def softmax(graph, call, inputs):
    """Softmax: statistics over its axes."""
    (x,), axes = inputs[:1], call.operation.axis
    for axis in [axes] if isinstance(axes, int) else axes:
        graph.fix(x.axes[axis], call.operation, "has statistics over the channels")
    return [x.axes]


def merge(graph, call, inputs):
    """Add, Multiply and others, with broadcasting: channels that meet are one."""
    constants = [each for each in keras.tree.flatten((call.args, call.kwargs)) if np.ndim(each)]
    if any(not isinstance(each, keras.KerasTensor) for each in constants):
        return unknown_layers.follow(graph, call, inputs)
    rank = max(len(x.shape) for x in inputs)
    shape = call.outputs[0].shape
    made = [None] * rank
    for axis in range(-rank, 0):
        present = [x for x in inputs if len(x.shape) >= -axis]
        wide = [x for x in present if x.shape[axis] != 1 or shape[axis] == 1]
        for x in present:
            if not any(x is other for other in wide):
                graph.fix(x.axes[axis], call.operation, "spreads them over the channels of others")
        tagged = [x.axes[axis] for x in wide if x.axes[axis] is not None]
        for tags in tagged:
            graph.unite(tagged[0], tags)
        if tagged and len(tagged) < len(wide):
            graph.fix(tagged[0], call.operation, "joins them with channels that are fixed")
        made[axis] = tagged[0] if tagged else None
    return [made]


def spatial(graph, call, inputs):
    """Pooling, padding, cropping, upsampling: channels stay, positions do not."""
    layer, (x,) = call.operation, inputs
    first = getattr(layer, "data_format", "channels_last") == "channels_first"
    axis = 1 if first else len(x.shape) - 1
    x = only_axis(graph, layer, x, axis, "changes")
    rank = len(call.outputs[0].shape)
    made = [None] * rank
    made[1 if first or rank == 2 else rank - 1] = x.axes[axis]
    return [made]


def concatenate(graph, call, inputs):
    """Concatenate: along its axis one after the other, along others as one."""
    if len(keras.tree.flatten(call.args[0])) > len(inputs):
        return graph.stop(call, inputs, "joins them with a constant")
    rank = len(inputs[0].shape)
    axis = call.operation.axis % rank
    made = [None] * rank
    for i in range(1, rank):
        tags = [x.axes[i] for x in inputs]
        if all(each is None for each in tags):
            continue
        if i == axis:
            parts = zip(tags, inputs, strict=True)
            made[i] = np.concatenate(
                [np.full(x.shape[i], FIXED) if each is None else each for each, x in parts]
            )
            continue
        known = next(each for each in tags if each is not None)
        for each in tags:
            if each is None:
                graph.fix(known, call.operation, "joins them with channels that are fixed")
            else:
                graph.unite(known, each)
        made[i] = known
    return [made]


def reshape(graph, call, inputs):
    """Reshape, Flatten: run on the tags, which shows where each channel goes."""
    layer, (x,) = call.operation, inputs
    first = getattr(layer, "data_format", None) == "channels_first"
    before = (lambda values: np.moveaxis(values, 1, -1)) if first and len(x.shape) > 2 else None
    made = _run(graph, call, x, lambda values, shape: values.reshape(shape), before)
    given = getattr(layer, "target_shape", None) or getattr(layer, "newshape", None)
    if given is not None:
        argument = "target_shape" if hasattr(layer, "target_shape") else "newshape"
        skipped = len(made) - len(given)
        for index, side in enumerate(given):
            if side not in (-1, None):
                graph.size(layer, argument, made[index + skipped], index)
    return [made]


def _run(graph, call, x, move, before=None):
    """Returns the axes of an operation's output, from a run on the tags of each axis alone."""
    out = call.outputs[0].shape
    if x.axes[0] is not None:
        graph.fix(x, call.operation, "moves the axis of the samples")
        return [None] * len(out)
    free = [i for i, side in enumerate(out) if side is None]
    target = [1, *(-1 if i in free else side for i, side in enumerate(out) if i)]
    known = math.prod(side or 1 for side in x.shape)
    # A free side is what makes the sizes the same, where there is one alone.
    side = _SIDE if len(free) > 1 else max(1, math.prod(target) // known)
    sides = [1, *(each or side for each in x.shape[1:])]
    made = [None] * len(out)
    for axis in x.tagged_axes():
        shape = [1] * len(sides)
        shape[axis] = sides[axis]
        numbers = np.broadcast_to(x.axes[axis].reshape(shape), sides)
        numbers = before(numbers) if before else numbers
        if len(free) > 2 or (len(free) == 1 and numbers.size != math.prod(target)):
            graph.fix(x, call.operation, "changes free sides")
            return [None] * len(out)
        numbers = move(numbers, target)
        place = _place(graph, numbers)
        if place is None or made[place[0]] is not None:
            graph.fix(x.axes[axis], call.operation, "moves them among others")
            continue
        made[place[0]] = place[1]
    return made


def _place(graph, numbers):
    """Returns the axis along which tags vary, and the tags; where there are two, makes it one."""
    varies = [
        axis
        for axis in range(1, numbers.ndim)
        if numbers.shape[axis] > 1 and np.any(numbers != np.take(numbers, [0], axis))
    ]
    if not varies:  # one channel, whose axis cannot be found
        return None
    axis = max(varies, key=lambda a: (numbers.shape[a], a))
    moved = np.moveaxis(numbers, axis, -1).reshape(-1, numbers.shape[axis])
    if len(varies) > 1:
        graph.unite(moved, moved[:1])
    return axis, moved[0]


def permute(graph, call, inputs):
    """Permute: axes change places."""
    (x,) = inputs
    return [[None, *(x.axes[axis] for axis in call.operation.dims)]]


def transpose(graph, call, inputs):
    """`ops.transpose`: axes change places."""
    (x,), order = inputs, call.operation.axes
    order = range(len(x.shape))[::-1] if order is None else order
    return [[x.axes[axis] for axis in order]]


def repeat_vector(graph, call, inputs):
    """RepeatVector: a new axis of positions."""
    return [(None, None, inputs[0].axes[-1])]


def get_item(graph, call, inputs):
    """`x[...]`: run on the tags; an axis with channels has to stay whole."""
    (x,), key = inputs[:1], call.args[1] if len(call.args) > 1 else call.kwargs.get("key")
    made = [None] * len(call.outputs[0].shape)
    for axis in x.tagged_axes():
        sides = [side or (_SIDE if i else 1) for i, side in enumerate(x.shape)]
        shape = [1] * len(sides)
        shape[axis] = sides[axis]
        try:
            numbers = np.broadcast_to(np.arange(sides[axis]).reshape(shape), sides)[key]
        except (IndexError, TypeError, ValueError):
            numbers = np.zeros((), int)
        whole = [
            i
            for i in range(1, numbers.ndim)
            if numbers.shape[i] == sides[axis]
            and np.array_equal(
                numbers,
                np.broadcast_to(np.arange(sides[axis]).reshape(_along(numbers, i)), numbers.shape),
            )
        ]
        if len(whole) != 1:
            graph.fix(x.axes[axis], call.operation, "takes some of them")
        else:
            made[whole[0]] = x.axes[axis]
    return [made]


def _along(numbers, axis):
    return [-1 if i == axis else 1 for i in range(numbers.ndim)]


def reduce(graph, call, inputs):
    """`ops.mean`, `ops.sum`, `ops.max` and others: channels of other axes stay."""
    operation, (x,) = call.operation, inputs
    rank = len(x.shape)
    given = operation.axis
    axes = range(rank) if given is None else np.atleast_1d(given)
    axes = {int(axis) % rank for axis in axes}
    for axis in axes:
        graph.fix(x.axes[axis], operation, "has statistics over the channels")
    if operation.keepdims:
        return [[None if i in axes else tags for i, tags in enumerate(x.axes)]]
    return [[tags for i, tags in enumerate(x.axes) if i not in axes]]


def dot(graph, call, inputs):
    """Dot: sums over an axis of each of its two inputs."""
    layer, (x, y) = call.operation, inputs
    axes = layer.axes if not isinstance(layer.axes, int) else (layer.axes, layer.axes)
    axes = [axis % len(each.shape) for axis, each in zip(axes, inputs, strict=True)]
    names = [[*range(100, 100 + len(x.shape))], [*range(200, 200 + len(y.shape))]]
    names[0][0] = names[1][0] = 0
    names[0][axes[0]] = names[1][axes[1]] = 1
    out = [0, *(n for n in names[0] + names[1] if n > 1)]
    out = out if len(out) > 1 else [0, None]  # Keras adds an axis to a number per sample
    return [_contract(graph, call, inputs, names, out)]


def matmul(graph, call, inputs):
    """`ops.matmul` of two tensors of rank 2 or more."""
    if len(inputs) != 2 or min(len(each.shape) for each in inputs) < 2:
        return graph.stop(call, inputs, "multiplies them with a constant")
    rank = max(len(each.shape) for each in inputs)
    batch = list(range(2, rank))
    names = [
        [*batch[rank - len(inputs[0].shape) :], 100, 1],
        [*batch[rank - len(inputs[1].shape) :], 1, 200],
    ]
    return [_contract(graph, call, inputs, names, [*batch, 100, 200])]


def einsum(graph, call, inputs):
    """`ops.einsum` of two tensors: as its labels say."""
    equation = call.operation.subscripts.replace(" ", "")
    if len(inputs) != 2 or "..." in equation or "->" not in equation:
        return graph.stop(call, inputs, "is an einsum that is not of two tensors with all labels")
    left, out = equation.split("->")
    return [_contract(graph, call, inputs, [list(part) for part in left.split(",")], list(out))]


def _contract(graph, call, inputs, names, out):
    """Notes what is summed over; returns the axes of the output, of which `out` are the names."""
    places = {}
    for index, labels in enumerate(names):
        for axis, label in enumerate(labels):
            places.setdefault(label, []).append((index, axis))
    made, widths = {}, []
    for label, found in places.items():
        sides = [inputs[index].shape[axis] for index, axis in found]
        tags = [inputs[index].axes[axis] for index, axis in found]
        if any(each is None for each in tags) or len(set(sides)) > 1:
            for each in tags:
                graph.fix(each, call.operation, "joins them with channels that are fixed")
            tags = [None] * len(tags)
            widths.append(max(side or 1 for side in sides))
        else:
            for each in tags:
                graph.unite(tags[0], each)
            widths.append(tags[0])
        made[label] = tags[0]
        if label not in out:
            for (index, axis), each in zip(found, tags, strict=True):
                graph.contract(call.operation, index, axis, each)
    graph.product(1, *widths)
    return [made.get(label) for label in out]


def split(graph, call, inputs):
    """`ops.split` into equal parts: what is at one place in each part is one."""
    operation, (x,) = call.operation, inputs
    axis = operation.axis % len(x.shape)
    tags, parts = x.axes[axis], operation.indices_or_sections
    if tags is not None and not isinstance(parts, int):
        graph.fix(tags, operation, "splits them at numbers")
        tags = None
    made = []
    for index in range(len(call.outputs)):
        if tags is None:
            made.append(x.replace(axis, None).axes)
        else:
            by_part = tags.reshape(parts, -1)
            graph.unite(by_part, by_part[:1])
            made.append(x.replace(axis, by_part[index]).axes)
    return made


def expand_dims(graph, call, inputs):
    """`ops.expand_dims`: a new axis."""
    (x,) = inputs
    axis = call.operation.axis
    if not isinstance(axis, int):
        raise InputError("Expected an axis that is an integer.")
    made = list(x.axes)
    made.insert(axis % (len(x.shape) + 1), None)
    return [made]


def squeeze(graph, call, inputs):
    """`ops.squeeze`: without an axis of one position."""
    (x,), given = inputs, call.operation.axis
    rank = len(x.shape)
    if given is None:
        axes = {i for i, side in enumerate(x.shape) if side == 1}
    else:
        axes = {int(axis) % rank for axis in np.atleast_1d(given)}
    for axis in axes:
        graph.fix(x.axes[axis], call.operation, "takes their axis away")
    return [[tags for i, tags in enumerate(x.axes) if i not in axes]]


_RULES = {
    **dict.fromkeys(
        (
            *(layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D, layers.Identity),
            *(layers.SpatialDropout3D, layers.GaussianNoise, layers.GaussianDropout),
            *(layers.AlphaDropout, layers.ActivityRegularization, layers.Masking),
        ),
        unchanged,
    ),
    **dict.fromkeys((layers.Activation, layers.ReLU, layers.LeakyReLU, layers.ELU), activation),
    layers.Softmax: softmax,
    **dict.fromkeys(
        (
            *(layers.Add, layers.Subtract, layers.Multiply, layers.Average),
            *(layers.Maximum, layers.Minimum),
        ),
        merge,
    ),
    **dict.fromkeys(
        (
            *(layers.MaxPooling1D, layers.MaxPooling2D, layers.MaxPooling3D),
            *(layers.AveragePooling1D, layers.AveragePooling2D, layers.AveragePooling3D),
            *(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D, layers.GlobalMaxPooling3D),
            *(layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D),
            *(layers.GlobalAveragePooling3D, layers.ZeroPadding1D, layers.ZeroPadding2D),
            *(layers.ZeroPadding3D, layers.Cropping1D, layers.Cropping2D, layers.Cropping3D),
            *(layers.UpSampling1D, layers.UpSampling2D, layers.UpSampling3D),
        ),
        spatial,
    ),
    layers.Concatenate: concatenate,
    **dict.fromkeys((layers.Reshape, layers.Flatten), reshape),
    layers.Permute: permute,
    layers.RepeatVector: repeat_vector,
    layers.Dot: dot,
}
# Operations of `keras.ops`, which have no public classes.
_OPERATIONS = {
    **dict.fromkeys(("Mean", "Sum", "Max", "Min", "Prod", "Var", "Std", "Any", "All"), reduce),
    "Concatenate": concatenate,
    "Reshape": reshape,
    "Transpose": transpose,
    "GetItem": get_item,
    "Matmul": matmul,
    "Einsum": einsum,
    "Split": split,
    "ExpandDims": expand_dims,
    "Squeeze": squeeze,
}
_OPERATIONS |= dict.fromkeys(ELEMENTWISE, merge)
