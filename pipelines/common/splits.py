"""Train, validation and test data as arrays: checked, split, and in the shape of a model."""

import dataclasses

import numpy as np

from pipelines.common.classifiers import outputs_of
from pipelines.common.labels import class_numbers, shortened
from pipelines.common.models import input_shape
from tfpeft.core.arguments import InputError, unexpected

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Data:
    """Pairs (x, y): x float32 (samples, ...), y int64 (samples,) in [0, classes).

    `names` are those of the classes, in the order of their numbers, by default the numbers; `kind`
    says in words what the labels were.
    """

    train: tuple
    validation: tuple
    test: tuple
    classes: int
    names: tuple = ()
    kind: str = "class numbers"

    def __post_init__(self):
        if not self.names:
            object.__setattr__(self, "names", tuple(map(str, range(self.classes))))

    def __str__(self):
        """What the data was understood as, in one line."""
        x, _ = self.train
        sizes = ", ".join(f"{len(getattr(self, split)[1]):,} {split}" for split in SPLITS)
        inputs = "texts"
        if hasattr(x, "shape"):
            inputs = f"shape {x.shape[1:]}, values {x.min():g} to {x.max():g}"
        return (
            f"Data: {sizes} samples of {inputs}; one class per sample ({self.kind}), "
            f"{self.classes} classes: {shortened(self.names)}"
        )

    def with_inputs(self, change):
        """Returns the data with `change(x)` for each x."""
        pairs = {split: getattr(self, split) for split in SPLITS}
        changed = {split: (change(x), y) for split, (x, y) in pairs.items()}
        return dataclasses.replace(self, **changed)

    def for_inputs(self, shape, model="--model", received="--dataset"):
        """Returns the data in the shape (...) of a model's input; None is any.

        `model` and `received` are what an error names for the model and for the data.
        """
        if shape is None or None in shape:
            return self
        if not _same_but_for_ones(shape, self.train[0].shape[1:]):
            raise InputError(
                f"Received a model and a dataset that do not fit: {model} expects inputs of "
                f"shape {shape}. Received: {received} with {self.train[0].shape[1:]}"
            )
        return self.with_inputs(lambda x: x.reshape(-1, *shape))

    def for_model(self, model, name="--model"):
        """Returns the data in the input shape of `model`, and the `Outputs` of the model.

        Its classes must be the data's. `name` is what an error names.
        """
        data = self.for_inputs(input_shape(model), name)
        outputs = outputs_of(model, data.train[0], name)
        if outputs.classes != self.classes:
            raise InputError(
                f"Received a model and a dataset that do not fit: {name} has outputs of "
                f"{outputs.classes} classes. Received: --dataset with {self.classes}: "
                f"{shortened(self.names)}; --classes names all classes of a model in their order"
            )
        return data, outputs


def _same_but_for_ones(shape, other):
    """Whether values can take the other shape and stay in place: channels first are not last."""
    flat = 1 in (len(shape), len(other))
    dense, other_dense = ([side for side in sides if side != 1] for sides in (shape, other))
    return np.prod(shape) == np.prod(other) and (flat or dense == other_dense)


def checked(pairs, received, names=None):
    """Returns `Data` of split -> (x, y), of which "train" must be one.

    Where test data is missing, a fifth of the training data becomes it, and where validation data
    is, a tenth of the rest; both have the same share of every class.

    Args:
        pairs: {split: (x, y)}.
        received: What an error names.
        names: Names of the classes in their order; None for what the labels say.
    """
    inputs = {split: _inputs(*pair, f"{received}, {split} data") for split, pair in pairs.items()}
    shapes = {split: x.shape[1:] for split, x in inputs.items()}
    if len(set(shapes.values())) > 1:
        raise unexpected("samples of one shape in all splits", f"{received} with {shapes}")
    labels = {split: y for split, (_, y) in pairs.items()}
    y, names, kind = class_numbers(labels, received, names)
    if len(names) < 2:
        raise unexpected("at least 2 classes", f"{received} with one")
    found = {split: (inputs[split], y[split]) for split in pairs}
    try:
        if "test" not in found:
            found["train"], found["test"] = stratified(*found["train"], 0.2)
        if "validation" not in found:
            found["train"], found["validation"] = stratified(*found["train"], 0.1)
    except InputError as error:
        raise InputError(f"{error}. Received: {received}") from error
    if "validation" in pairs:
        # Sorted by class, the first samples, which calibrate int8, would be of one class.
        x, y = found["train"]
        order = np.random.default_rng(0).permutation(len(y))
        found["train"] = (x[order], y[order])
    return Data(
        **{split: found[split] for split in SPLITS}, classes=len(names), names=names, kind=kind
    )


def _inputs(x, y, received):
    """Returns x as float32, of finite numbers, as many as labels."""
    x, y = np.asarray(x), np.asarray(y)
    if x.ndim == 0 or y.ndim == 0 or len(x) == 0 or len(x) != len(y):
        counts = [len(array) if array.ndim else "no" for array in (x, y)]
        raise InputError(
            f"Received invalid data, expected as many samples as labels, and one or more. "
            f"Received: {received} with {counts[0]} samples and {counts[1]} labels"
        )
    if x.dtype.kind not in "biuf":
        raise unexpected("numbers as inputs", f"{received} of type {x.dtype}")
    if x.ndim == 1:
        x = x[:, None]
    with np.errstate(over="ignore"):
        x = x.astype("float32")
    if not np.all(np.isfinite(x)):
        bad = int(np.sum(~np.isfinite(x.reshape(len(x), -1)).all(axis=1)))
        raise InputError(
            "Received invalid data, expected finite numbers. "
            f"Received: {received} with NaN or infinity in {bad} of {len(x)} samples"
        )
    return x


def stratified(x, y, fraction):
    """Returns two pairs (x, y); the second has that fraction of the samples of every class."""
    from sklearn.model_selection import train_test_split

    try:
        x, x_second, y, y_second = train_test_split(
            x, y, test_size=fraction, stratify=y, random_state=0
        )
    except ValueError as error:
        counts = np.unique(y, return_counts=True)[1]
        raise InputError(
            f"Cannot set {fraction:.0%} of the samples of every class aside: {len(y)} of "
            f"{len(counts)} classes, {counts.min()} of the smallest"
        ) from error
    return (x, y), (x_second, y_second)
