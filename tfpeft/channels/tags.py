"""Tags: a number per channel, that follows it through the graph of a model."""

import typing

import numpy as np

FIXED = 0
"""The tag of what cannot be removed."""


class Tags:
    """Numbers of channels, and which of them can only be removed together (a union-find)."""

    def __init__(self):
        self._parents = [FIXED]

    @property
    def count(self):
        """How many tags there are."""
        return len(self._parents)

    def new(self, count):
        """Returns `count` new tags."""
        first = len(self._parents)
        self._parents.extend(range(first, first + count))
        return np.arange(first, first + count)

    def unite(self, tags, others):
        """Makes one of tags and others, pair by pair; with `FIXED` none can be removed."""
        pairs = np.stack(np.broadcast_arrays(tags, others), axis=-1).reshape(-1, 2)
        for a, b in np.unique(pairs[pairs[:, 0] != pairs[:, 1]], axis=0).tolist():
            low, high = sorted((self._root(a), self._root(b)))
            self._parents[high] = low

    def roots(self, tags):
        """Returns the tag that stands for all that are one, for each of an array."""
        unique, inverse = np.unique(tags, return_inverse=True)
        found = np.array([self._root(tag) for tag in unique.tolist()], int)
        return found[inverse].reshape(np.shape(tags))

    def _root(self, tag):
        parents = self._parents
        while parents[tag] != tag:
            parents[tag] = parents[parents[tag]]
            tag = parents[tag]
        return tag


class Tagged(typing.NamedTuple):
    """A tensor of the graph: its shape, and for each axis the tags along it."""

    shape: tuple
    """With the batch; None for sides that are free."""
    axes: tuple
    """For each axis an array with a tag for each position, or None: nothing can be removed."""

    def replace(self, axis, tags):
        """Returns the tensor with other tags along one axis."""
        axes = list(self.axes)
        axes[axis] = tags
        return self._replace(axes=tuple(axes))

    def tagged_axes(self):
        """Returns the numbers of the axes that have tags."""
        return [axis for axis, tags in enumerate(self.axes) if tags is not None]


def untagged(shape):
    """Returns a `Tagged` of which nothing can be removed."""
    return Tagged(tuple(shape), (None,) * len(shape))
