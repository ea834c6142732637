"""Tiny models and data for runs of the Distiller."""

import keras
import numpy as np

import tfpeft

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 5)).astype("float32")
Y = rng.integers(0, 3, 24)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def mlp(units=8, activation=None, classes=3, hidden="hidden"):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(units, activation="relu", name=hidden),
            keras.layers.Dense(classes, activation=activation, name="head"),
        ]
    )


@keras.saving.register_keras_serializable(package="tests")
class Student(keras.Model):
    """Subclassed, with a block inside, and not built before it sees data."""

    def __init__(self, units=6, **kwargs):
        super().__init__(**kwargs)
        self.block = keras.Sequential(
            [keras.layers.Dense(units, activation="relu", name="inner")], name="block"
        )
        self.head = keras.layers.Dense(3, name="head")

    def build(self, input_shape):
        self.block.build(input_shape)
        self.head.build(self.block.compute_output_shape(input_shape))

    def call(self, inputs):
        return self.head(self.block(inputs))


def softmax(z):
    e = np.exp(z - z.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def kl(p, q):
    return np.sum(p * (np.log(p) - np.log(q)), -1)


def predict(model, x):
    """Returns outputs as arrays, in eager code: `Model.predict` traces every model anew."""
    return keras.tree.map_structure(np.asarray, model(x, training=False))


def loss_of(distiller, x, y, **options):
    return distiller.evaluate(x, y, batch_size=len(Y), verbose=0, return_dict=True, **options)


def distiller_of(
    teacher, student, loss=HARD, optimizer="sgd", metrics=None, eager=False, **options
):
    """Returns a compiled Distiller; `eager` saves tracing where another test runs the graph."""
    distiller = tfpeft.Distiller(teacher, student, **options)
    distiller.compile(optimizer, loss, metrics=metrics, run_eagerly=eager)
    return distiller
