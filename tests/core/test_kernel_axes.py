"""Which axes of kernels are inputs and outputs, against the shapes of Keras's layers and NumPy."""

import keras
import numpy as np
import pytest

from tfpeft.core.arguments import InputError
from tfpeft.core.kernel_axes import KernelAxes, find_kernel_axes, kernel_axes
from tfpeft.core.layers import owners_of

# Sides that tell the axes apart: 5 input and 7 output channels, 3 and 2 elsewhere.
LAYERS = {
    "dense": (keras.layers.Dense(7), (None, 5), {"kernel": ((0,), (1,))}),
    "embedding": (keras.layers.Embedding(5, 7), (None, 3), {"embeddings": ((0,), (1,))}),
    "conv1d": (keras.layers.Conv1D(7, 3), (None, 9, 5), {"kernel": ((1,), (2,))}),
    "conv2d": (keras.layers.Conv2D(7, 3), (None, 9, 9, 5), {"kernel": ((2,), (3,))}),
    "conv3d": (keras.layers.Conv3D(7, 3), (None, 9, 9, 9, 5), {"kernel": ((3,), (4,))}),
    "first": (
        keras.layers.Conv2D(7, 3, data_format="channels_first"),
        (None, 5, 9, 9),
        {"kernel": ((2,), (3,))},
    ),
    "depthwise1d": (keras.layers.DepthwiseConv1D(3), (None, 9, 5), {"kernel": ((1,), (2,))}),
    "depthwise2d": (keras.layers.DepthwiseConv2D(3), (None, 9, 9, 5), {"kernel": ((2,), (3,))}),
    "separable1d": (
        keras.layers.SeparableConv1D(7, 3),
        (None, 9, 5),
        {"depthwise_kernel": ((1,), (2,)), "pointwise_kernel": ((1,), (2,))},
    ),
    "separable2d": (
        keras.layers.SeparableConv2D(7, 3),
        (None, 9, 9, 5),
        {"depthwise_kernel": ((2,), (3,)), "pointwise_kernel": ((2,), (3,))},
    ),
    "transposed1d": (keras.layers.Conv1DTranspose(7, 3), (None, 9, 5), {"kernel": ((2,), (1,))}),
    "transposed2d": (keras.layers.Conv2DTranspose(7, 3), (None, 9, 9, 5), {"kernel": ((3,), (2,))}),
    "transposed3d": (
        keras.layers.Conv3DTranspose(7, 3),
        (None, 9, 9, 9, 5),
        {"kernel": ((4,), (3,))},
    ),
    "lstm": (
        keras.layers.LSTMCell(7),
        (None, 5),
        {"kernel": ((0,), (1,)), "recurrent_kernel": ((0,), (1,))},
    ),
    "einsum": (
        keras.layers.EinsumDense("abc,dce->abed", (None, 2, 7)),
        (None, 3, 5),
        {"kernel": ((1,), (0, 2))},
    ),
    "einsum_two_inputs": (
        keras.layers.EinsumDense("...ab,abc->...c", (7,)),
        (None, 3, 5),
        {"kernel": ((0, 1), (2,))},
    ),
    "einsum_shared": (
        keras.layers.EinsumDense("gab,gbc->gac", (3, 7)),
        (2, 3, 5),
        {"kernel": ((1,), (2,))},
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_axes_of_layers(name):
    layer, shape, expected = LAYERS[name]
    layer.build(shape)
    for attribute, (inputs, outputs) in expected.items():
        variable = getattr(layer, attribute)
        axes = kernel_axes(layer, variable)
        assert axes == KernelAxes(inputs, outputs), attribute
        sizes = axes.matrix_shape(variable.shape)
        if attribute in ("kernel", "pointwise_kernel") and "depthwise" not in name:
            assert sizes[-2] % 5 == 0  # the input channels, and what is flattened with them
            assert sizes[-1] % 7 == 0


def test_matrices_and_back():
    kernel = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5).astype("float32")
    axes = KernelAxes(inputs=(3, 0), outputs=(2,))
    matrix = axes.to_matrix(kernel).numpy()
    np.testing.assert_array_equal(matrix, kernel.transpose(1, 3, 0, 2).reshape(3, 10, 4))
    np.testing.assert_array_equal(axes.from_matrix(matrix, kernel.shape).numpy(), kernel)
    plain = KernelAxes(inputs=(2,), outputs=(3,))
    assert plain.to_matrix(kernel) is kernel  # nothing is moved where axes are in order
    assert plain.from_matrix(kernel, kernel.shape) is kernel


class Custom(keras.layers.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="kernel", shape=(2, 4, 4))


@pytest.mark.as_users_run
def test_variables_find_their_layers():
    attention = keras.layers.MultiHeadAttention(2, 4)
    attention.build((None, 3, 8), (None, 3, 8))
    dense, custom = keras.layers.Dense(3), Custom()
    dense.build((None, 4))
    custom.build(None)
    bare = keras.Variable(np.ones((2, 3)), name="kernel")
    kernels = [v for v in attention.trainable_variables if len(v.shape) == 3]
    assert len(kernels) == 4
    owners = owners_of([*kernels, dense.kernel, custom.kernel, bare])
    layers = [attention.query_dense, attention.key_dense, attention.value_dense]
    layers += [attention.output_dense, dense, custom]
    assert [[id(layer) for layer in each] for each in owners] == [[id(x)] for x in layers] + [[]]
    found = find_kernel_axes([kernels[0], kernels[3], dense.kernel, bare])
    matrix = KernelAxes((0,), (1,))
    assert found == [KernelAxes((0,), (1, 2)), KernelAxes((0, 1), (2,)), matrix, matrix]
    for variable, owner in ((custom.kernel, "Custom"), (keras.Variable(np.ones((2, 3, 4))), "no")):
        with pytest.raises(InputError, match=rf"`exclude`.*\(2, .*, of {owner}"):
            find_kernel_axes([variable])
