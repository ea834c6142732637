"""WeightClustering: centroids and gradients against NumPy and TFMOT, zeros, promises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.networks import compiled, sequential, train, zeros
from tests.sparsity.tfmot_schedules import pruning, tfmot
from tfpeft.quantization import centroids
from tfpeft.quantization.clusters import cluster_sizes, cluster_sums
from tfpeft.sparsity.promises import distinct_values

ROWS = np.random.default_rng(0).normal(size=(3, 40)).astype("float32")
ROWS[:, ::4] = 0.0
ASCENDING = np.sort(ROWS, axis=1)
initialization = pytest.mark.parametrize("initialization", centroids.INITIALIZATIONS)
preserving = pytest.mark.parametrize("preserve_sparsity", [True, False])


def initial(name, number, preserve_sparsity, rows=ASCENDING):
    found = centroids.initial_centroids(
        tf.constant(rows), number, initialization=name, preserve_sparsity=preserve_sparsity
    )
    return found.numpy()


def of_tfmot(name, row, number, preserve_sparsity):
    """Returns the initial centroids of one row of weights that TFMOT finds."""
    from tensorflow_model_optimization.python.core.clustering.keras import clustering_centroids

    kind = getattr(tfmot.clustering.keras.CentroidInitialization, name)
    factory = clustering_centroids.CentroidsInitializerFactory
    initializer = factory.get_centroid_initializer(kind)
    found = initializer(tf.constant(row), number, preserve_sparsity=preserve_sparsity)
    return found.get_cluster_centroids().numpy()


@preserving
@pytest.mark.parametrize("number", [3, 8])
def test_linear_centroids_are_those_of_tfmot(number, preserve_sparsity):
    found = initial("linear", number, preserve_sparsity)
    for row, values in zip(found, ROWS, strict=True):
        expected = of_tfmot("LINEAR", values, number, preserve_sparsity)
        np.testing.assert_allclose(row, expected, atol=1e-6)


@preserving
def test_density_centroids_are_weights_of_even_ranks(preserve_sparsity):
    """TFMOT takes the next of 30 points between the smallest and the largest weight."""
    found = initial("density", 8, preserve_sparsity)
    for row, values in zip(found, ASCENDING, strict=True):
        expected = of_tfmot("DENSITY_BASED", values, 8, preserve_sparsity)
        np.testing.assert_allclose(row, expected, atol=(np.ptp(values) + 0.02) / 29)
    ranks = np.ceil(np.linspace(0.01, 1, 8) * 40).astype(int) - 1
    np.testing.assert_array_equal(initial("density", 8, False), ASCENDING[:, ranks])


@preserving
def test_centroids_of_k_means_plus_plus_are_those_of_a_loop(preserve_sparsity):
    uniform = tf.random.stateless_uniform([5, 3, 1], [0, 0], dtype=tf.float64, alg="philox")
    for i, row in enumerate(ASCENDING.astype("float64")):
        drawn = [0.0] if preserve_sparsity else []
        while len(drawn) < 5:
            distances = [min([(w - c) ** 2 for c in drawn], default=1.0) for w in row]
            sums = np.cumsum(distances)
            drawn.append(row[np.sum(sums <= uniform[len(drawn), i, 0].numpy() * sums[-1])])
        found = initial("kmeans++", 5, preserve_sparsity)[i]
        np.testing.assert_allclose(found, np.sort(drawn), rtol=1e-6)
        assert len(set(drawn)) == 5


@preserving
def test_k_means_is_that_of_a_loop(preserve_sparsity):
    begin = initial("linear", 6, preserve_sparsity)
    found = centroids.k_means(
        tf.constant(ASCENDING), tf.constant(begin), preserve_sparsity=preserve_sparsity
    )
    for row, means, values in zip(ASCENDING, begin.astype("float64"), found, strict=True):
        for _ in range(100):
            nearest = np.argmin(np.abs(row[:, None] - means), axis=1)
            for j in range(6):
                if np.any(nearest == j) and not (preserve_sparsity and means[j] == 0):
                    means[j] = np.mean(row[nearest == j])
        np.testing.assert_allclose(values, means, atol=1e-6)


@initialization
@preserving
def test_each_weight_belongs_to_the_nearest_centroid(initialization, preserve_sparsity):
    rows = tf.constant(ROWS)
    begin = initial(initialization, 6, preserve_sparsity)
    end = centroids.k_means(
        tf.constant(ASCENDING), tf.constant(begin), preserve_sparsity=preserve_sparsity
    ).numpy()
    found = centroids.clusters_finder(6, initialization, preserve_sparsity)(rows).numpy()
    for row, values, clusters in zip(ROWS, end, found, strict=True):
        nearest = np.argmin(np.abs(row[:, None] - values), axis=1)  # as TFMOT's pulling indices
        if preserve_sparsity:  # the cluster of zeros is the first one
            order = [np.argmin(np.abs(values)), *np.flatnonzero(values)]
            nearest = np.argsort(order)[nearest]
        np.testing.assert_array_equal(clusters, nearest)


@pytest.mark.parametrize(
    "row", [np.zeros(8), np.ones(8), -np.ones(8), np.r_[np.zeros(4), 1, 2, 3, 4], [0.5]]
)
@initialization
@preserving
def test_rows_of_few_values(row, initialization, preserve_sparsity):
    row = np.asarray([row], "float32")
    found = centroids.clusters_finder(4, initialization, preserve_sparsity)(row).numpy()
    assert np.all((found >= 0) & (found < 4))
    for cluster in np.unique(found):
        if cluster or not preserve_sparsity:
            assert np.ptp(row[found == cluster]) <= 1.0
    if preserve_sparsity:
        assert np.all(found[row == 0] == 0)


def test_sums_of_a_million_equal_weights_are_exact():
    weights, clusters = tf.fill([1000, 1000], 0.1), tf.zeros([1000, 1000], tf.int32)
    sums = cluster_sums(weights, clusters, 2)
    np.testing.assert_allclose(sums, [np.float64(np.float32(0.1)) * 1e6, 0.0], rtol=1e-9)
    np.testing.assert_array_equal(cluster_sizes(clusters, 2), [1e6, 0.0])


def clustered(kernel, inner=None, number=4, **options):
    """Returns a Dense without bias whose kernel has been clustered, and its optimizer."""
    layer = keras.layers.Dense(kernel.shape[1], use_bias=False)
    layer.build((None, kernel.shape[0]))
    layer.kernel.assign(kernel)
    options = {"straight_through": False, **options}
    optimizer = tfpeft.WeightClustering(inner or keras.optimizers.SGD(1.0), number, **options)
    step(optimizer, layer, np.zeros_like(kernel))
    return layer, optimizer


def step(optimizer, layer, gradient):
    optimizer.apply([tf.constant(gradient, tf.float32)], [layer.kernel])
    return layer.kernel.numpy()


KERNEL = ROWS.reshape(12, 10)
GRADIENT = np.random.default_rng(1).normal(size=KERNEL.shape).astype("float32")


@preserving
@pytest.mark.parametrize("per_channel", [True, False])
def test_gradients_are_aggregated_over_clusters(per_channel, preserve_sparsity):
    layer, optimizer = clustered(
        KERNEL, per_channel=per_channel, preserve_sparsity=preserve_sparsity
    )
    before = layer.kernel.numpy()
    columns = range(10) if per_channel else [slice(None)]
    expected = before.copy()
    for column in columns:
        part = before[:, column]
        for value in np.unique(part):
            where = part == value
            if value or not preserve_sparsity:
                expected[:, column][where] = value - np.mean(GRADIENT[:, column][where])
    after = step(optimizer, layer, GRADIENT)
    np.testing.assert_allclose(after, expected, atol=1e-5)
    axes = (1,) if per_channel else ()
    assert distinct_values(after, axes) == distinct_values(before, axes) == 4


def test_aggregated_gradients_are_those_of_tfmot():
    from tensorflow_model_optimization.python.core.clustering.keras import (
        cluster_config,
        clustering_algorithm,
    )

    layer, optimizer = clustered(KERNEL, preserve_sparsity=False)
    before = layer.kernel.numpy()
    values = tf.Variable(np.unique(before))
    average = cluster_config.GradientAggregation.AVG
    algorithm = clustering_algorithm.ClusteringAlgorithm(values, average)
    indices = algorithm.get_pulling_indices(tf.constant(before))
    with tf.GradientTape() as tape:
        weight = algorithm.get_clustered_weight(indices, tf.constant(before))
        loss = tf.reduce_sum(weight * GRADIENT)
    gradient = tape.gradient(loss, values).numpy()
    np.testing.assert_array_equal(weight, before)
    after = step(optimizer, layer, GRADIENT)
    np.testing.assert_allclose(after, (values.numpy() - gradient)[indices.numpy()], atol=1e-5)


def test_weights_become_the_mean_of_their_cluster():
    layer, _ = clustered(KERNEL, preserve_sparsity=False)
    values = layer.kernel.numpy()
    for value in np.unique(values):
        np.testing.assert_allclose(value, np.mean(KERNEL[values == value]), rtol=1e-5)
    nearest = np.argmin(np.abs(KERNEL[..., None] - np.unique(values)), axis=-1)
    np.testing.assert_array_equal(np.unique(values)[nearest], values)


def test_zeros_are_kept_and_count():
    layer, optimizer = clustered(KERNEL, keras.optimizers.Adam(0.1), 5)
    was_zero = layer.kernel.numpy() == 0
    assert np.all(was_zero[KERNEL == 0])
    for _ in range(3):
        after = step(optimizer, layer, GRADIENT)
    np.testing.assert_array_equal(after == 0, was_zero)
    assert distinct_values(after) == 5
    assert not np.any(np.signbit(after[after == 0]))
    layer, optimizer = clustered(KERNEL, number=5, preserve_sparsity=False)
    assert not np.any(layer.kernel == 0)


def test_moves_with_adam_are_those_of_one_weight():
    """Aggregated gradients go into Adam: a cluster moves as one weight of that gradient does."""
    layer, optimizer = clustered(KERNEL, keras.optimizers.Adam(0.01), preserve_sparsity=False)
    before = layer.kernel.numpy()
    single = tf.Variable(np.unique(before))
    adam = keras.optimizers.Adam(0.01)
    adam.apply([tf.zeros(4)], [single])
    means = [np.mean(GRADIENT[before == value]) for value in np.unique(before)]
    for _ in range(3):
        adam.apply([tf.constant(means)], [single])
        after = step(optimizer, layer, GRADIENT)
    np.testing.assert_allclose(np.unique(after), np.sort(single.numpy()), rtol=1e-5)


@preserving
def test_weights_train_on_behind_their_clusters(preserve_sparsity):
    """The mean of each cluster, after each weight has gone to the nearest one, by a loop."""
    layer, optimizer = clustered(
        KERNEL,
        keras.optimizers.SGD(0.1),
        straight_through=True,
        preserve_sparsity=preserve_sparsity,
    )
    values = layer.kernel.numpy()
    numbers = np.unique(values)
    clusters = np.searchsorted(numbers, values)  # of a first update without a gradient
    kept = (KERNEL == 0) & preserve_sparsity
    dense = KERNEL.copy()
    rng = np.random.default_rng(3)

    def means():
        found = [np.mean(dense[clusters == j]) for j in range(4)]
        return np.array(
            [
                0.0 if v == 0 and preserve_sparsity else m
                for v, m in zip(numbers, found, strict=True)
            ]
        )

    for _ in range(5):
        gradient = rng.normal(size=KERNEL.shape).astype("float32") * 2
        dense = np.where(kept, 0.0, dense - 0.1 * gradient)
        clusters = np.argmin(np.abs(dense[..., None] - means()), axis=-1)
        after = step(optimizer, layer, gradient)
        np.testing.assert_allclose(after, means()[clusters], atol=1e-5)
        assert np.all(after[kept] == 0)
        if preserve_sparsity:
            numbers = np.where(numbers == 0, 0.0, 1.0)
    assert np.any(clusters != np.searchsorted(np.unique(values), values))


def test_weights_that_are_set_from_outside_train_on():
    layer, optimizer = clustered(KERNEL, keras.optimizers.SGD(0.1), straight_through=True)
    layer.kernel.assign(2.0 * layer.kernel)
    expected = layer.kernel.numpy()
    np.testing.assert_allclose(step(optimizer, layer, 0 * KERNEL), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("build", "shape", "axes"),
    [
        (lambda: keras.layers.Conv2D(3, 2), (None, 4, 4, 2), (3,)),
        (lambda: keras.layers.Conv2DTranspose(3, 2), (None, 4, 4, 2), (2,)),
        (lambda: keras.layers.EinsumDense("abc,cde->abde", (None, 2, 3)), (None, 4, 6), (1, 2)),
        (lambda: keras.layers.DepthwiseConv2D(3), (None, 4, 4, 2), (3,)),
    ],
)
def test_channels_are_those_of_the_layer(build, shape, axes):
    layer = build()
    layer.build(shape)
    kernel = layer.kernel
    inner = keras.optimizers.SGD(0.1)
    optimizer = tfpeft.WeightClustering(inner, 3, per_channel=True, preserve_sparsity=False)
    optimizer.apply([tf.ones(kernel.shape)], [kernel])
    assert optimizer.promised_values() == [(kernel, 3, axes)]
    assert distinct_values(kernel.numpy(), axes) == 3
    channels = np.prod([kernel.shape[axis] for axis in axes])
    assert (distinct_values(kernel.numpy()) > 3) == (channels > 1)


def test_more_than_256_clusters():
    kernel = np.random.default_rng(2).normal(size=(40, 40)).astype("float32")
    layer, optimizer = clustered(kernel, number=300, initialization="density")
    assert [v.dtype for v in optimizer._states["cluster"]] == ["uint16"]
    assert 256 < distinct_values(step(optimizer, layer, 0.1 * kernel)) <= 300


def test_a_kernel_that_was_frozen_is_clustered_when_it_trains():
    layers = [keras.layers.Dense(6, use_bias=False) for _ in range(2)]
    for layer in layers:
        layer.build((None, 6))
    variables = [layer.kernel for layer in layers]
    optimizer = tfpeft.WeightClustering(keras.optimizers.SGD(0.1), 3)
    optimizer.build(variables)
    gradient = tf.ones((6, 6))
    optimizer.apply([gradient], variables[:1])
    optimizer.finalize_variable_values(variables)
    assert [distinct_values(v.numpy()) for v in variables] == [3, 36]
    optimizer.apply([gradient, gradient], variables)
    assert [distinct_values(v.numpy()) for v in variables] == [3, 3]


def test_it_begins_when_pruning_has_ended():
    keras.utils.set_random_seed(0)
    model = compiled(sequential(), tfpeft.WeightClustering(pruning(), 4))
    optimizer = model.optimizer
    assert optimizer.begin_step == optimizer.inner_optimizer.end_step == 6
    train(model, epochs=1)
    with pytest.raises(ValueError, match=r"hidden/kernel: \d+ values, not 4, at step 4"):
        tfpeft.strip_clustering(model)
    train(model, epochs=1)
    plain = tfpeft.strip_clustering(model)
    assert not plain.compiled
    assert not plain.losses
    for layer in plain.layers:
        assert distinct_values(layer.kernel.numpy()) <= 4
    assert zeros(plain.layers[0].kernel) >= 30
    tfpeft.strip_pruning(model)


def test_promises_are_saved_and_verified(tmp_path):
    keras.utils.set_random_seed(0)
    model = compiled(sequential(), tfpeft.WeightClustering(keras.optimizers.SGD(0.1), 3))
    train(model, epochs=1)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras", compile=False)
    tfpeft.strip_clustering(loaded)
    loaded.layers[0].kernel.assign_add(np.arange(60.0).reshape(6, 10))
    with pytest.raises(ValueError, match=r"hidden/kernel: 60 values, not 3, at step 4"):
        tfpeft.strip_clustering(loaded)
    with pytest.raises(ValueError, match="no WeightClustering trained"):
        tfpeft.strip_clustering(sequential())
    with pytest.raises(ValueError, match="`model`, expected a keras.Model"):
        tfpeft.strip_clustering(3)


def test_strip_hands_tf_keras_models_to_tfmot():
    import tf_keras

    inner = tf_keras.Sequential([tf_keras.layers.Dense(4, input_shape=(6,))])
    linear = tfmot.clustering.keras.CentroidInitialization.LINEAR
    wrapped = tfmot.clustering.keras.cluster_weights(inner, 4, linear)
    stripped = tfpeft.strip_clustering(wrapped)
    assert isinstance(stripped.layers[0], tf_keras.layers.Dense)
    assert distinct_values(stripped.get_weights()[0]) == 4


def test_averages_of_weights_are_clustered():
    inner = keras.optimizers.SGD(0.1, use_ema=True, ema_momentum=0.9)
    layer, optimizer = clustered(KERNEL, inner, begin_step=3)
    for _ in range(4):
        step(optimizer, layer, GRADIENT)
    (average,) = optimizer.states()["average"]
    assert distinct_values(average.numpy()) == 4
    weights = layer.kernel.numpy()
    optimizer.finalize_variable_values([layer.kernel])
    averages = layer.kernel.numpy()
    assert distinct_values(averages) == 4
    assert np.any(averages != weights)
    np.testing.assert_array_equal(averages == 0, weights == 0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"number_of_clusters": 1}, "`number_of_clusters`, expected an integer from 2 to 65,536"),
        ({"number_of_clusters": 2.0}, "`number_of_clusters`"),
        ({"number_of_clusters": True}, "`number_of_clusters`"),
        ({"number_of_clusters": 2**16 + 1}, "`number_of_clusters`"),
        ({"initialization": "random"}, r"`initialization`, expected one of 'linear', 'density'"),
        ({"per_channel": 1}, "`per_channel`, expected True or False"),
        ({"preserve_sparsity": None}, "`preserve_sparsity`"),
        ({"straight_through": 1}, "`straight_through`, expected True or False"),
        ({"begin_step": -1}, "`begin_step`, expected an integer of at least 0"),
    ],
)
def test_bad_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.WeightClustering(keras.optimizers.SGD(0.1), **{"number_of_clusters": 4, **arguments})


def test_targeted_dropout_inside_needs_an_end():
    inner = tfpeft.TargetedDropout(keras.optimizers.SGD(0.1), 0.5, 0.5)
    with pytest.raises(ValueError, match="`begin_step`, expected an integer, as an optimizer"):
        tfpeft.WeightClustering(inner, 4)
    assert tfpeft.WeightClustering(inner, 4, begin_step=5).end_step == 5
