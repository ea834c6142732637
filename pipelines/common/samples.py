"""The samples of a split: arrays (x, y), or a `Stream` that is read anew in every epoch.

x and y are arrays, or dicts of them by the names of inputs and outputs; a third part are sample
weights. The functions here are the same for arrays and streams.
"""

import dataclasses
import math

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.data import read

SHUFFLED = 1024
"""Samples of a stream among which the next one is drawn."""


@dataclasses.dataclass(frozen=True)
class Stream:
    """Samples that are not held in memory.

    Attributes:
        dataset: A `tf.data.Dataset` of single samples (x, y) or (x, y, sample_weight), in the same
            order in every epoch. Its order says nothing of labels: the first ones are a sample.
        samples: How many there are.
    """

    dataset: tf.data.Dataset
    samples: int

    def batches(self, batch_size, seed=None):
        """Returns a dataset of batches, shuffled anew in every epoch with a seed."""
        dataset = self.dataset
        if seed is not None:
            dataset = dataset.shuffle(min(SHUFFLED, self.samples), seed=seed)
        count = math.ceil(self.samples / batch_size)
        batches = dataset.batch(batch_size, num_parallel_calls=tf.data.AUTOTUNE)
        return batches.apply(tf.data.experimental.assert_cardinality(count)).prefetch(2)


def as_data(split, batch_size=256):
    """Returns the samples as the library takes them: arrays, or a dataset of batches."""
    return split.batches(batch_size) if isinstance(split, Stream) else split


def count(split):
    """Returns how many samples there are."""
    if isinstance(split, Stream):
        return split.samples
    has_labels = len(split) > 1 and split[1] is not None
    return len(keras.tree.flatten(split[1] if has_labels else split[0])[0])


def first_inputs(split, limit=None):
    """Returns the inputs of the first samples, or of all, as arrays."""
    return read(as_data(split)).inputs(limit)


def first(x, limit):
    """Returns the first samples of arrays in their structure."""
    return keras.tree.map_structure(lambda array: array[:limit], x)


def some(split, limit):
    """Returns (x, y, sample_weight or None) of up to `limit` samples, evenly spaced in arrays."""
    if isinstance(split, Stream):
        return read(split.dataset.take(limit).batch(256)).arrays()
    rows = np.linspace(0, count(split) - 1, min(count(split), limit)).astype(int)

    def picked(part):
        return keras.tree.map_structure(lambda array: np.asarray(array)[rows], part)

    return read(tuple(None if part is None else picked(part) for part in split)).arrays()


def fit_arguments(data, batch_size, seed=0):
    """Returns the arguments of `fit` for samples, or for what `precompute` made of them."""
    if isinstance(data, Stream):
        return {"x": data.batches(batch_size, seed)}
    if isinstance(data, tf.data.Dataset):  # of batches that teachers' outputs were joined to
        return {"x": data.shuffle(max(1, SHUFFLED // batch_size), seed=seed)}
    names = ("x", "y", "sample_weight")
    return {**dict(zip(names, data, strict=False)), "batch_size": batch_size}


def with_inputs(split, change):
    """Returns the samples with `change(x)` for the inputs of many samples."""
    if not isinstance(split, Stream):
        return (change(split[0]), *split[1:])

    def changed(x, *others):
        batch = keras.tree.map_structure(lambda leaf: leaf[None], x)
        return keras.tree.map_structure(lambda leaf: leaf[0], change(batch)), *others

    return Stream(split.dataset.map(changed, tf.data.AUTOTUNE), split.samples)


def representative(split):
    """Returns the inputs that calibrate integers: those of arrays, or a dataset of inputs."""
    if not isinstance(split, Stream):
        return split[0]
    return split.batches(256).map(lambda x, *_: x)
