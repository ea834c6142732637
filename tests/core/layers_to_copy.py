"""What tests of copies build models of."""

import keras

L = keras.layers


def on_top(*layers, dtype="float32", shape=(3,)):
    return keras.Sequential([keras.Input(shape, dtype=dtype), *layers, L.Dense(2, name="top")])


class Factor:
    value = 3.0
