"""The model without the removed channels: new widths, and the slices of weights that are left."""

import functools

import numpy as np

from tfpeft.channels.dependency_graph import Size
from tfpeft.core import clone
from tfpeft.core.arguments import InputError
from tfpeft.core.graph import same_operations


class Kept:
    """Which channels are left.

    Args:
        graph: A `DependencyGraph`.
        removed: Roots of the tags of the channels that are removed.
    """

    def __init__(self, graph, removed):
        self._tags = graph.tags
        self.removed = np.asarray(sorted(removed), int)

    def __call__(self, tags):
        """Returns a mask over tags: whether each one is kept."""
        return ~np.isin(self._tags.roots(tags), self.removed)

    def count(self, tags):
        """Returns how many of some tags are kept."""
        return int(np.sum(self(tags)))

    def slices(self, array, axes):
        """Returns an array without what is removed along its axes, which have tags or None."""
        for axis, tags in enumerate(axes):
            if tags is not None and not np.all(keep := self(tags)):
                array = np.compress(keep, array, axis)
        return array


def remove(graph, kept, biases=None):
    """Returns a new model without the channels that are not kept; it is not compiled.

    Args:
        graph: The `DependencyGraph` of the model.
        kept: The `Kept`.
        biases: {layer: its new bias}, with all channels that its outputs have in the model; a layer
            without one gets it. Or None.
    """
    biases = biases or {}
    new = clone.rebuild(
        graph.model,
        lambda config, parents: config,
        edits=_edits(graph, kept, biases),
        copy_weights=False,
        plain=True,
    )
    axes = {}
    for each in graph.slices:
        axes.setdefault(id(each.variable), {})[each.axis] = each.tags
    for layer, smaller in same_operations(graph.model, new):
        weights, others = (getattr(each, "weights", ()) for each in (layer, smaller))
        values = []
        for weight in weights:
            along = axes.get(id(weight), {})
            value = weight.numpy()
            if layer in biases and weight is layer.bias:
                value = biases[layer]
            values.append(kept.slices(value, [along.get(axis) for axis in range(value.ndim)]))
        if layer in biases and layer.bias is None:
            kernel = axes.get(id(layer.kernel), {})
            values.append(kept.slices(biases[layer], [kernel.get(layer.kernel.ndim - 1)]))
        shapes = [value.shape for value in values], [tuple(each.shape) for each in others]
        if shapes[0] != shapes[1]:
            raise InputError(
                f"Cannot remove channels of layer {layer.name!r} ({type(layer).__name__}), "
                f"expected weights of shapes {shapes[0]} then. Received: {shapes[1]}; "
                "`exclude` leaves the layer out"
            )
        for weight, value in zip(others, values, strict=True):
            weight.assign(value)
    return new


def _edits(graph, kept, biases):
    """Returns {id of an operation: function of its configuration} with the new sizes."""
    sizes = {}
    for layer in biases:
        sizes[id(layer)] = [(Size(layer, "use_bias", None, None), True)]
    for size in graph.sizes:
        sizes.setdefault(id(size.operation), []).append((size, kept.count(size.tags)))
    return {key: functools.partial(_resized, changes) for key, changes in sizes.items()}


def _resized(changes, config):
    config = dict(config)
    for size, count in changes:
        if size.index is None:
            config[size.argument] = count
        else:
            given = config[size.argument]
            given = [given] if isinstance(given, int) else list(given)
            given[size.index] = count
            config[size.argument] = tuple(given)
    return config
