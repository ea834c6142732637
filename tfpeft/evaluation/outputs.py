"""What a model outputs: logits, probabilities or values, and how they become classes."""

import dataclasses

import numpy as np

from tfpeft.core.arguments import unexpected

_ROUNDING = 1e-3  # of a softmax in float16


@dataclasses.dataclass(frozen=True)
class Outputs:
    """What one output of a model is.

    Attributes:
        kind: "logits", "softmax" or "sigmoid"; "values", of a regression, are no classes.
        units: The last side of its shape: classes, labels or targets. One unit of classes is the
            second of two.
        one_hot: Whether labels are rows as wide as the output, and no class numbers.
        is_recognized: Whether the kind follows from the first outputs alone, which later ones may
            not have.
    """

    kind: str
    units: int
    one_hot: bool = False
    is_recognized: bool = dataclasses.field(default=False, compare=False)

    @property
    def classes(self):
        """How many classes there are."""
        return max(self.units, 2)

    @property
    def from_logits(self):
        """Whether outputs are logits."""
        return self.kind == "logits"

    @property
    def is_softmax(self):
        """Whether outputs are a softmax, or its logits: one class excludes the others."""
        return self.kind != "sigmoid" and self.units > 1

    def __str__(self):
        if self.kind == "values":
            return f"{self.units} value{'s' * (self.units > 1)} per sample"
        if self.units == 1:
            return f"one {self.kind.removesuffix('s')} for 2 classes"
        return f"{self.kind} of {self.units} classes"

    def check(self, array, name):
        """Raises for outputs that are not finite, or not what they were recognised as."""
        if not np.all(np.isfinite(array)):
            raise unexpected("finite outputs", f"NaN or infinity from {name}")
        is_probability = self.kind in ("softmax", "sigmoid")
        outside = array.min() < -_ROUNDING or array.max() > 1 + _ROUNDING
        if is_probability and self.is_recognized and outside:
            raise unexpected(
                "probabilities, which the first outputs are, or `from_logits=True`",
                f"{name} with outputs from {array.min():g} to {array.max():g}",
            )

    def log_probabilities(self, array):
        """Returns the logarithms of the probabilities of all classes, (..., classes).

        Those of a softmax are normalised, as rounding may move their sum away from 1.
        """
        array = np.asarray(array, "float64")
        if self.units == 1:
            if self.from_logits:
                return np.concatenate([-np.logaddexp(0, array), -np.logaddexp(0, -array)], axis=-1)
            array = np.concatenate([1 - array, array], axis=-1)
        if self.from_logits:
            array = array - array.max(axis=-1, keepdims=True)
            return array - np.log(np.exp(array).sum(axis=-1, keepdims=True))
        smallest = np.finfo("float64").eps
        if self.is_softmax:
            array = array / np.maximum(array.sum(axis=-1, keepdims=True), smallest)
        return np.log(np.clip(array, smallest, 1.0))

    def label_probabilities(self, array):
        """Returns the probability of each label by itself, of sigmoids or their logits."""
        array = np.asarray(array, "float64")
        return np.exp(-np.logaddexp(0, -array)) if self.from_logits else array

    def class_numbers(self, array):
        """Returns the predicted classes of outputs (..., units); the first one of equal ones."""
        if self.units == 1:
            return (array[..., 0] > (0.0 if self.from_logits else 0.5)).astype("int64")
        return np.argmax(array, axis=-1)


def is_in_range(array):
    """Whether all numbers are in [0, 1]."""
    return bool(np.all((array >= 0) & (array <= 1)))


def sum_to_one(array):
    """Whether rows are probabilities of one class each: >= 0, with a sum of 1 within 1%."""
    return bool(np.all(array >= 0) and np.allclose(array.sum(-1), 1.0, atol=1e-2))


def recognize_outputs(array, task, *, activation=None, from_logits=None, one_hot=False):
    """Returns the `Outputs` of some outputs of a model, for a task.

    The last activation says what they are. Where it is not known, numbers do: rows that sum to 1
    are a softmax, other numbers that are all in [0, 1] sigmoids.

    Args:
        array: Outputs (samples, ..., units).
        task: The name of the task.
        activation: The last activation, "softmax", "sigmoid" or "linear"; None if not known.
        from_logits: Whether outputs are logits; None to recognise it.
        one_hot: Whether labels are rows as wide as the output.
    """
    units = array.shape[-1]
    kind, is_recognized = None, False
    if task in ("regression", "reconstruction"):
        kind = "values"
    elif from_logits:
        kind = "logits"
    elif task == "multi_label" or units == 1:
        if from_logits is False or activation == "sigmoid":
            kind = "sigmoid"
        elif activation == "linear":
            kind = "logits"
        else:
            kind = "sigmoid" if is_in_range(array) else "logits"
            is_recognized = True
    elif activation in ("softmax", "sigmoid"):
        kind = activation
    elif sum_to_one(array):
        kind, is_recognized = "softmax", from_logits is None
    elif from_logits is False or (activation != "linear" and is_in_range(array)):
        kind, is_recognized = "sigmoid", from_logits is None
    return Outputs(kind or "logits", units, one_hot, is_recognized)
