"""Batches of data with the outputs of each subject for them, gathered into larger chunks."""

import typing

import keras
import numpy as np

from tfpeft.core.arrays import to_numpy
from tfpeft.core.data import read

_SAMPLES, _BYTES = 4096, 2**25  # of a chunk, at most, but for its last batch


class Chunk(typing.NamedTuple):
    """Some samples, of one or more batches.

    Attributes:
        x: The inputs of the first batch, arrays in their structure.
        y: Labels in their structure; the inputs where data has no labels.
        has_labels: Whether data has labels.
        sample_weight: Weights in their structure, or None.
        outputs: {subject: {output: array}}.
        size: How many samples.
    """

    x: typing.Any
    y: typing.Any
    sample_weight: typing.Any
    outputs: dict
    size: int
    has_labels: bool


def chunks(data, subjects):
    """Yields `Chunk`s of all data, which is read once.

    The figures of a chunk cost as much as those of a batch, where batches are small; the inputs of
    a batch are left as soon as each subject has had them.

    Args:
        data: As `tfpeft.core.data.read` takes it.
        subjects: {name: what has `predict`}.

    Raises:
        InputError: for data that has no end, or is empty, and inputs that a subject does not take.
    """
    data = read(data)
    data.check_end()
    parts, samples, size, x = [], 0, 0, None
    for batch in data.batches():
        inputs = keras.tree.map_structure(_in_float32, batch.x)
        outputs = {name: subject.predict(inputs) for name, subject in subjects.items()}
        y, weight = (
            keras.tree.map_structure(to_numpy, part)
            for part in (inputs if batch.y is None else batch.y, batch.sample_weight)
        )
        if parts and _shapes((y, weight, outputs)) != _shapes(parts[0]):
            yield _chunk(x, parts, samples, batch.y is not None)
            parts, samples, size, x = [], 0, 0, None
        if x is None:
            x = keras.tree.map_structure(to_numpy, inputs)
        parts.append((y, weight, outputs))
        samples += batch.size
        size += sum(leaf.nbytes for leaf in keras.tree.flatten((y, outputs)) if leaf is not None)
        if samples >= _SAMPLES or size >= _BYTES:
            yield _chunk(x, parts, samples, batch.y is not None)
            parts, samples, size, x = [], 0, 0, None
    if parts:
        yield _chunk(x, parts, samples, batch.y is not None)


def _chunk(x, parts, samples, has_labels):
    joined = parts[0] if len(parts) == 1 else keras.tree.map_structure(_concatenated, *parts)
    return Chunk(x, *joined, samples, has_labels)


def _shapes(part):
    """Returns the keys and the shapes of a structure; texts may be longer in one batch."""
    found = keras.tree.flatten_with_path(part)
    return [(path, None if leaf is None else leaf.shape[1:]) for path, leaf in found]


def _concatenated(*leaves):
    return None if leaves[0] is None else np.concatenate(leaves)


def _in_float32(leaf):
    is_float64 = isinstance(leaf, np.ndarray) and leaf.dtype == "float64"
    return leaf.astype("float32") if is_float64 else leaf
