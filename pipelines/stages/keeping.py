"""Zeros and clusters of earlier stages: found in a model, and kept while it trains on."""

import dataclasses
import math

import numpy as np

import tfpeft
from pipelines.stages.sparsify import has_zeros_in
from tfpeft.core.kernel_axes import find_kernel_axes
from tfpeft.core.layers import path_of
from tfpeft.sparsity.kernels import select_kernels

_MOST_CLUSTERS = 2**16 - 1
# A kernel that no stage clustered has almost as many values as weights; a clustered one of few
# weights may have more than half as many.
_CLUSTERED = 0.9
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
    values = {path_of(kernel): kernel.numpy() for kernel in kernels}
    numbers = {path: int(_distinct(array)[0]) for path, array in values.items()}
    clustered = [
        kernel
        for kernel in kernels
        if 0
        < numbers[path_of(kernel)]
        <= min(_CLUSTERED * np.count_nonzero(values[path_of(kernel)]), _MOST_CLUSTERS)
    ]
    if not clustered:
        return None
    by_channel = [
        _distinct(values[path_of(kernel)], axes.outputs)
        for kernel, axes in zip(clustered, find_kernel_axes(clustered), strict=True)
    ]
    totals = [numbers[path_of(kernel)] for kernel in clustered]
    per_channel = all(
        np.sum(of_kernel) <= _OWN_VALUES * total
        for of_kernel, total in zip(by_channel, totals, strict=True)
    )
    most = max(map(np.max, by_channel)) if per_channel else max(totals)
    has_zeros = any(not values[path_of(kernel)].all() for kernel in clustered)
    others = {path_of(kernel) for kernel in kernels} - {path_of(kernel) for kernel in clustered}
    return {
        "number_of_clusters": max(2, int(most) + has_zeros),
        "initialization": "kmeans++",  # it draws each value, where there are no more than clusters
        "per_channel": per_channel,
        "preserve_sparsity": has_zeros,
        "begin_step": 0,
        "exclude": sorted(others),
        "include": list(include),
    }


def _distinct(array, axes=()):
    """Returns how many values but zero an array has in each of its channels, (channels,)."""
    channels = math.prod(array.shape[axis] for axis in axes)
    rows = np.sort(np.moveaxis(array, axes, range(len(axes))).reshape(channels, -1))
    changes = np.diff(rows) != 0
    return 1 + changes.sum(axis=1) - (rows == 0).any(axis=1)
