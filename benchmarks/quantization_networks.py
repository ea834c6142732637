"""The networks of the benchmarks of quantisation, alike in Keras 3 and in tf_keras."""

import keras

import tfpeft  # noqa: F401  (before tf_keras: see tfpeft/sparsity/tfmot_import.py)

import tf_keras  # isort: skip

BLOCKS = ((64, 1), (128, 2), (256, 2), (512, 1))
"""Filters and strides of the separable blocks of the MobileNet-like network."""


def mobilenet_like(layers):
    """A MobileNet of a 3x3 convolution and four separable blocks, 184,000 weights in kernels."""

    def normalized(kernel):
        return [kernel, layers.BatchNormalization(), layers.ReLU(6.0)]

    body = normalized(layers.Conv2D(32, 3, strides=2, padding="same", use_bias=False))
    for filters, strides in BLOCKS:
        body += normalized(
            layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)
        )
        body += normalized(layers.Conv2D(filters, 1, use_bias=False))
    return [*body, layers.GlobalAveragePooling2D(), layers.Dense(10)]


def cnn(layers):
    """Three convolutions with BatchNormalization."""
    body = []
    for filters in (32, 64, 128):
        body += [
            layers.Conv2D(filters, 3, strides=2, padding="same", use_bias=False),
            layers.BatchNormalization(),
            layers.ReLU(),
        ]
    return [*body, layers.Flatten(), layers.Dense(10)]


def mlp(layers):
    """1.3 million weights in three Dense layers."""
    hidden = [layers.Dense(units, activation="relu") for units in (1024, 512)]
    return [layers.Flatten(), *hidden, layers.Dense(10)]


NETWORKS = {"CNN": cnn, "MobileNet-like": mobilenet_like, "MLP": mlp}


def in_keras(network, shape):
    """Returns a network as a Keras 3 model."""
    return keras.Sequential([keras.Input(shape), *network(keras.layers)])


def in_tf_keras(network, shape):
    """Returns a network as a tf_keras model."""
    return tf_keras.Sequential([tf_keras.layers.InputLayer(shape), *network(tf_keras.layers)])
