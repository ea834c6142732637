"""Which weights of Keras's layers are kernels, and which of their axes are inputs and outputs."""

import math
import typing

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.arguments import InputError
from tfpeft.core.layers import owners_of, path_of

_CONVOLUTIONS = (
    *(keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D),
    *(keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D),
    *(keras.layers.SeparableConv1D, keras.layers.SeparableConv2D),
    *(keras.layers.ConvLSTM1D, keras.layers.ConvLSTM2D, keras.layers.ConvLSTM3D),
)
_TRANSPOSED = (
    *(keras.layers.Conv1DTranspose, keras.layers.Conv2DTranspose, keras.layers.Conv3DTranspose),
)
# A cell of a ConvLSTM has no public class; its kernels are those of convolutions.
_CELLS_OF_CONVOLUTIONS = ("ConvLSTMCell",)
_WITH_KERNELS = (
    *(keras.layers.Dense, keras.layers.EinsumDense, *_CONVOLUTIONS, *_TRANSPOSED),
    *(keras.layers.SimpleRNNCell, keras.layers.LSTMCell, keras.layers.GRUCell),
)
_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel")
# Other packages of Keras's authors, whose kernels have names like these.
_PACKAGES = ("keras_hub", "keras_nlp", "keras_cv")


def is_kernel(layer, name):
    """Whether the weight `name` of a layer is a kernel: of a layer of Keras or KerasHub.

    A subclass of such a layer has the kernels of its base class. A weight of another class is no
    kernel, whatever its name is: it may be a position table, a filter bank, a class token.
    """
    if isinstance(layer, _WITH_KERNELS) or is_class_of_keras(type(layer), _CELLS_OF_CONVOLUTIONS):
        return name in _KERNELS
    packages = {
        base.__module__.split(".")[0]
        for base in type(layer).__mro__
        if not issubclass(base, keras.Model)
    }
    return not packages.isdisjoint(_PACKAGES) and f"_{name}".endswith("_kernel")


def is_class_of_keras(cls, names=()):
    """Whether a class is part of Keras or KerasHub itself; if `names` are given, one of these."""
    package = cls.__module__.split(".")[0]
    return package in ("keras", *_PACKAGES) and (not names or cls.__name__ in names)


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


class KernelAxes(typing.NamedTuple):
    """Axes of a kernel: those summed over, and those that the outputs have.

    Other axes are positions, such as height and width of a convolution: at each of them the
    kernel is a matrix, inputs x outputs.
    """

    inputs: tuple
    outputs: tuple

    def to_matrix(self, tensor):
        """Returns a tensor of the kernel's shape as (positions..., all inputs, all outputs)."""
        order, shape = self._order(len(tensor.shape)), self.matrix_shape(tensor.shape)
        if order != tuple(range(len(order))):
            tensor = tf.transpose(tensor, order)
        return tensor if tuple(tensor.shape) == shape else tf.reshape(tensor, shape)

    def from_matrix(self, matrix, shape):
        """The inverse of `to_matrix`, for a kernel of `shape`."""
        order = self._order(len(shape))
        moved = tuple(shape[axis] for axis in order)
        tensor = matrix if tuple(matrix.shape) == moved else tf.reshape(matrix, moved)
        if order != tuple(range(len(order))):
            tensor = tf.transpose(tensor, [order.index(axis) for axis in range(len(order))])
        return tensor

    def matrix_shape(self, shape):
        """Returns (sizes of positions..., number of inputs, number of outputs)."""
        sizes = [math.prod(shape[axis] for axis in axes) for axes in (self.inputs, self.outputs)]
        return (*(shape[axis] for axis in self._positions(len(shape))), *sizes)

    def _positions(self, rank):
        return [axis for axis in range(rank) if axis not in (*self.inputs, *self.outputs)]

    def _order(self, rank):
        return (*self._positions(rank), *self.inputs, *self.outputs)


def kernel_axes(layer, variable):
    """Returns the `KernelAxes` of a kernel of a layer; None if the layer is not one of Keras's.

    - Dense, Embedding, cells of recurrent layers: (inputs, outputs).
    - EinsumDense, and attention, which consists of it: as the labels of its equation say.
    - Convolutions: (positions..., inputs, outputs), of grouped ones the inputs of a group. Of
      depthwise ones the channels are the inputs, and the depth multiplier the outputs.
    - Transposed convolutions: (positions..., outputs, inputs).

    Args:
        layer: A built layer.
        variable: One of its variables of rank 2 or more.
    """
    rank = len(variable.shape)
    if isinstance(layer, keras.layers.EinsumDense):
        return _einsum_axes(layer.equation, rank)
    if isinstance(layer, _TRANSPOSED):
        return KernelAxes(inputs=(rank - 1,), outputs=(rank - 2,))
    is_convolution = isinstance(layer, _CONVOLUTIONS)
    if is_convolution or type(layer).__name__ in _CELLS_OF_CONVOLUTIONS or rank == 2:
        return KernelAxes(inputs=(rank - 2,), outputs=(rank - 1,))
    return None


def _einsum_axes(equation, rank):
    inputs, kernel, outputs = parse_einsum(equation)
    labels = kernel.replace("...", "")
    if len(labels) != rank:
        return None  # an ellipsis in the kernel stands for axes that have no label
    return KernelAxes(
        inputs=tuple(i for i, label in enumerate(labels) if label not in outputs),
        outputs=tuple(
            i for i, label in enumerate(labels) if label in outputs and label not in inputs
        ),
    )


def find_kernel_axes(variables):
    """Returns the `KernelAxes` of each variable, from the layer that it belongs to.

    A matrix that belongs to no layer is (inputs, outputs).

    Raises:
        InputError: for a kernel of rank 3 or more whose layer is not one of Keras's.
    """
    found = []
    for variable, owners in zip(variables, owners_of(variables), strict=True):
        known = [kernel_axes(layer, variable) for layer in owners]
        known = [axes for axes in known if axes is not None]
        if not known and len(variable.shape) == 2:
            known = [KernelAxes(inputs=(0,), outputs=(1,))]
        if not known:
            names = ", ".join(type(layer).__name__ for layer in owners) or "no layer"
            raise InputError(
                "Expected kernels of layers of Keras, whose inputs and outputs are known; leave "
                f"{path_of(variable)} out by `exclude`. Received: one of shape "
                f"{tuple(variable.shape)}, of {names}"
            )
        found.append(known[0])
    return found


def input_axes(layer):
    """Returns the axes of a layer's kernel that its outputs do not have.

    The layer is a Dense, an EinsumDense or a convolution that is built.
    """
    outputs = kernel_axes(layer, layer.kernel).outputs
    return tuple(axis for axis in range(len(layer.kernel.shape)) if axis not in outputs)


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
