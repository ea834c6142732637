"""Arrays of samples and labels as scripts take them: numbers, finite, as many labels as samples."""

import math

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.evaluation.labels import is_one_hot

_WEIGHTS = "sample weights >= 0, one per sample or per position"


def types_of(model):
    """Returns {name: type} of the inputs of a Keras model; {} if it does not list them."""
    inputs = getattr(model, "inputs", None)
    if not isinstance(inputs, list):
        return {}
    return {tensor.name: keras.backend.standardize_dtype(tensor.dtype) for tensor in inputs}


def checked(part, received, types=None):
    """Returns (x, y) or (x, y, sample_weight) as arrays, finite and of equal counts.

    x may be a dict of arrays by the names of inputs, or a list in their order; y by those of
    outputs. y is None where the samples have no labels. Inputs are float32, or of the type of the
    model's input.

    Args:
        part: The samples.
        received: What an error names.
        types: The types of a model's inputs, as `types_of` returns them.
    """
    types = types or {}
    x, y, *weights = part
    x = by_input(x, types)
    count = _count(x, y, received)
    only = next(iter(types.values())) if len(types) == 1 else "float32"
    x = named(
        lambda array, where, name: inputs(array, count, where, types.get(name, only)), x, received
    )
    if y is not None:
        y = named(lambda array, where, _: _labels(array, count, where), y, received)
    weights = [
        named(lambda array, where, _: _weights(array, count, where), each, received)
        for each in weights
        if each is not None
    ]
    return (x, y, *weights)


def by_input(x, types):
    """Returns inputs in a list, of a model that has as many, as a dict by their names."""
    is_list = isinstance(x, (list, tuple)) and len(x) == len(types)
    return dict(zip(types, x, strict=True)) if is_list else x


def named(check, value, received):
    """Returns an array, or a dict of them, checked; a dict of one is its array.

    `check` is a function of an array, of what an error names, and of the name, None for one array.
    """
    if isinstance(value, (list, tuple)):
        value = {str(number): array for number, array in enumerate(value)}
    if isinstance(value, dict):
        if not value:
            raise unexpected("samples (x, y), each an array", f"{received} with none")
        if len(value) == 1:
            ((name, array),) = value.items()
            return check(array, received, name)
        return {name: check(array, f"{received}, {name}", name) for name, array in value.items()}
    return check(value, received, None)


def _count(x, y, received):
    leaves = [np.asarray(leaf) for leaf in keras.tree.flatten(x)[:1] + keras.tree.flatten(y)[:1]]
    leaves = leaves if y is not None else [leaves[0], leaves[0]]
    counts = [len(array) if array.ndim else "no" for array in leaves]
    if "no" in counts or counts[0] == 0 or counts[0] != counts[-1]:
        raise InputError(
            f"Received invalid data, expected as many samples as labels, and one or more. "
            f"Received: {received} with {counts[0]} samples and {counts[-1]} labels"
        )
    return counts[0]


def inputs(x, count, received, dtype="float32"):
    """Returns an array of inputs of a type: numbers, or texts in an array of objects."""
    x = np.asarray(x)
    _check_count(x, count, received)
    if dtype == "string":
        if not are_texts(x):
            raise unexpected("texts as inputs, which the model takes", f"{received} of {x.dtype}")
        return x.astype(object).reshape(len(x), -1) if x.ndim == 1 else x.astype(object)
    if x.dtype.kind not in "biuf":
        raise unexpected("numbers as inputs", f"{received} of type {x.dtype}")
    if x.ndim == 1:
        x = x[:, None]
    with np.errstate(over="ignore"):
        numbers = x.astype("float32")
    _check_finite(numbers, "numbers", "samples", received)
    return x.astype(dtype) if is_discrete(dtype) else numbers


def is_discrete(dtype):
    """Whether inputs of a model have a type that they need: integers or booleans."""
    return "int" in dtype or dtype == "bool"


def are_texts(x):
    """Whether an array holds texts."""
    if x.dtype == object:
        return all(isinstance(each, (str, bytes)) for each in x.flat)
    return x.dtype.kind in "SU"


def as_keras_takes(x):
    """Returns inputs in their structure: tensors if texts are among them, else arrays."""
    leaves = keras.tree.flatten(x)
    if not any(tf.is_tensor(leaf) or leaf.dtype.kind in "OSU" for leaf in leaves):
        return x

    def converted(leaf):
        is_text = isinstance(leaf, np.ndarray) and leaf.dtype.kind in "OSU"
        return tf.convert_to_tensor(leaf.tolist() if is_text else leaf)

    return keras.tree.map_structure(converted, x)


def _labels(y, count, received):
    y = np.asarray(y)
    _check_count(y, count, received)
    if y.dtype.kind == "c":
        raise unexpected("labels that are real numbers or texts", f"{received} of type {y.dtype}")
    return y


def _weights(weights, count, received):
    weights = np.asarray(weights)
    _check_count(weights, count, received)
    if weights.dtype.kind not in "biuf" or not np.all(weights >= 0):
        raise unexpected(_WEIGHTS, f"{received} with others")
    weights = weights.astype("float32")
    _check_finite(weights, "sample weights", "samples", received)
    return weights


def _check_count(array, count, received):
    if array.ndim == 0 or len(array) != count:
        found = len(array) if array.ndim else "no"
        raise InputError(
            "Received invalid data, expected as many of every input and label. "
            f"Received: {received} with {found}, and {count} of the first input"
        )


def _check_finite(array, what, samples, received):
    if not np.all(np.isfinite(array)):
        bad = int(np.sum(~np.isfinite(array.reshape(len(array), -1)).all(axis=1)))
        raise InputError(
            f"Received invalid data, expected finite {what}. "
            f"Received: {received} with NaN or infinity in {bad} of {len(array)} {samples}"
        )


def labelled(parts, task, names, received):
    """Returns the parts with labels as numbers, and `names` and `kind` of the labels.

    Args:
        parts: {split: (x, y) or (x, y, sample_weight)}.
        task: The task, or {name of an output: task}.
        names: Names that --classes lists, or None.
        received: What an error names.
    """
    changed = {}
    for split, (x, y, *weights) in parts.items():
        where = f"{received}, {split} data"
        y = x if y is None else y
        y = named(lambda array, at, _, task=task: _numbers(array, task, at), y, where)
        if weights:
            weights = [weights_by_position(y, weights[0], task, one_hot_of(y))]
        changed[split] = (x, y, *weights)
    return changed, labels_of(changed["train"][1], task, names, received)


def weights_by_position(y, weights, task, is_one_hot):
    """Returns sample weights with those of a segmentation per position, as Keras's IoU takes them.

    Others stay as they are.

    Args:
        y: Labels: arrays of samples, or tensors of one sample; a dict of them for several outputs.
        weights: Weights in the structure of the labels, or one array or tensor for all outputs.
        task: The task, or {name of an output: task}.
        is_one_hot: Whether labels are one-hot rows, or {name of an output: whether they are}.
    """
    if isinstance(task, dict):
        if "segmentation" not in task.values():
            return weights
        by_output = weights if isinstance(weights, dict) else dict.fromkeys(task, weights)
        return {
            name: weights_by_position(y[name], each, task[name], is_one_hot[name])
            if name in task
            else each
            for name, each in by_output.items()
        }
    library = tf if tf.is_tensor(weights) else np
    of_sample = weights.shape if library is tf else weights.shape[1:]
    if task != "segmentation" or math.prod(of_sample) != 1:
        return weights
    shape = tuple(y.shape)
    shape = shape[:-1] if is_one_hot or shape[-1:] == (1,) else shape
    return library.broadcast_to(library.reshape(weights, (-1, *[1] * (len(shape) - 1))), shape)


def one_hot_of(y):
    """Returns whether labels are one-hot rows; {name: whether} for labels of several outputs."""
    return keras.tree.map_structure(lambda each: each.ndim > 1 and is_one_hot(each), y)


def labels_of(y, task, names, received):
    """Returns `names` and `kind` of labels, and of some tasks `classes`, as `Data` has them."""
    labels = {"kind": _described(y), "names": tuple(names or ())}
    if task in ("multi_label", "segmentation"):
        labels["classes"] = _classes(y, task, names, received)
        labels["kind"] = "several labels per sample" if task == "multi_label" else "class numbers"
    return labels


def _numbers(y, task, received):
    if y.dtype.kind not in "biuf":
        expected = f"numbers as labels of {task}" if isinstance(task, str) else "numbers as labels"
        raise unexpected(expected, f"{received} of type {y.dtype}")
    _check_finite(y, "labels", "labels", received)
    return y.astype("float32") if y.dtype.kind == "f" or task == "regression" else y


def _classes(y, task, names, received):
    """Returns how many labels a sample, or classes a position, has."""
    if task == "multi_label":
        if y.ndim != 2:
            expected = "labels of shape (samples, labels) for multi_label"
            raise unexpected(expected, f"{received} with {y.shape}")
        count = y.shape[1]
    else:
        count = y.shape[-1] if is_one_hot(y) else max(2, int(y.max()) + 1)
    if names and len(names) < count:
        raise unexpected(f"{count} --classes, as labels have", f"{', '.join(names)}")
    return len(names) if names else count


def _described(y):
    if isinstance(y, dict):
        return ", ".join(y)
    what = "a number" if y.ndim == 1 or y.shape[1:] == (1,) else f"shape {y.shape[1:]}"
    return f"{what}, values {y.min():g} to {y.max():g}"
