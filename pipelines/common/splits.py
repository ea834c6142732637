"""Train, validation and test data as arrays: checked, split, and in the shape of a model."""

import dataclasses

import numpy as np
import tensorflow as tf

from pipelines.common.errors import first_line
from tfpeft.core.arguments import InputError, unexpected

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Data:
    """Pairs (x, y): x float32 (samples, ...), y int64 (samples,) in [0, classes)."""

    train: tuple
    validation: tuple
    test: tuple
    classes: int

    def with_inputs(self, change):
        """Returns the data with `change(x)` for each x."""
        pairs = {split: getattr(self, split) for split in SPLITS}
        changed = {split: (change(x), y) for split, (x, y) in pairs.items()}
        return dataclasses.replace(self, **changed)

    def for_inputs(self, model, flag="model", received="--dataset"):
        """Returns the data in the input shape of `model`.

        An error names `flag` for the model, and `received` for the data.
        """
        shape = getattr(model, "input_shape", None)
        if not isinstance(shape, tuple) or None in shape[1:]:
            return self
        if not _same_but_for_ones(shape[1:], self.train[0].shape[1:]):
            raise InputError(
                f"Received a model and a dataset that do not fit: --{flag} expects inputs of "
                f"shape {shape[1:]}. Received: {received} with {self.train[0].shape[1:]}"
            )
        return self.with_inputs(lambda x: x.reshape(-1, *shape[1:]))

    def for_model(self, model):
        """Returns the data in the input shape of `model`, whose classes must be the data's."""
        data = self.for_inputs(model)
        try:
            outputs = model(data.train[0][:1], training=False)
        except (ValueError, TypeError, tf.errors.InvalidArgumentError) as error:
            raise InputError(
                "Received a model and a dataset that do not fit: --model does not take inputs of "
                f"shape {data.train[0].shape[1:]}. Received: --dataset with these: "
                f"{first_line(error)}"
            ) from error
        if not hasattr(outputs, "shape"):
            received = f"--model with outputs in a {type(outputs).__name__}"
            raise unexpected("a model with one output", received)
        if outputs.shape[-1] != self.classes:
            raise InputError(
                "Received a model and a dataset that do not fit: --model has outputs of "
                f"{outputs.shape[-1]} classes. Received: --dataset with {self.classes}"
            )
        return data


def _same_but_for_ones(shape, other):
    """Whether values can take the other shape and stay in place: channels first are not last."""
    flat = 1 in (len(shape), len(other))
    dense, other_dense = ([side for side in sides if side != 1] for sides in (shape, other))
    return np.prod(shape) == np.prod(other) and (flat or dense == other_dense)


def checked(splits, received):
    """Returns `Data` of split -> (x, y), with a validation split if there was none.

    `received` is what an error names.
    """
    splits = {split: _arrays(*pair, f"{received}, {split} data") for split, pair in splits.items()}
    classes = _count_classes(splits, received)
    if "validation" not in splits:
        try:
            splits["train"], splits["validation"] = stratified(*splits["train"], 0.1)
        except InputError as error:
            raise InputError(f"{error}. Received: {received}") from error
    else:
        # Sorted by class, the first samples, which calibrate int8, would be of one class.
        x, y = splits["train"]
        order = np.random.default_rng(0).permutation(len(y))
        splits["train"] = (x[order], y[order])
    return Data(**{split: splits[split] for split in SPLITS}, classes=classes)


def _arrays(x, y, received):
    """Returns x as float32 and y as int64, of finite numbers and whole ones."""
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) == 0 or len(x) != len(y):
        counts = [len(array) if array.ndim else "no" for array in (x, y)]
        raise InputError(
            f"Received invalid data, expected as many samples as labels, and one or more. "
            f"Received: {received} with {counts[0]} samples and {counts[1]} labels"
        )
    if y.ndim == 2:
        y = np.argmax(y, axis=1) if y.shape[1] > 1 else y[:, 0]
    if y.ndim != 1 or not np.issubdtype(y.dtype, np.number) or np.any(y != np.floor(y)):
        raise InputError(
            "Received invalid labels, expected whole numbers, one per sample, or one-hot rows. "
            f"Received: {received} with labels of shape {y.shape} and type {y.dtype}"
        )
    if not np.issubdtype(x.dtype, np.number) and x.dtype != bool:
        raise unexpected("numbers as inputs", f"{received} of type {x.dtype}")
    x = x.astype("float32")
    if not np.all(np.isfinite(x)):
        bad = int(np.sum(~np.isfinite(x.reshape(len(x), -1)).all(axis=1)))
        raise InputError(
            "Received invalid data, expected finite numbers. "
            f"Received: {received} with NaN or infinity in {bad} of {len(x)} samples"
        )
    return x, y.astype("int64")


def _count_classes(splits, received):
    """Returns the number of classes of the training data, which all splits must have."""
    classes = int(splits["train"][1].max()) + 1
    for split, (_, y) in splits.items():
        if y.min() < 0 or y.max() >= classes:
            raise InputError(
                f"Received labels out of range, expected 0 to {classes - 1} as in the training "
                f"data. Received: {received}, {split} data with {y.min()} to {y.max()}"
            )
    if classes < 2:
        raise unexpected("at least 2 classes", f"{received} with one")
    return classes


def stratified(x, y, fraction):
    """Returns two pairs (x, y); the second has that fraction of the samples of every class."""
    from sklearn.model_selection import train_test_split

    try:
        x, x_second, y, y_second = train_test_split(
            x, y, test_size=fraction, stratify=y, random_state=0
        )
    except ValueError as error:
        raise InputError(f"Cannot set samples of every class aside: {error}") from error
    return (x, y), (x_second, y_second)


def with_test_split(x, y):
    """Returns split -> (x, y) of training data and test data, a fifth of all."""
    train, test = stratified(x, y, 0.2)
    return {"train": train, "test": test}
