"""Streams of samples: their labels as numbers, checked while they are read, and their splits.

A stream is read once before training where labels have to be known: to count samples or classes.
"""

import dataclasses
import functools

import numpy as np
import tensorflow as tf

from pipelines.common import arrays
from pipelines.common.labels import class_numbers
from pipelines.common.samples import Stream, some, stream_of
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.checks import assert_in_graph
from tfpeft.core.data import read

_MOST_CLASSES = 100_000
_FIRST = 256  # samples, of which all others are like
_TEST, _VALIDATION = 5, 10  # every so many samples


def readable(parts, received, types):
    """Returns {split: Stream} of arrays and streams: inputs of their type, and samples counted.

    Inputs that are NaN or infinite raise when they are read.

    Args:
        parts: {split: arrays or a `Stream`}.
        received: What an error names.
        types: The types of a model's inputs, as `arrays.types_of` returns them.
    """
    found = {}
    for split, part in parts.items():
        where = f"{received}, {split} data"
        stream = part if isinstance(part, Stream) else stream_of(part)
        stream = stream.mapped(functools.partial(_with_types, types=types, received=where))
        if stream.samples is None:
            stream = dataclasses.replace(stream, samples=_counted(stream))
        if not stream.samples:
            raise unexpected("data with samples, one or more", f"{where} without any")
        found[split] = stream
    return found


def _with_types(x, *others, types, received):
    """Returns a sample with inputs of the types of a model, or float32."""
    only = next(iter(types.values())) if len(types) == 1 else "float32"

    def converted(tensor, where, name):
        dtype = types.get(name, only)
        is_text = tensor.dtype == tf.string
        if is_text != (dtype == "string"):
            raise unexpected(
                "texts as inputs, which the model takes" if not is_text else "numbers as inputs",
                f"{where} of type {tensor.dtype.name}",
            )
        if is_text:
            return tensor[None] if tensor.shape.rank == 0 else tensor
        tensor = _finite(tensor, "numbers", where)
        tensor = tf.cast(tensor, dtype if arrays.is_discrete(dtype) else "float32")
        return tensor[None] if tensor.shape.rank == 0 else tensor

    return arrays.named(converted, arrays.by_input(x, types), received), *others


def _finite(tensor, what, received):
    """Returns a tensor that raises, when it is read, for NaN and infinity."""
    if not tensor.dtype.is_floating:
        return tensor
    make_error = functools.partial(_not_finite, what, received)
    checks = assert_in_graph(tf.reduce_all(tf.math.is_finite(tensor)), make_error)
    with tf.control_dependencies(checks):
        return tf.identity(tensor)


def _not_finite(what, received):
    return InputError(
        f"Received invalid data, expected finite {what}. Received: {received} with NaN or infinity"
    )


def _counted(stream):
    return sum(batch.size for batch in read(stream.batches()).batches())


def labelled(parts, task, names, received, model):
    """Returns {split: Stream} with labels as numbers, and the attributes of `Data` about them.

    Args:
        parts: {split: Stream}.
        task: The task, or {name of an output: task}.
        names: Names that --classes lists, or None.
        received: What an error names.
        model: The model that is given, or None.
    """
    if not parts["train"].has_labels:
        parts = {split: stream.mapped(_with_inputs_as_labels) for split, stream in parts.items()}
    if task in ("classification", "binary"):
        return _of_classes(parts, names, received, _units(model))
    changed = {}
    for split, stream in parts.items():
        where = f"{received}, {split} data"
        changed[split] = stream.mapped(functools.partial(_numbers, task=task, received=where))
    first = some(changed["train"], _FIRST).y
    is_one_hot = arrays.one_hot_of(first)
    by_position = functools.partial(_weighted, task=task, is_one_hot=is_one_hot)
    changed = {split: stream.mapped(by_position) for split, stream in changed.items()}
    if task == "segmentation":
        count = len(names or ()) or _units(model)
        count = count or _counted_classes(changed["train"], is_one_hot)
        changed = {
            split: stream.mapped(
                functools.partial(_in_range, count=count, received=f"{received}, {split} data")
            )
            for split, stream in changed.items()
        }
        labels = {"classes": count, "kind": "class numbers", "names": tuple(names or ())}
        return changed, labels
    return changed, arrays.labels_of(first, task, names, received)


def _units(model):
    """Returns how many classes a Keras model has outputs for; None if that is not known."""
    shape = getattr(model, "output_shape", None)
    if not isinstance(shape, tuple) or not isinstance(shape[-1], int):
        return None
    return max(2, shape[-1])


def _numbers(x, y, *weights, task, received):
    def converted(tensor, where, _):
        if tensor.dtype == tf.string:
            raise unexpected("numbers as labels", f"{where} of texts")
        tensor = _finite(tensor, "labels", where)
        is_float = tensor.dtype.is_floating or task == "regression"
        return tf.cast(tensor, tf.float32) if is_float else tensor

    return x, arrays.named(converted, y, received), *weights


def _with_inputs_as_labels(x, *others):
    return x, x, *others[1:]


def _weighted(x, y, *weights, task, is_one_hot):
    return x, y, *(arrays.weights_by_position(y, each, task, is_one_hot) for each in weights)


def _counted_classes(stream, is_one_hot):
    """Returns how many classes positions have, of all labels of a stream."""
    if is_one_hot:
        return stream.spec[1].shape[-1]
    most = max(int(np.max(batch.y)) for batch in read(stream.batches()).batches())
    return max(2, most + 1)


def _in_range(x, y, *weights, count, received):
    """Returns a sample that raises, when it is read, for class numbers out of range."""
    make_error = functools.partial(_out_of_range, count, received)
    numbers = tf.cast(y, tf.int64)
    low, high = tf.reduce_min(numbers), tf.reduce_max(numbers)
    checks = assert_in_graph((low >= 0) & (high < count), make_error, values=(low, high))
    with tf.control_dependencies(checks):
        return x, tf.identity(y), *weights


def _out_of_range(count, received, low, high):
    expected = f"labels in range, 0 to {count - 1}"
    return unexpected(expected, f"{received} with {low if low < 0 else high}")


def _of_classes(parts, names, received, units):
    """Returns the streams with class numbers, and `classes`, `names` and `kind` of the labels."""
    y = parts["train"].spec[1]
    if not isinstance(y, tf.TensorSpec):
        raise unexpected("one class per sample", f"{received} with labels of {', '.join(y)}")
    is_number = y.shape.num_elements() == 1 and (y.dtype.is_integer or y.dtype == tf.bool)
    if is_number and not names and units:
        names = tuple(map(str, range(units)))
    if names and (is_number or y.dtype == tf.string):
        keys = _keys(names, y.dtype)
        numbers, kind = range(len(names)), "names" if y.dtype == tf.string else "class numbers"
    else:
        values = {split: _values(stream, received, split) for split, stream in parts.items()}
        found, names, kind = class_numbers(values, received, names)
        keys, numbers = np.concatenate(list(values.values())), np.concatenate(list(found.values()))
    if len(names) < 2:
        raise unexpected("at least 2 classes", f"{received} with one")
    if kind == "one-hot rows":
        encode = _position_of_one
    else:
        encode = functools.partial(_looked_up, list(map(_python, keys)), list(map(int, numbers)))
    changed = {
        split: stream.mapped(functools.partial(_encoded, encode, f"{received}, {split} data"))
        for split, stream in parts.items()
    }
    found = {"classes": len(names), "names": tuple(names), "kind": kind}
    return changed, {**found, "in_column": y.shape == (1,)}


def _keys(names, dtype):
    """Returns the labels that stand for names: names themselves, or numbers."""
    if dtype == tf.string:
        return names
    try:
        return [int(name) for name in names]
    except ValueError:
        return range(len(names))


def _python(key):
    return key.item() if isinstance(key, np.generic) else key


def _values(stream, received, split):
    """Returns the labels of a stream, each once, as an array: texts, numbers, or one-hot rows."""
    counts, first, total = {}, set(), 0
    for batch in read(stream.mapped(lambda x, y, *_: (y,)).batches()).batches():
        y = np.asarray(batch.x)
        y = y[:, 0] if y.ndim == 2 and y.shape[1] == 1 else y
        if y.dtype == object:
            y = np.array([label.decode("utf-8", "replace") for label in y.flat]).reshape(y.shape)
        values, of_values = np.unique(y, axis=0, return_counts=True)
        keys = [str(value) if value.ndim == 0 else value.tobytes() for value in values]
        first |= set(keys) if total < _FIRST else set()
        for key, value, count in zip(keys, values, of_values.tolist(), strict=True):
            counts[key] = (value, count + counts.get(key, (None, 0))[1])
        total += len(y)
        if len(counts) > _MOST_CLASSES:
            raise unexpected(
                f"at most {_MOST_CLASSES:,} classes; --task=regression predicts numbers",
                f"{received}, {split} data with more different labels",
            )
    if split == "train" and len(first) == 1 and len(counts) > 1 and total > 2 * _FIRST:
        share = counts[next(iter(first))][1] / total
        if share < 0.9:
            raise unexpected(
                "a dataset whose first samples are of several classes, such as "
                "`dataset.shuffle(10_000, seed=0, reshuffle_each_iteration=False)`",
                f"{received} sorted by label",
            )
    return np.stack([value for value, _ in counts.values()])


def _encoded(encode, received, x, y, *weights):
    y = tf.reshape(y, []) if y.shape.num_elements() == 1 else y
    return x, encode(y, received), *weights


def _position_of_one(y, received):
    return tf.argmax(tf.cast(y, tf.float32))


def _looked_up(keys, numbers, y, received):
    """Returns the class number of a label, which raises when it is read if there is none."""
    keys = tf.constant(keys)
    if y.dtype != tf.string:
        keys, y = tf.cast(keys, tf.float64), tf.cast(y, tf.float64)
    is_key = tf.equal(keys, y)
    make_error = functools.partial(_unknown, received)
    checks = assert_in_graph(tf.reduce_any(is_key), make_error, values=(y,))
    with tf.control_dependencies(checks):
        return tf.gather(tf.constant(numbers, tf.int64), tf.argmax(is_key))


def _unknown(received, label):
    label = label.decode("utf-8", "replace") if isinstance(label, bytes) else f"{label:g}"
    return unexpected(
        "labels among the classes of --classes, --model or the training data",
        f"{received} with {label}",
    )


def divided(parts):
    """Returns {split: Stream} of all splits: every fifth sample is tested, of the rest a tenth."""
    train = parts["train"]
    rest = {}
    if "test" not in parts:
        train, rest["test"] = _apart(train, _TEST)
    if "validation" not in parts:
        train, rest["validation"] = _apart(train, _VALIDATION)
    return {**parts, **rest, "train": train}


def _apart(stream, step):
    """Returns two streams; the second has the first of every `step` samples."""
    second = -(-stream.samples // step)
    if second == stream.samples:
        raise unexpected(f"more than {second} samples", "a stream of these")
    numbered = stream.source.enumerate()

    def part(is_second):
        chosen = numbered.filter(lambda number, *_: tf.equal(number % step == 0, is_second))
        source = chosen.map(lambda _, element: element)
        count = second if is_second else stream.samples - second
        return dataclasses.replace(stream, source=source, samples=count)

    return part(False), part(True)
