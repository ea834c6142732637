"""What a classifier outputs, how it is trained and read, and whether it beats chance."""

import dataclasses

import numpy as np

from pipelines.common import samples
from pipelines.common.compilation import compilation_of
from pipelines.common.models import call, predict
from tfpeft.core.arguments import unexpected
from tfpeft.core.graph import last_activation
from tfpeft.evaluation import outputs as tasks_outputs
from tfpeft.evaluation.tasks import TASKS
from tfpeft.export.tflite_file import TFLiteFile

_TASK = TASKS["classification"]
_SAMPLES = 32  # that show what the outputs are, where no activation does
_CHANCE_SAMPLES = 1000
# Losses of Keras for targets that are numbers, by any of their names, in lower case without "_".
_REGRESSION = {
    *("mse", "mae", "mape", "msle", "meansquarederror", "meanabsoluteerror", "huber", "logcosh"),
    *("meanabsolutepercentageerror", "meansquaredlogarithmicerror", "poisson", "tweedie"),
    *("cosinesimilarity",),
}
_BINARY = {"binarycrossentropy", "binaryfocalcrossentropy", "bce"}


class Outputs(tasks_outputs.Outputs):
    """What a model outputs for a sample: (units,) logits, softmax probabilities or sigmoids.

    One unit is the second of two classes.
    """

    def loss(self):
        """Returns the cross-entropy of these outputs, for class numbers as labels."""
        return _TASK.loss(self)

    def accuracy(self):
        """Returns the metric "accuracy", for class numbers as labels."""
        return _TASK.training_metric(self)

    def probabilities(self, outputs):
        """Returns the probability of every class, (samples, classes); of sigmoids, as they are."""
        if self.units == 1:
            second = 1 / (1 + np.exp(-outputs)) if self.from_logits else outputs
            return np.concatenate([1 - second, second], axis=1)
        if not self.from_logits:
            return outputs
        powers = np.exp(outputs - outputs.max(axis=1, keepdims=True))
        return powers / powers.sum(axis=1, keepdims=True)


def outputs_of(model, x, received="--model"):
    """Returns the `Outputs` of a Keras model, or of a .tflite file, for inputs x.

    The last activation says what they are; where there is none to be read, numbers do: rows that
    sum to 1 are a softmax, numbers in [0, 1] of one unit, or of a model without a graph, sigmoids.

    Raises:
        InputError: for several outputs, other shapes, and inputs that it does not take.
    """
    x = samples.first(x, _SAMPLES)
    outputs, activation = call(model, x, received), activation_of(model)
    if not hasattr(outputs, "shape"):
        keys = f" of {len(outputs)}" if hasattr(outputs, "__len__") else ""
        raise unexpected(
            "a model with one output",
            f"{received} with outputs in a {type(outputs).__name__}{keys}",
        )
    outputs = np.asarray(outputs, "float32")
    if outputs.ndim != 2 or (outputs.shape[1] == 1 and activation == "softmax"):
        raise unexpected(
            "a classifier with outputs of shape (samples, classes), or of one sigmoid",
            f"{received} with outputs of shape {outputs.shape[1:]} a sample",
        )
    return Outputs(_kind(activation, outputs), outputs.shape[1])


def activation_of(model, output=None):
    """Returns the name of the activation that makes an output of a model, or of a `TFLiteFile`.

    Args:
        model: The model or file.
        output: The key or index of an output of a model, its name in a file; None for the one.

    Returns:
        None if it cannot be read.
    """
    if isinstance(model, TFLiteFile):
        return model.last_activation(output=output)
    try:
        return last_activation(model, output)
    except (KeyError, AttributeError, IndexError, TypeError):
        return None


def _kind(activation, outputs):
    if activation in ("softmax", "sigmoid"):
        return activation
    if outputs.shape[1] > 1 and np.all(outputs >= 0) and np.allclose(outputs.sum(1), 1, atol=1e-2):
        return "softmax"
    is_known = activation in ("linear", "dense", "log_softmax")
    if not is_known and np.all((outputs >= 0) & (outputs <= 1)):
        return "sigmoid"
    return "logits"


def from_logits(kinds):
    """Returns the argument of `tfpeft.compare` for several `Outputs`: True for single logits."""
    single = [outputs for outputs in kinds if outputs.units == 1 and outputs.from_logits]
    if single and len(single) < len(kinds):
        received = " and ".join(sorted(set(map(str, kinds))))
        raise unexpected("models whose outputs are alike, where one has a single logit", received)
    return True if single else None


def is_of_numbers(loss):
    """Whether the loss of this name is for targets that are numbers; None is not."""
    return (loss or "").lower().replace("_", "") in _REGRESSION


def check_loss(path, outputs, received):
    """Raises if the model of a file was compiled for targets that are no classes."""
    compilation = compilation_of(path)
    name = compilation and compilation.loss_name
    plain = (name or "").lower().replace("_", "")
    is_number = is_of_numbers(name) and outputs.kind == "logits"
    is_binary = plain in _BINARY and outputs.kind == "logits" and outputs.units > 1
    if is_number or is_binary:
        expected = "a classifier that is compiled with a cross-entropy of classes"
        if is_binary:
            expected = "a sigmoid after the last layer of a model with several labels per sample"
        raise unexpected(expected, f"{received}, compiled with {name}, with {outputs}")


@dataclasses.dataclass(frozen=True)
class Chance:
    """Whether predictions are better than chance.

    Chance is to predict the most frequent class always, or a class at random. A model is better
    if its accuracy is above the share of that class, or its mean recall above 1 / classes, by
    more than two standard errors. Mean recall is for data in which one class is nearly all.
    """

    accuracy: float
    majority: float
    samples: int
    is_better: bool

    def __str__(self):
        return (
            f"accuracy {self.accuracy:.1%} on {self.samples} samples, of which {self.majority:.1%} "
            "are of the most frequent class"
        )


def compare_with_chance(predictions, y):
    """Returns the `Chance` of predicted classes and labels, (samples,)."""
    recalls = [np.mean(predictions[y == number] == number) for number in np.unique(y)]
    return _chance(np.mean(predictions == y), np.mean(recalls), y)


def _chance(accuracy, recall, y):
    _, counts = np.unique(y, return_counts=True)
    samples, one = len(y), 1 / len(counts)
    majority = counts.max() / samples
    error = np.sqrt(majority * (1 - majority) / samples)
    recall_error = one * np.sqrt(np.sum(one * (1 - one) / counts))
    is_better = accuracy > majority + 2 * error or recall > one + 2 * recall_error
    is_better = is_better or accuracy == 1.0  # of few samples, or of one class
    return Chance(float(accuracy), float(majority), int(samples), bool(is_better))


def chance_of(model, split, outputs):
    """Returns the `Chance` of a model or a .tflite file, on up to 1000 samples of a split."""
    x, y, _ = samples.some(split, _CHANCE_SAMPLES)
    return compare_with_chance(outputs.class_numbers(predict(model, x)), y)
