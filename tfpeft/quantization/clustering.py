"""WeightClustering: kernels of few distinct values, which are trained as values, not as weights."""

import math
import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfpeft.core.arguments import check_boolean, check_choice, invalid
from tfpeft.core.registration import register
from tfpeft.quantization.centroids import INITIALIZATIONS, clusters_finder
from tfpeft.quantization.clusters import at_weights, cluster_sizes, cluster_sums
from tfpeft.sparsity.sparse_optimizer import SparseOptimizer, sparse_optimizers_of

_MOST = 2**16


@register()
class WeightClustering(SparseOptimizer):
    """TODO"""

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        number_of_clusters: int,
        *,
        initialization: str = "linear",
        per_channel: bool = False,
        preserve_sparsity: bool = True,
        aggregation: str = "mean",
        begin_step: int | None = None,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        name: str | None = None,
    ):
        super().__init__(optimizer, exclude=exclude, include=include, name=name)
        if not _is_integer(number_of_clusters) or not 2 <= number_of_clusters <= _MOST:
            raise invalid(
                "number_of_clusters", f"an integer from 2 to {_MOST:,}", number_of_clusters
            )
        check_choice("initialization", initialization, INITIALIZATIONS)
        check_boolean("per_channel", per_channel)
        check_boolean("preserve_sparsity", preserve_sparsity)
        check_choice("aggregation", aggregation, ("mean", "sum"))
        if begin_step is None:
            begin_step = _last_step(sparse_optimizers_of(optimizer))
        elif not _is_integer(begin_step) or begin_step < 0:
            raise invalid("begin_step", "an integer of at least 0, or None", begin_step)
        self.number_of_clusters = int(number_of_clusters)
        self.initialization = initialization
        self.per_channel = self.uses_axes = bool(per_channel)
        self.preserve_sparsity = bool(preserve_sparsity)
        self.aggregation = aggregation
        self.begin_step = self.end_step = int(begin_step)

    def add_states(self):
        self._channels = [self._channel_axes(variable) for variable in self.sparse_variables]
        dtype = "uint8" if self.number_of_clusters <= 2**8 else "uint16"
        self.add_state("cluster", dtype=dtype)
        self.add_state("size", dtype="float64", shape=lambda index, _: [self._number(index)])

    def _channel_axes(self, variable):
        return tuple(self.axes_of(variable).outputs) if self.per_channel else ()

    def _channel_sides(self, index):
        """Returns the sides of a kernel along its channels, and 1 along its other axes."""
        shape = self.sparse_variables[index].shape
        return [side if axis in self._channels[index] else 1 for axis, side in enumerate(shape)]

    def _number(self, index):
        """Returns how many clusters a kernel has, in all its channels."""
        return math.prod(self._channel_sides(index)) * self.number_of_clusters

    def _numbered(self, index, cluster):
        """Returns clusters counted through all channels."""
        cluster = tf.cast(cluster, tf.int32)
        sides = self._channel_sides(index)
        if math.prod(sides) == 1:
            return cluster
        first = tf.range(math.prod(sides)) * self.number_of_clusters
        return cluster + tf.reshape(first, sides)

    def adjust_gradients(self, gradients):
        gradients = {i: tf.convert_to_tensor(gradient) for i, gradient in gradients.items()}
        clusters = {i: tf.convert_to_tensor(self._states["cluster"][i]) for i in gradients}
        sizes = {i: tf.convert_to_tensor(self._states["size"][i]) for i in gradients}

        def aggregated():
            mean = self.aggregation == "mean"
            return {
                i: self._shared(i, g, clusters[i], sizes[i] if mean else tf.ones_like(sizes[i]))
                for i, g in gradients.items()
            }

        return tf.cond(_all_clustered(sizes.values()), aggregated, lambda: gradients)

    def before_update(self, kernels, step):
        self._begin(kernels, step)
        # Weights that an optimizer around this one has made zero after its last update.
        variables = [self.sparse_variables[kernel.index] for kernel in kernels]
        if any(variable.sparse_optimizer is not self for variable in variables):
            self._add_zeros(kernels, step)

    def after_update(self, kernels, step, updated, learning_rate):
        self._begin(kernels, step)
        if sparse_optimizers_of(self.inner_optimizer):
            self._add_zeros(kernels, step)
        self._share([(kernel, kernel.weight) for kernel in kernels], step)

    def clear_averages(self, kernels, step):
        super().clear_averages(kernels, step)
        averages = [(each, each.state["average"]) for each in kernels if "average" in each.state]
        if averages:
            self._share(averages, step)

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        # Averages (`use_ema`) that have replaced the weights, or weights that a callback has set.
        self.act(self._finish)

    def _finish(self, kernels, step):
        for kernel in kernels:
            done = _all_clustered([kernel.state["size"]])  # not a kernel that was frozen all along
            _if(done, self._share, [(kernel, kernel.weight)], step)

    def _begin(self, kernels, step):
        """Finds the clusters of kernels that have none yet, from `begin_step` on."""

        def find():
            for kernel in kernels:
                old = tf.cast(kernel.state["cluster"], tf.int32)
                is_clustered = _all_clustered([kernel.state["size"]])
                self._set(kernel, tf.where(is_clustered, old, self._found(kernel)))

        missing = ~_all_clustered([kernel.state["size"] for kernel in kernels])
        _if((step >= self.begin_step) & missing, find)

    def _found(self, kernel):
        """Returns the number, within its channel, of the cluster of each weight."""
        channels, shape = self._channels[kernel.index], kernel.weight.shape
        order = [*channels, *(axis for axis in range(len(shape)) if axis not in channels)]
        moved = tf.transpose(tf.cast(kernel.weight, tf.float32), order)
        rows = tf.reshape(moved, [math.prod(self._channel_sides(kernel.index)), -1])
        options = (self.number_of_clusters, self.initialization, self.preserve_sparsity)
        cluster = tf.reshape(clusters_finder(*options)(rows), moved.shape)
        return tf.transpose(cluster, [order.index(axis) for axis in range(len(order))])

    def _set(self, kernel, cluster):
        kernel.state["cluster"].assign(tf.cast(cluster, kernel.state["cluster"].dtype))
        numbered, number = self._numbered(kernel.index, cluster), self._number(kernel.index)
        kernel.state["size"].assign(cluster_sizes(numbered, number))

    def _add_zeros(self, kernels, step):
        """Puts weights that another optimizer made zero into the clusters of zeros."""

        def add():
            for kernel in kernels:
                cluster = tf.convert_to_tensor(kernel.state["cluster"])
                self._set(kernel, tf.where(kernel.weight == 0, tf.zeros_like(cluster), cluster))

        if self.preserve_sparsity:
            _if(step >= self.begin_step, add)

    def _share(self, pairs, step):
        """Gives all weights of a cluster their mean; pairs of kernels and variables."""

        def share():
            for kernel, variable in pairs:
                cluster, size = (
                    tf.convert_to_tensor(kernel.state[name]) for name in ("cluster", "size")
                )
                variable.assign(self._shared(kernel.index, variable, cluster, size))

        _if(step >= self.begin_step, share)  # `_begin` comes before

    def _shared(self, index, values, cluster, counts):
        """Returns values with, in place of each, the sum of its cluster divided by its count.

        It is zero in the cluster of zeros.
        """
        cluster = self._numbered(index, cluster)
        sums = cluster_sums(values, cluster, self._number(index))
        quotients = tf.cast(tf.math.divide_no_nan(sums, counts), values.dtype)
        if self.preserve_sparsity:
            is_zero = tf.range(self._number(index)) % self.number_of_clusters == 0
            quotients = tf.where(is_zero, tf.zeros_like(quotients), quotients)
        return at_weights(quotients, cluster)

    def promised_values(self):
        return [
            (variable, self.number_of_clusters, axes)
            for variable, axes in zip(self.sparse_variables, self._channels, strict=True)
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "number_of_clusters": self.number_of_clusters,
            "initialization": self.initialization,
            "per_channel": self.per_channel,
            "preserve_sparsity": self.preserve_sparsity,
            "aggregation": self.aggregation,
            "begin_step": self.begin_step,
        }


def _all_clustered(sizes):
    return tf.reduce_all(tf.stack([tf.reduce_any(size > 0) for size in sizes]))


def _if(condition, action, *args):
    def act():
        action(*args)
        return True

    tf.cond(condition, act, lambda: False)


def _is_integer(value):
    return isinstance(value, numbers.Integral) and not isinstance(value, bool)


def _last_step(optimizers):
    steps = [optimizer.end_step for optimizer in optimizers]
    if None in steps:
        raise invalid(
            "begin_step",
            "an integer, as an optimizer inside ends with `fit`: TargetedDropout without "
            "`end_step`",
            None,
        )
    return max(steps, default=0)
