"""Train, validation and test data: checked, split, and in the shape of a model."""

import dataclasses
import typing

import keras
import numpy as np
import tensorflow as tf

from pipelines.common import arrays, objectives, recognition, samples, streams
from pipelines.common.labels import class_numbers, shortened
from pipelines.common.models import input_shape
from pipelines.common.recognition import CLASSES
from pipelines.common.request import Request
from pipelines.common.samples import Stream
from tfpeft.core.arguments import InputError, unexpected

SPLITS = ("train", "validation", "test")


@dataclasses.dataclass(frozen=True)
class Data:
    """The samples of the splits, and what their labels mean.

    Each split is arrays (x, y), with or without sample weights, or a `samples.Stream`. Of tasks
    with one class per sample, x are float32 and y int64 (samples,) in [0, classes).

    Attributes:
        train: Samples to train on.
        validation: Samples by which epochs are chosen.
        test: Samples that the report is of.
        classes: How many classes there are; None where a sample has no class.
        names: Names of classes, or of labels, in the order of their numbers; by default numbers.
        kind: What the labels were, in words.
        in_column: Whether labels of one class per sample had the shape (samples, 1).
        task: A name of `tfpeft.evaluation.tasks.TASKS`, or {name of an output: name of a task}.
        request: The `Request` of the run.
        table: The `tables.Table` that made inputs of columns of a CSV file; None of other data.
    """

    train: tuple | Stream
    validation: tuple | Stream
    test: tuple | Stream
    classes: int | None = None
    names: tuple = ()
    kind: str = "class numbers"
    in_column: bool = False
    task: str | dict = "classification"
    request: Request = Request()
    table: typing.Any = None

    def __post_init__(self):
        if not self.names and self.classes:
            object.__setattr__(self, "names", tuple(map(str, range(self.classes))))

    def __str__(self):
        """What the data was understood as, in one line."""
        x = samples.first_inputs(self.train, None if isinstance(self.train, tuple) else 256)
        sizes = ", ".join(f"{samples.count(getattr(self, name)):,} {name}" for name in SPLITS)
        streamed = " (streamed)" if isinstance(self.train, Stream) else ""
        return f"Data: {sizes} samples of {_described(x)}{streamed}; {self._labels()}"

    def _labels(self):
        if self.classes:
            listed = shortened(self.names)
            kinds = f"one class per sample ({self.kind})"
            if self.task not in CLASSES:
                kinds = f"{self.task} ({self.kind})"
            return f"{kinds}, {self.classes} classes: {listed}"
        if isinstance(self.task, dict):
            return ", ".join(f"{task} of {name}" for name, task in self.task.items())
        return f"{self.task} of {self.kind}"

    def with_inputs(self, change):
        """Returns the data with `change(x)` for each x."""
        splits = {name: samples.with_inputs(getattr(self, name), change) for name in SPLITS}
        return dataclasses.replace(self, **splits)

    def for_inputs(self, shape, model="--model", received="--dataset"):
        """Returns the data in the shape (...) of a model's input; None is any.

        `model` and `received` are what an error names for the model and for the data.
        """
        x = samples.first_inputs(self.train, 1)
        if _in_shape(x, shape, model, received) is x:
            return self
        return self.with_inputs(lambda x: _reshaped(x, (-1, *shape)))

    def for_model(self, model, name="--model"):
        """Returns the data as `model` takes it, and the `Objective` of the model.

        The model must have the classes of the data. `name` is what an error names.
        """
        data = self.for_inputs(input_shape(model), name)
        objective = objectives.of(data, model, name)
        if objective.outputs is not None and objective.outputs.classes != self.classes:
            raise InputError(
                f"Received a model and a dataset that do not fit: {name} has outputs of "
                f"{objective.outputs.classes} classes. Received: --dataset with {self.classes}: "
                f"{shortened(self.names)}; --classes names all classes of a model in their order"
            )
        return data, objective


def _described(x):
    """Returns the shapes and ranges of inputs, in words."""
    if isinstance(x, dict):
        return ", ".join(f"{name} of {_described(array)}" for name, array in x.items())
    if isinstance(x, list) or x.dtype == tf.string:
        return "texts"
    x = np.asarray(x)
    return f"shape {x.shape[1:]}, values {x.min():g} to {x.max():g}"


def _reshaped(x, shape):
    return x.reshape(shape) if isinstance(x, np.ndarray) else tf.reshape(x, shape)


def _same_but_for_ones(shape, other):
    """Whether values can take the other shape and stay in place: channels first are not last."""
    flat = 1 in (len(shape), len(other))
    dense, other_dense = ([side for side in sides if side != 1] for sides in (shape, other))
    return np.prod(shape) == np.prod(other) and (flat or dense == other_dense)


def checked(pairs, received, names=None, *, model=None, request=None, model_name="--model"):
    """Returns `Data` of split -> samples, of which "train" must be one.

    Where test data is missing, a fifth of the training data becomes it, and where validation data
    is, a tenth of the rest; both have the same share of every class. Of a stream it is every fifth
    sample, and then every tenth.

    Args:
        pairs: {split: (x, y), (x, y, sample_weight) or a `Stream`}; y is None where there are no
            labels.
        received: What an error names.
        names: Names of the classes, or of the labels, in their order; None for what labels say.
        model: The model that is given, a Keras model or a `TFLiteFile`, or None.
        request: The `Request`; None for one without wishes.
        model_name: What an error names for the model.
    """
    request, types = request or Request(), arrays.types_of(model)
    parts = {
        split: part
        if isinstance(part, Stream)
        else arrays.checked(part, f"{received}, {split} data", types)
        for split, part in pairs.items()
    }
    _check_labelled(parts, received)
    are_streams = any(isinstance(part, Stream) for part in parts.values())
    if are_streams:
        parts = streams.readable(parts, received, types)
    _check_shapes(parts, received)
    some = samples.some(parts["train"], recognition.SAMPLES)
    shape = None if model is None else input_shape(model)
    some = some._replace(x=_in_shape(some.x, shape, model_name, received))
    if not _has_labels(parts["train"]):
        some = some._replace(y=None)
    task = recognition.task_of(some, model, request, received, model_name)
    is_class = task in recognition.CLASSES if isinstance(task, str) else False
    if task != "reconstruction" and not _has_labels(parts["train"]):
        raise unexpected(f"samples (x, y) with labels for {task}", f"{received} without labels")
    if are_streams:
        parts, labels = streams.labelled(parts, task, names, received, model)
        parts = streams.divided(parts)
    else:
        if is_class:
            parts, labels = _of_classes(parts, names, received)
        else:
            parts, labels = arrays.labelled(parts, task, names, received)
        parts = divided(parts, is_class=is_class, received=received)
        parts = {
            split: (arrays.as_keras_takes(part[0]), *part[1:]) for split, part in parts.items()
        }
    if task == "binary" and labels["classes"] != 2:
        raise unexpected("two classes for --task=binary", f"{received} with {labels['classes']}")
    return Data(**parts, **labels, task=task, request=request)


def _check_labelled(parts, received):
    """Raises where some splits have labels, and others do not."""
    has_labels = {split: _has_labels(part) for split, part in parts.items()}
    if len(set(has_labels.values())) > 1:
        without = ", ".join(split for split, has in has_labels.items() if not has)
        raise unexpected(
            "samples (x, y) in all splits, or samples without labels in all",
            f"{received} without labels in {without} data",
        )


def _has_labels(part):
    return part.has_labels if isinstance(part, Stream) else part[1] is not None


def _check_shapes(parts, received):
    shapes = {split: _shapes(part) for split, part in parts.items()}
    if any(shape != shapes["train"] for shape in shapes.values()):
        raise unexpected("samples of one shape in all splits", f"{received} with {shapes}")


def _shapes(part):
    """Returns the shape of a sample, or those of its inputs by name."""
    x = part.spec[0] if isinstance(part, Stream) else part[0]
    skip = 0 if isinstance(part, Stream) else 1
    return keras.tree.map_structure(lambda leaf: tuple(leaf.shape[skip:]), x)


def _of_classes(parts, names, received):
    """Returns the parts with class numbers, and the `classes`, `names` and `kind` of `Data`."""
    labels = {split: part[1] for split, part in parts.items()}
    y, names, kind = class_numbers(labels, received, names)
    if len(names) < 2:
        raise unexpected("at least 2 classes", f"{received} with one")
    parts = {split: (part[0], y[split], *part[2:]) for split, part in parts.items()}
    in_column = np.shape(labels["train"])[1:] == (1,)
    return parts, {"classes": len(names), "names": names, "kind": kind, "in_column": in_column}


def divided(parts, *, is_class, received):
    """Returns {split: columns} of all `SPLITS`, in a fixed random order.

    Args:
        parts: {split: columns}, "train" among them: arrays, or structures of them; labels are the
            second one.
        is_class: Whether labels are classes, of which every part has the same share.
        received: What an error names.
    """
    parts, has_validation = dict(parts), "validation" in parts
    try:
        if "test" not in parts:
            parts["train"], parts["test"] = _apart(parts["train"], 0.2, is_class)
        if not has_validation:
            parts["train"], parts["validation"] = _apart(parts["train"], 0.1, is_class)
    except InputError as error:
        raise InputError(f"{error}. Received: {received}") from error
    if has_validation:
        # Sorted by class, the first samples, which calibrate int8, would be of one class.
        order = np.random.default_rng(0).permutation(samples.count(parts["train"]))
        parts["train"] = _rows(parts["train"], order)
    return {split: parts[split] for split in SPLITS}


def _in_shape(x, shape, model, received):
    """Returns inputs in the shape (...) of a model's input, or x itself where it has that shape."""
    if shape is None or None in shape or not hasattr(x, "shape") or tuple(x.shape[1:]) == shape:
        return x
    if not _same_but_for_ones(shape, tuple(x.shape[1:])):
        raise InputError(
            f"Received a model and a dataset that do not fit: {model} expects inputs of "
            f"shape {shape}. Received: {received} with {tuple(x.shape[1:])}"
        )
    return _reshaped(x, (-1, *shape))


def _rows(part, rows):
    return keras.tree.map_structure(lambda array: array[rows], part)


def _apart(part, fraction, is_class):
    """Returns two parts of samples; the second has that fraction, of each class where it is one."""
    if is_class:
        rows = np.arange(samples.count(part))
        (first, _), (second, _) = stratified(rows, part[1], fraction)
    else:
        order = np.random.default_rng(0).permutation(samples.count(part))
        second, first = np.split(order, [max(1, round(fraction * len(order)))])
        if not len(first):
            raise InputError(f"Cannot set {fraction:.0%} of {len(order)} samples aside")
    return _rows(part, first), _rows(part, second)


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
