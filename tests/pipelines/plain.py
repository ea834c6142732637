"""A user's script, without tfpeft: it writes data and three models to the current folder."""

import keras
import numpy as np


class Net(keras.Model):
    def __init__(self, units=24, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.out = keras.layers.Dense(3, activation="softmax")

    def call(self, x):
        return self.out(self.hidden(x))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


def functional():
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(24, activation="relu")(inputs)
    hidden = keras.layers.Add()([hidden, keras.layers.Dense(24)(hidden)])
    return keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))


def sequential():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(24, activation="relu"), keras.layers.Dense(3)]
    )


def student():
    return keras.Sequential(
        [keras.Input((6,)), keras.layers.Dense(8, activation="relu"), keras.layers.Dense(3)]
    )


if __name__ == "__main__":
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(3, 6))
    y = rng.integers(0, 3, 600)
    x = centres[y] + rng.normal(0, 0.6, (600, 6))
    np.savez("data.npz", x_train=x[:400], y_train=y[:400], x_test=x[400:], y_test=y[400:])
    for name, model in [
        ("functional.keras", functional()),
        ("sequential.h5", sequential()),
        ("subclassed.keras", Net()),
    ]:
        logits = name == "sequential.h5"
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
        model.compile("adam", loss, metrics=["accuracy"])
        model.fit(x[:400], y[:400], epochs=10, verbose=0)
        model.save(name)
