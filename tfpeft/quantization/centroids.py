"""Centroids of weights: where clustering begins, k-means, and the nearest centroid of each weight.

A row has the weights that share centroids: those of a kernel, or of one of its output channels.
"""

import functools

import tensorflow as tf

INITIALIZATIONS = ("linear", "density", "kmeans++")
_ITERATIONS = 100
_FEW = 32


@functools.cache
def clusters_finder(number, initialization, preserve_sparsity):
    """Returns `find_clusters` with these options, as a function that is traced once."""

    @tf.function(input_signature=[tf.TensorSpec([None, None], tf.float32)])
    def find(rows):
        return find_clusters(
            rows, number, initialization=initialization, preserve_sparsity=preserve_sparsity
        )

    return find


def find_clusters(rows, number, *, initialization, preserve_sparsity):
    """Finds clusters by k-means.

    Args:
        rows: Float32 tensor of shape (rows, weights).
        number: Integer, the number of centroids of each row.
        initialization: One of `INITIALIZATIONS`.
        preserve_sparsity: Whether one of the centroids is 0, and stays 0.

    Returns:
        An int32 tensor of the shape of `rows`, the number of the cluster of each weight. With
        `preserve_sparsity` the cluster 0 has the zeros, and what is nearest to zero.
    """
    ascending = tf.sort(rows, axis=1)
    centroids = initial_centroids(
        ascending, number, initialization=initialization, preserve_sparsity=preserve_sparsity
    )
    centroids = k_means(ascending, centroids, preserve_sparsity=preserve_sparsity)
    return assigned(rows, centroids, preserve_sparsity=preserve_sparsity)


def assigned(rows, centroids, *, preserve_sparsity):
    """Returns the number of the nearest centroid of each weight, as `find_clusters` does.

    Args:
        rows: Float32 tensor of shape (rows, weights).
        centroids: Float32 tensor of shape (rows, number), in ascending order.
        preserve_sparsity: Whether the centroid that is nearest to 0 gets the number 0.
    """
    nearest = nearest_centroid(rows, centroids)
    if not preserve_sparsity:
        return nearest
    zero = _place_of_zero(centroids)
    others = tf.where(nearest < zero, nearest + 1, nearest)
    return tf.where((nearest == zero) | (rows == 0), 0, others)


def initial_centroids(ascending, number, *, initialization, preserve_sparsity):
    """Returns the centroids that k-means begins with, of shape (rows, number), in ascending order.

    - "linear": evenly spaced from the smallest to the largest weight.
    - "density": weights at evenly spaced ranks, from 1% to 100% of the weights.
    - "kmeans++": weights drawn one by one, by their squared distance from those drawn before.

    With `preserve_sparsity` one centroid is 0. The others are divided between the negative and the
    positive weights, by how many of each there are, and placed within each sign as above.

    Args:
        ascending: Float32 tensor of shape (rows, weights), sorted.
        number: Integer.
        initialization: One of `INITIALIZATIONS`.
        preserve_sparsity: Whether one of the centroids is 0.
    """
    if initialization == "kmeans++":
        return _drawn(ascending, number, preserve_sparsity)
    place = tf.range(number)[None, :]
    size = tf.shape(ascending)[1]
    if not preserve_sparsity:
        return _placed(ascending, initialization, 0 * place, size + 0 * place, place, number)
    negative = _count(ascending < 0)
    positive = _count(ascending > 0)
    share = tf.math.divide_no_nan(
        tf.cast(negative, tf.float64), tf.cast(negative + positive, tf.float64)
    )
    below = tf.cast(tf.round((number - 1) * share), tf.int32)
    is_below = place < below
    centroids = _placed(
        ascending,
        initialization,
        tf.where(is_below, 0, size - positive),
        tf.where(is_below, negative, positive),
        tf.where(is_below, place, place - below - 1),
        tf.where(is_below, below, number - 1 - below),
    )
    return tf.where(place == below, 0.0, centroids)


def _placed(ascending, initialization, start, size, place, number):
    """Returns the centroid at `place` among `number`, of the `size` weights from `start` on."""
    last = tf.cast(tf.maximum(number - 1, 1), tf.float64)
    fraction = tf.cast(place, tf.float64) / last

    def weight_at(index):
        index = tf.clip_by_value(index, 0, tf.shape(ascending)[1] - 1)
        index = tf.broadcast_to(index, [tf.shape(ascending)[0], tf.shape(index)[1]])
        return tf.gather(ascending, index, batch_dims=1)

    if initialization == "density":
        rank = tf.math.ceil((0.01 + 0.99 * fraction) * tf.cast(size, tf.float64))
        return weight_at(start + tf.clip_by_value(tf.cast(rank, tf.int32) - 1, 0, size - 1))
    low, high = weight_at(start), weight_at(start + size - 1)
    return low + tf.cast(fraction, tf.float32) * (high - low)


def _drawn(ascending, number, preserve_sparsity):
    """Returns centroids of k-means++, with a zero among them if sparsity is preserved."""
    values = tf.cast(ascending, tf.float64)
    shape = [number, tf.shape(values)[0], 1]
    uniform = tf.random.stateless_uniform(shape, [0, 0], dtype=tf.float64, alg="philox")
    # With a zero, the distances from it; else all weights are drawn alike at first.
    distances = tf.square(values) if preserve_sparsity else tf.ones_like(values)
    first = int(preserve_sparsity)
    places = tf.range(number)

    def draw(i, distances, centroids):
        sums = tf.cumsum(distances, axis=1)
        index = tf.searchsorted(sums, uniform[i] * sums[:, -1:], side="right")
        index = tf.minimum(index, tf.shape(values)[1] - 1)
        centroid = tf.gather(values, index, batch_dims=1)
        square = tf.square(values - centroid)
        is_first = (i == 0) & (not preserve_sparsity)
        distances = tf.where(is_first, square, tf.minimum(distances, square))
        return i + 1, distances, tf.where(places == i, centroid, centroids)

    centroids = tf.zeros([tf.shape(values)[0], number], tf.float64)
    *_, centroids = tf.while_loop(
        lambda i, *_: i < number,
        draw,
        (first, distances, centroids),
        shape_invariants=(
            tf.TensorShape([]),
            distances.shape,
            tf.TensorShape([ascending.shape[0], number]),
        ),
    )
    return tf.sort(tf.cast(centroids, tf.float32), axis=1)


def k_means(ascending, centroids, *, preserve_sparsity):
    """Returns the centroids after at most 100 iterations of k-means; fewer if nothing moves.

    `centroid <- mean of the weights that are nearest to it`; one without weights stays, and with
    `preserve_sparsity` that of the zeros does.

    Args:
        ascending: Float32 tensor of shape (rows, weights), sorted: the weights of a cluster are
            neighbours, and their sum is a difference of two running sums.
        centroids: Float32 tensor of shape (rows, number), in ascending order.
        preserve_sparsity: Whether the centroid that is nearest to 0 is 0 and stays.
    """
    sums = tf.pad(tf.cumsum(tf.cast(ascending, tf.float64), axis=1), [[0, 0], [1, 0]])
    zero = _place_of_zero(centroids)
    is_fixed = (tf.range(tf.shape(centroids)[1])[None, :] == zero) & preserve_sparsity
    none = tf.zeros_like(zero)

    def iterate(turn, centroids, _):
        ends = tf.searchsorted(ascending, _borders(centroids), side="right")
        ends = tf.concat([none, ends, none + tf.shape(ascending)[1]], 1)
        counts = ends[:, 1:] - ends[:, :-1]
        sums_there = tf.gather(sums, ends, batch_dims=1)
        means = (sums_there[:, 1:] - sums_there[:, :-1]) / tf.cast(counts, tf.float64)
        new = tf.where(is_fixed | (counts == 0), centroids, tf.cast(means, tf.float32))
        return turn + 1, new, tf.reduce_any(new != centroids)

    _, centroids, _ = tf.while_loop(
        lambda turn, _, moved: (turn < _ITERATIONS) & moved, iterate, (0, centroids, True)
    )
    return centroids


def nearest_centroid(rows, centroids):
    """Returns, for each weight, the place of the nearest centroid; of two, that of the lower.

    Args:
        rows: Float32 tensor of shape (rows, weights).
        centroids: Float32 tensor of shape (rows, number), in ascending order.
    """
    borders = _borders(centroids)
    number = borders.shape[1]
    if number is None or number >= _FEW:
        return tf.searchsorted(borders, rows, side="left")
    # The same in less than half the time.
    above = [tf.cast(rows > borders[:, j : j + 1], tf.uint8) for j in range(number)]
    return tf.cast(tf.add_n(above), tf.int32)


def _borders(centroids):
    return (centroids[:, 1:] + centroids[:, :-1]) / 2


def _place_of_zero(centroids):
    return tf.argmin(tf.abs(centroids), axis=1, output_type=tf.int32)[:, None]


def _count(condition):
    return tf.reduce_sum(tf.cast(condition, tf.int32), axis=1, keepdims=True)
