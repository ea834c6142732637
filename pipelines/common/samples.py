"""The samples of a split: arrays (x, y), or a `Stream` that is read anew in every epoch.

x and y are arrays, or dicts of them by the names of inputs and outputs; a third part are sample
weights. The functions here are the same for arrays and streams.
"""

import dataclasses
import functools
import math
import os
import typing

import keras
import numpy as np
import tensorflow as tf

from pipelines.common.arrays import as_keras_takes
from tfpeft.core.data import read

HELD_BYTES = 2**30
"""Samples of more bytes are streamed."""
PARALLEL = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
"""Samples that are read at a time; a fixed number, as autotuning takes memory."""
_BATCH_BYTES, _SHUFFLED_BYTES = 2**25, 2**27
_TEXT_BYTES, _TENSOR_BYTES = 256, 128  # of a text, about; and of any tensor beside its values


@dataclasses.dataclass(frozen=True)
class Stream:
    """Samples that are not held in memory.

    Attributes:
        source: A `tf.data.Dataset` of single samples (x,), (x, y) or (x, y, sample_weight), or of
            what `load` makes samples of, in the same order in every epoch. The order says nothing
            of labels: the first samples are a sample of all.
        samples: How many there are; None until `streams.readable` counts them.
        load: A function of an element of `source` that returns a sample; None for samples.
        change: A function of the inputs of a batch; None for none.
        augmentation: A function (seed) -> function of a batch (x, y, ...), for batches that are
            trained on, before `change`; None for none.
        is_unlabelled: Whether the second part of a sample stands for labels that the data does
            not have, beside sample weights.
    """

    source: tf.data.Dataset
    samples: int
    load: typing.Callable | None = None
    change: typing.Callable | None = None
    augmentation: typing.Callable | None = None
    is_unlabelled: bool = False

    @property
    def has_labels(self):
        """Whether the data has labels."""
        return len(self.spec) > 1 and not self.is_unlabelled

    @property
    def varies(self):
        """Whether training has other inputs in every epoch, so that no outputs are stored."""
        return self.augmentation is not None

    def batches(self, batch_size=None, seed=None):
        """Returns a dataset of batches; with a seed those to train on: shuffled and augmented.

        Without `batch_size`, batches have up to 256 samples and 32 MB.
        """
        if batch_size is None:
            batch_size = max(1, min(256, _BATCH_BYTES // sample_bytes(self.spec)))
        stream = self if seed is None else self._shuffled(seed)
        batches = stream.loaded.batch(batch_size)
        if seed is not None and self.augmentation is not None:
            batches = batches.map(self.augmentation(seed))
        if self.change is not None:
            batches = batches.map(lambda x, *others: (self.change(x), *others))
        if self.samples is not None:
            count = math.ceil(self.samples / batch_size)
            batches = batches.apply(tf.data.experimental.assert_cardinality(count))
        batches = batches.prefetch(1)
        options = tf.data.Options()
        options.autotune.enabled = False
        return batches.with_options(options)

    @functools.cached_property
    def loaded(self):
        """The samples before `change`, as a dataset."""
        if self.load is None:
            return self.source
        # The functions are those of the scripts, and have no Python code to convert.
        load = tf.autograph.experimental.do_not_convert(self.load)
        return self.source.map(load, num_parallel_calls=PARALLEL)

    @property
    def spec(self):
        """The specs of a sample before `change`: (x,), (x, y) or (x, y, sample_weight)."""
        return self.loaded.element_spec

    def first(self, limit):
        """Returns a stream of the first samples."""
        source = self.source.take(limit)
        return dataclasses.replace(self, source=source, samples=min(limit, self.samples))

    def _shuffled(self, seed):
        buffer = min(self.samples, shuffled(self.source.element_spec))
        return dataclasses.replace(self, source=self.source.shuffle(buffer, seed=seed))

    def mapped(self, function):
        """Returns a stream of the function's values of its samples, each a tuple."""
        load = self.load

        def both(*element):
            return function(*(element if load is None else load(*element)))

        return dataclasses.replace(self, load=both)

    def with_change(self, change):
        """Returns a stream whose inputs are changed, after the changes that it makes already."""
        before = self.change
        both = change if before is None else lambda x: change(before(x))
        return dataclasses.replace(self, change=both)


def stream_of(arrays):
    """Returns arrays (x,), (x, y) or (x, y, sample_weight) as a `Stream`; y may be None."""
    parts = tuple(part for part in arrays if part is not None)
    stream = Stream(tf.data.Dataset.from_tensor_slices(parts), count(arrays))
    if len(arrays) > 2 and arrays[1] is None and arrays[2] is not None:
        stream = stream.mapped(lambda x, weight: (x, x, weight))
        return dataclasses.replace(stream, is_unlabelled=True)
    return stream


def sample_bytes(spec):
    """Returns how many bytes an element of a dataset has, where its shapes are known; at least 1.

    Free sides count as 1.
    """
    size = 0
    for leaf in keras.tree.flatten(spec):
        values = math.prod(side or 1 for side in leaf.shape.as_list()) if leaf.shape.rank else 1
        size += values * (_TEXT_BYTES if leaf.dtype == tf.string else leaf.dtype.size)
    return max(1, size)


def shuffled(spec):
    """Returns among how many elements of a dataset the next one is drawn: 128 MB of them."""
    return max(1, _SHUFFLED_BYTES // (sample_bytes(spec) + _TENSOR_BYTES))


def as_data(split, batch_size=None):
    """Returns the samples as the library takes them: arrays, or a dataset of batches."""
    return split.batches(batch_size) if isinstance(split, Stream) else split


def count(split):
    """Returns how many samples there are."""
    if isinstance(split, Stream):
        return split.samples
    has_labels = len(split) > 1 and split[1] is not None
    return len(keras.tree.flatten(split[1] if has_labels else split[0])[0])


def first_inputs(split, limit=None):
    """Returns the inputs of the first samples, or of all: arrays, or tensors of texts."""
    if isinstance(split, Stream) and limit is not None:
        return some(split, limit).x
    return as_keras_takes(read(as_data(split)).inputs(limit))


def text_inputs(split):
    """Returns the names of the inputs that are texts; "x" for one without a name."""
    x = split.spec[0] if isinstance(split, Stream) else split[0]
    named = x if isinstance(x, dict) else {"x": x}
    return [name for name, leaf in named.items() if leaf.dtype == tf.string]


def first(x, limit):
    """Returns the first samples of arrays in their structure."""
    return keras.tree.map_structure(lambda array: array[:limit], x)


def some(split, limit):
    """Returns (x, y, sample_weight or None) of up to `limit` samples, as arrays.

    Of arrays they are evenly spaced; of a stream the first ones, of at most 128 MB.
    """
    if isinstance(split, Stream):
        limit = max(1, min(limit, split.samples, _SHUFFLED_BYTES // sample_bytes(split.spec)))
        batch = read(split.first(limit).batches()).arrays()
        return batch._replace(x=as_keras_takes(batch.x))
    rows = np.linspace(0, count(split) - 1, min(count(split), limit)).astype(int)

    def picked(part):
        return keras.tree.map_structure(lambda array: np.asarray(array)[rows], part)

    batch = read(tuple(None if part is None else picked(part) for part in split)).arrays()
    return batch._replace(x=as_keras_takes(batch.x))


def fit_arguments(data, batch_size, seed=0):
    """Returns the arguments of `fit` for samples, or for what `precompute` made of them.

    The latter are a dataset of batches of `batch_size`.
    """
    if isinstance(data, Stream):
        return {"x": data.batches(batch_size, seed), "shuffle": False}
    if isinstance(data, tf.data.Dataset):  # of batches that teachers' outputs were joined to
        samples = data.unbatch()
        samples = samples.shuffle(shuffled(samples.element_spec), seed=seed)
        count = tf.data.experimental.assert_cardinality(data.cardinality())
        return {"x": samples.batch(batch_size).apply(count).prefetch(1), "shuffle": False}
    names = ("x", "y", "sample_weight")
    return {**dict(zip(names, data, strict=False)), "batch_size": batch_size}


def with_inputs(split, change):
    """Returns the samples with `change(x)` for the inputs of many samples."""
    if isinstance(split, Stream):
        return split.with_change(change)
    return (change(split[0]), *split[1:])


def representative(split):
    """Returns the inputs that calibrate integers: those of arrays, or a dataset of inputs."""
    if not isinstance(split, Stream):
        return split[0]
    return split.batches().map(lambda x, *_: x)
