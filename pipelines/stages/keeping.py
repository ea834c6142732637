"""Zeros and clusters of earlier stages: found in a model, and kept while it trains on."""

import dataclasses
import math
import typing

import numpy as np

import tfpeft
from pipelines.stages.sparsify import has_zeros_in
from tfpeft.core.arguments import InputError
from tfpeft.core.kernel_axes import find_kernel_axes
from tfpeft.core.layers import path_of
from tfpeft.sparsity.kernels import select_kernels

# Weights of float16 have few values, too, but more than this.
_MOST_VALUES = 256
# A kernel that no stage clustered has almost as many values as weights; a clustered one of few
# weights may have more than half as many.
_CLUSTERED = 0.9
# Values of clusters per channel are a channel's own, but for some that are equal by chance.
_OWN_VALUES = 1.1


@dataclasses.dataclass(frozen=True)
class Kept:
    """What training has to keep of a model.

    Attributes:
        include: Names or patterns of custom layers that were made sparse or clustered.
        has_zeros: Whether there are zeros.
        clusters: Arguments of a `WeightClustering` that finds the clusters; None without any.
    """

    include: tuple
    has_zeros: bool
    clusters: dict | None

    def __str__(self):
        words = ["zeros"] if self.has_zeros else []
        if self.clusters is not None:
            where = "channel" if self.clusters["per_channel"] else "kernel"
            words.append(f"{self.clusters['number_of_clusters']} values per {where}")
        return " and ".join(words)

    @property
    def wrap(self):
        """A function that wraps an optimizer; None where there is nothing to keep."""
        return self._wrapped if str(self) else None

    def _wrapped(self, optimizer):
        if self.has_zeros:
            optimizer = tfpeft.FixedMask(optimizer, include=self.include)
        if self.clusters is not None:
            optimizer = tfpeft.WeightClustering(optimizer, **self.clusters)
        return optimizer

    def check(self, model):
        """Raises unless the model that was trained has the zeros and the clusters."""
        if self.clusters is not None:
            tfpeft.strip_clustering(model)
        elif self.has_zeros:
            tfpeft.strip_pruning(model)


def kept_of(model, include=()):
    """Returns what training has to keep of a model, by the values in its kernels."""
    return Kept(tuple(include), has_zeros_in(model, include), _clusters(model, include))


def _clusters(model, include):
    kernels = select_kernels(model.trainable_variables, include=include)
    found = [(kernel, _Values.of(kernel)) for kernel in kernels]
    clustered = [values for _, values in found if values.are_few]
    if not clustered:
        return None
    per_channel = all(values.are_of_channels for values in clustered)
    numbers = [max(each.by_channel) if per_channel else each.total for each in clustered]
    has_zeros = any(values.weights < values.size for values in clustered)
    return {
        "number_of_clusters": max(2, int(max(numbers)) + has_zeros),
        "initialization": "kmeans++",  # it draws each value, where there are no more than clusters
        "per_channel": per_channel,
        "preserve_sparsity": has_zeros,
        "begin_step": 0,
        "exclude": [path_of(kernel) for kernel, values in found if not values.are_few],
        "include": list(include),
    }


class _Values(typing.NamedTuple):
    """How many weights of a kernel are not zero, and how many values they have."""

    size: int
    weights: int
    total: int
    by_channel: tuple

    @classmethod
    def of(cls, kernel):
        """Returns those of a variable."""
        array = kernel.numpy()
        try:
            ((_, outputs),) = find_kernel_axes([kernel])
            by_channel = tuple(_distinct(array, outputs).tolist())
        except InputError:  # of a custom layer, whose channels are not known
            by_channel = ()
        return cls(array.size, np.count_nonzero(array), int(_distinct(array)[0]), by_channel)

    @property
    def are_of_channels(self):
        """Whether the values of each channel are its own."""
        return 0 < sum(self.by_channel) <= _OWN_VALUES * self.total

    @property
    def are_few(self):
        """Whether the kernel, or each of its channels, is clustered."""
        most = max(self.by_channel) if self.are_of_channels else self.total
        return 0 < most <= _MOST_VALUES and self.total <= _CLUSTERED * self.weights


def _distinct(array, axes=()):
    """Returns how many values but zero an array has in each of its channels, (channels,)."""
    channels = math.prod(array.shape[axis] for axis in axes)
    rows = np.sort(np.moveaxis(array, axes, range(len(axes))).reshape(channels, -1))
    changes = np.diff(rows) != 0
    return 1 + changes.sum(axis=1) - (rows == 0).any(axis=1)
