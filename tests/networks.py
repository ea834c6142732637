"""Tiny data, and a model of every kind, for the tests of all techniques."""

import keras
import numpy as np

X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 32)


def sequential():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(10, activation="relu", kernel_regularizer="l2", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )


def convolutional():
    inputs = keras.Input((6,))
    hidden = keras.layers.Reshape((2, 3, 1))(inputs)
    hidden = keras.layers.Conv2D(4, 2, padding="same")(hidden)
    hidden = keras.layers.DepthwiseConv2D(2, padding="same")(hidden)
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))


def nested_shared():
    shared = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3)(shared(shared(inputs))))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.head = keras.layers.Dense(3)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.head.build((None, self.units))

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def subclassed():
    model = Subclassed()
    model.build((None, 6))
    return model


MODELS = [sequential, convolutional, nested_shared, subclassed]


def compiled(model, optimizer, **options):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def train(model, epochs=2, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, **options}
    return model.fit(X, Y, epochs=epochs, **options)


def zeros(variable):
    return int(np.sum(variable.numpy() == 0.0))
