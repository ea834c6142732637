"""What a classifier outputs, and whether it was compiled for classes."""

import numpy as np

from pipelines.common import samples
from pipelines.common.compilation import compilation_of
from pipelines.common.models import call
from tfpeft.core.arguments import unexpected
from tfpeft.core.graph import last_activation
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.export.tflite_file import TFLiteFile

_SAMPLES = 32  # that show what the outputs are, where no activation does
# Losses of Keras for targets that are numbers, by any of their names, in lower case without "_".
_REGRESSION = {
    *("mse", "mae", "mape", "msle", "meansquarederror", "meanabsoluteerror", "huber", "logcosh"),
    *("meanabsolutepercentageerror", "meansquaredlogarithmicerror", "poisson", "tweedie"),
    *("cosinesimilarity",),
}
_BINARY = {"binarycrossentropy", "binaryfocalcrossentropy", "bce"}


def outputs_of(model, x, received="--model"):
    """Returns the `Outputs` of a Keras model, or of a .tflite file, for inputs x.

    See `recognize_outputs`.

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
    return recognize_outputs(outputs, "classification", activation=activation)


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
