"""Small networks of the kinds that are quantised, with statistics that are not the initial ones."""

import keras
import numpy as np

layers = keras.layers


def shaken(model, seed=0):
    """Gives biases and statistics of a model random values; returns it."""
    rng = np.random.default_rng(seed)
    for weight in model.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(rng.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "bias", "moving_mean"):
            weight.assign(rng.normal(size=weight.shape) * 0.2)
        elif name == "kernel":
            weight.assign(rng.normal(size=weight.shape) / np.sqrt(np.prod(weight.shape[:-1])))
    return model


def block(x, filters, size=3, activation=layers.ReLU, **options):
    x = layers.Conv2D(filters, size, padding="same", use_bias=False, **options)(x)
    return activation()(layers.BatchNormalization()(x))


def cnn():
    inputs = keras.Input((8, 8, 3))
    x = layers.MaxPooling2D()(block(inputs, 8))
    x = layers.GlobalAveragePooling2D()(block(x, 8, strides=2))
    return keras.Model(inputs, layers.Dense(4, activation="softmax")(x))


def mobile_net_v2():
    inputs = keras.Input((8, 8, 3))
    x = block(inputs, 8, strides=2, activation=lambda: layers.ReLU(6.0))
    for _ in range(2):
        y = block(x, 16, 1, activation=lambda: layers.ReLU(6.0))
        y = layers.DepthwiseConv2D(3, padding="same", use_bias=False)(y)
        y = layers.ReLU(6.0)(layers.BatchNormalization()(y))
        y = layers.BatchNormalization()(layers.Conv2D(8, 1, use_bias=False)(y))
        x = layers.Add()([x, y])
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def res_net():
    """The second form, in which BatchNormalization comes before a convolution."""
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(8, 3, padding="same")(inputs)
    y = layers.ReLU()(layers.BatchNormalization()(x))
    y = layers.Conv2D(8, 3, padding="same")(block(y, 8))
    x = layers.ReLU()(layers.BatchNormalization()(layers.Add()([x, y])))
    x = layers.AveragePooling2D(4)(x)
    return keras.Model(inputs, layers.Dense(4)(layers.Flatten()(x)))


def joined():
    inputs = keras.Input((8, 8, 3))
    x = layers.Conv2D(6, 3, padding="same", activation="relu")(inputs)
    y = layers.Conv2D(6, 1)(x)
    x = layers.Concatenate()([layers.LeakyReLU()(x + y), y, layers.MaxPooling2D(1)(x)])
    x = layers.SeparableConv2D(6, 3, activation="tanh")(layers.ZeroPadding2D()(x))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalMaxPooling2D()(x)))


def squeeze_excite():
    inputs = keras.Input((8, 8, 3))
    x = layers.Rescaling(1 / 127.5, offset=-1)(inputs)
    x = block(x, 8, activation=lambda: layers.Activation("hard_swish"))
    gate = layers.GlobalAveragePooling2D(keepdims=True)(x)
    gate = layers.Conv2D(4, 1, activation="relu")(gate)
    x = layers.Multiply()([x, layers.Conv2D(8, 1, activation="hard_sigmoid")(gate)])
    x = layers.PReLU(shared_axes=[1, 2])(layers.Conv2D(4, 3)(x))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling2D()(x)))


def line():
    inputs = keras.Input((16, 4))
    x = layers.Conv1D(8, 3, padding="causal", use_bias=False)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv1D(8, 3, padding="same", activation="swish")(x)
    x = layers.Conv1D(8, 3, dilation_rate=2, activation="relu")(layers.AveragePooling1D(2)(x))
    x = layers.Conv1DTranspose(4, 2, strides=2)(x)
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


def u_net():
    inputs = keras.Input((8, 8, 3))
    first = block(inputs, 6)
    x = block(layers.MaxPooling2D()(first), 8)
    x = layers.Conv2DTranspose(6, 2, strides=2)(x)
    x = block(layers.Concatenate()([x, first]), 6)
    x = layers.UpSampling2D(interpolation="bilinear")(layers.AveragePooling2D(2)(x))
    return keras.Model(inputs, layers.Conv2D(3, 1, activation="softmax")(x))


def transformer():
    inputs = keras.Input((6,), dtype="int32")
    x = layers.Embedding(50, 8)(inputs)
    x = layers.LayerNormalization(name="first")(x + layers.MultiHeadAttention(2, 4)(x, x))
    y = layers.Dense(8)(layers.Dense(16, activation="gelu")(x))
    x = layers.LayerNormalization(name="second")(layers.Add()([x, y]))
    return keras.Model(inputs, layers.Dense(4)(layers.GlobalAveragePooling1D()(x)))


INTEGER = {
    function.__name__: function
    for function in (cnn, mobile_net_v2, res_net, joined, squeeze_excite, line, u_net)
}


def samples(model, count=64, seed=0):
    """Returns typical inputs of one of these models."""
    rng = np.random.default_rng(seed)
    tensor = model.inputs[0]
    shape = (count, *tensor.shape[1:])
    if "int" in tensor.dtype:
        return rng.integers(0, 50, shape)
    if any(isinstance(layer, layers.Rescaling) for layer in model.layers):
        return rng.uniform(0, 255, shape).astype("float32")
    return rng.normal(size=shape).astype("float32")
