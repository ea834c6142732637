"""Arrays and tensors in a structure: conversion, checks, and specs of batches."""

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError, unexpected

REAL = "arrays of real numbers: a complex one as two, its real and imaginary part"
"""What is expected instead of complex numbers, whose imaginary part Keras drops."""


def invalid_data(name, expected, received):
    """Returns the error for data given as the argument `name`; `received` describes it."""
    return InputError(
        f"Received an invalid value for `{name}`, expected {expected}. Received: {received}"
    )


def check_ranks(data, name):
    """Raises for a `tf.data.Dataset`, or specs of one, whose tensors may have any rank."""
    specs = data.element_spec if isinstance(data, tf.data.Dataset) else data
    for leaf in keras.tree.flatten(specs):
        if isinstance(leaf, tf.TensorSpec) and leaf.shape.rank is None:
            expected = "tensors of a known rank; `from_generator` takes `output_signature`"
            raise invalid_data(name, expected, f"a dataset with {leaf}")


def check_numbers(arrays, name):
    """Raises unless all arrays in a structure hold finite numbers."""
    for path, array in keras.tree.flatten_with_path(arrays):
        where = "x" + "".join(f"[{key!r}]" for key in path)
        if not (np.issubdtype(array.dtype, np.number) or np.issubdtype(array.dtype, np.bool_)):
            dtype = "string" if array.dtype.kind in "OSU" else array.dtype
            raise invalid_data(name, "arrays of numbers", f"{where} of type {dtype}")
        if array.dtype.kind not in "biu" and not np.all(np.isfinite(array)):
            raise invalid_data(name, "finite numbers", f"NaN or infinity in {where}")


def check_finite(structure, name, what, *, missing=False):
    """Raises for NaN or infinity in arrays of floats; with `missing`, NaN is no value, and stays.

    Args:
        structure: Arrays or tensors of any type; texts and integers pass.
        name: The argument that gave them, for errors.
        what: What they are, such as "inputs", for errors.
        missing: Whether NaN may be among them.
    """
    for leaf in keras.tree.flatten(structure):
        if not tf.as_dtype(leaf.dtype).is_floating:
            continue
        values = np.asarray(leaf).astype("float32", copy=False)
        if not np.all(np.isfinite(values) | (np.isnan(values) & missing)):
            found = "infinity" if missing else "NaN or infinity"
            raise invalid_data(name, f"finite {what}", f"{found} among them")


def as_arrays(structure):
    """Returns arrays or tensors in their structure; a list of numbers is one array."""
    if isinstance(structure, dict):
        return {key: as_arrays(value) for key, value in structure.items()}
    if isinstance(structure, tuple) and hasattr(structure, "_fields"):
        return type(structure)(*map(as_arrays, structure))
    if isinstance(structure, (list, tuple)) and not _is_number_list(structure):
        return type(structure)(map(as_arrays, structure))
    if tf.is_tensor(structure):
        return structure
    try:
        return np.asarray(structure)
    except ValueError:  # lists of unequal lengths, symbolic tensors
        return structure


def text_tensors(structure):
    """Returns arrays in their structure, those of texts as tensors, which Keras takes."""

    def converted(leaf):
        if not isinstance(leaf, np.ndarray) or leaf.ndim == 0 or leaf.dtype.kind not in "OSU":
            return leaf
        are_texts = all(isinstance(each, (str, bytes)) for each in leaf.flat)
        return tf.convert_to_tensor(leaf) if are_texts else leaf

    return keras.tree.map_structure(converted, structure)


def _is_number_list(values):
    leaves = keras.tree.flatten(values)
    return not any(len(getattr(leaf, "shape", ())) for leaf in leaves)


def is_array(leaf):
    """Whether it is a dense array or tensor that holds samples."""
    if isinstance(leaf, (tf.RaggedTensor, tf.SparseTensor, keras.KerasTensor)):
        return False
    is_object = isinstance(leaf, np.ndarray) and leaf.dtype == object
    return not is_object and len(getattr(leaf, "shape", ())) > 0


def is_complex(leaf):
    """Whether it is an array or tensor of complex numbers, or a spec of one."""
    return "complex" in str(getattr(leaf, "dtype", ""))


def described(leaf):
    """Returns in words what a leaf is, for errors."""
    if isinstance(leaf, np.ndarray):
        dtype = str(leaf.dtype)
        if leaf.dtype == object:  # as of a table with a column of texts
            kinds = dict.fromkeys(type(each).__name__ for each in leaf.ravel()[:100])
            dtype = f"object ({', '.join(kinds)})"
        return f"an array of type {dtype} and shape {leaf.shape}"
    return f"a {type(leaf).__name__}"


def to_numpy(leaf):
    """Returns a NumPy array; None for None."""
    return None if leaf is None else np.asarray(leaf)


def concatenated(leaves, limit):
    """Returns the first `limit` samples of arrays, one after another; None for None."""
    return None if leaves[0] is None else np.concatenate(leaves)[:limit]


def batch_spec(*leaves):
    """Returns the spec of one leaf in several batches; sides in which they differ are free."""
    if leaves[0] is None:
        return tf.type_spec_from_value(None)
    ranks = {len(leaf.shape) for leaf in leaves}
    if len(ranks) > 1:
        raise unexpected("batches of one rank", f"ranks {ranks}")
    sides = zip(*(leaf.shape[1:] for leaf in leaves), strict=True)
    shape = [side[0] if len(set(side)) == 1 else None for side in sides]
    return tf.TensorSpec([None, *shape], tf.as_dtype(leaves[0].dtype))
