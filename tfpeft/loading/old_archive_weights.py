"""Weights of .keras files of Keras 2: a group for each layer, at any depth."""

import re

import keras

from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.loading.old_weights import leaves_of


def assign_keras(made, group):
    """Assigns the weights of a .keras file of Keras 2: a group for each layer, at any depth.

    Args:
        made: The `Made` of the model.
        group: The root of its `model.weights.h5`.

    Raises:
        InputError: naming the layers whose weights do not fit.
    """
    problems = []
    _assign_inside(made, group, problems)
    if problems:
        raise unexpected("weights that fit the layers", "; ".join(problems))


def _assign_inside(made, group, problems):
    """Assigns the weights of the layers of a model from its group of a .keras file."""
    layers = group.get("layers", {})
    keys = _keys([each.class_name for each in made.inside])
    for each, key in zip(made.inside, keys, strict=True):
        if each.layer is None or not leaves_of([each]):
            continue
        if key not in layers:
            problems.append(f"{each.name} ({each.class_name}): none in the file")
        elif each.inside is not None:
            _assign_inside(each, layers[key], problems)
        else:
            try:
                _assign_layer(each.layer, layers[key])
            except Exception as error:  # layers load their weights in their own ways
                problems.append(f"{each.name} ({each.class_name}): {last_cause(error)}")


def _assign_layer(layer, group):
    """Assigns a layer's own weights, and those of the layers that its attributes hold."""
    for name in group:
        if name == "vars":
            if len(group[name]):
                layer.load_own_variables({key: array[()] for key, array in group[name].items()})
            continue
        inner = getattr(layer, name, None)
        if isinstance(inner, keras.layers.Layer):
            _assign_layer(inner, group[name])
        elif isinstance(inner, (list, tuple)):
            keys = _keys([type(each).__name__ for each in inner])
            for each, key in zip(inner, keys, strict=True):
                if key in group[name]:
                    _assign_layer(each, group[name][key])
        elif _has_arrays(group[name]):
            raise InputError(f"the file has weights of {name}, which the layer lacks")


def _keys(class_names):
    """Returns the names of layers in a group of a .keras file: that of the class, with a number."""
    counts, keys = {}, []
    for name in map(_snake_case, class_names):
        counts[name] = counts.get(name, -1) + 1
        keys.append(f"{name}_{counts[name]}" if counts[name] else name)
    return keys


def _has_arrays(group):
    return "vars" in group and len(group["vars"]) > 0


def _snake_case(name):
    """Returns a class's name as a .keras file of Keras 2 writes it."""
    name = re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)
    return re.sub("([a-z])([A-Z])", r"\1_\2", name).lower()
