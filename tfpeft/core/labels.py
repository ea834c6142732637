"""Labels of one output: which are missing, and whether they suit a loss."""

import dataclasses
import functools

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.arguments import InputError, compatible_shapes, unexpected
from tfpeft.core.checks import assert_in_graph

# Names of Keras's classes and functions, by the labels that they take.
_OF_NUMBERS = ("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy")
_OF_ROWS = (
    *("CategoricalCrossentropy", "categorical_crossentropy", "kl_divergence", "KLDivergence"),
    *("CategoricalFocalCrossentropy", "categorical_focal_crossentropy"),
)
_BINARY = (
    *("BinaryCrossentropy", "binary_crossentropy"),
    *("BinaryFocalCrossentropy", "binary_focal_crossentropy"),
)
_OF_VALUES = (
    *("MeanSquaredError", "mean_squared_error", "MeanAbsoluteError", "mean_absolute_error"),
    *("MeanAbsolutePercentageError", "mean_absolute_percentage_error", "Huber", "huber"),
    *("MeanSquaredLogarithmicError", "mean_squared_logarithmic_error", "LogCosh", "log_cosh"),
)


def named_by_shapes(name, y_true, y_pred):
    """Returns the name of the metric or loss that Keras takes for "accuracy" or "crossentropy".

    The shapes of labels and outputs decide, as in Keras: binary, categorical or sparse categorical.
    Everything else is returned as it is.
    """
    if not (is_crossentropy(name) or _is_accuracy(name)):
        return name
    kind = "categorical"
    if y_pred.shape[-1] == 1:
        kind = "binary"
    elif are_class_numbers(y_true, y_pred):
        kind = "sparse_categorical"
    return f"{kind}_{'accuracy' if _is_accuracy(name) else 'crossentropy'}"


def is_crossentropy(loss):
    """Whether a loss is a name whose function depends on shapes; see `named_by_shapes`."""
    return isinstance(loss, str) and loss.lower() in ("crossentropy", "ce")


def _is_accuracy(metric):
    return isinstance(metric, str) and metric.lower() in ("accuracy", "acc")


def are_class_numbers(y_true, y_pred):
    """Whether labels are numbers of several classes; their shape shows it."""
    if y_pred.shape[-1] is None or y_pred.shape[-1] < 2:
        return False
    rank, rank_of_outputs = len(y_true.shape), len(y_pred.shape)
    return rank == rank_of_outputs - 1 or (rank == rank_of_outputs and y_true.shape[-1] == 1)


def split_missing(y_true, y_pred, loss):
    """Returns labels with zeros where they are missing, and a mask that is True elsewhere.

    Missing are NaN and, for a loss of Keras that takes class numbers, -1 and its `ignore_class`.
    The mask has the shape of the loss's values: where a label is a row of numbers, all of the row
    must be present. It is None for labels that cannot be missing: other integers.
    """
    y_true = ops.convert_to_tensor(y_true)
    loss = named_by_shapes(loss, y_true, y_pred)
    if y_pred.shape[-1] == 1 and len(y_true.shape) == len(y_pred.shape) - 1:
        y_true = ops.expand_dims(y_true, -1)  # as Keras does for outputs with one channel
    is_float = keras.backend.is_float_dtype(y_true.dtype)
    of_classes = are_class_numbers(y_true, y_pred) and is_of_keras(loss, _OF_NUMBERS)
    if not is_float and not of_classes:
        return y_true, None
    if not is_float:
        y_true = ops.cast(y_true, "int64")  # unsigned numbers have no -1, and may have a 255
    present = ops.logical_not(ops.isnan(y_true)) if is_float else ops.ones_like(y_true, "bool")
    if of_classes:
        for marker in {-1, _ignored(loss)} - {None}:
            is_label = ops.not_equal(y_true, ops.cast(marker, y_true.dtype))
            present = ops.logical_and(present, is_label)
    mask = present
    if len(present.shape) == len(y_pred.shape) and len(present.shape) > 1:
        mask = ops.all(present, axis=-1)
        present = ops.broadcast_to(ops.expand_dims(mask, -1), ops.shape(y_true))
    return ops.where(present, y_true, ops.zeros_like(y_true)), mask


def check_form(y_true, y_pred, loss, where):
    """Raises unless type and shape of labels suit the outputs and a loss of Keras.

    Args:
        y_true, y_pred: Labels and outputs.
        loss: A `keras.losses.Loss`, or a function; custom ones may take labels of any shape.
        where: Which labels they are, such as "the task age", for the error.
    """
    y_true, y_pred = map(tf.convert_to_tensor, (y_true, y_pred))
    dtype = y_true.dtype.name
    if dtype == "string" or dtype.startswith("complex"):
        raise unexpected(f"real numbers as labels for {where}", f"labels of type {dtype}")
    if y_true.shape.rank is None or y_pred.shape.rank is None:
        return
    loss = named_by_shapes(loss, y_true, y_pred)
    labels, outputs = tuple(y_true.shape), tuple(y_pred.shape)
    numbers = [outputs[:-1], (*outputs[:-1], 1)]
    if is_of_keras(loss, _OF_NUMBERS):
        wanted, form = numbers, "class numbers (keras.losses.CategoricalCrossentropy takes rows)"
    elif is_of_keras(loss, _OF_ROWS):
        wanted = [outputs]
        form = "a number per class (SparseCategoricalCrossentropy takes class numbers)"
    elif is_of_keras(loss, _BINARY + _OF_VALUES):
        wanted, form = [outputs, *(numbers if outputs[-1] == 1 else ())], "a number per output"
        wanted += [(*outputs, 1)] if len(outputs) == 1 else []
    else:
        return
    if not any(compatible_shapes(labels, shape) for shape in wanted):
        raise unexpected(
            f"labels for {where} that suit its outputs of shape {outputs} and its loss: {form}",
            f"labels of shape {labels}",
        )


def range_checks(y_true, y_pred, loss, where, *, may_be_missing):
    """Checks that labels are finite, and class numbers those of the outputs; see `assert_in_graph`.

    Labels of custom losses are not checked, as these may leave any labels out.

    Args:
        y_true, y_pred, loss, where: As of `check_form`.
        may_be_missing: Whether labels of NaN and -1 are missing; otherwise they are wrong.
    """
    y_true = tf.convert_to_tensor(y_true)
    if y_true.shape.rank is None:
        return []
    loss = named_by_shapes(loss, y_true, y_pred)
    limit = 1 if is_binary(loss) else None
    # A custom loss may have a class to ignore, or several outputs for a label that is a value.
    if are_class_numbers(y_true, y_pred) and is_of_keras(loss, _OF_NUMBERS):
        limit = y_pred.shape[-1] - 1
    if may_be_missing:
        labels = split_missing(y_true, y_pred, loss)[0]
    else:
        labels = ops.convert_to_tensor(y_true)
        ignored = _ignored(loss)
        if ignored is not None:
            is_label = ops.not_equal(labels, ops.cast(ignored, labels.dtype))
            labels = ops.where(is_label, labels, ops.zeros_like(labels))
    is_float = keras.backend.is_float_dtype(labels.dtype) and _is_built_in(loss)
    labels = ops.cast(labels, "float32")
    smallest, largest = tf.reduce_min(labels), tf.reduce_max(labels)
    error = _OutOfRange(where, limit)
    checks = []
    if is_float:
        checks += assert_in_graph(tf.reduce_all(tf.math.is_finite(labels)), _NotFinite(where))
    if is_float and is_of_keras(loss, _OF_NUMBERS):
        checks += assert_in_graph(tf.reduce_all(tf.equal(labels, tf.round(labels))), _Broken(where))
    if limit is not None:
        is_empty = tf.equal(tf.size(labels), 0)
        checks += assert_in_graph(
            is_empty | ((smallest >= 0.0) & (largest <= limit)),
            error,
            values=[smallest, largest],
            shown=lambda: [error.expected, "Received:", smallest, largest],
        )
    return checks


def is_loss(value):
    """Whether a value is a loss, a class or a name of these, or a function."""
    if isinstance(value, str):
        try:
            return is_crossentropy(value) or callable(keras.losses.get(value))
        except ValueError:  # Keras has no loss of this name
            return False
    return callable(_instance(value)) and not isinstance(
        _instance(value), (type, keras.metrics.Metric, keras.Layer)
    )


def is_metric(value):
    """Whether a value is a metric or loss, a class or a name of these, or a function."""
    if isinstance(value, str):
        try:
            return _is_accuracy(value) or callable(keras.metrics.get(value))
        except ValueError:  # Keras has no metric of this name
            return False
    return callable(_instance(value)) and not isinstance(_instance(value), (type, keras.Layer))


def _instance(value):
    """Returns what Keras makes of a class; the class if it needs arguments."""
    try:
        return value() if isinstance(value, type) else value
    except (TypeError, ValueError):
        return value


def is_binary(loss):
    """Whether a loss of Keras compares labels of 0 and 1 with probabilities of 1."""
    return is_of_keras(loss, _BINARY)


def is_of_keras(loss, names):
    """Whether a loss is one of Keras's functions, or an object of its classes, of these names."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    loss = keras.losses.get(loss) if isinstance(loss, str) else loss
    known = [getattr(keras.losses, name, None) for name in names]
    classes = tuple(each for each in known if isinstance(each, type))
    return loss in known or isinstance(loss, classes)


def _ignored(loss):
    """Returns the class number that a loss of Keras leaves out; None if there is none."""
    if isinstance(loss, functools.partial):
        return loss.keywords.get("ignore_class")
    return getattr(loss, "ignore_class", None)


def _is_built_in(loss):
    """Whether a loss is Keras's, and no class derived from one."""
    while isinstance(loss, functools.partial):
        loss = loss.func
    return isinstance(loss, str) or str(getattr(loss, "__module__", "")).startswith("keras.")


@dataclasses.dataclass(frozen=True)
class _NotFinite:
    """Makes the error for labels that are NaN or infinite."""

    where: str

    def __call__(self):
        return unexpected(f"finite labels for {self.where}", "NaN or infinity")


@dataclasses.dataclass(frozen=True)
class _Broken:
    """Makes the error for class numbers that are not whole."""

    where: str

    def __call__(self):
        return unexpected(f"whole class numbers as labels for {self.where}", "fractions")


@dataclasses.dataclass(frozen=True)
class _OutOfRange:
    """Makes the error for labels that are not 0 to `limit`."""

    where: str
    limit: int

    @property
    def expected(self):
        return f"Received labels out of range, expected 0 to {self.limit} for {self.where}."

    def __call__(self, smallest, largest):
        return InputError(f"{self.expected} Received: {smallest:g} to {largest:g}")
