"""The inputs of a model, and data matched to them: a dict by name, a list by position."""

import dataclasses
import itertools

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import compatible_shapes
from tfpeft.core.arrays import invalid_data
from tfpeft.core.graph import input_structure, origin


@dataclasses.dataclass(frozen=True)
class ModelInput:
    """One input of a model or of a file.

    Attributes:
        name: What data calls it: its key in a dict of inputs, else the name of `keras.Input`.
        shape: Its shape without the batch, None for free sides; None if any shape will do.
        dtype: Its type; None if any will do.
        aliases: Other names that it goes by.
    """

    name: str
    shape: tuple | None = None
    dtype: str | None = None
    aliases: tuple = ()


def model_inputs(model):
    """Returns a `ModelInput` for each input, in the structure that a model is called with.

    A subclassed model has the structure that it was built with, of any shapes and types. None if
    the inputs are not known, as of a model that is not built.
    """
    structure = input_structure(model)
    if structure is None:
        structure = _built_structure(model)
        if structure is None:
            return None
    found = keras.tree.flatten_with_path(structure)
    leaves = [_model_input(i, path, tensor) for i, (path, tensor) in enumerate(found)]
    return keras.tree.pack_sequence_as(structure, leaves)


def arrange(model, x, name="data"):
    """Returns inputs in the structure that a model is called with.

    A dict is matched by the names of the model's inputs, whatever its order; a list or tuple by
    position. As in Keras, keys that are no inputs are left out, and a last side of 1 may be
    missing or be one too many. Where the inputs of a model are not known, `x` is returned as it
    is.

    Args:
        model: A Keras model.
        x: Arrays or tensors, also symbolic ones, in a structure.
        name: The argument that gave `x`, for errors.

    Raises:
        InputError: for names that are missing, two names of one input, another count, rank or
            size, arrays of numbers that an integer input cannot hold, and for keys that a
            subclassed model was not built with, as it may use them.
    """
    expected = model_inputs(model)
    if expected is None:
        return x
    are_dicts = isinstance(x, dict) and isinstance(expected, dict)
    if are_dicts and set(x) - set(expected) and may_use_others(model):
        raise _invalid(name, _described([*expected.values()]), repr(model.name), _received(x))
    return match(expected, x, name, repr(model.name))


def may_use_others(model):
    """Whether a model, if it gets a dict, may use other inputs than it was built with."""
    return isinstance(model, keras.Model) and input_structure(model) is None


def match(expected, x, name, owner):
    """Returns `x` in the structure of `expected`; see `arrange`.

    Args:
        expected: `ModelInput`s in a structure.
        x: As of `arrange`.
        name: As of `arrange`.
        owner: What has these inputs, for errors.
    """
    if isinstance(expected, ModelInput):
        (value,) = _values([expected], x, name, owner) if _is_nested(x) else (x,)
        return _fitted(expected, value, name, owner)
    is_dict = isinstance(expected, dict)
    if is_dict and not isinstance(x, dict) and list(expected) != sorted(expected):
        # Keras lists the inputs in the order of sorted keys, the caller may not.
        raise _invalid(name, f"a dict of {', '.join(expected)}", owner, _received(x))
    parts = [expected[key] for key in sorted(expected)] if is_dict else list(expected)
    names = sorted(expected) if is_dict else None
    values = _values(parts, x, name, owner, names)
    matched = [match(part, value, name, owner) for part, value in zip(parts, values, strict=True)]
    if is_dict:
        found = dict(zip(names, matched, strict=True))
        return {key: found[key] for key in expected}
    is_named = hasattr(expected, "_fields")
    return type(expected)(*matched) if is_named else type(expected)(matched)


def path_name(path):
    """Returns the keys on the path of a leaf below dicts, joined by "."; None below lists."""
    is_named = path and all(isinstance(key, str) for key in path)
    return ".".join(path) if is_named else None


def _values(parts, x, name, owner, keys=None):
    """Returns what `x` has for each of `parts`, which are `ModelInput`s or structures of them."""
    if isinstance(x, dict):
        keys = [None] * len(parts) if keys is None else keys
        names = [_names(key, part) for key, part in zip(keys, parts, strict=True)]
        found = [next((each for each in named if each in x), None) for named in names]
        # Other keys are left out, as by Keras, but not a second name of an input.
        others = set(x) - set(found)
        is_clear = len(set(found)) == len(parts) and others.isdisjoint(itertools.chain(*names))
        if None not in found and is_clear:
            return [x[key] for key in found]
    else:
        values = list(x) if _is_nested(x) else [x]
        if len(values) == len(parts):
            return values
    raise _invalid(name, _described(parts), owner, _received(x))


def _names(key, part):
    """Returns the names of an input, which may be a structure, the most important one first."""
    names = (key, *((part.name, *part.aliases) if isinstance(part, ModelInput) else ()))
    return [name for name in names if name is not None]


def _fitted(expected, value, name, owner):
    """Returns a leaf of the rank of its input; raises if it is of another shape, or not held."""
    if _is_nested(value) or not hasattr(value, "shape"):
        raise _invalid(name, f"one array for {expected.name}", owner, _received(value))
    given = value
    if expected.shape is not None and getattr(value.shape, "rank", 0) is not None:
        rank = len(expected.shape) + 1
        if len(value.shape) == rank + 1 and value.shape[-1] == 1:
            value = value[..., 0]
        elif len(value.shape) == rank - 1 and expected.shape[-1:] == (1,):
            value = value[..., None]
        if not compatible_shapes(expected.shape, tuple(value.shape[1:])):
            shape = tuple(given.shape[1:])
            wanted = f"{expected.name} of shape {expected.shape} per sample"
            raise _invalid(name, wanted, owner, f"shape {shape}")
    if _is_text(value) and not (expected.dtype is None or expected.dtype == "string"):
        raise _invalid(name, f"numbers for {expected.name}", owner, "texts")
    if isinstance(value, np.ndarray) and not _holds(expected.dtype, value):
        wanted = f"whole numbers of {expected.dtype} for {expected.name}"
        raise _invalid(name, wanted, owner, f"{value.dtype} with others")
    return value


def _is_text(value):
    dtype = getattr(value, "dtype", None)
    return dtype == tf.string or getattr(dtype, "kind", "") in ("S", "U")


def _holds(dtype, array):
    """Whether a type is no integer, or holds the numbers of an array."""
    if dtype is None or array.dtype == dtype or "int" not in dtype or array.dtype.kind not in "iuf":
        return True
    with np.errstate(invalid="ignore"):
        return np.array_equal(array.astype(dtype), array)


def _model_input(index, path, tensor):
    """Returns the `ModelInput` of a symbolic tensor, or of None, where only the path is known."""
    key = path_name(path)
    if tensor is None:
        return ModelInput(key or f"input_{index}")
    # A layer keeps its name in files; a tensor without a given name is numbered per process.
    names = [name for name in (key, origin(tensor).operation.name, tensor.name) if name]
    return ModelInput(names[0], tuple(tensor.shape[1:]), tensor.dtype, tuple(names[1:]))


def _built_structure(model):
    """Returns the structure that a subclassed model was built with, of None for inputs; or None."""
    if not isinstance(model, keras.Model) or not model.built:
        return None
    shapes = (model.get_build_config() or {}).get("input_shape")
    return None if shapes is None else _without_shapes(shapes)


def _without_shapes(shapes):
    if isinstance(shapes, dict):
        return {key: _without_shapes(value) for key, value in shapes.items()}
    if any(isinstance(side, (dict, list, tuple)) for side in shapes):
        return [_without_shapes(shape) for shape in shapes]
    return None


def _is_nested(x):
    return isinstance(x, (dict, list, tuple))


def _described(parts):
    named = ", ".join(part.name if isinstance(part, ModelInput) else "..." for part in parts)
    return f"{len(parts)} inputs, {named}" if len(parts) > 1 else named


def _received(x):
    if isinstance(x, dict):
        return ", ".join(map(str, x))
    if isinstance(x, (list, tuple)):
        return f"{len(x)} inputs"
    return f"an array of shape {tuple(x.shape)}" if hasattr(x, "shape") else repr(x)


def _invalid(name, expected, owner, received):
    return invalid_data(name, f"{expected}, as {owner} has it", received)
