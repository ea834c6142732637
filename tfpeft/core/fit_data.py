"""What `fit` and `evaluate` are given, checked before Keras reads it."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arrays import REAL, invalid_data, is_complex
from tfpeft.core.dataset_graph import is_endless

_EXPECTED = (
    "arrays, a dict or list of arrays, a tf.data.Dataset, a keras.utils.PyDataset, or a generator"
)


def check_length(name, data, steps, steps_name):
    """Raises for data without samples, and for data without an end where no steps are given.

    Of complex numbers, too, where it is known before data is read.
    """
    leaves = keras.tree.flatten(getattr(data, "element_spec", data))
    if any(map(is_complex, leaves)):
        raise invalid_data(name, REAL, "complex numbers")
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == 0:
            raise invalid_data(name, "data with samples, one or more", "a dataset without any")
        if steps is None and is_endless(data):
            expected = f"a finite dataset, or `{steps_name}`"
            raise invalid_data(name, expected, "one that repeats without an end")
    elif isinstance(data, keras.utils.PyDataset):
        try:
            count = data.num_batches
        except NotImplementedError:
            return
        if count == 0:
            raise invalid_data(name, "data with samples, one or more", "a PyDataset without any")
        if count is None and steps is None:
            expected = f"a PyDataset whose `__len__` is known, or `{steps_name}`"
            raise invalid_data(name, expected, "one of unknown length")
    elif inspect.isgenerator(data):
        if steps is None:
            expected = f"`{steps_name}`, as it is not known whether a generator ends"
            raise invalid_data(name, expected, f"a generator and {steps_name}=None")
    elif not type(data).__module__.startswith("torch."):  # Keras reads a DataLoader
        are_arrays = all(
            hasattr(leaf, "shape") and not isinstance(leaf, np.generic) for leaf in leaves
        )
        if not leaves or not are_arrays:
            received = f"a {type(data).__name__}"
            if isinstance(data, (dict, list, tuple)):
                received += f" of {', '.join({type(leaf).__name__: None for leaf in leaves})}"
            raise invalid_data(name, _EXPECTED, received)
        for leaf in leaves:
            if isinstance(leaf, np.ndarray) and leaf.dtype.kind in "SU":  # Keras has no such type
                expected = "arrays of numbers, or texts in arrays of objects or tensors"
                raise invalid_data(name, expected, f"an array of type {leaf.dtype}")
        if any(len(leaf.shape) and leaf.shape[0] == 0 for leaf in leaves):
            raise invalid_data(name, "data with samples, one or more", "an array without any")


def check_labels(x, y=None, sample_weight=None, *, name="y"):
    """Raises unless arrays of labels and weights are numbers, as many as samples.

    Args:
        x, y, sample_weight: As of `fit`; what is not arrays is not checked.
        name: The argument that gave the labels, for errors.
    """
    if y is None:
        return
    for leaf in keras.tree.flatten((y, sample_weight)):
        kind = getattr(getattr(leaf, "dtype", None), "kind", "f")
        if kind in "OSUc":
            raise invalid_data(name, "arrays of real numbers", f"an array of type {leaf.dtype}")
    if sample_weight is not None:
        if isinstance(y, dict) and isinstance(sample_weight, dict) and set(y) != set(sample_weight):
            expected = f"weights for all labels, {', '.join(map(str, y))}"
            raise invalid_data("sample_weight", expected, ", ".join(map(str, sample_weight)))
        for leaf in keras.tree.flatten(sample_weight):
            if isinstance(leaf, np.ndarray) and not np.all(np.isfinite(leaf)):
                raise invalid_data("sample_weight", "finite weights", "NaN or infinity")
    if hasattr(x, "_fields"):  # several tasks, or what a teacher returned
        return
    sizes = [_size(leaf) for leaf in keras.tree.flatten(x)]
    for what, values in ((name, y), ("sample_weight", sample_weight)):
        for size in map(_size, keras.tree.flatten(values)):
            if None not in (size, *sizes[:1]) and size != sizes[0]:
                raise invalid_data(what, f"as many as samples, {sizes[0]}", size)


def _size(leaf):
    shape = getattr(leaf, "shape", None)
    return shape[0] if shape is not None and len(shape) else None


def ranks_of_labels(x, y):
    """Returns how many axes labels have: a tuple with None for unknown ones.

    Of data that has to be read to be known, its type.
    """
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        y = spec[1] if type(spec) is tuple and len(spec) > 1 else None
    elif y is None and (inspect.isgenerator(x) or isinstance(x, keras.utils.PyDataset)):
        return type(x)
    return tuple(_rank(leaf) for leaf in keras.tree.flatten(y))


def _rank(leaf):
    shape = getattr(leaf, "shape", None)
    return None if shape is None else getattr(shape, "rank", len(shape))
