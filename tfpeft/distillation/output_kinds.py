"""Checks of outputs and inputs: logits or probabilities, widths, classes, shared weights."""

import keras

from tfpeft.caching.frozen_model import TFLiteLayer
from tfpeft.core import graph
from tfpeft.core.arguments import InputError, compatible_shapes, unexpected
from tfpeft.core.graph import output_tensor
from tfpeft.core.inputs import model_inputs
from tfpeft.core.layers import find_layer


def width_of(models, layer):
    """Returns the channels of a layer in one of the models, or of their output; None if unknown."""
    if layer is None:
        tensors = [output_tensor(model, None) for model in models]
        return _width(tensors[0]) if tensors else None
    if not models:
        return None
    try:
        output = find_layer(models, layer, "layer").output
    except (AttributeError, ValueError):  # the layer was not called symbolically, or not created
        return None
    return _width(keras.tree.flatten(output)[0])


def _width(tensor):
    return None if tensor is None else tensor.shape[-1]


def last_activation(model, output=None):
    """Returns the name of the activation that makes an output of a model; None if unknown."""
    if isinstance(model, TFLiteLayer):
        return model.last_activation
    return graph.last_activation(model, output)


def are_logits(model, flag, activation, role, output):
    """Returns whether an output is logits; False if `activation` was applied to them.

    Args:
        model: The model; None for outputs that are in the data.
        flag: True or False as the user passed it; None to recognize it.
        activation: "softmax" or "sigmoid".
        role: "teacher" or "student", for errors.
        output: Key or index of the output, or None.

    Raises:
        InputError: if it cannot be recognized.
    """
    if flag is not None:
        return bool(flag)
    found = last_activation(model, output)
    if found in ("linear", activation):
        return found == "linear"
    raise InputError(
        f"Cannot recognize the outputs of `{role}` as logits or probabilities, expected a last "
        f"activation of linear or {activation}, or `{role}_from_logits`. "
        f"Received: {found or 'a model whose last activation is unknown'}"
    )


def check_same_inputs(teacher, student):
    """Raises if the inputs of both models are known and differ, by position and by name."""
    inputs = [model_inputs(model) for model in (teacher, student)]
    if None in inputs:
        return
    parts = [keras.tree.flatten(structure) for structure in inputs]
    shapes = [[part.shape for part in each] for each in parts]
    if len(shapes[0]) == len(shapes[1]) and all(map(_compatible, *shapes)):
        return
    by_name = [{part.name: part.shape for part in each} for each in parts]
    common = set(by_name[0]) & set(by_name[1])
    if not common or not all(_compatible(*(each[name] for each in by_name)) for name in common):
        listed = [
            ", ".join(f"{name} {(None, *shape)}" for name, shape in each.items() if shape)
            for each in by_name
        ]
        raise unexpected(
            "`teacher` and `student` with inputs of the same shapes",
            f"teacher {listed[0]}, student {listed[1]}",
        )


def _compatible(a, b):
    return None in (a, b) or compatible_shapes(a, b)


def check_nothing_shared(teacher, student):
    """Raises if the student trains weights of the teacher, which must not change."""
    trained = {id(variable): variable for variable in student.trainable_variables}
    shared = [trained[id(v)].path for v in teacher.weights if id(v) in trained]
    if shared:
        raise unexpected(
            "a `student` that trains no weight of the `teacher`",
            f"both have {', '.join(shared)}",
        )


def check_same_classes(teacher, student, loss, teacher_output, output):
    """Raises if a loss compares classes, both models' shapes are known, and they do not suit."""
    smallest = 2 if loss.activation == "softmax" else 1
    tensors = [output_tensor(teacher, teacher_output), output_tensor(student, output)]
    if any(tensor is None for tensor in tensors):
        return
    shapes = [tuple(tensor.shape) for tensor in tensors]
    if not compatible_shapes(*shapes) or (shapes[0][-1] or smallest) < smallest:
        which = "" if output is None else f" {output!r}"
        raise unexpected(
            f"`teacher` and `student` with the output{which} of the same shape and at least "
            f"{smallest} classes for {loss.name} (BinarySoftLabels and SquaredError take one "
            "number)",
            f"teacher {shapes[0]}, student {shapes[1]}",
        )
