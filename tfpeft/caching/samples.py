"""Samples of data: their checksums, and whether they are the same in every epoch."""

import itertools
import zlib

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError, invalid
from tfpeft.core.dataset_graph import is_reshuffled

_COMPARED_BATCHES = 4


def checksums(x):
    """Returns a number per sample, computed from all its inputs."""
    sums = np.zeros(len(keras.tree.flatten(x)[0]), "uint32")
    for leaf in keras.tree.flatten(x):
        leaf = np.asarray(leaf)
        if leaf.dtype.kind in "OSU":  # texts, as TensorFlow encodes them
            leaf = tf.convert_to_tensor(leaf).numpy()
            rows = [repr(row if isinstance(row, bytes) else row.tolist()).encode() for row in leaf]
        else:
            rows = np.ascontiguousarray(leaf)
        sums[:] = [zlib.crc32(row, int(before)) for row, before in zip(rows, sums, strict=True)]
    return sums


def check_dense(dataset, name):
    """Raises if the elements of a `tf.data.Dataset` hold ragged or sparse tensors."""
    spec = dataset.element_spec
    if not isinstance(spec, (tuple, dict, tf.TensorSpec)) or any(
        not isinstance(leaf, tf.TensorSpec) for leaf in keras.tree.flatten(spec)
    ):
        raise invalid(name, "batches of dense tensors: x, (x, y) or (x, y, sample_weight)", spec)


def check_repeatable(data):
    """Raises if a dataset shuffles, or the first batches differ when a `Data` is read again."""
    first, again = (_first_checksums(data) for _ in range(2))
    shuffles = isinstance(data.given, tf.data.Dataset) and is_reshuffled(data.given)
    is_equal = _equal([x for x, _ in first], [x for x, _ in again])
    if is_equal and not shuffles:
        return
    has_labels = first[0][1] is not None
    if not is_equal and has_labels and _equal([y for _, y in first], [y for _, y in again]):
        raise InputError(
            f"Received an invalid value for `{data.name}`, expected inputs that are the same in "
            "every epoch. Received inputs that change while their labels stay: random "
            "augmentation, whose outputs cannot be stored. Give the Distiller the teacher itself, "
            "so that both models receive the same augmented batch; or augment after the join, the "
            "student's inputs only"
        )
    received = "a dataset that shuffles its samples again" if shuffles else "batches that change"
    raise InputError(
        f"Received an invalid value for `{data.name}`, expected the same samples in the same order "
        f"in every epoch. Received {received} when it is read again. If the data "
        "is augmented at random, give the Distiller the teacher itself; if it is shuffled, shuffle "
        "after the join, `precompute(model, data).join(data).unbatch().shuffle(...).batch(...)`, "
        "or with `shuffle(..., reshuffle_each_iteration=False)`"
    )


def _first_checksums(data):
    """Returns the checksums of the inputs and of the labels, or None, of the first batches."""
    batches = itertools.islice(data.batches(), _COMPARED_BATCHES)
    return [(checksums(x), None if y is None else checksums(y)) for x, y, _ in batches]


def _equal(a, b):
    return len(a) == len(b) and all(map(np.array_equal, a, b))
