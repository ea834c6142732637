"""The data that a function of --dataset=module:function returns, as arrays of splits."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from pipelines.common.errors import failed, user_code
from pipelines.common.images import SPLIT_NAMES
from pipelines.common.models import call_function
from tfpeft.core import data as core_data
from tfpeft.core.arguments import InputError, unexpected

_EXPECTED = (
    "a function that returns data (x, y); (train, test) or (train, validation, test) of these; or "
    "a dict of them by these names"
)
_DATASETS = (tf.data.Dataset, keras.utils.PyDataset)
_LABELS = ("label", "labels")
# Of data whose end is not known in advance: it may have none.
_MOST_SAMPLES, _MOST_BYTES = 500_000, 2**31


def splits_of(reference):
    """Returns {split: (x, y)} of what the function returns; of all data, it is "train".

    Data are a pair of arrays, a `tf.data.Dataset` with or without batches, a PyDataset, or a
    generator of batches; their elements are (x, y), or dicts of a label and one input.
    """
    received = f"--dataset={reference}"
    parts = _named(call_function(reference, "dataset"), received)
    return {split: _pair(data, f"{received}, {split} data") for split, data in parts.items()}


def _named(value, received):
    """Returns {split: data}."""
    if inspect.isgenerator(value):
        with user_code(received):
            value = tuple(part for part, _ in zip(value, range(4), strict=False))
    is_features = isinstance(value, dict) and any(name in value for name in _LABELS)
    if isinstance(value, _DATASETS) or is_features or _is_pair(value):
        return {"train": value}
    if isinstance(value, dict):
        splits = {SPLIT_NAMES.get(str(key).lower()): data for key, data in value.items()}
        if None in splits or "train" not in splits or len(splits) < len(value):
            named = ", ".join(map(str, value))
            raise unexpected(_EXPECTED, f"{received}, which returns a dict of {named or 'nothing'}")
        return splits
    if isinstance(value, (tuple, list)) and len(value) in (2, 3):
        names = ("train", "test") if len(value) == 2 else ("train", "validation", "test")
        return dict(zip(names, value, strict=True))
    kind = type(value).__name__
    count = f" of {len(value)}" if isinstance(value, (tuple, list)) else ""
    raise unexpected(_EXPECTED, f"{received}, which returns a {kind}{count}")


def _is_pair(value):
    """Whether it is (x, y), or (x, y, sample_weight): its first item holds samples."""
    if not isinstance(value, (tuple, list)) or len(value) not in (2, 3):
        return False
    first = value[0]
    if isinstance(first, (tuple, list)):
        return len(first) > 3 and not any(isinstance(item, _DATASETS) for item in first)
    return hasattr(first, "__array__") or (
        isinstance(first, dict) and not isinstance(value[1], dict)
    )


def _pair(data, received):
    """Returns the arrays (x, y) of data."""
    try:
        x, y, sample_weight = _arrays(data)
    except InputError as error:
        raise InputError(f"{error} ({received})") from error
    except Exception as error:  # of a generator, or of a PyDataset
        raise failed(received, error) from error
    if sample_weight is not None:
        expected = "samples (x, y) without sample weights, which the scripts do not use"
        raise unexpected(expected, f"{received} with sample weights")
    if y is None and isinstance(x, dict):
        x, y = _of_features(x)
    x, y = _only(x), _only(y)
    if x is None or y is None:
        raise unexpected("samples (x, y), each an array", f"{received} in another form")
    return x, y


def _arrays(data):
    """Returns all samples as a batch (x, y, sample_weight) of arrays."""
    if isinstance(data, list) and len(data) in (2, 3):
        data = tuple(data)
    if isinstance(data, tf.data.Dataset) and _is_unbatched(data):
        data = data.batch(256)
    has_end = not inspect.isgenerator(data) and not callable(data)
    if isinstance(data, tf.data.Dataset):
        has_end = data.cardinality() != tf.data.UNKNOWN_CARDINALITY
    if has_end:
        return core_data.read(data).arrays()
    batches, samples, size = [], 0, 0
    given = data
    read = core_data.read((lambda: given) if inspect.isgenerator(data) else data)
    for batch in read.batches():
        batches.append(keras.tree.map_structure(_to_numpy, batch))
        samples += batch.size
        size += sum(leaf.nbytes for leaf in keras.tree.flatten(batches[-1]) if leaf is not None)
        if samples > _MOST_SAMPLES or size > _MOST_BYTES:
            raise unexpected(
                "data whose end is known, such as arrays, or a dataset with "
                "`.apply(tf.data.experimental.assert_cardinality(batches))`",
                f"one that has not ended after {samples:,} samples",
            )
    try:
        return keras.tree.map_structure(_concatenated, *batches)
    except ValueError as error:
        raise unexpected("batches of one structure and shape", "others") from error


def _is_unbatched(dataset):
    """Whether an element is one sample: a part of it is a number or a text."""
    leaves = keras.tree.flatten(dataset.element_spec)
    return any(isinstance(leaf, tf.TensorSpec) and leaf.shape.rank == 0 for leaf in leaves)


def _of_features(x):
    """Returns (x, y) of a dict of one input and a label, as TensorFlow Datasets has them."""
    found = [name for name in _LABELS if name in x]
    if len(found) != 1 or len(x) != 2:
        return x, None
    return {name: array for name, array in x.items() if name not in found}, x[found[0]]


def _only(arrays):
    """Returns the array, also of a dict or list of one; None of more."""
    if isinstance(arrays, (dict, list, tuple)):
        values = list(arrays.values()) if isinstance(arrays, dict) else list(arrays)
        return values[0] if len(values) == 1 and hasattr(values[0], "shape") else None
    return arrays


def _to_numpy(leaf):
    return None if leaf is None else np.asarray(leaf)


def _concatenated(*leaves):
    return None if leaves[0] is None else np.concatenate(leaves)
