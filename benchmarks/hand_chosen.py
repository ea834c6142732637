"""Networks that a person would choose for images of 28x28: a teacher, students under 30 kB."""

import keras


def convolution(hidden, filters, **options):
    hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False, **options)(hidden)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))


def network(filters, dense=None):
    """Returns three convolutions with pooling, and a Dense layer in front of the outputs."""
    inputs = hidden = keras.Input((28, 28, 1))
    for number, width in enumerate(filters):
        hidden = keras.layers.MaxPooling2D()(hidden) if number else hidden
        hidden = convolution(hidden, width)
    if dense:
        hidden = keras.layers.Flatten()(keras.layers.MaxPooling2D()(hidden))
        hidden = keras.layers.Dense(dense, activation="relu")(hidden)
    else:
        hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))


def convolutions():
    """Returns three convolutions of 16, 32 and 63 filters."""
    return network((16, 32, 63))


def mobilenet(width=25):
    """Returns a stem and five separable blocks, as MobileNet has them."""
    inputs = keras.Input((28, 28, 1))
    hidden = convolution(inputs, width, strides=2)
    for factor, strides in ((1, 1), (2, 2), (2, 1), (3, 2), (3, 1)):
        hidden = keras.layers.DepthwiseConv2D(3, strides=strides, padding="same", use_bias=False)(
            hidden
        )
        hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
        hidden = keras.layers.Conv2D(width * factor, 1, use_bias=False)(hidden)
        hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(10)(hidden))
