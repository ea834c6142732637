"""Which task a model does: recognised from its outputs, its labels and its loss."""

import keras
import numpy as np

from tfpeft.core.arguments import InputError, invalid, unexpected
from tfpeft.core.labels import is_of_keras
from tfpeft.evaluation.labels import check_array, is_one_hot, is_zero_one
from tfpeft.evaluation.outputs import is_in_range

TASK_NAMES = (
    *("classification", "binary", "multi_label", "regression", "segmentation", "reconstruction"),
)

# Names of Keras's classes and functions.
_OF_CLASSES = (
    *("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy"),
    *("CategoricalCrossentropy", "categorical_crossentropy"),
    *("CategoricalFocalCrossentropy", "categorical_focal_crossentropy"),
    *("KLDivergence", "kl_divergence"),
)
_OF_TWO = (
    *("BinaryCrossentropy", "binary_crossentropy"),
    *("BinaryFocalCrossentropy", "binary_focal_crossentropy"),
)
_OF_VALUES = (
    *("MeanSquaredError", "mean_squared_error", "MeanAbsoluteError", "mean_absolute_error"),
    *("MeanAbsolutePercentageError", "mean_absolute_percentage_error", "Huber", "huber"),
    *("MeanSquaredLogarithmicError", "mean_squared_logarithmic_error", "LogCosh", "log_cosh"),
    *("Poisson", "poisson", "CosineSimilarity", "cosine_similarity"),
)


def recognize_task(outputs, labels, *, inputs=None, activation=None, loss=None, from_logits=None):
    """Returns the name of the task of one output, of some of its outputs and labels.

    | outputs | labels | task |
    |---|---|---|
    | (n, classes) | class numbers (n,) or one-hot rows | classification |
    | (n, 1), a sigmoid or a logit | 0 and 1 | binary |
    | (n, labels), sigmoids or logits | rows of 0 and 1 | multi_label |
    | (n, ..., classes) or (n, ..., 1) | a class a position, or one-hot | segmentation |
    | any | other numbers, of the same shape | regression |
    | the shape of the inputs | the inputs, or none | reconstruction |

    A compiled loss, or the last activation, decides where the labels fit two of them.

    Args:
        outputs: Outputs (n, ..., units); units may be left out where there is one.
        labels: Labels of these samples; None if there are none.
        inputs: The inputs of the first ones or all, one array; None if there are several.
        activation: The last activation, "softmax", "sigmoid" or "linear"; None if not known.
        loss: The compiled loss, or its name, or None.
        from_logits: Whether outputs are logits; None if not known.

    Raises:
        InputError: if no task fits, or two.
    """
    outputs = np.asarray(outputs)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    if labels is None:
        if inputs is not None and _is_shape_of(inputs, outputs):
            return "reconstruction"
        expected = (
            "(x, y), x alone for a model whose outputs have its shape, or `reference`, a model "
            "whose outputs are compared with"
        )
        raise InputError(f"Received invalid `data`, expected {expected}. Received: x alone")
    labels = check_array(labels)
    if _are_inputs(labels, inputs, outputs):
        return "reconstruction"
    find = _of_one_unit if outputs.shape[-1] == 1 else _of_several_units
    fitting = find(outputs, labels, activation, kind_of_loss(loss), from_logits)
    if len(fitting) == 1:
        return fitting[0]
    expected = " or ".join(map(repr, fitting))
    received = (
        f"None, with outputs of shape {_per_sample(outputs)} and labels of shape "
        f"{_per_sample(labels)}, all 0 and 1, which fit both"
    )
    raise invalid("task", expected, _Words(received))


def check_task(task):
    """Raises unless it is the name of a task, a dict of these, or None."""
    names = task.values() if isinstance(task, dict) and task else [task]
    for name in names:
        if name is not None and not (isinstance(name, str) and name in TASK_NAMES):
            raise invalid("task", f"one of {', '.join(TASK_NAMES)}, or None", name)


class _Words:
    """Words in an error, without quotes."""

    def __init__(self, text):
        self._text = text

    def __repr__(self):
        return self._text


def _of_one_unit(outputs, labels, activation, loss, from_logits):
    """Returns the names of the tasks that fit outputs (n, ..., 1)."""
    if labels.shape not in (outputs.shape, outputs.shape[:-1]):
        raise _of_other_shape(outputs, labels, "a number each")
    of_classes = "segmentation" if outputs.ndim > 2 else "binary"
    if not is_zero_one(labels) or (loss == "values" and activation != "sigmoid"):
        return ["regression"]
    is_known = loss == "two" or from_logits is not None or activation == "sigmoid"
    if is_known or (activation is None and is_in_range(outputs)):
        return [of_classes]
    return [of_classes, "regression"]


def _of_several_units(outputs, labels, activation, loss, from_logits):
    """Returns the names of the tasks that fit outputs (n, ..., units)."""
    of_classes = "segmentation" if outputs.ndim > 2 else "classification"
    positions = outputs.shape[:-1]
    if labels.shape in (positions, (*positions, 1)):
        return [of_classes]
    if labels.shape != outputs.shape:
        if labels.ndim == outputs.ndim and labels.shape[:-1] == positions and is_one_hot(labels):
            return [of_classes]  # of another number of classes, which its check names
        raise _of_other_shape(outputs, labels, "class numbers, or a row each")
    if loss == "values" and activation not in ("softmax", "sigmoid"):
        return ["regression"]
    if is_one_hot(labels) or activation == "softmax" or loss == "classes":
        return [of_classes]
    if not is_zero_one(labels) or outputs.ndim > 2:
        return ["regression"]
    is_known = loss == "two" or from_logits is not None or activation == "sigmoid"
    if is_known or (activation is None and is_in_range(outputs)):
        return ["multi_label"]
    return ["multi_label", "regression"]


def kind_of_loss(loss):
    """Returns "classes", "two" or "values" of a loss of Keras; None of another one, and of none."""
    if isinstance(loss, (list, tuple)) and len(loss) == 1:
        loss = loss[0]
    if isinstance(loss, str):
        try:
            loss = keras.losses.get(loss)
        except ValueError:  # "crossentropy", or the name of a custom loss
            return None
    kinds = {"classes": _OF_CLASSES, "two": _OF_TWO, "values": _OF_VALUES}
    return next((kind for kind, names in kinds.items() if is_of_keras(loss, names)), None)


def _is_shape_of(inputs, outputs):
    return not isinstance(inputs, (dict, list, tuple)) and inputs.shape[1:] == outputs.shape[1:]


def _are_inputs(labels, inputs, outputs):
    """Whether labels are the inputs, of outputs of the same shape."""
    if inputs is None or not _is_shape_of(inputs, outputs) or labels.shape != outputs.shape:
        return False
    return bool(np.array_equal(labels[: len(inputs)], inputs[: len(labels)]))


def _of_other_shape(outputs, labels, forms):
    return unexpected(
        f"labels that fit outputs of shape {_per_sample(outputs)} per sample: {forms}",
        f"labels of shape {_per_sample(labels)} per sample",
    )


def _per_sample(array):
    return tuple(map(int, array.shape[1:]))
