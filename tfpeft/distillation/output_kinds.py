"""What the outputs of a model are: logits or probabilities, how many classes, of which inputs."""

import keras

from tfpeft.caching.frozen_model import TFLiteTeacher
from tfpeft.core import graph
from tfpeft.core.arguments import compatible_shapes
from tfpeft.core.graph import output_tensor
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
    except (AttributeError, ValueError):  # it was never called with symbols, or is not there yet
        return None
    return _width(keras.tree.flatten(output)[0])


def _width(tensor):
    return None if tensor is None else tensor.shape[-1]


def last_activation(model, output=None):
    """Returns the name of what made an output of a model, or None where it does not tell."""
    if isinstance(model, TFLiteTeacher):
        return "softmax" if model.opened.is_softmax() else None
    return graph.last_activation(model, output)


def from_logits(model, given, activation, role, output):
    """Returns whether an output is logits of `activation`, or what `activation` makes of them.

    Args:
        model: The model; None for answers that are in the data.
        given: What the user said; None to recognise it.
        activation: "softmax" or "sigmoid".
        role: "teacher" or "student", for errors.
        output: Key or index of the output, or None.

    Raises:
        ValueError: if it cannot be recognised.
    """
    if given is not None:
        return bool(given)
    found = last_activation(model, output)
    if found in ("linear", activation):
        return found == "linear"
    raise ValueError(
        f"Cannot recognise the outputs of `{role}`, expected a last activation of linear or "
        f"{activation}, or `{role}_from_logits` to say it. "
        f"Received: {found or 'a model that does not show its layers'}"
    )


def check_same_inputs(teacher, student):
    """Raises if both models show their inputs and these differ."""
    inputs = [getattr(model, "inputs", None) for model in (teacher, student)]
    if not all(inputs):
        return
    shapes = [[tuple(tensor.shape) for tensor in tensors] for tensors in inputs]
    if len(shapes[0]) != len(shapes[1]) or not all(map(compatible_shapes, *shapes)):
        raise ValueError(
            "Received incompatible values for `teacher` and `student`, expected inputs of the same "
            f"shapes. Received: teacher {shapes[0]}, student {shapes[1]}"
        )


def check_nothing_shared(teacher, student):
    """Raises if what the student trains belongs to the teacher, which would be changed."""
    trained = {id(variable): variable for variable in student.trainable_variables}
    shared = [trained[id(v)].path for v in teacher.weights if id(v) in trained]
    if shared:
        raise ValueError(
            "Received incompatible values for `teacher` and `student`, expected a student that "
            f"trains nothing of the teacher's. Received: both have {', '.join(shared)}"
        )


def check_same_classes(teacher, student, term, outputs):
    """Raises if the classes that a term compares are known of both models, and differ."""
    for output in outputs:
        tensors = [output_tensor(model, output) for model in (teacher, student)]
        if any(tensor is None for tensor in tensors):
            continue
        shapes = [tuple(tensor.shape) for tensor in tensors]
        smallest = 2 if term.activation == "softmax" else 1
        if not compatible_shapes(*shapes) or (shapes[0][-1] or smallest) < smallest:
            which = "the output" if output is None else f"the output {output!r}"
            raise ValueError(
                f"Received incompatible values for `teacher` and `student`, expected {which} to be "
                f"of the same shape and at least {smallest} classes for {term.name} (of one number "
                "each, BinarySoftLabels and SquaredError can learn). "
                f"Received: teacher {shapes[0]}, student {shapes[1]}"
            )
