"""Masks against TFMOT, NumPy and numbers worked by hand."""

import numpy as np
import pytest
import tensorflow as tf

from tfpeft.sparsity import (
    masks,
    schedules,  # before TFMOT itself: see sparsity/tfmot_import.py
    threshold,
)

from tensorflow_model_optimization.python.core.sparsity.keras import (  # isort: skip
    pruning_impl,
)

tfmot = schedules.tfmot


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 4, 6), (200, 50)])
def test_masks_are_those_of_tfmot(sparsity, shape):
    """On equal weights, element by element, through TFMOT's own pruning of one step."""
    weights = np.random.default_rng(2).normal(size=shape).astype("float32")
    pruner = pruning_impl.Pruning(
        training_step_fn=lambda: tf.constant(0, tf.int64),
        pruning_vars=[],
        pruning_schedule=tfmot.sparsity.keras.ConstantSparsity(sparsity, 0),
        block_size=(1, 1),
        block_pooling_type="AVG",
    )
    _, expected = pruner._update_mask(tf.constant(weights))
    mask = masks.layer_mask(tf.abs(weights), sparsity)
    np.testing.assert_array_equal(mask.numpy(), expected.numpy().astype(bool))


def test_ties_are_cut_to_the_exact_number():
    mask = masks.layer_mask(tf.ones((4, 5)), 0.6)
    np.testing.assert_array_equal(mask.numpy().reshape(-1), [True] * 8 + [False] * 12)


# Compiled once for all numbers and values.
_FIND_THRESHOLD = {
    jit_compile: tf.function(threshold.find_threshold, jit_compile=jit_compile)
    for jit_compile in (False, True)
}


@pytest.mark.parametrize("count", [1, 2, 7, 450, 500, 890, 899, 900, 910, 999, 1000])
@pytest.mark.parametrize("negative", [False, True])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_threshold_equals_sorting(count, negative, jit_compile):
    values = np.random.default_rng(3).standard_cauchy(1000).astype("float32")
    if not negative:
        values = np.abs(values)
    values[:100] = np.repeat([0.0, -0.0], 50)
    values[100:110] = values[110]
    found = _FIND_THRESHOLD[jit_compile](tf.constant(values), tf.constant(count))
    limit, exact = (each.numpy() for each in found)
    ordered = np.sort(values)[::-1]
    equal = count < 1000 and ordered[count] == ordered[count - 1]
    if equal:
        assert not exact
        # TensorFlow takes the smallest floats for zero.
        assert limit == pytest.approx(ordered[count - 1], abs=1e-37)
    else:
        np.testing.assert_array_equal(values >= limit, values >= ordered[count - 1])


def test_a_search_is_traced_once_for_all_kernels():
    counts = []
    for size in (10, 20, 30):
        mask = tf.function(masks.top_mask)(tf.range(float(size)), tf.constant(3))
        np.testing.assert_array_equal(mask, np.arange(size) >= size - 3)
        counts.append(threshold._find_by_histograms.experimental_get_tracing_count())
    assert len(set(counts)) == 1  # the first may have traced it, or a test before


def _cases_of_top_mask():
    """Yields (name, scores): what a search for a threshold may get wrong."""
    rng = np.random.default_rng(11)
    n = 5000
    normal = rng.normal(size=n)
    yield "random", normal
    yield "magnitudes", np.abs(normal)
    yield "sorted", np.sort(normal)
    yield "reversed", np.sort(normal)[::-1]
    yield "period of 1000", np.tile(np.arange(1000.0), 5)
    yield "period of 1024", np.arange(n) % 1024
    yield "mostly zeros", np.where(rng.uniform(size=n) < 0.9, 0.0, normal)
    yield "zeros of both signs", np.where(rng.uniform(size=n) < 0.5, 0.0, -0.0)
    yield "zeros of both signs among others", np.round(normal) * 0.5
    yield "few values", rng.choice([-3.0, -0.5, 1e-30, 2.0, 3e38], size=n)
    yield "equal", np.full(n, -7.25)
    yield "neighbours", np.float32(1.0) + np.float32(2**-23) * rng.integers(0, 99, n)
    yield "over all magnitudes", normal * 10.0 ** rng.integers(-36, 37, n)
    yield "float16", normal.astype("float16")
    yield "a matrix", normal.reshape(50, 100)
    yield "one", np.array([3.0])
    yield "two", np.array([-1.0, -1.0])
    yield "three", np.array([0.0, -1e30, -0.0])


_TOP_MASK = {
    "eager": masks.top_mask,
    "graph": tf.function(masks.top_mask),
    "XLA": tf.function(masks.top_mask, jit_compile=True),
}


@pytest.mark.parametrize("case", list(_cases_of_top_mask()), ids=lambda case: case[0])
@pytest.mark.parametrize("mode", list(_TOP_MASK))
def test_top_mask_equals_a_stable_sort(case, mode):
    _, scores = case
    scores = scores if scores.dtype == "float16" else scores.astype("float32")
    size = scores.size
    # Stable: of equal scores those that come first.
    order = np.argsort(-scores.astype("float32"), axis=None, kind="stable")
    for count in sorted({0, 1, size // 10, size // 2, (size * 9) // 10, size - 1, size}):
        mask = _TOP_MASK[mode](tf.constant(scores), tf.constant(count)).numpy()
        assert mask.shape == scores.shape
        np.testing.assert_array_equal(np.flatnonzero(mask), np.sort(order[:count]))


def test_top_mask_of_many_scores_of_unknown_number():
    run = tf.function(
        masks.top_mask, input_signature=[tf.TensorSpec([None]), tf.TensorSpec([], "int32")]
    )
    scores = np.random.default_rng(12).normal(size=300_000).astype("float32")
    for values in (scores, np.round(scores, 2), np.sort(scores)):
        order = np.argsort(-values, kind="stable")
        for count in (1, 3_000, 150_000, 299_999, 300_000):
            kept = np.flatnonzero(run(values, count))
            np.testing.assert_array_equal(kept, np.sort(order[:count]))


@pytest.mark.parametrize("jit_compile", [False, True])
def test_xla_is_recognized_wherever_it_compiles(jit_compile):
    seen = []

    def branch():
        seen.append(threshold.compiles_with_xla())
        return 0

    nested = tf.function(branch)
    outer = tf.function(lambda x: tf.cond(x > nested(), branch, branch), jit_compile=jit_compile)
    outer(tf.constant(1))
    assert seen == [jit_compile] * 3
    branch()
    assert not seen[-1]


def test_top_mask_keeps_none_some_or_all():
    scores = tf.constant([[3.0, -1.0], [-2.0, 3.0]])
    for count, kept in ((0, []), (1, [0]), (2, [0, 3]), (3, [0, 1, 3]), (4, [0, 1, 2, 3])):
        mask = masks.top_mask(scores, count).numpy().reshape(-1)
        assert np.flatnonzero(mask).tolist() == kept
    scores = tf.constant(np.random.default_rng(7).normal(size=(30, 40)))
    for count in (0, 1, 2, 600, 1199, 1200):
        assert int(masks.top_mask(scores, count).numpy().sum()) == count


def test_global_masks_have_one_threshold():
    small, large = np.array([[1.0, 2.0, 3.0]]), np.array([[2.5], [4.0], [5.0]])
    first, second = masks.global_masks([tf.constant(small), tf.constant(large)], 0.5)
    np.testing.assert_array_equal(first, [[False, False, True]])
    np.testing.assert_array_equal(second, [[False], [True], [True]])


def test_erk_densities_by_hand():
    # sum(shape) / prod(shape) = 30/200 = .15, 12/20 = .6, 3/2 = 1.5: half of 222 is 111.
    # Were none dense, scale = 111 / 45 = 2.47 would make the last two denser than 1; so they
    # are, and the first keeps 111 - 22 = 89 of 200.
    densities = masks.erk_densities([(10, 20), (2, 10), (1, 2)], 0.5)
    np.testing.assert_allclose(densities, [89 / 200, 1.0, 1.0], rtol=1e-6)
    # 22.2 weights at 90%, scale 22.2 / 45: none is dense.
    densities = masks.erk_densities([(10, 20), (2, 10), (1, 2)], 0.9)
    np.testing.assert_allclose(densities, [0.074, 0.296, 0.74], rtol=1e-6)
    np.testing.assert_array_equal(masks.erk_densities([(10, 20), (2, 10)], 0.0), [1.0, 1.0])


@pytest.mark.parametrize("sparsity", [0.0, 0.3, 0.5, 0.9, 0.99])
def test_scaled_densities_give_the_sparsity(sparsity):
    sizes = np.array([1000, 50, 20, 400])
    densities = masks.scaled_densities([0.3, 1.0, 0.02, 0.3], sizes, sparsity).numpy()
    assert np.all((densities > 0) & (densities <= 1))
    np.testing.assert_allclose(np.sum(densities * sizes), (1 - sparsity) * sizes.sum(), rtol=1e-5)
    free = densities < 1
    scales = densities[free] / np.array([0.3, 1.0, 0.02, 0.3])[free]
    np.testing.assert_allclose(scales, scales[:1].repeat(len(scales)), rtol=1e-5)


def test_blocks_are_pooled_and_spread():
    scores = np.arange(24.0).reshape(4, 6)
    pooled = masks.pool_blocks(tf.constant(scores), (2, 3))
    np.testing.assert_array_equal(pooled, [[4.0, 7.0], [16.0, 19.0]])
    spread = masks.spread_blocks(tf.constant([[True, False], [False, True]]), (2, 3))
    expected = np.kron([[1, 0], [0, 1]], np.ones((2, 3))).astype(bool)
    np.testing.assert_array_equal(spread, expected)


def test_blocks_are_those_of_tfmot():
    weights = np.random.default_rng(5).normal(size=(8, 12)).astype("float32")
    pruner = pruning_impl.Pruning(
        training_step_fn=lambda: tf.constant(0, tf.int64),
        pruning_vars=[],
        pruning_schedule=tfmot.sparsity.keras.ConstantSparsity(0.75, 0),
        block_size=(2, 4),
        block_pooling_type="AVG",
    )
    _, expected = pruner._maybe_update_block_mask(tf.constant(weights))
    pooled = masks.pool_blocks(tf.abs(weights), (2, 4))
    mask = masks.spread_blocks(masks.layer_mask(pooled, 0.75), (2, 4))
    np.testing.assert_array_equal(mask.numpy(), expected.numpy().astype(bool))


@pytest.mark.parametrize("shape", [(8, 5), (3, 3, 16, 2)])
@pytest.mark.parametrize("n_m", [(2, 4), (1, 4), (3, 8)])
def test_n_m_is_that_of_tfmot(shape, n_m):
    if shape[-2] % n_m[1]:
        pytest.skip("the pattern does not divide this shape")
    n, m = n_m
    weights = np.random.default_rng(6).normal(size=shape).astype("float32")
    pruner = pruning_impl.Pruning(lambda: 0, [], None, (1, 1), "AVG")
    # TFMOT says how many of m are zero.
    expected = pruner._update_mask_sparsity_m_by_n(tf.constant(weights), (m - n, m))
    mask = masks.layer_mask(masks.prefer_n_m(tf.abs(weights), n, m), 1 - n / m)
    np.testing.assert_array_equal(mask.numpy(), expected.numpy().astype(bool))


@pytest.mark.parametrize(
    ("column", "n", "m", "kept"),
    [
        ([1, 1, 1, 1], 2, 4, [0, 1]),
        ([0, 0, 0, 0, 5, 5, 5, 5], 2, 4, [0, 1, 4, 5]),  # also where all of a group are zero
        ([3, 1, 1, 1], 2, 4, [0, 1]),
        ([1, 3, 1, 1], 1, 4, [1]),
        ([1, 1, 1, 9], 3, 4, [0, 1, 3]),
        ([2, 2, 2, 2, 2, 2, 2, 2], 4, 8, [0, 1, 2, 3]),
    ],
)
def test_n_m_of_equal_scores(column, n, m, kept):
    """Of equal scores the first stay: each group has n, whatever the scores are."""
    scores = np.array([column], "float32").T
    mask = masks.layer_mask(masks.prefer_n_m(tf.constant(scores), n, m), 1 - n / m)
    assert np.flatnonzero(mask).tolist() == kept


def test_one_weight_stays():
    for size, sparsity in ((1, 0.5), (3, 0.9), (10, 0.99)):
        mask = masks.layer_mask(tf.range(size, dtype="float32"), sparsity)
        assert np.flatnonzero(mask).tolist() == [size - 1]


def test_n_m_on_the_way_keeps_the_pattern_and_the_best_others():
    scores = np.array([[9.0, 8.0, 7.0, 1.0, 2.0, 3.0, 4.0, 5.0]]).T
    at = {s: masks.layer_mask(masks.prefer_n_m(tf.constant(scores), 2, 4), s) for s in (0.25, 0.5)}
    assert np.flatnonzero(at[0.5]).tolist() == [0, 1, 6, 7]
    assert np.flatnonzero(at[0.25]).tolist() == [0, 1, 2, 5, 6, 7]
