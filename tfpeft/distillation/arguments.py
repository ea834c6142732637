"""The arguments of a Distiller: checked, and brought into one form."""

import numbers

import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import check_positive, invalid
from tfpeft.core.graph import output_keys
from tfpeft.distillation import keras_losses
from tfpeft.distillation.distillation_loss import DistillationLoss
from tfpeft.distillation.logits_losses import BinarySoftLabels, SoftLabels
from tfpeft.distillation.output_kinds import last_activation


def check_schedule(name, value, smallest, largest, expected):
    """Returns a float, or a function of the step that TensorFlow can trace.

    Args:
        name: Of the argument.
        value: What the user passed.
        smallest, largest: The range of the value, at step 0 if it is a function.
        expected: In words, for the error.
    """
    start, reason = value, ""
    if callable(value):
        expected += ", or a function of the step, a float tensor, by `tf` or `keras.ops`, of such"
        try:
            start = float(tf.function(lambda: value(tf.constant(0.0)), autograph=False)())
        except Exception as error:  # a user's function may raise anything
            start, reason = None, f" ({type(error).__name__} when traced)"
    is_number = isinstance(start, (numbers.Real, np.number)) and not isinstance(start, bool)
    if not is_number or not smallest <= start <= largest:
        raise invalid(name, expected + reason, value)
    return value if callable(value) else float(value)


def check_from_logits(name, value):
    """Returns the value if it is True, False or None, or for teachers a list of these."""
    flags = value if isinstance(value, (list, tuple)) and name.startswith("teacher") else [value]
    if any(flag is not None and not isinstance(flag, bool) for flag in flags):
        raise invalid(name, "True, False or None", value)
    return value


def check_weights(values, teachers):
    """Returns the weights of several teachers as a list, or None."""
    if values is None:
        return None
    count = len(values) if isinstance(values, (list, tuple)) else 0
    if count < 2 or (teachers and count != len(teachers)):
        raise invalid("teacher_weights", "a number for each of several teachers", values)
    for value in values:
        check_positive("teacher_weights", value)
    return list(values)


def as_distillation_losses(losses, student):
    """Returns the `DistillationLoss`es of the argument, by default what suits the outputs."""
    if losses is None:
        return _default_losses(student)
    if not isinstance(losses, (list, tuple)) or not losses:
        raise invalid("distillation_losses", "a list of losses", losses)
    found = []
    for each in losses:
        loss, factor = each if isinstance(each, (list, tuple)) and len(each) == 2 else (each, 1.0)
        check_positive("distillation_losses", factor)
        if not isinstance(loss, DistillationLoss):
            found += keras_losses.from_keras(loss, factor)
        elif factor == 1.0:
            found.append(loss)
        else:
            config = {**loss.get_config(), "weight": loss.weight * factor}
            found.append(type(loss).from_config(config))
    return found


def _default_losses(student):
    activations = {key: last_activation(student, key) for key in output_keys(student)}
    if "sigmoid" not in activations.values():
        return [SoftLabels()]
    return [
        BinarySoftLabels(output=key) if activation == "sigmoid" else SoftLabels(output=key)
        for key, activation in activations.items()
    ]


def unique_names(names):
    """Yields the names; a name that was taken before gets a number at its end."""
    seen = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"
