"""Tables of CSV files: columns of numbers and categories as inputs, through Keras's FeatureSpace.

A column whose cells are numbers is one; any other is of categories. Where a number is missing, it
is the median of the training rows; where a category is, missing is a category. What the training
rows say is kept with the run, so that a file is read in the same way later.
"""

import dataclasses
import json

import keras
import numpy as np
import tensorflow as tf

from pipelines.common import classifiers, csv_files, recognition, splits
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.json_files import read_json

FILE, FEATURES = "table.json", "features.keras"
_MISSING = ("", "na", "n/a", "nan", "null", "none", "?")  # cells without a number, in lower case
_NO_CATEGORY = "(missing)"
_FEW = 20  # categories that a column may have, in however many rows
_SCHEMA = {
    "labels": [str],
    "numbers": {str: float},
    "categories": [str],
    "left_out": [str],
    "named": bool,
}


@dataclasses.dataclass(frozen=True)
class Table:
    """How the columns of a CSV file become inputs.

    Attributes:
        labels: The columns that are labels.
        numbers: {column of numbers: what stands for a missing one}.
        categories: The columns of categories.
        left_out: The columns that are no input, as they have a text of its own in most rows.
        named: Whether inputs are {column: values}, of a model that has inputs of these names; else
            they are one array of numbers.
        features: The FeatureSpace that makes numbers of columns, adapted; None where `named`.
    """

    labels: tuple
    numbers: dict
    categories: tuple
    left_out: tuple = ()
    named: bool = False
    features: keras.utils.FeatureSpace | None = None

    @property
    def columns(self):
        """The names of the columns that are inputs, in order."""
        return (*self.numbers, *self.categories)

    def read(self, path, received):
        """Returns the inputs of a CSV file, whose labels may be missing.

        Raises:
            InputError: for a file without the columns of the inputs, and cells that are no numbers.
        """
        columns, lines = csv_files.read(path, received, list(self.columns))
        if not lines:
            raise unexpected("one row or more", f"{received} without any")
        return self.inputs(self.values(columns, lines, received))

    def values(self, columns, lines, received):
        """Returns {column: numbers or texts, (rows,)} of cells, the missing ones filled."""
        values = {}
        for name, fill in self.numbers.items():
            numbers, bad = _numbers(columns[name])
            if bad is not None:
                expected = f"numbers in the column {name!r}, as in the training data"
                raise unexpected(expected, f"{received}, line {lines[bad]}: {columns[name][bad]!r}")
            values[name] = np.where(np.isnan(numbers), fill, numbers).astype("float32")
        for name in self.categories:
            values[name] = np.array([cell or _NO_CATEGORY for cell in columns[name]], object)
        return values

    def inputs(self, values):
        """Returns inputs of filled columns: an array (rows, numbers), or {column: (rows, 1)}."""
        if self.named:
            return {name: column[:, None] for name, column in values.items()}
        # Names of columns may be such that layers cannot have them.
        numbered = {
            _feature(number): values[name].tolist() for number, name in enumerate(self.columns)
        }
        batches = tf.data.Dataset.from_tensor_slices(numbered).batch(4096)
        return np.concatenate([self.features(batch).numpy() for batch in batches])

    def adapted(self, values):
        """Returns the table with features that are adapted to filled columns."""
        kinds = {
            name: keras.utils.FeatureSpace.float_normalized()
            if name in self.numbers
            else keras.utils.FeatureSpace.string_categorical(num_oov_indices=1)
            for name in self.columns
        }
        numbered = {_feature(number): kind for number, kind in enumerate(kinds.values())}
        features = keras.utils.FeatureSpace(numbered, output_mode="concat")
        columns = {_feature(i): values[name].tolist() for i, name in enumerate(self.columns)}
        features.adapt(tf.data.Dataset.from_tensor_slices(columns).batch(4096))
        return dataclasses.replace(self, features=features)

    def files(self):
        """Returns {name of a file: its text, or a function that writes it to a path}."""
        content = dataclasses.asdict(dataclasses.replace(self, features=None))
        del content["features"]
        found = {FILE: json.dumps(content, indent=2)}
        if self.features is not None:
            found[FEATURES] = self.features.save
        return found

    def __str__(self):
        text = (
            f"Table: {len(self.numbers)} columns of numbers, {len(self.categories)} of categories"
        )
        if self.left_out:
            text += f"; left out, as most of their texts differ: {', '.join(self.left_out)}"
        return text


def load(folder):
    """Returns the `Table` whose `files` are in a folder of a run; None if there is none."""
    if not (folder / FILE).exists():
        return None
    content = read_json(folder / FILE, _SCHEMA)
    lists = {name: tuple(content[name]) for name in ("labels", "categories", "left_out")}
    table = Table(**{**content, **lists})
    if table.named:
        return table
    try:
        features = keras.models.load_model(folder / FEATURES)
    except (OSError, ValueError) as error:
        received = f"{folder / FEATURES}, which is damaged or missing"
        raise unexpected("the features of a run", received) from error
    return dataclasses.replace(table, features=features)


def _feature(number):
    return f"column_{number}"


def read(reference, received, *, model=None, request=None):
    """Returns {split: (x, y)} of all splits, and the `Table`, of a `csv_files.Reference`.

    Args:
        reference: The file and its columns of labels.
        received: What an error names.
        model: The model that is given, or None. If its inputs have the names of columns, x are
            these columns.
        request: The `request.Request`, or None.
    """
    columns, lines = csv_files.read(reference.path, received)
    labels = csv_files.label_columns(reference.labels, columns)
    unknown = [name for name in labels if name not in columns]
    if unknown:
        listed = ", ".join(map(repr, columns))
        raise unexpected(f"a label among the columns {listed}", f"{received}, with {unknown[0]!r}")
    if not lines:
        raise unexpected("one row or more", f"{received} without any")
    csv_files.check_filled([columns[name] for name in labels], lines, "a label", received)
    y = _labels({name: columns[name] for name in labels}, received)
    table = _table(columns, labels, _input_names(model), received)
    is_class = _task(y, request) in recognition.CLASSES
    rows = _divided(y, is_class, received)
    train = {name: [columns[name][row] for row in rows["train"]] for name in table.numbers}
    medians = {name: _median(cells) for name, cells in train.items()}
    table = dataclasses.replace(table, numbers=medians)
    values = table.values(columns, lines, received)
    if not table.named:
        table = table.adapted({name: column[rows["train"]] for name, column in values.items()})
    x = table.inputs(values)
    parts = {
        split: (keras.tree.map_structure(lambda array, rows=numbers: array[rows], x), y[numbers])
        for split, numbers in rows.items()
    }
    return parts, table


def _divided(y, is_class, received):
    """Returns {split: numbers of rows}."""
    labels = y
    if is_class:
        labels = y.astype(str) if y.ndim == 1 else y.argmax(axis=1)
    try:
        parts = splits.divided(
            {"train": (np.arange(len(y)), labels)}, is_class=is_class, received=received
        )
    except InputError as error:
        remedy = "; --task=regression predicts numbers" if y.dtype.kind == "f" else ""
        raise InputError(f"{error}{remedy}") from error
    return {split: numbers for split, (numbers, _) in parts.items()}


def _table(columns, labels, wanted, received):
    """Returns the `Table` of columns that are not adapted yet."""
    inputs = [name for name in columns if name not in labels]
    named = bool(wanted) and set(wanted) <= set(inputs)
    if named:
        inputs = list(wanted)
    numbers = {name: 0.0 for name in inputs if _numbers(columns[name])[1] is None}
    others = [name for name in inputs if name not in numbers]
    left_out = () if named else tuple(name for name in others if _is_name(columns[name]))
    categories = tuple(name for name in others if name not in left_out)
    if not numbers and not categories:
        raise unexpected("a column of numbers or categories beside labels", f"{received}")
    return Table(tuple(labels), numbers, categories, left_out, named)


def _is_name(cells):
    """Whether cells are names or numbers of rows, and no categories: most of them differ."""
    return len(set(cells)) > max(_FEW, len(cells) / 2)


def _numbers(cells):
    """Returns numbers, NaN where they are missing, and the row of the first other text, or None.

    A column without any number is one of texts.
    """
    numbers = np.full(len(cells), np.nan)
    for row, cell in enumerate(cells):
        if cell.lower() in _MISSING:
            continue
        try:
            numbers[row] = float(cell)
        except ValueError:
            return numbers, row
        if not np.isfinite(numbers[row]):
            return numbers, row
    return numbers, (0 if np.isnan(numbers).all() and any(cells) else None)


def _median(cells):
    numbers = _numbers(cells)[0]
    found = numbers[~np.isnan(numbers)]
    return float(np.median(found)) if len(found) else 0.0


def _labels(columns, received):
    """Returns labels (rows,) of numbers or texts, or numbers (rows, columns)."""
    parsed = {name: _numbers(cells) for name, cells in columns.items()}
    are_numbers = all(bad is None and not np.isnan(y).any() for y, bad in parsed.values())
    if len(columns) == 1:
        (cells,) = columns.values()
        return next(iter(parsed.values()))[0] if are_numbers else np.array(cells)
    if not are_numbers:
        name = next(n for n, (y, bad) in parsed.items() if bad is not None or np.isnan(y).any())
        raise unexpected("numbers in several columns of labels", f"{received} with texts in {name}")
    return np.stack([y for y, _ in parsed.values()], axis=1).astype("float32")


def _task(y, request):
    """Returns the task of labels, unless a flag or the loss of the model says it."""
    if request is not None and request.task is not None:
        return request.task
    if request is not None and classifiers.is_of_numbers(request.loss_name):
        return "regression"
    if y.dtype.kind == "U":
        return "classification"
    is_class = y.ndim == 1 and np.all(y == np.floor(y))
    return "classification" if is_class else "regression"


def _input_names(model):
    """Returns the names of the inputs of a Keras model or a `TFLiteFile`."""
    if model is None:
        return ()
    inputs = getattr(model, "inputs", None)
    if isinstance(inputs, list):
        return tuple(tensor.name for tensor in inputs)
    signature = getattr(model, "signature", None)
    return tuple(signature().inputs) if signature else ()


def read_texts(reference, received):
    """Returns {"train": (texts (rows, 1), labels)} of a `Reference` with a column of texts."""
    labels = reference.labels
    columns, lines = csv_files.read(reference.path, received, [reference.text, labels])
    if not lines:
        raise InputError(f"Expected one row or more. Received: {received} without any")
    csv_files.check_filled(columns.values(), lines, "a text and a label", received)
    texts = np.array(columns[reference.text], object)[:, None]
    return {"train": (texts, _labels({labels: columns[labels]}, received))}
