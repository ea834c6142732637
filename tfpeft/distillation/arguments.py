"""The arguments of a Distiller, read and checked."""

import numbers

import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import check_positive, invalid
from tfpeft.core.graph import output_keys
from tfpeft.distillation import keras_losses
from tfpeft.distillation.losses import BinarySoftLabels, DistillationTerm, SoftLabels
from tfpeft.distillation.output_kinds import last_activation


def schedule(name, value, smallest, largest, expected):
    """Returns a float, or a function of the step that TensorFlow can trace.

    Args:
        name: Of the argument.
        value: What was given.
        smallest, largest: The range of the value, at step 0 if it is a function.
        expected: In words, for the error.
    """
    start, why = value, ""
    if callable(value):
        expected += ", or a function of the step, a float tensor, by `tf` or `keras.ops`, of such"
        try:
            start = float(tf.function(lambda: value(tf.constant(0.0)), autograph=False)())
        except Exception as error:  # whatever a function of the user's raises
            start, why = None, f" ({type(error).__name__} when traced)"
    is_number = isinstance(start, (numbers.Real, np.number)) and not isinstance(start, bool)
    if not is_number or not smallest <= start <= largest:
        raise invalid(name, expected + why, value)
    return value if callable(value) else float(value)


def from_logits(name, value):
    """Returns the value if it is True, False or None, or for teachers a list of these."""
    flags = value if isinstance(value, (list, tuple)) and name.startswith("teacher") else [value]
    if any(flag is not None and not isinstance(flag, bool) for flag in flags):
        raise invalid(name, "True, False or None", value)
    return value


def weights(values, teachers):
    """Returns the weights of several teachers as a list, or None."""
    if values is None:
        return None
    count = len(values) if isinstance(values, (list, tuple)) else 0
    if count < 2 or (teachers and count != len(teachers)):
        raise invalid("teacher_weights", "a number for each of several teachers", values)
    for value in values:
        check_positive("teacher_weights", value)
    return list(values)


def terms(losses, student):
    """Returns the terms of `losses`, or what suits the outputs."""
    if losses is None:
        activations = {key: last_activation(student, key) for key in output_keys(student)}
        if "sigmoid" not in activations.values():
            return [SoftLabels()]
        kinds = {"sigmoid": BinarySoftLabels}
        return [kinds.get(a, SoftLabels)(output=key) for key, a in activations.items()]
    if not isinstance(losses, (list, tuple)) or not losses:
        raise invalid("losses", "a list of terms", losses)
    found = []
    for each in losses:
        pair = each if isinstance(each, (list, tuple)) and len(each) == 2 else (each, 1.0)
        check_positive("losses", pair[1])
        if not isinstance(pair[0], DistillationTerm):
            found += keras_losses.as_terms(*pair)
        elif pair[1] == 1.0:
            found.append(pair[0])
        else:
            config = {**pair[0].get_config(), "weight": pair[0].weight * pair[1]}
            found.append(type(pair[0]).from_config(config))
    return found


def different(names):
    """Yields the names, with numbers behind those that are taken."""
    seen = {}
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        yield name if seen[name] == 1 else f"{name}_{seen[name]}"
