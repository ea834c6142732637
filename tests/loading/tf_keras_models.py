"""Models of tf_keras (Keras 2), of each kind that its files hold, with random weights."""

import numpy as np
import tensorflow as tf
import tf_keras

L = tf_keras.layers
RNG = np.random.default_rng(0)


def image():
    """Depthwise convolutions with `groups`, lists of axes, and a model inside the model."""
    inputs = tf_keras.Input((8, 8, 3))
    block = tf_keras.Sequential(
        [
            L.DepthwiseConv2D(3, strides=2, use_bias=False),
            L.BatchNormalization(name="bn/inside"),
            L.ReLU(6.0),
            L.Conv2D(4, 1),
        ],
        name="block",
    )
    hidden = block(L.SeparableConv2D(3, 3, padding="same", name="stem/conv")(inputs))
    hidden = L.Conv2DTranspose(4, 3, strides=2, padding="same", activation="swish")(hidden)
    hidden = L.LeakyReLU(0.1)(L.BatchNormalization()(hidden))
    pooled = L.GlobalAveragePooling2D()(hidden)
    return tf_keras.Model(inputs, L.Dense(3, activation="softmax", name="head")(pooled))


def operations():
    """TensorFlow's functions, with a constant first, lists, slices, and a shape of the batch."""
    inputs = tf_keras.Input((4, 6))
    hidden = 2.0 - (inputs + [1.0, 2.0, 3.0, 4.0, 5.0, 6.0])
    hidden = tf.concat([hidden, tf.nn.relu(inputs)], -1)[:, 1:, ::2]
    batch = tf.shape(hidden)[0]
    hidden = tf.reshape(hidden, [batch, -1])
    first, second = tf.split(hidden, [8, 10], axis=1)
    hidden = tf.matmul(tf.expand_dims(second, 1), tf.tile(second[..., None], [1, 1, 2]))
    hidden = tf.squeeze(hidden, 1) * tf.reduce_mean(first, [1], keepdims=True)
    hidden = tf.cast(hidden > 0.1, "float32") + tf.math.erfc(hidden)
    return tf_keras.Model(inputs, L.Dense(2)(tf.clip_by_value(hidden, -1.0, 1.0)))


def recurrent():
    """Masks, states, and the `hard_sigmoid` of Keras 2, which Keras 3 computes in another way."""
    inputs = tf_keras.Input((5,))
    hidden = L.Embedding(10, 4, mask_zero=True, input_length=5)(inputs)
    hidden = L.Bidirectional(L.LSTM(3, return_sequences=True, recurrent_activation="hard_sigmoid"))(
        hidden
    )
    sequence, state = L.GRU(3, return_sequences=True, return_state=True)(hidden)
    hidden_sequence = L.GRU(3, reset_after=False, return_sequences=True)(
        sequence, initial_state=state
    )
    hidden = L.GRU(3)(hidden_sequence, initial_state=state)
    both = L.Concatenate(name="concatenate")([sequence, hidden_sequence])
    last = L.TimeDistributed(L.Dense(2, activation="hard_sigmoid"))(both)
    return tf_keras.Model(inputs, [last, hidden])


def several():
    """Two inputs, two outputs by name, a shared layer, a frozen model, attention."""
    a, b = tf_keras.Input((3, 4), name="a"), tf_keras.Input((3, 4), name="b")
    shared = L.TimeDistributed(L.Dense(4, activation=L.LeakyReLU(0.2)))
    frozen = tf_keras.Sequential([L.Dense(4), L.BatchNormalization()], name="frozen")
    hidden = L.MultiHeadAttention(2, 2)(shared(a), shared(b))
    hidden = frozen(hidden, training=False)
    frozen.trainable = False
    hidden = L.Flatten()(L.Add()([hidden, shared(hidden)]))
    outputs = {name: L.Dense(2, name=name)(hidden) for name in ("x", "y")}
    model = tf_keras.Model([a, b], outputs)
    model.compile(
        tf_keras.optimizers.legacy.SGD(0.25),
        {"x": tf_keras.losses.CategoricalCrossentropy(from_logits=True), "y": "mse"},
        {"x": ["acc"], "y": ["mae"]},
    )
    return model


def half():
    """A policy of types, an object in the file."""
    inputs = tf_keras.Input((6,))
    policy = tf_keras.mixed_precision.Policy("mixed_float16")
    hidden = L.Dense(4, activation="relu", dtype=policy)(inputs)
    return tf_keras.Model(inputs, L.Dense(2, dtype="float32")(hidden))


def batch(model):
    """Returns inputs for a model: {name: array}, or an array of one."""
    arrays = {}
    for tensor in model.inputs:
        shape = (3, *tensor.shape[1:])
        of_words = any(isinstance(layer, L.Embedding) for layer in model.layers)
        values = RNG.integers(0, 9, shape) if of_words else RNG.normal(size=shape)
        arrays[tensor.name] = values.astype("float32")
    return arrays if len(arrays) > 1 else next(iter(arrays.values()))


def randomize(model):
    """Gives a model weights of which none are equal, as those after training are."""
    model.set_weights(
        [RNG.uniform(0.1, 0.5, weight.shape).astype(weight.dtype) for weight in model.get_weights()]
    )
    return model


MODELS = (image, operations, recurrent, several, half)
