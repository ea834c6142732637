"""Layers of a model: paths, names, patterns, and flags."""

import difflib
import fnmatch
import gc

import keras
import tensorflow as tf

from tfpeft.core.arguments import NoMatchError, invalid
from tfpeft.core.graph import flatten_layers


def layers_by_path(model):
    """Returns {path: layer} of all layers in a model; a path is "backbone/block_1/conv"."""
    found = {}

    def visit(layer, path):
        for inner in flatten_layers(layer, include_self=False, recursive=False):
            inner_path = f"{path}/{inner.name}" if path else inner.name
            found.setdefault(inner_path, inner)
            visit(inner, inner_path)

    visit(model, "")
    return found


def find_layer(models, name, argument):
    """Returns the layer of one of the `models` whose name is `name`, or whose path ends in it.

    Raises:
        NoMatchError: if no layer, or more than one, matches; the message names `argument`.
    """
    wanted, matches, paths = tuple(name.split("/")), {}, []
    model_names = [model.name for model in models]
    if len(set(model_names)) < len(models):
        model_names = [str(index) for index in range(len(models))]
    for index, model in enumerate(models):
        for path, layer in layers_by_path(model).items():
            full = (model_names[index], *path.split("/"))
            paths.append("/".join(full if len(models) > 1 else full[1:]))
            if full[1:] == wanted and len(models) == 1:
                return layer  # an exact path has priority over longer paths that end in it
            if full[-len(wanted) :] == wanted:
                matches[id(layer)] = (layer, paths[-1])
    if len(matches) == 1:
        return next(iter(matches.values()))[0]
    if matches:
        expected = f"one of the paths {', '.join(sorted(path for _, path in matches.values()))}"
    else:
        by_last_name = {path.split("/")[-1]: path for path in paths}
        near = difflib.get_close_matches(wanted[-1], by_last_name, n=5, cutoff=0.5)
        near = [by_last_name[last] for last in near] or paths[:10]
        expected = f"the name or path of a layer, such as {', '.join(near) or '(there are none)'}"
    raise invalid(argument, expected, name, error=NoMatchError)


def match_layers(layers, patterns):
    """Returns the part of {path: layer} of which the path, or a name in it, matches a pattern."""
    return {path: layer for path, layer in layers.items() if matching_patterns(path, patterns)}


def matching_patterns(path, patterns):
    """Returns the patterns that match a path, or a name in it."""
    names = (path, *path.split("/"))
    return [p for p in patterns if any(fnmatch.fnmatchcase(name, p) for name in names)]


def set_trainable(model, value):
    """Sets the `trainable` flag of every layer in a model."""
    # Layer by layer: Keras skips an assignment that does not change a model's own flag, and with
    # it all layers inside.
    for layer in flatten_layers(model):
        layer.trainable = value


def path_of(variable):
    """Returns the path of a variable, "block/dense/kernel"; of a tf.Variable, the name."""
    return getattr(variable, "path", variable.name)


@tf.autograph.experimental.do_not_convert  # its loops run over a million objects
def owners_of(variables):
    """Returns, for each variable, the layers that hold it as an attribute, or in a list of theirs.

    A variable does not know its layer, and an optimizer knows variables only. So this asks
    Python's garbage collector for all layers: a search through all objects, once for all
    variables. Where some have no layer, it searches what `gc.freeze` has put aside as well.
    """
    found = _owners_among(gc.get_objects(), variables)
    if not all(found) and gc.get_freeze_count():
        gc.collect()  # what is garbage now would be put aside, too
        gc.unfreeze()
        try:
            found = _owners_among(gc.get_objects(), variables)
        finally:
            gc.freeze()
    return found


def _owners_among(objects, variables):
    found = {id(variable): [] for variable in variables}
    # By type: `isinstance` asks some objects for their class, and these may act on it.
    for layer in objects:
        if not issubclass(type(layer), keras.layers.Layer):
            continue
        for value in vars(layer).values():
            for held in value if isinstance(value, (list, tuple)) else (value,):
                if id(held) in found and layer not in found[id(held)]:
                    found[id(held)].append(layer)
    return [found[id(variable)] for variable in variables]
