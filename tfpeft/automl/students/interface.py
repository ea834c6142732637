"""Interface: what a student reads and returns, found in the data and the teacher."""

import dataclasses

import keras
import numpy as np

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.graph import last_activation
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.recognition import recognize_task
from tfpeft.evaluation.tasks import TASKS

_SAMPLES = 10_000  # that give mean and variance of inputs and labels
_FIRST = 64  # that show what outputs are
_VECTORS = ("classification", "binary", "multi_label", "regression")
_LARGEST_VOCABULARY = 2**20


@dataclasses.dataclass(frozen=True)
class Interface:
    """What a student reads, and what it returns for a sample.

    Args:
        shape: The shape of an input, without the batch.
        units: How many numbers are returned.
        dtype: The type of the inputs; integers of `vocabulary_size` are tokens.
        activation: The last activation, "softmax" or "sigmoid"; None for logits and numbers.
        mean, variance: Of inputs, per last axis, by which they are normalised; None: as they come.
        scale, offset: Of numbers to predict, per unit: (outputs - offset) / scale is around 0.
        vocabulary_size: How many tokens there are; None for inputs that are numbers.
    """

    shape: tuple
    units: int
    dtype: str = "float32"
    activation: str | None = None
    mean: tuple | None = None
    variance: tuple | None = None
    scale: tuple | None = None
    offset: tuple | None = None
    vocabulary_size: int | None = None

    def inputs(self):
        """Returns the input, and it as a tensor to go on with: normalised, if it is numbers."""
        inputs = keras.Input(self.shape, dtype=self.dtype)
        if self.mean is None or self.vocabulary_size is not None:
            return inputs, inputs
        layer = keras.layers.Normalization(mean=list(self.mean), variance=list(self.variance))
        return inputs, layer(inputs)

    def outputs(self, hidden):
        """Returns the outputs of one vector per sample."""
        outputs = keras.layers.Dense(self.units, activation=self.activation, name="head")(hidden)
        if self.scale is None:
            return outputs
        return keras.layers.Rescaling(list(self.scale), list(self.offset))(outputs)

    def as_dict(self):
        """Returns what identifies it, as plain JSON values."""
        return {"shape": list(self.shape), "units": self.units, "activation": self.activation}


def interface_of(x, y, task, outputs, others=()):
    """Returns the `Interface` of a student for arrays.

    Args:
        x: Inputs, one array (samples, ...).
        y: Labels.
        task: The name of the task.
        outputs: The `Outputs` of a teacher, or of the labels.
        others: Other inputs whose tokens students have to take.

    Raises:
        InputError: for several inputs, and tasks whose outputs are no vectors.
    """
    if task not in _VECTORS:
        expected = f"a task of {', '.join(_VECTORS)}, or a function hp -> keras.Model as the space"
        raise unexpected(expected, f"the task {task!r}")
    if not hasattr(x, "shape"):
        expected = "data of one input, or a function hp -> keras.Model as the space"
        raise unexpected(expected, f"a {type(x).__name__} of inputs")
    found = {"shape": x.shape[1:], "units": outputs.units, "dtype": "float32"}
    if x.ndim == 2 and x.dtype.kind in "iu":
        size = int(max(each.max() for each in (x, *others))) + 1  # of all: rare tokens count
        if x.min() >= 0 and size <= _LARGEST_VOCABULARY:
            found["vocabulary_size"], found["dtype"] = size, "int32"
    x = np.asarray(x[:: max(1, len(x) // _SAMPLES)])
    rows = x.reshape(-1, x.shape[-1] if x.ndim > 1 else 1).astype("float64")
    spread = np.where(rows.std(axis=0) > 1e-6 * np.abs(rows).max(axis=0), rows.var(axis=0), 1.0)
    found |= {"mean": _floats(rows.mean(axis=0)), "variance": _floats(spread)}
    if outputs.kind == "values":
        y = np.asarray(y, "float64").reshape(len(y), -1)
        scale = np.where(y.std(axis=0) > 0, y.std(axis=0), 1.0)
        return Interface(**found, scale=_floats(scale), offset=_floats(y.mean(axis=0)))
    activation = None if outputs.from_logits else outputs.kind
    return Interface(**found, activation=activation)


def objective_of(model, x, y, task=None):
    """Returns the `Task` and the `Outputs` of a model of one output for arrays.

    Args:
        model: A Keras model; None to find both by the labels alone.
        x, y: Inputs and labels.
        task: The name of the task; None to recognise it.
    """
    first = keras.tree.map_structure(lambda array: np.asarray(array)[:_FIRST], x)
    if y is None:
        raise unexpected("data with labels, (x, y)", "x alone")
    if model is None:
        return _of_labels(np.asarray(y), task)
    outputs = model(first, training=False)
    if not hasattr(outputs, "shape"):
        raise unexpected("a model of one output", f"outputs in a {type(outputs).__name__}")
    outputs, activation = np.asarray(outputs, "float32"), _activation(model)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    labels = np.asarray(y)[:_FIRST]
    task = task or recognize_task(
        outputs, labels, activation=activation, loss=getattr(model, "loss", None)
    )
    one_hot = labels.ndim > 1 and labels.shape == outputs.shape and outputs.shape[-1] > 1
    return TASKS[task], recognize_outputs(
        outputs, task, activation=activation, one_hot=one_hot and task != "multi_label"
    )


def _floats(array):
    return tuple(map(float, array))


def _activation(model):
    try:
        return last_activation(model, None)
    except (KeyError, AttributeError, IndexError, TypeError):
        return None


def _of_labels(y, task):
    """Returns the task and the outputs that labels show: logits, or numbers."""
    units, one_hot = (1 if y.ndim == 1 else y.shape[-1]), False
    is_whole = y.dtype.kind in "biu" or bool(np.all(y == np.floor(y)))
    if y.ndim > 2:
        raise InputError(
            "Received an invalid value for `task`, expected a space of labels that are vectors, or "
            f"a function hp -> keras.Model. Received: labels of shape {y.shape[1:]} per sample"
        )
    rows = y.ndim == 2 and units > 1 and is_whole and bool(np.all((y == 0) | (y == 1)))
    if task is None:
        if rows:
            task = "classification" if np.all(y.sum(axis=1) == 1) else "multi_label"
        else:
            task = "classification" if is_whole and units == 1 else "regression"
    if task == "classification":
        one_hot = units > 1
        units = units if one_hot else max(2, int(y.max()) + 1)
    values = task in ("regression", "reconstruction")
    found = recognize_outputs(
        np.zeros((1, units)), task, activation="linear", from_logits=not values, one_hot=one_hot
    )
    return TASKS[task], found
