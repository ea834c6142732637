"""The one reader of data: arrays, datasets, PyDatasets and generator functions.

`read(data, name)` takes what users have and returns a `Data`, whose batches, arrays and datasets
have one form, whatever the data was made of.
"""

import inspect
import itertools
import typing

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arrays import (
    REAL,
    as_arrays,
    batch_spec,
    concatenated,
    described,
    invalid_data,
    is_array,
    is_complex,
    text_tensors,
    to_numpy,
)
from tfpeft.core.dataset_graph import is_endless

EXPECTED = (
    "arrays x, (x, y) or (x, y, sample_weight), where x may be a dict or list of arrays; a batched "
    "tf.data.Dataset or a keras.utils.PyDataset of these; or a function that returns a generator "
    "of batches"
)
_NO_FUNCTIONS = (type, keras.layers.Layer)  # although they can be called


class Batch(typing.NamedTuple):
    """Inputs, labels and sample weights of some samples; None where data has none."""

    x: typing.Any
    y: typing.Any = None
    sample_weight: typing.Any = None

    @property
    def size(self):
        """How many samples it has."""
        return int(keras.tree.flatten(self.x)[0].shape[0])

    def element(self):
        """Returns it as Keras takes it: x, (x, y) or (x, y, sample_weight)."""
        if self.sample_weight is not None:
            return tuple(self)
        return self.x if self.y is None else (self.x, self.y)


def read(data, name="data"):
    """Returns a `Data` of what a user gave for the argument `name`.

    A tuple is x and y, and perhaps sample weights: (x,), (x, y) or (x, y, sample_weight). Several
    inputs are a dict or a list; inside such a tuple, a tuple, too. A named tuple is inputs.

    Raises:
        InputError: for data of another kind, of complex numbers, of samples and labels of other
            counts, or empty; for datasets that are not batched, or, where all of the data is read,
            repeat without an end; for a generator, which can be read only once.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, tf.data.Dataset):
        return DatasetData(data, name)
    if isinstance(data, keras.utils.PyDataset):
        return PyDatasetData(data, name)
    if inspect.isgenerator(data):
        expected = "a function that returns the generator, as data is read more than once"
        raise invalid_data(name, expected, "a generator")
    if callable(data) and not hasattr(data, "__array__") and not isinstance(data, _NO_FUNCTIONS):
        return GeneratorData(data, name)
    return ArrayData(data, name)


class Data:
    """What a user gave as data; see `read`.

    Attributes:
        name: The argument, for errors.
        given: What was given.
        samples: How many samples there are; None if they are not counted.
    """

    samples = None
    _may_mix = False

    def __init__(self, given, name):
        self.given, self.name = given, name

    def batches(self, batch_size=256):
        """Yields each `Batch` of arrays or tensors, from the start at every call.

        `batch_size` counts for arrays; others have batches already. Batches without samples are
        left out.
        """
        is_empty = True
        for batch in self._all_batches(batch_size):
            if batch.size:
                is_empty = False
                yield batch
        if is_empty:
            raise self._empty()

    def inputs(self, limit=None):
        """Returns x of the first `limit` samples, or of all, as NumPy arrays in their structure."""
        return self._joined(limit, with_labels=False).x

    def arrays(self):
        """Returns all samples as one `Batch` of NumPy arrays."""
        return self._joined(None, with_labels=True)

    def dataset(self, batch_size=256):
        """Returns the data as a finite `tf.data.Dataset` of batches, in its order."""
        self.check_end()

        def elements():
            batches = self._all_batches(batch_size)
            return (keras.tree.lists_to_tuples(batch.element()) for batch in batches)

        first = list(itertools.islice(elements(), 2))
        if not first:
            raise self._empty()
        signature = self._mapped(batch_spec, *first)
        return tf.data.Dataset.from_generator(elements, output_signature=signature)

    def fit_arguments(self, batch_size):
        """Returns the arguments of `fit` and `evaluate` that stand for the data."""
        self.check_end()
        return {"x": self.given}

    def check_end(self):
        """Raises if it is not known that the data has an end."""

    def _all_batches(self, batch_size):
        """Yields each `Batch`, also one without samples."""
        raise NotImplementedError

    def _joined(self, limit, with_labels):
        parts, count = [], 0
        if limit is None:
            self.check_end()
        for batch in self.batches():
            batch = batch if with_labels else Batch(batch.x)
            parts.append(keras.tree.map_structure(to_numpy, batch))
            count += batch.size
            if limit is not None and count >= limit:
                break
        return self._mapped(lambda *leaves: concatenated(leaves, limit), *parts)

    def _mapped(self, function, *elements):
        """Returns a function's values of the leaves of elements, which must be alike."""
        try:
            return keras.tree.map_structure(function, *elements)
        except ValueError as error:
            expected = "batches of one structure and shape"
            raise invalid_data(self.name, expected, f"{self} of others") from error

    def _batch(self, element):
        """Returns the `Batch` of an element, as Keras and TensorFlow know it."""
        parts = self._parts(element)
        batch = Batch(*(None if part is None else as_arrays(part) for part in parts))
        batch = batch._replace(x=text_tensors(batch.x))
        leaves = [leaf for part in batch if part is not None for leaf in keras.tree.flatten(part)]
        for leaf in leaves:
            self._check_real(leaf)
            if not is_array(leaf):
                raise invalid_data(self.name, EXPECTED, f"{self}, which holds {described(leaf)}")
        if batch.x is None or not keras.tree.flatten(batch.x):
            raise invalid_data(self.name, EXPECTED, f"{self} without inputs")
        counts = [int(leaf.shape[0]) for leaf in leaves]
        if len(set(counts)) > 1 and not (self._may_mix and hasattr(batch.x, "_fields")):
            received = " and ".join(map(str, counts))
            raise invalid_data(self.name, "as many samples as labels", f"{self}, of {received}")
        return batch

    def _check_real(self, leaf):
        if is_complex(leaf):
            raise invalid_data(self.name, REAL, f"{self} of complex numbers")

    def _parts(self, element):
        """Returns the tuple (x,), (x, y) or (x, y, sample_weight) that an element stands for."""
        is_inputs = not isinstance(element, tuple) or hasattr(element, "_fields")
        parts = (element,) if is_inputs and not isinstance(element, Batch) else element
        if len(parts) not in (1, 2, 3):
            raise invalid_data(self.name, EXPECTED, f"a tuple of {len(parts)}")
        return parts

    def _empty(self):
        return invalid_data(self.name, "data with samples, one or more", f"{self} without any")

    def __str__(self):
        return f"a {type(self.given).__name__}"


class ArrayData(Data):
    """Arrays, or structures of them."""

    def __init__(self, given, name):
        super().__init__(given, name)
        self.batch = self._batch(given)
        self.samples = self.batch.size
        if not self.samples:
            raise self._empty()

    def _all_batches(self, batch_size):
        for start in range(0, self.samples, batch_size):
            yield self.rows(start, start + batch_size)

    def rows(self, start, stop):
        """Returns the samples from `start` to `stop`."""
        return _sliced(lambda leaf: leaf[start:stop], self.batch)

    def inputs(self, limit=None):
        return keras.tree.map_structure(lambda leaf: np.asarray(leaf[:limit]), self.batch.x)

    def arrays(self):
        return _sliced(np.asarray, self.batch)

    def dataset(self, batch_size=256):
        slices = keras.tree.lists_to_tuples(self.batch.element())
        return tf.data.Dataset.from_tensor_slices(slices).batch(batch_size)

    def fit_arguments(self, batch_size):
        return {**self.batch._asdict(), "batch_size": batch_size}


class DatasetData(Data):
    """A `tf.data.Dataset` of batches."""

    # A named tuple may hold inputs of several tasks, with another number of samples per task.
    _may_mix = True

    def __init__(self, given, name):
        super().__init__(given, name)
        spec = given.element_spec
        self._parts(spec)
        for leaf in keras.tree.flatten(spec):
            self._check_real(leaf)
        if any(
            isinstance(leaf, tf.TensorSpec) and leaf.shape.rank == 0
            for leaf in keras.tree.flatten(spec)
        ):
            raise invalid_data(
                name, "batches, as of `dataset.batch(32)`", f"single samples, {spec}"
            )
        if given.cardinality() == 0:
            raise self._empty()

    def _all_batches(self, batch_size):
        return map(self._batch, self.given)

    def check_end(self):
        if is_endless(self.given):
            expected = "a finite dataset, such as `dataset.take(batches)`"
            raise invalid_data(self.name, expected, "one that repeats without an end")

    def dataset(self, batch_size=256):
        self.check_end()
        return self.given

    def __str__(self):
        return "a dataset"


class PyDatasetData(Data):
    """A `keras.utils.PyDataset`, whose elements may be lists [x, y], as Keras takes them."""

    def __init__(self, given, name):
        super().__init__(given, name)
        try:
            self._count = given.num_batches
        except NotImplementedError:
            self._count = None
        if self._count == 0:
            raise self._empty()

    def _all_batches(self, batch_size):
        return self._at(itertools.count() if self._count is None else range(self._count))

    def spaced_batches(self, samples):
        """Yields batches of about so many samples, evenly spaced where there are more."""
        first = next(self.batches())
        count = -(-samples // first.size)
        if self._count is None or self._count <= count:
            yield from self.batches()
        else:
            yield from self._at(np.linspace(0, self._count - 1, count).astype(int).tolist())

    def _at(self, indices):
        for i in indices:
            element = self.given[i]
            yield self._batch(tuple(element) if isinstance(element, list) else element)

    def check_end(self):
        if self._count is None:
            expected = "a PyDataset whose `num_batches`, or `__len__`, is known"
            raise invalid_data(self.name, expected, self)

    def dataset(self, batch_size=256):
        batches = super().dataset(batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(self._count))


class GeneratorData(Data):
    """A function that returns a generator of batches, as TensorFlow's converter takes it.

    An element [x] is x, and a longer list is several inputs. An object with `__call__` and
    `__len__`, the number of batches, is data whose end is known.
    """

    def __init__(self, given, name):
        super().__init__(given, name)
        self._count = len(given) if hasattr(given, "__len__") else None
        if self._count == 0:
            raise self._empty()

    def _all_batches(self, batch_size):
        batches = self.given()
        if not hasattr(batches, "__iter__"):
            raise invalid_data(self.name, EXPECTED, f"a function that returns {batches!r}")
        for element in itertools.islice(batches, self._count):
            is_single = isinstance(element, list) and len(element) == 1
            yield self._batch(element[0] if is_single else element)

    def check_end(self):
        if self._count is None:
            expected = (
                "data whose end is known: arrays, a finite tf.data.Dataset, a PyDataset, or a "
                "function with `__len__`, the number of batches"
            )
            raise invalid_data(self.name, expected, "a function that returns a generator")

    def dataset(self, batch_size=256):
        batches = super().dataset(batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(self._count))

    def fit_arguments(self, batch_size):
        return {"x": self.dataset(batch_size)}


def _sliced(function, batch):
    """Returns the batch with a function applied to every leaf."""
    return Batch(
        *(None if part is None else keras.tree.map_structure(function, part) for part in batch)
    )
