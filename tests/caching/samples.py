"""Samples, and a student, for the tests of precomputed outputs."""

import keras
import numpy as np
import tensorflow as tf

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 5)).astype("float32")
Y = rng.integers(0, 3, 50)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def student():
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(4, name="hidden"), keras.layers.Dense(3)]
    )


def dataset(batch_size=8, x=X, y=Y):
    return tf.data.Dataset.from_tensor_slices((x, y)).batch(batch_size)


class Batches(keras.utils.PyDataset):
    """X and Y in batches of 8, or what `change` makes of a batch."""

    def __init__(self, change=lambda x, y: (x, y), count=7):
        super().__init__()
        self.change, self.count = change, count

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, index):
        rows = slice(8 * index, 8 * index + 8)
        return self.change(X[rows], Y[rows])
