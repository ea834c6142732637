"""The data of a run, as arrays: train, validation and test, checked before anything uses them."""

import collections
import csv
import dataclasses
import importlib
import pathlib

import keras
import numpy as np
import sklearn.datasets
from sklearn.model_selection import train_test_split

IMAGES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
_SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Data:
    """Pairs (x, y): x float32 (samples, ...), y int64 (samples,) in [0, classes)."""

    train: tuple
    validation: tuple
    test: tuple
    classes: int

    def with_inputs(self, change):
        """Returns the data with `change(x)` for each x."""
        pairs = {s: getattr(self, s) for s in _SPLITS}
        return dataclasses.replace(self, **{s: (change(x), y) for s, (x, y) in pairs.items()})

    def for_inputs(self, model, flag="model", received="--dataset"):
        """Returns the data in the input shape of `model`; the others are what an error names."""
        shape = getattr(model, "input_shape", None)
        if not isinstance(shape, tuple) or None in shape[1:]:
            return self
        if not _same_but_for_ones(shape[1:], self.train[0].shape[1:]):
            raise ValueError(
                f"Received a model and a dataset that do not fit: --{flag} expects inputs of "
                f"shape {shape[1:]}. Received: {received} with {self.train[0].shape[1:]}"
            )
        return self.with_inputs(lambda x: x.reshape(-1, *shape[1:]))

    def for_model(self, model):
        """Returns the data in the input shape of `model`, whose classes must be the data's."""
        data = self.for_inputs(model)
        classes = model(data.train[0][:1], training=False).shape[-1]
        if classes != self.classes:
            raise ValueError(
                f"Received a model and a dataset that do not fit: --model answers {classes} "
                f"classes. Received: --dataset with {self.classes}"
            )
        return data


def load(dataset, *, data_dir=None, image_size=64):
    """Loads what --dataset names; --help of every script tells the forms.

    Where there is no validation split, a tenth of the training data becomes one; where there is
    no test split either, a fifth of all data. Both are the same in every run.
    """
    path = pathlib.Path(dataset)
    if dataset == "digits":
        digits = sklearn.datasets.load_digits()
        splits = _split_test(digits.images[..., None] / 16.0, digits.target)
    elif dataset in IMAGES:
        splits = _images(dataset, data_dir)
    elif path.suffix == ".npz":
        splits = _npz(path)
    elif path.is_dir():
        splits = _image_folder(path, image_size)
    elif ":" in dataset and not path.exists():
        splits = dict(zip(_SPLITS, map(_arrays, call(dataset, "dataset")), strict=True))
    else:
        raise ValueError(
            f"Received an invalid value for --dataset, expected digits, {', '.join(IMAGES)}, an "
            ".npz file, a folder of one folder an image class, or module:function. "
            f"Received: --dataset={dataset}"
        )
    return _finished(splits, f"--dataset={dataset}")


def load_arrays(path, flag, received):
    """Loads an .npz as `load` does; `flag` and `received` are what an error names."""
    return _finished(_npz(pathlib.Path(path), flag), received)


def load_texts(path, text_column, label_column, received):
    """Loads a CSV with a header: returns data whose x are lists of texts, and names of classes.

    The rows are split as those of `load` are; `received` is what an error names.
    """
    texts, labels = _csv_columns(path, text_column, label_column, received)
    counts = collections.Counter(labels)
    names = sorted(counts)
    if len(names) < 2:
        seen = repr(names[0]) if names else "no row"
        raise ValueError(f"Expected at least 2 classes. Received: {received} with {seen} only")
    numbers = {name: number for number, name in enumerate(names)}
    y = np.array([numbers[label] for label in labels])
    try:
        splits = _split_test(texts, y)
        x, x_validation, y, y_validation = _stratified(*splits["train"], 0.1)
    except ValueError as error:
        least = min(names, key=counts.get)
        raise ValueError(
            f"{error}. Expected more rows. Received: {received} with {len(texts)}, and of the "
            f"class {least!r} with {counts[least]}"
        ) from error
    splits = {"train": (x, y), "validation": (x_validation, y_validation), "test": splits["test"]}
    return Data(**splits, classes=len(names)), names


def _csv_columns(path, text_column, label_column, received):
    wanted = f"Expected a CSV file with a header, in UTF-8. Received: {received}"
    texts, labels, missing = [], [], []
    try:
        with open(path, newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, strict=True)
            header = reader.fieldnames or []
            unknown = [name for name in (text_column, label_column) if name not in header]
            if unknown:
                raise ValueError(
                    f"Expected a column among {', '.join(header) or 'none'}, which {path} has. "
                    f"Received: {received}, with {' and '.join(unknown)}"
                )
            twice = [name for name in (text_column, label_column) if header.count(name) > 1]
            if twice:
                raise ValueError(f"Expected one column {twice[0]}. Received: {received} with more")
            for row in reader:
                if None in row or None in row.values():
                    raise ValueError(
                        f"Expected {len(header)} columns in every row, texts with a comma in "
                        f"quotes. Received: {received}, where line {reader.line_num} has others"
                    )
                text, label = (row[name].strip() for name in (text_column, label_column))
                if text and label:
                    texts.append(text)
                    labels.append(label)
                else:
                    missing.append(reader.line_num)
    except FileNotFoundError as error:
        raise ValueError(f"{wanted}, and no file {path}") from error
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise ValueError(f"{wanted}: {error}") from error
    if missing:
        raise ValueError(
            f"Expected a text and a label in every row. Received: {received}, where one is empty "
            f"in {len(missing)} of {len(texts) + len(missing)} rows, first in line {missing[0]}"
        )
    return texts, labels


def _finished(splits, received):
    """Returns checked data of all three splits."""
    classes = _check(splits, received)
    if "validation" not in splits:
        try:
            x, x_validation, y, y_validation = _stratified(*splits["train"], 0.1)
        except ValueError as error:
            raise ValueError(f"{error}. Received: {received}") from error
        splits = {**splits, "train": (x, y), "validation": (x_validation, y_validation)}
    else:
        # Sorted by class, the first samples, which calibrate int8, would be of one class.
        x, y = splits["train"]
        order = np.random.default_rng(0).permutation(len(y))
        splits = {**splits, "train": (x[order], y[order])}
    return Data(**{s: splits[s] for s in _SPLITS}, classes=classes)


def _same_but_for_ones(shape, other):
    """Whether values can take the other shape and stay in place: channels first are not last."""
    flat = 1 in (len(shape), len(other))
    dense, other_dense = ([side for side in each if side != 1] for each in (shape, other))
    return np.prod(shape) == np.prod(other) and (flat or dense == other_dense)


def _check(splits, received):
    """Turns the splits into float32 and int64 in place; returns the number of classes."""
    for split, (x, y) in splits.items():
        x, y = np.asarray(x), np.asarray(y)
        where = f"{received}, {split} data"
        if len(x) == 0 or len(x) != len(y):
            raise ValueError(
                f"Received invalid data, expected as many samples as labels, and one or more. "
                f"Received: {where} with {len(x)} samples and {len(y)} labels"
            )
        if y.ndim == 2:
            y = np.argmax(y, axis=1) if y.shape[1] > 1 else y[:, 0]
        if y.ndim != 1 or not np.issubdtype(y.dtype, np.number) or np.any(y != np.floor(y)):
            raise ValueError(
                "Received invalid labels, expected whole numbers, one a sample, or one-hot rows. "
                f"Received: {where} with labels of shape {y.shape} and type {y.dtype}"
            )
        if not np.issubdtype(x.dtype, np.number) and x.dtype != bool:
            raise ValueError(f"Expected numbers as inputs. Received: {where} of type {x.dtype}")
        x = x.astype("float32")
        if not np.all(np.isfinite(x)):
            bad = int(np.sum(~np.isfinite(x.reshape(len(x), -1)).all(axis=1)))
            raise ValueError(
                "Received invalid data, expected finite numbers. "
                f"Received: {where} with NaN or infinity in {bad} of {len(x)} samples"
            )
        splits[split] = (x, y.astype("int64"))
    classes = int(splits["train"][1].max()) + 1
    for split, (_, y) in splits.items():
        if y.min() < 0 or y.max() >= classes:
            raise ValueError(
                f"Received labels out of range, expected 0 to {classes - 1} as in the training "
                f"data. Received: {received}, {split} data with {y.min()} to {y.max()}"
            )
    if classes < 2:
        raise ValueError(f"Expected at least 2 classes. Received: {received} with one")
    return classes


def _stratified(x, y, fraction):
    try:
        return train_test_split(x, y, test_size=fraction, stratify=y, random_state=0)
    except ValueError as error:
        raise ValueError(f"Cannot set samples of every class aside: {error}") from error


def _split_test(x, y):
    x, x_test, y, y_test = _stratified(x, y, 0.2)
    return {"train": (x, y), "test": (x_test, y_test)}


def _images(name, data_dir):
    """One of keras.datasets, or NAME.npz in --data_dir; pixels become [0, 1]."""
    path = pathlib.Path(data_dir or ".") / f"{name}.npz"
    if data_dir:
        splits = _npz(path)
    else:
        try:
            train, test = getattr(keras.datasets, name).load_data()
        except Exception as error:  # whatever a download can raise
            raise ValueError(
                f"Cannot download --dataset={name}, expected a connection, or {name}.npz in "
                f"--data_dir. Received: {error}"
            ) from error
        splits = {"train": train, "test": test}
    scaled = {}
    for split, (x, y) in splits.items():
        x = np.asarray(x, "float32") / 255.0
        scaled[split] = (x[..., None] if x.ndim == 3 else x, y)
    return scaled


def _npz(path, flag="dataset"):
    if not path.is_file():
        raise ValueError(f"Expected a file for --{flag}. Received: {path}, which is not there")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, pickle and format errors alike
        raise ValueError(f"Cannot read {path}, expected an .npz file. Received: {error}") from error
    missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays)
    if missing:
        raise ValueError(
            "Received an .npz without all of x_train, y_train, x_test, y_test. "
            f"Received: {path} without {', '.join(sorted(missing))}"
        )
    names = {"train": "train", "validation": "val", "test": "test"}
    return {
        split: (arrays[f"x_{name}"], arrays[f"y_{name}"])
        for split, name in names.items()
        if f"x_{name}" in arrays
    }


def _image_folder(path, image_size):
    try:
        dataset = keras.utils.image_dataset_from_directory(
            path, image_size=(image_size, image_size), batch_size=64, shuffle=False, verbose=False
        )
        x, y = _arrays(dataset)
    except Exception as error:  # decoding errors come from TensorFlow
        raise ValueError(
            "Cannot read the images, expected one folder a class with .png, .jpg, .bmp or .gif "
            f"files. Received: --dataset={path}: {str(error).splitlines()[0]}"
        ) from error
    return _split_test(x / 255.0, y)


def _arrays(pair):
    """A pair (x, y), or a tf.data.Dataset of batches of them."""
    if isinstance(pair, (tuple, list)) and len(pair) == 2:
        return tuple(np.asarray(each) for each in pair)
    batches = list(pair.as_numpy_iterator())
    return tuple(np.concatenate([batch[i] for batch in batches]) for i in range(2))


def call(reference, flag):
    """Calls `package.module:function` without arguments."""
    module, _, function = reference.partition(":")
    try:
        function = getattr(importlib.import_module(module), function)
    except (ImportError, AttributeError) as error:
        raise ValueError(
            f"Received an invalid value for --{flag}, expected module:function. "
            f"Received: --{flag}={reference}: {error}"
        ) from error
    return function()
