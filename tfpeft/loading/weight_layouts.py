"""Weights of Keras 1, cuDNN and Theano, in the order and shape that Keras 3 has."""

import keras
import numpy as np

_CONVOLUTIONS = ("Conv1D", "Conv2D", "Conv3D", "Conv2DTranspose", "SeparableConv2D")
GATES = {"LSTM": ("i", "c", "f", "o"), "GRU": ("z", "r", "h")}
_ORDER = {"LSTM": ("i", "f", "c", "o"), "GRU": ("z", "r", "h")}


def converted(layer, arrays, keras_version, backend):
    """Returns the arrays of a layer in the form of Keras 3.

    Args:
        layer: A layer of Keras 3.
        arrays: What the file has for it.
        keras_version: Of the file.
        backend: That the file was written with, such as "theano".
    """
    arrays = list(arrays)
    if isinstance(layer, keras.layers.Bidirectional):
        half = len(arrays) // 2
        inner = (layer.forward_layer, layer.backward_layer)
        halves = (arrays[:half], arrays[half:])
        return [
            array
            for one, part in zip(inner, halves, strict=True)
            for array in converted(one, part, keras_version, backend)
        ]
    if isinstance(layer, keras.layers.TimeDistributed):
        return converted(layer.layer, arrays, keras_version, backend)
    kind = type(layer).__name__
    if kind == "BatchNormalization":
        return arrays[: len(layer.weights)]  # what `renorm` adds is of training only
    if kind in GATES and len(arrays) == 3 * len(GATES[kind]):
        arrays = _joined_gates(kind, arrays)
    if kind in GATES and len(arrays) == 3:
        arrays = _from_cudnn(kind, arrays)
    if kind in _CONVOLUTIONS and arrays:
        arrays[0] = _kernel(layer, arrays[0], keras_version, backend)
    return arrays


def _joined_gates(kind, arrays):
    """Returns kernel, recurrent kernel and bias of the gates' own, as Keras 1 has them."""
    gates = {gate: arrays[3 * i : 3 * i + 3] for i, gate in enumerate(GATES[kind])}
    return [
        np.concatenate([gates[gate][part] for gate in _ORDER[kind]], axis=-1) for part in range(3)
    ]


def _from_cudnn(kind, arrays):
    """Returns the weights of a cuDNN layer in Keras's order; others as they are."""
    kernel, recurrent, bias = arrays
    gates = len(GATES[kind])
    if bias.shape != (2 * recurrent.shape[0] * gates,):
        return arrays
    kernel = np.hstack([part.T.reshape(part.shape, order="F") for part in np.hsplit(kernel, gates)])
    recurrent = np.hstack([part.T for part in np.hsplit(recurrent, gates)])
    bias = np.split(bias, 2)
    return [kernel, recurrent, sum(bias) if kind == "LSTM" else np.stack(bias)]


def _kernel(layer, kernel, keras_version, backend):
    """Returns the kernel of a convolution in the order (..., inputs, outputs)."""
    if keras_version.startswith("1"):
        kernel = _kernel_of_keras_1(layer, kernel)
    if backend == "theano":  # it convolves, where the others correlate
        sides = tuple(range(kernel.ndim - 2))
        kernel = np.flip(kernel, sides)
    return kernel


def _kernel_of_keras_1(layer, kernel):
    kind, first = type(layer).__name__, layer.data_format == "channels_first"
    if kind == "Conv1D":
        if kernel.shape[0] == layer.filters and kernel.shape[3] == 1:
            kernel = np.transpose(kernel, (2, 3, 1, 0))
        return kernel[:, 0]
    if kind == "Conv2D" and first:
        return np.transpose(kernel, (2, 3, 1, 0))
    if kind == "Conv2DTranspose":
        return np.transpose(kernel, (2, 3, 0, 1) if first else (0, 1, 3, 2))
    if kind == "Conv3D" and first:
        return np.transpose(kernel, (2, 3, 4, 1, 0))
    return kernel
