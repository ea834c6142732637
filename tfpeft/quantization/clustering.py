"""WeightClustering: kernels of few distinct values, which are trained as values, not as weights."""

import math
import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfpeft.core.arguments import check_boolean, check_choice, invalid
from tfpeft.core.registration import register
from tfpeft.quantization.centroids import INITIALIZATIONS, assigned, clusters_finder
from tfpeft.quantization.clusters import at_weights, cluster_sizes, cluster_sums
from tfpeft.sparsity.sparse_optimizer import SparseOptimizer, sparse_optimizers_of

_MOST = 2**16


@register()
class WeightClustering(SparseOptimizer):
    """Trains kernels of at most `number_of_clusters` distinct values each (weight sharing).

    From `begin_step` on, the weights of a kernel are in clusters, and all weights of a cluster have
    one value, its centroid, after every update. k-means finds the clusters:

    `cluster(w) = argmin_j |w - c_j|`, `c_j = mean of the weights in cluster j`

    With `straight_through` weights keep their own values behind the centroids that the model
    computes with, and move by their own gradients; then each goes to the nearest centroid, and the
    centroids become the means. Without, the clusters stay, and the wrapped optimizer gets, for each
    weight, the mean gradient of its cluster: a cluster moves as a single weight does, with Adam as
    well. This takes less time and memory, and is less accurate, most of all with few clusters.

    With `preserve_sparsity` one of the values is 0, which counts: weights that are 0 when the
    clusters are found stay 0, and weights nearest to 0 are 0. Put it around a pruning optimizer,
    and it begins when the schedule has ended: `WeightClustering(MagnitudePruning(...), 16)`. What
    another optimizer makes zero later on, stays 0, too.

    Differences from TFMOT's `cluster_weights`: the mean of gradients is what TFMOT calls
    `GradientAggregation.AVG` (with its default, the sum, SGD moves a centroid as many times as
    far as its cluster has weights; to Adam both are equal); k-means moves the initial centroids
    before training begins; `"density"` takes exact ranks; all layers can be clustered per
    channel; and the kernel has few values after every update.

    What it does not give: a smaller .keras or .tflite file before it is compressed, or speed on
    most machines. 16 values make a compressed float32 file 3 to 5 times smaller. Devices with
    lookup tables read fewer bytes.

    Memory: 1 byte per weight (2 above 256 clusters); 4 more with `straight_through`.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights; another
            `SparseOptimizer` inside, such as `MagnitudePruning`, decides on zeros.
        number_of_clusters: Integer from 2 to 65,536: the distinct values that each kernel has at
            most, zero included. 16 to 32 are usual.
        initialization: The centroids before k-means: "linear", evenly spaced between the smallest
            and the largest weight; "density", at even ranks of the weights; both of negative and
            positive weights apart, with `preserve_sparsity`; "kmeans++", drawn by their squared
            distances from those drawn before, or from 0, with a fixed seed.
        per_channel: Whether each output channel has `number_of_clusters` values for itself. In
            depthwise kernels, of few weights per channel, the channels share values.
        preserve_sparsity: Whether one of the values is 0, and zeros stay.
        begin_step: The number of updates before the clusters are found; None for 0, or the end of
            the schedules of the optimizers inside.
        straight_through: Whether weights keep their own values and change clusters in training
            (straight-through estimator).
        exclude: Names or patterns of layers to leave alone.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        name: The optimizer's name.

    Raises:
        InputError: if an argument is not of its kind; if `begin_step` is None and an optimizer
            inside sets zeros at the end of `fit` only; and as `SparseOptimizer` does.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(tfpeft.WeightClustering(keras.optimizers.Adam(1e-3), 5), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), verbose=0)
    small = tfpeft.strip_clustering(model)
    print(len(np.unique(small.layers[0].kernel)))  # 5
    ```

    Reference: Han et al., "Deep Compression", 2015, https://arxiv.org/abs/1510.00149
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        number_of_clusters: int,
        *,
        initialization: str = "linear",
        per_channel: bool = False,
        preserve_sparsity: bool = True,
        begin_step: int | None = None,
        straight_through: bool = True,
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
        if begin_step is None:
            begin_step = _last_step(sparse_optimizers_of(optimizer))
        elif not _is_integer(begin_step) or begin_step < 0:
            raise invalid("begin_step", "an integer of at least 0, or None", begin_step)
        check_boolean("straight_through", straight_through)
        self.number_of_clusters = int(number_of_clusters)
        self.initialization = initialization
        self.per_channel = self.uses_axes = bool(per_channel)
        self.preserve_sparsity = bool(preserve_sparsity)
        self.begin_step = self.end_step = int(begin_step)
        self.straight_through = bool(straight_through)

    def add_states(self):
        self._channels = [
            tuple(self.axes_of(variable).outputs) if self.per_channel else ()
            for variable in self.sparse_variables
        ]
        self.add_state("cluster", dtype=self._index_dtype())
        self.add_state("size", dtype="float64", shape=lambda index, _: [self._number(index)])
        if self.straight_through:
            self.add_state("residual")

    def _index_dtype(self):
        if isinstance(self._distribution_strategy, tf.distribute.MultiWorkerMirroredStrategy):
            return "int32"  # TensorFlow sends the first values to all workers: none of uint8
        return "uint8" if self.number_of_clusters <= 2**8 else "uint16"

    def adjust_gradients(self, gradients):
        if self.straight_through:
            return gradients
        gradients = {i: tf.convert_to_tensor(gradient) for i, gradient in gradients.items()}
        clusters, sizes = (
            {i: tf.convert_to_tensor(self._states[name][i]) for i in gradients}
            for name in ("cluster", "size")
        )
        return tf.cond(
            _are_clustered(sizes.values()),
            lambda: {i: self._means(i, g, clusters[i], sizes[i]) for i, g in gradients.items()},
            lambda: gradients,
        )

    def before_update(self, kernels, step):
        self._begin(kernels, step)

        def restore():
            for kernel in kernels:
                # Zeros that an optimizer around this one has set after its last update.
                if self.sparse_variables[kernel.index].sparse_optimizer is not self:
                    self._add_zeros(kernel)
                if self.straight_through:
                    kernel.weight.assign_add(kernel.state["residual"])

        _if(step >= self.begin_step, restore)  # all of them are clustered then

    def after_update(self, kernels, step, updated, learning_rate):
        has_zeros = bool(sparse_optimizers_of(self.inner_optimizer))

        def follow():
            for kernel in kernels:
                if self.straight_through:
                    self._keep_zeros(kernel)
                if has_zeros:
                    self._add_zeros(kernel)
            if self.straight_through:
                _if(updated, lambda: [self._renew(kernel) for kernel in kernels])
            for kernel in kernels:
                self._share(kernel)

        clustered = _are_clustered([kernel.state["size"] for kernel in kernels])
        _if(clustered, follow, lambda: self._begin(kernels, step))

    def clear_averages(self, kernels, step):
        super().clear_averages(kernels, step)
        averages = [(each, each.state["average"]) for each in kernels if "average" in each.state]

        def share():
            for kernel, average in averages:
                average.assign(self._means_of(kernel, average))

        if averages:
            _if(step >= self.begin_step, share)

    def finalize_variable_values(self, var_list):
        super().finalize_variable_values(var_list)
        # Averages (`use_ema`) that have replaced the weights, or weights that a callback has set.
        self.act(self._finish)

    def _finish(self, kernels, step):
        for kernel in kernels:  # without those that were frozen all along
            clustered = _are_clustered([kernel.state["size"]])
            kernel.weight.assign(tf.where(clustered, self._means_of(kernel), kernel.weight))

    def _begin(self, kernels, step):
        """Finds the clusters of kernels that have none yet, from `begin_step` on."""

        def find():
            for kernel in kernels:
                _if(_are_clustered([kernel.state["size"]]), lambda: None, lambda k=kernel: start(k))

        def start(kernel):
            options = (self.number_of_clusters, self.initialization, self.preserve_sparsity)
            rows = self._to_rows(kernel, kernel.weight)
            self._assign(kernel, self._from_rows(kernel, clusters_finder(*options)(rows)))
            self._share(kernel)

        missing = ~_are_clustered([kernel.state["size"] for kernel in kernels])
        _if((step >= self.begin_step) & missing, find)

    def _renew(self, kernel):
        """Assigns each weight to the centroid that is nearest now."""
        cluster, size = _tensors(kernel, "cluster", "size")
        means = self._centroids(kernel.index, kernel.weight, cluster, size)
        means = tf.sort(tf.reshape(tf.cast(means, tf.float32), [-1, self.number_of_clusters]))
        rows = self._to_rows(kernel, kernel.weight)
        cluster = assigned(rows, means, preserve_sparsity=self.preserve_sparsity)
        self._assign(kernel, self._from_rows(kernel, cluster))

    def _share(self, kernel):
        """Gives all weights of a cluster their mean."""
        means = self._means_of(kernel)
        if self.straight_through:
            kernel.state["residual"].assign(kernel.weight - means)
        kernel.weight.assign(means)

    def _keep_zeros(self, kernel):
        """Makes zero what was exactly zero before the update, behind the centroid as well."""
        if self.preserve_sparsity:
            cluster, residual = _tensors(kernel, "cluster", "residual")
            is_zero = (cluster == 0) & (residual == 0)
            kernel.weight.assign(tf.where(is_zero, tf.zeros_like(residual), kernel.weight))

    def _add_zeros(self, kernel):
        """Puts weights that another optimizer made zero into the cluster of zeros."""
        if not self.preserve_sparsity:
            return
        (cluster,) = _tensors(kernel, "cluster")
        is_new = (kernel.weight == 0) & (cluster != 0)
        self._assign(kernel, tf.where(is_new, tf.zeros_like(cluster), cluster))
        if self.straight_through:
            (residual,) = _tensors(kernel, "residual")
            kernel.state["residual"].assign(tf.where(is_new, tf.zeros_like(residual), residual))

    def _assign(self, kernel, cluster):
        kernel.state["cluster"].assign(tf.cast(cluster, kernel.state["cluster"].dtype))
        numbered, number = self._numbered(kernel.index, cluster), self._number(kernel.index)
        kernel.state["size"].assign(cluster_sizes(numbered, number))

    def _means_of(self, kernel, values=None):
        cluster, size = _tensors(kernel, "cluster", "size")
        values = kernel.weight if values is None else values
        return self._means(kernel.index, tf.convert_to_tensor(values), cluster, size)

    def _means(self, index, values, cluster, size):
        """Returns values with, in place of each, the mean of its cluster."""
        means = self._centroids(index, values, cluster, size)
        return at_weights(means, self._numbered(index, cluster))

    def _centroids(self, index, values, cluster, size):
        """Returns the mean of each cluster; it is 0 for clusters of zeros."""
        sums = cluster_sums(values, self._numbered(index, cluster), self._number(index))
        means = tf.cast(tf.math.divide_no_nan(sums, size), values.dtype)
        if not self.preserve_sparsity:
            return means
        is_zero = tf.range(self._number(index)) % self.number_of_clusters == 0
        return tf.where(is_zero, tf.zeros_like(means), means)

    def _numbered(self, index, cluster):
        """Returns clusters of channels with numbers of their own for each channel."""
        cluster, sides = tf.cast(cluster, tf.int32), self._channel_sides(index)
        if math.prod(sides) == 1:
            return cluster
        return cluster + tf.reshape(tf.range(math.prod(sides)) * self.number_of_clusters, sides)

    def _number(self, index):
        """Returns how many clusters a kernel has, in all its channels."""
        return math.prod(self._channel_sides(index)) * self.number_of_clusters

    def _channel_sides(self, index):
        """Returns the sides of a kernel along its channels, and 1 along its other axes."""
        shape = self.sparse_variables[index].shape
        return [side if axis in self._channels[index] else 1 for axis, side in enumerate(shape)]

    def _order(self, kernel):
        channels = self._channels[kernel.index]
        others = [axis for axis in range(len(kernel.weight.shape)) if axis not in channels]
        return [*channels, *others]

    def _to_rows(self, kernel, values):
        """Returns values as (channels, weights of each) in float32."""
        moved = tf.transpose(tf.cast(values, tf.float32), self._order(kernel))
        return tf.reshape(moved, [math.prod(self._channel_sides(kernel.index)), -1])

    def _from_rows(self, kernel, rows):
        """The inverse of `_to_rows`."""
        order, shape = self._order(kernel), kernel.weight.shape
        moved = tf.reshape(rows, [shape[axis] for axis in order])
        return tf.transpose(moved, [order.index(axis) for axis in range(len(order))])

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
            "begin_step": self.begin_step,
            "straight_through": self.straight_through,
        }


def _are_clustered(sizes):
    return tf.reduce_all(tf.stack([tf.reduce_any(size > 0) for size in sizes]))


def _tensors(kernel, *names):
    return [tf.convert_to_tensor(kernel.state[name]) for name in names]


def _if(condition, action, otherwise=lambda: None):
    def done(act):
        act()
        return True

    tf.cond(condition, lambda: done(action), lambda: done(otherwise))


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
