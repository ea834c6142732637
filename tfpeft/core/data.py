"""The one reader of data: arrays, datasets, PyDatasets and generator functions.

`read(data, name)` takes what users have and returns a `Data`, whose batches, arrays and datasets
have one form, whatever it was made of.
"""

import inspect
import typing

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError, invalid

EXPECTED = (
    "arrays x, (x, y) or (x, y, sample_weight), where x may be a dict or list of arrays; a batched "
    "tf.data.Dataset or a keras.utils.PyDataset of these; or a function that returns a generator "
    "of batches"
)


class Batch(typing.NamedTuple):
    """Inputs, labels and sample weights of some samples; None where data has none."""

    x: typing.Any
    y: typing.Any = None
    sample_weight: typing.Any = None

    @property
    def size(self):
        """How many samples it has."""
        return len(keras.tree.flatten(self.x)[0])

    def element(self):
        """Returns it as Keras takes it: x, (x, y) or (x, y, sample_weight)."""
        if self.sample_weight is not None:
            return tuple(self)
        return self.x if self.y is None else (self.x, self.y)


def read(data, name="data"):
    """Returns a `Data` of what a user gave for the argument `name`.

    A tuple is x and y, and perhaps sample weights: (x,), (x, y) or (x, y, sample_weight). Several
    inputs are a dict or a list; inside such a tuple, a tuple, too.

    Raises:
        InputError: for data of another kind, of samples and labels of other counts ("unlike"), or
            empty; for datasets that repeat without an end or are not batched; for a generator,
            which can be read once only.
    """
    if isinstance(data, Data):
        return data
    if isinstance(data, tf.data.Dataset):
        return DatasetData(data, name)
    if isinstance(data, keras.utils.PyDataset):
        return PyDatasetData(data, name)
    if inspect.isgenerator(data):
        expected = "a function that returns the generator, as data is read more than once"
        raise invalid(name, expected, data)
    if callable(data) and not hasattr(data, "__array__"):
        return GeneratorData(data, name)
    return ArrayData(data, name)


class Data:
    """What a user gave as data; see `read`.

    Attributes:
        name: The argument, for errors.
        given: What was given.
        samples: How many samples there are; None where only reading them all would tell.
    """

    samples = None

    def __init__(self, given, name):
        self.given, self.name = given, name

    def batches(self, batch_size=256):
        """Yields each `Batch` of arrays or tensors, from the start at every call.

        `batch_size` counts for arrays; others have batches already.
        """
        raise NotImplementedError

    def inputs(self, limit=None):
        """Returns x of the first `limit` samples, or of all, as NumPy arrays in their structure."""
        return self._joined(limit, with_labels=False).x

    def arrays(self):
        """Returns all samples as one `Batch` of NumPy arrays."""
        return self._joined(None, with_labels=True)

    def _joined(self, limit, with_labels):
        parts, count = [], 0
        if limit is None:
            self.check_end()
        for batch in self.batches():
            batch = batch if with_labels else Batch(batch.x)
            parts.append(_mapped(np.asarray, batch))
            count += batch.size
            if limit is not None and count >= limit:
                break
        try:
            joined = _mapped(lambda *leaves: np.concatenate(leaves), *parts)
        except ValueError as error:
            raise invalid(self.name, f"batches of one shape ({error})", self.kind) from error
        return _mapped(lambda leaf: leaf[:limit], joined)

    def check_end(self):
        """Raises if it is not known that the data has an end."""

    def dataset(self, batch_size=256):
        """Returns the data as a finite `tf.data.Dataset` of batches, in its order."""
        self.check_end()
        first = next(self.batches(batch_size)).element()

        def spec(leaf):
            tensor = tf.convert_to_tensor(leaf)
            return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

        def elements():
            return (_without_lists(batch.element()) for batch in self.batches(batch_size))

        signature = keras.tree.map_structure(spec, _without_lists(first))
        return tf.data.Dataset.from_generator(elements, output_signature=signature)

    def fit_arguments(self, batch_size):
        """Returns the arguments of `fit` and `evaluate` that stand for the data."""
        return {"x": self.given}

    @property
    def kind(self):
        """What the data is, in a word, for errors."""
        return type(self.given).__name__

    def _not_empty(self, batches):
        """Yields the batches; raises if there are none."""
        found = False
        for batch in batches:
            if batch.size:
                found = True
                yield batch
        if not found:
            raise invalid(self.name, "data with samples, one or more", f"{self.kind} without any")


class ArrayData(Data):
    """Arrays, or structures of them."""

    def __init__(self, given, name):
        super().__init__(given, name)
        if isinstance(given, tuple) and len(given) not in (1, 2, 3):
            raise invalid(name, EXPECTED, f"a tuple of {len(given)}")
        parts = given if isinstance(given, tuple) else (given,)
        self.batch = Batch(*(None if part is None else _arrays(part, name) for part in parts))
        if self.batch.x is None:
            raise invalid(name, EXPECTED, None)
        leaves = [leaf for leaf in keras.tree.flatten(tuple(self.batch)) if leaf is not None]
        if any(len(leaf.shape) == 0 for leaf in leaves):
            raise invalid(name, EXPECTED, f"a number, in {self.kind}")
        counts = [int(leaf.shape[0]) for leaf in leaves]
        if len(set(counts)) != 1 or not counts[0]:
            expected = "as many samples as labels, and one or more"
            raise invalid(name, expected, f"{' and '.join(map(str, counts)) or 'none'}")
        self.samples = counts[0]

    def batches(self, batch_size=256):
        for start in range(0, self.samples, batch_size):
            yield self.rows(start, start + batch_size)

    def rows(self, start, stop):
        """Returns the samples from `start` to `stop`."""
        return _mapped(lambda leaf: leaf[start:stop], self.batch)

    def inputs(self, limit=None):
        return keras.tree.map_structure(lambda leaf: np.asarray(leaf[:limit]), self.batch.x)

    def arrays(self):
        return _mapped(np.asarray, self.batch)

    def dataset(self, batch_size=256):
        slices = _without_lists(self.batch.element())
        return tf.data.Dataset.from_tensor_slices(slices).batch(batch_size)

    def fit_arguments(self, batch_size):
        return {**self.batch._asdict(), "batch_size": batch_size}


class DatasetData(Data):
    """A `tf.data.Dataset` of batches."""

    def __init__(self, given, name):
        super().__init__(given, name)
        spec = given.element_spec
        if isinstance(spec, tuple) and len(spec) not in (1, 2, 3):
            raise invalid(name, "batches of x, (x, y) or (x, y, sample_weight)", spec)
        if any(
            isinstance(leaf, tf.TensorSpec) and leaf.shape.rank == 0
            for leaf in keras.tree.flatten(spec)
        ):
            raise invalid(name, "batches, as of `dataset.batch(32)`", f"single samples, {spec}")
        if given.cardinality() == 0:
            raise invalid(name, "data with samples, one or more", "an empty dataset")

    def batches(self, batch_size=256):
        return self._not_empty(_batch(element) for element in self.given)

    def check_end(self):
        if self.given.cardinality() == tf.data.INFINITE_CARDINALITY:
            raise InputError(
                f"Received an invalid value for `{self.name}`, expected a finite dataset, such as "
                f"`dataset.take(batches)`. Received: one that repeats without an end"
            )

    def dataset(self, batch_size=256):
        self.check_end()
        return self.given


class PyDatasetData(Data):
    """A `keras.utils.PyDataset`."""

    def check_end(self):
        if self.given.num_batches is None:
            expected = "a PyDataset whose `num_batches`, or `__len__`, is known"
            raise invalid(self.name, expected, self.kind)

    def batches(self, batch_size=256):
        self.check_end()
        return self._not_empty(_batch(self.given[i]) for i in range(self.given.num_batches))

    def dataset(self, batch_size=256):
        batches = super().dataset(batch_size)
        return batches.apply(tf.data.experimental.assert_cardinality(self.given.num_batches))


class GeneratorData(Data):
    """A function that returns a generator of batches, as TensorFlow's converter takes it."""

    def batches(self, batch_size=256):
        made = self.given()
        if not hasattr(made, "__iter__"):
            raise invalid(self.name, EXPECTED, f"a function that returns {made!r}")
        return self._not_empty(_batch(element) for element in made)

    def check_end(self):
        expected = "data whose end is known: arrays, a finite tf.data.Dataset or a PyDataset"
        raise invalid(self.name, expected, "a function that returns a generator")


def _mapped(function, *batches):
    """Returns a `Batch` of what the function makes of the leaves of batches."""
    return Batch(
        *(
            None if parts[0] is None else keras.tree.map_structure(function, *parts)
            for parts in zip(*batches, strict=True)
        )
    )


def _batch(element):
    """Returns the `Batch` of an element; [x], the converter's form, is x."""
    if isinstance(element, list) and len(element) == 1:
        element = element[0]
    return Batch(*element) if isinstance(element, tuple) else Batch(element)


def _arrays(part, name):
    """Returns arrays or tensors in their structure; a list of numbers is one array."""
    leaves = keras.tree.flatten(part)
    is_nested = isinstance(part, (list, tuple))
    if is_nested and not any(np.ndim(leaf) for leaf in leaves):
        return _array(part, name)
    return keras.tree.map_structure(lambda leaf: _array(leaf, name), part)


def _array(value, name):
    if tf.is_tensor(value) or isinstance(value, np.ndarray):
        return value
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise invalid(name, f"{EXPECTED} ({error})", type(value).__name__) from error
    if array.dtype == object:
        raise invalid(name, EXPECTED, type(value).__name__)
    return array


def _without_lists(structure):
    """Returns the structure with tuples for lists, which tf.data would stack."""
    if isinstance(structure, dict):
        return {key: _without_lists(value) for key, value in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*map(_without_lists, structure))
    if isinstance(structure, (list, tuple)):
        return tuple(map(_without_lists, structure))
    return structure
