"""The data that a function of --dataset=module:function returns, as splits."""

import inspect

import keras
import numpy as np
import tensorflow as tf

from pipelines.common.errors import failed, user_code
from pipelines.common.images import SPLIT_NAMES
from pipelines.common.models import call_function
from pipelines.common.samples import HELD_BYTES, Stream, sample_bytes
from tfpeft.core import data as core_data
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.dataset_graph import is_reshuffled

_EXPECTED = (
    "a function that returns data (x, y); (train, test) or (train, validation, test) of these; or "
    "a dict of them by these names"
)
_DATASETS = (tf.data.Dataset, keras.utils.PyDataset)
_LABELS = ("label", "labels")
# Of data whose end is not known in advance: it may have none.
_MOST_SAMPLES, _MOST_BYTES = 500_000, 2**31


def splits_of(reference, cache="auto"):
    """Returns {split: (x, y, ...) or a `Stream`} of what the function returns; of all, "train".

    Data are a pair of arrays, a `tf.data.Dataset` with or without batches, a PyDataset, or a
    generator of batches; their elements are x, (x, y) or (x, y, sample_weight), or dicts of inputs
    with a label. x and y may be dicts or lists of arrays; y is None where there are no labels.

    Args:
        reference: "module:function".
        cache: "auto" holds datasets of up to 1 GiB in arrays, "memory" all, "none" none. Those
            whose length is not known, and generators, are held.
    """
    received = f"--dataset={reference}"
    parts = _named(call_function(reference, "dataset"), received)
    return {split: _part(data, cache, f"{received}, {split} data") for split, data in parts.items()}


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


def _part(data, cache, received):
    """Returns arrays (x, y, ...) of data, or a `Stream`."""
    try:
        return _stream(data, cache) or _parts(*_arrays(data))
    except InputError as error:
        raise InputError(f"{error} ({received})") from error
    except Exception as error:  # of a generator, or of a PyDataset
        raise failed(received, error) from error


def _stream(data, cache):
    """Returns the `Stream` of a dataset of known length that is not held; None of other data."""
    if cache == "memory" or not isinstance(data, _DATASETS):
        return None
    dataset = data if isinstance(data, tf.data.Dataset) else core_data.read(data).dataset()
    count = int(dataset.cardinality())
    if count <= 0:  # without an end, or of unknown length
        return None
    singles = dataset if _is_unbatched(dataset) else dataset.unbatch()
    size = 1 if singles is dataset else _batch_size(next(iter(dataset)))
    if cache == "auto" and count * size * sample_bytes(singles.element_spec) <= HELD_BYTES:
        return None
    if is_reshuffled(dataset):
        raise unexpected(
            "a dataset that is not shuffled, as the scripts shuffle it, or in one order, with "
            "`shuffle(..., reshuffle_each_iteration=False)`",
            "one that is shuffled again in every epoch",
        )
    leaves = keras.tree.flatten(singles.element_spec)
    if not all(
        isinstance(leaf, tf.TensorSpec) and leaf.shape.is_fully_defined() for leaf in leaves
    ):
        expected = "samples of one known shape; `tf.ensure_shape` in the function of `map` says it"
        raise unexpected(expected, f"a dataset of {singles.element_spec}")
    is_whole = size == 1 or _batch_size(dataset.element_spec) is not None
    return Stream(singles.map(_sample), count * size if is_whole else None)


def _batch_size(element):
    """Returns how many samples a batch, or the spec of one, has; None if they are not known."""
    return keras.tree.flatten(element)[0].shape[0]


def _sample(*element):
    """Returns a sample (x,), (x, y) or (x, y, sample_weight) of an element of a dataset."""
    parts = _parts(*element, *[None] * (3 - len(element)))
    return tuple(part for part in parts if part is not None)


def _parts(x, y, sample_weight):
    """Returns (x, y) or (x, y, sample_weight); a dict of inputs may have the label among them."""
    if y is None and isinstance(x, dict):
        found = [name for name in _LABELS if name in x]
        if len(found) > 1 or len(found) == len(x):
            raise unexpected("inputs and one label", f"a dict of {', '.join(x)}")
        y = x[found[0]] if found else None
        x = {name: array for name, array in x.items() if name not in found}
    return (x, y) if sample_weight is None else (x, y, sample_weight)


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
                "`.apply(tf.data.experimental.assert_cardinality(batches))`, which is streamed",
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


def _to_numpy(leaf):
    return None if leaf is None else np.asarray(leaf)


def _concatenated(*leaves):
    return None if leaves[0] is None else np.concatenate(leaves)
