"""Axes of a kernel: which belong to a layer's inputs, which to its outputs."""

import typing

import keras
from keras import ops


class EinsumLabels(typing.NamedTuple):
    """The labels of an `EinsumDense` equation, "..." among them where it has one."""

    inputs: str
    kernel: str
    outputs: str


def parse_einsum(equation):
    """Returns the labels of an equation such as "btd,dnh->btnh"."""
    left, outputs = equation.replace(" ", "").split("->")
    inputs, kernel = left.split(",")
    return EinsumLabels(inputs, kernel, outputs)


def input_axes(layer):
    """Returns the axes of a layer's kernel that belong to its inputs.

    The layer is a Dense, an EinsumDense or a convolution that is built.
    """
    if isinstance(layer, keras.layers.EinsumDense):
        labels = parse_einsum(layer.equation)
        return tuple(i for i, label in enumerate(labels.kernel) if label in labels.inputs)
    return tuple(range(len(layer.kernel.shape) - 1))


def output_shape(layer):
    """Returns the sides of a layer's kernel that belong to its outputs, in the kernel's order."""
    axes = input_axes(layer)
    return tuple(side for i, side in enumerate(layer.kernel.shape) if i not in axes)


def along_outputs(layer, values, outputs):
    """Returns values per output channel in a shape that broadcasts with a layer's outputs.

    Args:
        layer: A Dense, an EinsumDense, a convolution or a normalisation layer.
        values: A tensor of the shape `output_shape(layer)`; of normalisation layers, of the shape
            of their scale.
        outputs: The layer's outputs, whose rank and dtype count; of an EinsumDense, whose dtype.
    """
    values = ops.cast(values, outputs.dtype)
    if isinstance(layer, keras.layers.EinsumDense):
        labels = parse_einsum(layer.equation)
        in_kernel = [label for label in labels.kernel if label not in labels.inputs]
        in_outputs = [label for label in labels.outputs.replace("...", "") if label in in_kernel]
        values = ops.transpose(values, [in_kernel.index(label) for label in in_outputs])
        sides = dict(zip(in_outputs, values.shape, strict=True))
        first = min(labels.outputs.index(label) for label in in_outputs)
        return ops.reshape(values, [sides.get(label, 1) for label in labels.outputs[first:]])
    axis = getattr(layer, "axis", -1)
    if getattr(layer, "data_format", None) == "channels_first":
        axis = 1
    shape = [1] * len(outputs.shape)
    for side, i in zip(values.shape, [axis] if isinstance(axis, int) else axis, strict=True):
        shape[i] = side
    return ops.reshape(values, shape)
