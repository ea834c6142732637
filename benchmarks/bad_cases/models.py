"""The tiny models and files that cases are made of."""

import functools
import pathlib

import keras
import tensorflow as tf


class Subclassed(keras.Model):
    """A model whose layers are built when it is called."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(3)

    def call(self, inputs):
        return self.head(inputs)


def dense(classes=3, width=6):
    """Returns logits of three classes, from six numbers."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((width,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.Dense(classes, name="head"),
        ],
        name="tiny",
    )


def convolutional():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((8, 8, 2)),
            keras.layers.Conv2D(4, 3, name="conv"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(3, name="head"),
        ]
    )


def compiled(model=None, optimizer=None):
    model = model or dense()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer or keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    return model


def frozen():
    model = dense()
    model.trainable = False
    return model


def without_kernels():
    return keras.Sequential([keras.Input((6,)), keras.layers.BatchNormalization()])


def two_outputs():
    inputs = keras.Input((6,))
    outputs = {name: keras.layers.Dense(3, name=name)(inputs) for name in ("a", "b")}
    return keras.Model(inputs, outputs)


def not_finite(value=float("nan")):
    """Returns a model whose outputs are not finite."""
    model = dense()
    kernel = model.layers[-1].kernel
    kernel.assign(tf.fill(kernel.shape, value))
    return model


def tf_keras_model():
    import tf_keras

    return tf_keras.Sequential([tf_keras.Input((6,)), tf_keras.layers.Dense(3)])


def tf_keras_optimizer():
    import tf_keras

    return tf_keras.optimizers.Adam()


@functools.cache
def tflite_bytes():
    """Returns the content of a file of the dense model."""
    import tempfile

    import tfpeft

    with tempfile.TemporaryDirectory() as alone:
        path = pathlib.Path(alone) / "model.tflite"
        tfpeft.export_tflite(dense(), path)
        return path.read_bytes()


@functools.cache
def keras_bytes():
    """Returns the content of a .keras file of the dense model."""
    import tempfile

    with tempfile.TemporaryDirectory() as alone:
        path = pathlib.Path(alone) / "model.keras"
        dense().save(path)
        return path.read_bytes()


def file(name, content):
    """Writes a file; returns its path."""
    pathlib.Path(name).write_bytes(content)
    return name


def text_file(name):
    return file(name, b"text\n")


def folder(name):
    pathlib.Path(name).mkdir()
    return name


def damaged(content):
    """Returns {words: content} of ways in which a file can be damaged."""
    middle = len(content) // 2
    return {
        "empty": b"",
        "cut off": content[:middle],
        "zeros": bytes(len(content)),
        "text": b"not a file of this kind\n" * 10,
        "zeros inside": content[: middle // 2] + bytes(middle) + content[middle // 2 + middle :],
    }
