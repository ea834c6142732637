"""Formulas of weight clustering with a mistake in each."""

from mutant_lists.mutant import Mutant

_CLUSTERING = "quantization/test_clustering.py::"
_CENTROIDS = "quantization/centroids.py"
_LINEAR = (f"{_CLUSTERING}test_linear_centroids_are_those_of_tfmot",)

MUTANTS = (
    Mutant(
        "centroids: one too many for negative weights",
        _CENTROIDS,
        "tf.round((number - 1) * share)",
        "tf.round(number * share)",
        _LINEAR,
    ),
    Mutant(
        "centroids: evenly spaced without the last one",
        _CENTROIDS,
        "tf.maximum(number - 1, 1)",
        "tf.maximum(number, 1)",
        _LINEAR,
    ),
    Mutant(
        "k-means++: distances not squared",
        _CENTROIDS,
        "square = tf.square(values - centroid)",
        "square = tf.abs(values - centroid)",
        (f"{_CLUSTERING}test_centroids_of_k_means_plus_plus_are_those_of_a_loop",),
    ),
    Mutant(
        "k-means: the zero moves",
        _CENTROIDS,
        "tf.where(is_fixed | (counts == 0), centroids,",
        "tf.where(counts == 0, centroids,",
        (f"{_CLUSTERING}test_k_means_is_that_of_a_loop",),
    ),
    Mutant(
        "clusters: sums of rounded weights",
        "quantization/clusters.py",
        "tf.reshape(tf.cast(values, tf.float64), [-1])",
        "tf.reshape(tf.cast(tf.cast(values, tf.float16), tf.float64), [-1])",
        (f"{_CLUSTERING}test_sums_of_a_million_equal_weights_are_exact",),
    ),
    Mutant(
        "clusters: the sum in place of the mean",
        "quantization/clustering.py",
        "tf.math.divide_no_nan(sums, size)",
        "sums",
        (f"{_CLUSTERING}test_aggregated_gradients_are_those_of_tfmot",),
    ),
    Mutant(
        "clusters: zeros leave behind their centroid",
        "quantization/clustering.py",
        "is_zero = (cluster == 0) & (residual == 0)",
        "is_zero = (cluster == 0) & (residual != 0)",
        (f"{_CLUSTERING}test_weights_train_on_behind_their_clusters",),
    ),
)
