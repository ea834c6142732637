"""Data in .npz files: one or several inputs, labels and sample weights per split."""

import re
import zipfile

import numpy as np

from tfpeft.core.arguments import InputError, last_cause, unexpected

_SPLITS = {"train": "train", "val": "validation", "test": "test"}
_KEY = re.compile(r"(x|y|weight)_(train|val|test)(?:/(.+))?")


def read(path, flag="dataset"):
    """Returns {split: (x, y) or (x, y, sample_weight)} of a file.

    x_train, x_test and perhaps x_val are arrays, y_... their labels, weight_... sample weights.
    Several inputs have the names x_train/NAME, and so on, several outputs y_train/NAME. Without
    any labels, y is None. Other names are left out.
    """
    parts = {}
    for key, array in _arrays(path, flag).items():
        found = _KEY.fullmatch(key)
        if found:
            axis, split, name = found.groups()
            parts.setdefault((axis, split), {})[name] = array
    _check(parts, path)
    splits = {}
    for name, split in _SPLITS.items():
        if ("x", name) in parts:
            x, y, *weights = (parts.get((axis, name)) for axis in ("x", "y", "weight"))
            weights = [_value(weight) for weight in weights if weight is not None]
            splits[split] = (_value(x), None if y is None else _value(y), *weights)
    return splits


def _arrays(path, flag):
    if not path.is_file():
        raise unexpected(f"a file for --{flag}", f"{path}, which is not there")
    expected = f"an .npz file of numbers and texts for --{flag}"
    if not zipfile.is_zipfile(path):
        raise unexpected(expected, f"{path}, which is damaged or of another kind")
    try:
        with np.load(path, allow_pickle=False) as file:
            return {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, pickle and format errors alike
        raise unexpected(expected, f"{path}: {last_cause(error)}") from error


def _check(parts, path):
    """Raises for arrays that are missing, and for names that differ between splits."""
    axes = [axis for axis in ("x", "y") if axis == "x" or any(key[0] == axis for key in parts)]
    names = [name for name in _SPLITS if name != "val" or any(key[1] == name for key in parts)]
    wanted = [(axis, name) for name in ("train", "test") for axis in axes]
    wanted += [(axis, "val") for axis in axes if "val" in names]
    missing = sorted(f"{axis}_{name}" for axis, name in wanted if (axis, name) not in parts)
    if missing:
        raise InputError(
            f"Received an .npz without all of {', '.join(map('_'.join, wanted))}. "
            f"Received: {path} without {', '.join(missing)}"
        )
    for (axis, name), arrays in parts.items():
        if None in arrays and len(arrays) > 1:
            other = next(each for each in arrays if each is not None)
            raise unexpected(
                f"either {axis}_{name} or {axis}_{name}/NAME of several in an .npz",
                f"{path} with {axis}_{name} and {axis}_{name}/{other}",
            )
        others = set(parts.get((axis, "train"), arrays)) ^ set(arrays)
        if others:
            other = "/".join(filter(None, [f"{axis}_{name}", others.pop()]))
            raise unexpected(
                f"arrays of equal names in all splits of an .npz, such as {axis}_train/NAME",
                f"{path}, which has {other} in some of them only",
            )


def _value(arrays):
    """Returns the only array, or a dict of several."""
    return arrays.get(None, arrays)
