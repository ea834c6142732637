"""Labels as class numbers and names: what is clear is accepted, the rest raises with a remedy."""

import re

import numpy as np

from pipelines.common.errors import invalid_flag
from tfpeft.core.arguments import unexpected

_EXPECTED = "one class per sample: class numbers from 0, names, booleans or one-hot rows"
_LISTED = 12  # values that an error lists, at most


def parse(classes):
    """Returns the names that --classes lists, or those of the number of classes that it gives."""
    if not classes:
        return None
    names = [name.strip() for name in classes]
    if len(names) == 1 and names[0].isdecimal() and int(names[0]) > 1:
        names = [str(number) for number in range(int(names[0]))]
    if len(names) < 2 or "" in names or len(set(names)) < len(names):
        expected = "two or more names, each once, or a number of classes"
        raise invalid_flag("classes", expected, classes)
    return tuple(names)


def class_numbers(labels, received, names=None):
    """Returns {split: class numbers (samples,)}, the names of the classes, and the kind of labels.

    Args:
        labels: {split: labels}; those of the training data define the classes.
        received: What an error names.
        names: Names of the classes in their order. Without them texts are sorted, as Keras and
            scikit-learn sort them, and numbers are their own names.

    Raises:
        InputError: for several classes per sample, soft labels, numbers that are no classes,
            missing labels, and labels that the training data lacks.
    """
    rows = {split: _flat(np.asarray(y), f"{received}, {split} data") for split, y in labels.items()}
    widths = {width for _, width in rows.values() if width}
    y = {split: flat for split, (flat, _) in rows.items()}
    if len({flat.dtype.kind == "U" for flat in y.values()}) > 1:
        raise unexpected("labels of one kind", f"{received} with names and numbers")
    train = y["train"]
    if train.dtype.kind == "U":
        names = names or tuple(np.unique(train).tolist())
        return _by_name(y, names, received), names, "names"
    kind = "class numbers"
    if widths:
        if len(widths) > 1 or (names and len(names) not in widths):
            count = f" for {len(names)} --classes" if names else ""
            sides = " and ".join(map(str, sorted(widths)))
            raise unexpected(f"one-hot rows of one width{count}", f"{received} with {sides}")
        kind = "one-hot rows"
        names = names or tuple(str(number) for number in range(*widths))
    elif all(flat.dtype == bool for flat in y.values()):
        kind = "booleans"
        names = names or ("False", "True")
    elif names and all(re.fullmatch(r"-?\d+", name) for name in names):
        y = {split: _whole(flat).astype(str) for split, flat in y.items()}
        return _by_name(y, names, received), names, kind
    names = names or _numbered(train, received)
    for split, flat in y.items():
        if flat.min() < 0 or flat.max() >= len(names):
            expected = f"labels in range, 0 to {len(names) - 1} as in the training data"
            seen = f"{_whole(flat).min()} to {_whole(flat).max()}"
            raise unexpected(expected, f"{received}, {split} data with {seen}")
    return {split: flat.astype("int64") for split, flat in y.items()}, names, kind


def _flat(y, received):
    """Returns labels (samples,), of texts or whole numbers, and the width of one-hot rows or 0."""
    if y.dtype == object and all(isinstance(label, (str, bytes)) for label in y.flat):
        y = np.array([_text(label) for label in y.flat], "U").reshape(y.shape)
    elif y.dtype.kind == "S":
        y = np.char.decode(y, "utf-8", "replace")
    if y.dtype.kind not in "biufU":
        raise unexpected(_EXPECTED, f"{received} with labels of type {y.dtype}")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "U":
        if y.ndim != 1:
            raise unexpected(_EXPECTED, f"{received} with labels of shape {y.shape}")
        if "" in y:
            empty = int(np.sum(y == ""))
            raise unexpected(_EXPECTED, f"{received} with {empty} of {len(y)} labels empty")
        return y, 0
    missing = ~np.isfinite(y)
    if missing.any():
        count = int(missing.reshape(len(y), -1).any(axis=1).sum())
        raise unexpected(
            _EXPECTED, f"{received} with NaN or infinity in {count} of {len(y)} labels"
        )
    if y.ndim == 2:
        return _of_one_hot(y, received), y.shape[1]
    if y.ndim != 1:
        raise unexpected(_EXPECTED, f"{received} with labels of shape {y.shape}")
    fractions = y != np.floor(y)
    if fractions.any():
        example = y[fractions][0]
        raise unexpected(
            _EXPECTED, f"{received} with numbers such as {example:g}, which are no classes"
        )
    return y, 0


def _of_one_hot(y, received):
    """Returns the class numbers of one-hot rows; others are several classes, or none."""
    if np.all((y == 0) | (y == 1)):
        others = int(np.sum(y.sum(axis=1) != 1))
        if not others:
            return np.argmax(y, axis=1)
        what = f"{others} of {len(y)} rows that have several ones or none (multi-hot)"
    elif np.all(y >= 0) and np.allclose(y.sum(axis=1), 1, atol=1e-3):
        what = "rows of probabilities (soft or smoothed labels); np.argmax(y, axis=1) are classes"
    else:
        what = f"rows of {y.shape[1]} numbers, which are no classes"
    raise unexpected(_EXPECTED, f"{received} with labels of shape {y.shape}, {what}")


def _numbered(train, received):
    """Returns the names 0 to n - 1 of class numbers, of which none may be missing."""
    values = _whole(np.unique(train)).tolist()
    if values == list(range(len(values))):
        return tuple(map(str, values))
    listed = ",".join(map(str, values[:_LISTED])) + (",..." if len(values) > _LISTED else "")
    remedy = f"--classes={listed} makes {len(values)} classes of them"
    if values[0] >= 0:
        remedy += f", --classes={values[-1] + 1} means 0 to {values[-1]}, some without a sample"
    remedy += "; --task=regression predicts numbers"
    raise unexpected(
        "class numbers from 0 to n - 1, all of them in the training data",
        f"{received} with the labels {listed}; {remedy}",
    )


def _by_name(y, names, received):
    """Returns {split: positions of the labels among the names}."""
    positions = {name: number for number, name in enumerate(names)}
    for split, flat in y.items():
        unknown = sorted(set(flat.tolist()) - set(names))
        if unknown:
            raise unexpected(
                f"labels among the classes {shortened(names)}",
                f"{received}, {split} data with {shortened(unknown)}",
            )
    return {
        split: np.array([positions[label] for label in flat.tolist()], "int64")
        for split, flat in y.items()
    }


def _whole(values):
    """Returns whole numbers as integers, of Python where they are too large for NumPy's."""
    if values.dtype.kind == "f" and len(values) and np.abs(values).max() >= 2.0**62:
        return np.array([int(value) for value in values], object)
    return values.astype("int64") if values.dtype.kind in "bf" else values


def _text(label):
    return label.decode("utf-8", "replace") if isinstance(label, bytes) else label


def shortened(names):
    """Returns the names in one line, the middle of many left out."""
    names = list(map(str, names))
    return ", ".join(names if len(names) <= _LISTED else [*names[:5], "...", *names[-2:]])
