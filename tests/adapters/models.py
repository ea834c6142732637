"""A small transformer, and what tests of adapters do with models."""

import keras
import numpy as np

rng = np.random.default_rng(0)
X = rng.normal(size=(16, 6, 8)).astype("float32")
Y = rng.integers(0, 3, 16)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def transformer():
    inputs = keras.Input((6, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    hidden = keras.layers.LayerNormalization(name="norm")(inputs + attention)
    dense = keras.layers.Dense(16, activation="gelu", name="feedforward_intermediate_dense")
    dense = keras.layers.Dense(8, name="feedforward_output_dense")(dense(hidden))
    dense = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(dense))
    hidden = keras.layers.Conv1D(5, 3, padding="same", activation="relu", name="conv")(dense)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))


def predict(model, x=X):
    """Returns outputs as an array, in eager code: `Model.predict` traces every model anew."""
    return np.asarray(model(x, training=False))


def randomized(adapted, seed=3):
    values = np.random.default_rng(seed)
    for variable in adapted.trainable_variables:
        variable.assign(variable + values.normal(0.0, 0.3, variable.shape))
    return adapted
