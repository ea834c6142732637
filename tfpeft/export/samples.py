"""Samples spread over all of the data, for calibration and for the check of a file."""

import itertools

import keras
import numpy as np

from tfpeft.core.arrays import check_finite, check_numbers, to_numpy
from tfpeft.core.data import ArrayData, PyDatasetData

MOST_READ, _FEWEST_READ, _BYTES_READ = 10_000, 2_000, 2**30
"""Samples that are read of data other than arrays: fewer where these are large, as images are."""


def spread(data, count, *, arranged=lambda x: x, most_read=MOST_READ, seed=0, texts=False):
    """Returns up to `count` inputs drawn from all of a `Data`, in a random order.

    Each sample gets a random number, and those of the lowest numbers are kept: one pass, whatever
    the length, in the memory of `count` samples.

    Args:
        data: What `tfpeft.core.data.read` returns.
        count: How many.
        arranged: A function that returns inputs in the structure of a model.
        most_read: Samples after which reading stops, as data may have no end: after 2,000 where
            these have a GiB. Of a PyDataset with more of them, evenly spaced batches are read.
        seed: Seed of the random numbers.
        texts: Whether arrays may hold texts.

    Returns:
        A list of samples, each a list of arrays (1, ...); sides may differ between samples. And
        how many were read.

    Raises:
        InputError: for data that is empty, or not finite.
    """
    rng = np.random.default_rng(seed)

    def check(x):
        if texts:
            check_finite(x, data.name, "inputs")
        else:
            check_numbers(x, data.name)

    if isinstance(data, ArrayData):
        check(arranged(data.inputs()))
        order = np.argsort(rng.random(data.samples), kind="stable")[:count]
        rows = [keras.tree.flatten(arranged(_as_numpy(data.rows(i, i + 1).x))) for i in order]
        return rows, data.samples
    kept, read, size = [], 0, 0
    is_indexed = isinstance(data, PyDatasetData)
    for batch in data.spaced_batches(most_read) if is_indexed else data.batches():
        x = arranged(_as_numpy(batch.x))
        check(x)
        keys = rng.random(batch.size)
        bound = kept[-1][0] if len(kept) >= count else 1.0
        flat = keras.tree.flatten(x)
        # Copies: a slice would keep its whole batch in memory.
        kept += [
            (keys[i], [leaf[i : i + 1].copy() for leaf in flat])
            for i in np.flatnonzero(keys < bound)
        ]
        kept = sorted(kept, key=lambda pair: pair[0])[:count]
        read += batch.size
        size += sum(leaf.nbytes for leaf in flat)
        if read >= most_read or (read >= _FEWEST_READ and size >= _BYTES_READ):
            break
    return [sample for _, sample in kept], read


def stacked(samples, batch_size=32):
    """Yields lists of arrays (batch, ...), of samples of one shape each, in order."""

    def shapes(sample):
        return [array.shape for array in sample]

    for _, group in itertools.groupby(samples, key=shapes):
        group = list(group)
        for start in range(0, len(group), batch_size):
            yield list(map(np.concatenate, zip(*group[start : start + batch_size], strict=True)))


def _as_numpy(x):
    return keras.tree.map_structure(to_numpy, x)
