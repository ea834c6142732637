"""Criteria, patterns and strip_pruning against TFMOT, NumPy and numbers worked by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.networks import sequential, zeros
from tests.sparsity.tfmot_schedules import at, pruning, schedule, tfmot
from tfpeft.core.arguments import InputError


def test_step_by_step_against_numpy():
    """Plain SGD and the masks, written out in NumPy."""
    kernel = np.array([[0.9, -0.1], [0.05, -0.8], [0.3, 0.2]], "float32")
    weight = keras.Variable(kernel, name="kernel")
    gradient = np.array([[0.1, 0.0], [-0.4, 0.0], [0.1, 0.4]], "float32")
    optimizer = tfpeft.MagnitudePruning(
        keras.optimizers.SGD(1.0), tfmot.sparsity.keras.ConstantSparsity(0.5, 1, frequency=2)
    )
    mask = np.ones_like(kernel, bool)
    for step in range(1, 6):
        optimizer.apply([gradient], [weight])
        kernel = kernel - gradient
        if step % 2 == 1:
            mask = np.abs(kernel) >= np.sort(np.abs(kernel).reshape(-1))[3]
        kernel = kernel * mask
        np.testing.assert_allclose(weight.numpy(), kernel, atol=1e-6)
        np.testing.assert_array_equal(weight.numpy() == 0.0, ~mask)


def test_first_step_takes_what_the_schedule_says_of_step_zero():
    weight = keras.Variable(np.arange(1.0, 11.0).reshape(2, 5), name="kernel")
    constant = tfmot.sparsity.keras.ConstantSparsity(0.5, begin_step=0, frequency=100)
    optimizer = tfpeft.MagnitudePruning(keras.optimizers.SGD(0.0), constant)
    optimizer.apply([tf.zeros((2, 5))], [weight])
    np.testing.assert_array_equal(weight.numpy(), [[0, 0, 0, 0, 0], [6, 7, 8, 9, 10]])


KERNEL = np.array([[0.9, -0.1], [0.05, -0.8], [0.3, 0.2]], "float32")
GRADIENTS = np.array(
    [[[0.1, 5.0], [-0.4, 0.0], [0.1, 0.4]], [[-0.3, -4.0], [9.0, 0.1], [0.2, -0.6]]], "float32"
)


def run(technique, gradients=GRADIENTS, kernel=KERNEL):
    weight = keras.Variable(kernel, name="kernel")
    values = []
    for gradient in gradients:
        technique.apply([gradient], [weight])
        values.append(weight.numpy())
    return values


def test_gradient_pruning_against_numpy():
    """The mean of |w * g| since the last update, w as it was when g was taken."""
    technique = tfpeft.GradientPruning(keras.optimizers.SGD(0.1), at(0.5, 2))
    first, second = run(technique)
    np.testing.assert_allclose(first, KERNEL - 0.1 * GRADIENTS[0], atol=1e-6)
    scores = (np.abs(KERNEL * GRADIENTS[0]) + np.abs(first * GRADIENTS[1])) / 2
    kept = scores >= np.sort(scores.reshape(-1))[3]
    np.testing.assert_allclose(second, kept * (first - 0.1 * GRADIENTS[1]), atol=1e-6)
    assert not np.array_equal(kept, np.abs(first) >= np.sort(np.abs(first).reshape(-1))[3])
    np.testing.assert_array_equal(technique._states["score"][0].numpy(), np.zeros((3, 2)))


def test_movement_pruning_against_numpy():
    """The sum of -w * g over all steps, which an update of the masks does not reset."""
    technique = tfpeft.MovementPruning(keras.optimizers.SGD(0.1), at(0.5, 2))
    first, second = run(technique)
    scores = -KERNEL * GRADIENTS[0] - first * GRADIENTS[1]
    kept = scores >= np.sort(scores.reshape(-1))[3]
    np.testing.assert_allclose(second, kept * (first - 0.1 * GRADIENTS[1]), atol=1e-6)
    np.testing.assert_allclose(technique._states["score"][0].numpy(), scores, atol=1e-6)


def test_straight_through_trains_the_dense_weights():
    """w_dense <- w_dense - lr * g at all weights, of which the model computes with the kept."""
    gradients = np.concatenate([GRADIENTS, GRADIENTS])
    technique = tfpeft.MagnitudePruning(
        keras.optimizers.SGD(0.1), at(0.5, 1, 3), straight_through=True
    )
    dense, mask = KERNEL, None
    for step, (gradient, value) in enumerate(
        zip(gradients, run(technique, gradients), strict=True)
    ):
        dense = dense - 0.1 * gradient
        if step in (0, 2):
            old, mask = mask, np.abs(dense) >= np.sort(np.abs(dense).reshape(-1))[3]
        np.testing.assert_allclose(value, dense * mask, atol=1e-6)
    assert np.any(mask & ~old)  # a weight came back with what it had learned


def test_straight_through_keeps_what_is_set_from_outside():
    weight = keras.Variable(np.array([[1.0, 2.0, 3.0, 4.0]], "float32"), name="kernel")
    technique = tfpeft.MagnitudePruning(
        keras.optimizers.SGD(1.0), at(0.5, 1), straight_through=True
    )
    technique.apply([np.zeros((1, 4), "float32")], [weight])
    np.testing.assert_array_equal(weight.numpy(), [[0.0, 0.0, 3.0, 4.0]])
    weight.assign([[9.0, 9.0, 0.1, -1e-20]])
    technique.apply([np.zeros((1, 4), "float32")], [weight])
    np.testing.assert_array_equal(weight.numpy(), np.float32([[0.0, 0.0, 0.1, -1e-20]]))
    np.testing.assert_array_equal(
        technique._states["dense"][0].numpy(), np.float32([[1.0, 2.0, 0.1, -1e-20]])
    )


def test_random_pruning_nests_and_depends_on_the_seed_only():
    def masks_of(seed):
        technique = tfpeft.RandomPruning(
            keras.optimizers.SGD(0.0), lambda step: (True, tf.where(step < 2, 0.3, 0.6)), seed=seed
        )
        return [value != 0 for value in run(technique, np.zeros((2, 10, 10)), np.ones((10, 10)))]

    (few, many), again, other = masks_of(1), masks_of(1), masks_of(2)
    assert [int(m.sum()) for m in (few, many)] == [70, 40]
    assert np.all(few[many])
    np.testing.assert_array_equal(many, again[1])
    assert np.any(many != other[1])


def test_a_custom_criterion_is_one_method():
    class SmallestFirst(tfpeft.Pruning):
        def calculate_scores(self, kernel):
            return -tf.abs(kernel.weight)

    (value,) = run(SmallestFirst(keras.optimizers.SGD(0.0), at(0.5, 1)), GRADIENTS[:1])
    np.testing.assert_array_equal(value == 0, np.abs(KERNEL) > 0.25)


def test_scopes_by_hand():
    kernels = {"small": np.array([[1.0, 2.0], [3.0, 4.0]]), "large": 10.0 + np.arange(16.0)}
    # erk: sum / prod is 1 and 1/2, so scale = 10 / (4 + 8) and densities are .833 and .417.
    expected = {"layer": (2, 8), "global": (4, 6), "erk": (1, 9)}
    for scope, zeros_of in expected.items():
        variables = [
            keras.Variable(kernels["small"], name="small_kernel"),
            keras.Variable(kernels["large"].reshape(4, 4), name="large_kernel"),
        ]
        technique = tfpeft.MagnitudePruning(keras.optimizers.SGD(0.0), at(0.5, 1), scope=scope)
        technique.apply([tf.zeros(v.shape) for v in variables], variables)
        assert tuple(zeros(v) for v in variables) == zeros_of, scope


def test_blocks_and_patterns_reach_the_weights_of_convolutions():
    rng = np.random.default_rng(0)
    for options, final in (({"block_size": (4, 1)}, 0.5), ({"n_m": (1, 4)}, 0.75)):
        layer = keras.layers.Conv2D(5, 3)
        layer.build((None, 9, 9, 8))
        weight = layer.kernel
        weight.assign(rng.normal(size=weight.shape))
        technique = tfpeft.MagnitudePruning(keras.optimizers.SGD(0.0), at(final, 1), **options)
        technique.apply([tf.zeros(weight.shape)], [weight])
        groups = (weight.numpy() != 0).reshape(9, 2, 4, 5).sum(axis=2)
        if "n_m" in options:
            assert np.all(groups == 1)
        else:
            assert set(groups.reshape(-1)) == {0, 4}
            assert (groups == 0).sum() == 45
        assert technique.promised_zeros() == [([weight], round(360 * final))]


def test_a_fixed_mask_keeps_the_momentum_of_pruned_weights_at_zero():
    technique = tfpeft.FixedMask(keras.optimizers.SGD(0.1, momentum=0.9))
    kernel = KERNEL * (np.abs(KERNEL) > 0.1)
    first, second = run(technique, GRADIENTS, kernel)
    np.testing.assert_allclose(first, kernel - 0.1 * GRADIENTS[0] * (kernel != 0), atol=1e-6)
    np.testing.assert_array_equal(second == 0, kernel == 0)
    momentum = technique.inner_optimizer.momentums[0].numpy()
    assert np.all(momentum[kernel == 0] == 0)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda o: tfpeft.MagnitudePruning(o, lambda step: (True, 1.0)),
            r"`schedule`.*\[0, 1\).*1.0",
        ),
        (lambda o: tfpeft.MagnitudePruning(o, lambda step: (True, -0.1)), r"`schedule`.*-0.1"),
        (lambda o: tfpeft.MagnitudePruning(o, schedule(), scope="all"), "`scope`.*'all'"),
        (lambda o: tfpeft.MagnitudePruning(o, schedule(), block_size=4), "`block_size`.*4"),
        (lambda o: tfpeft.MagnitudePruning(o, schedule(), n_m=(4, 4)), r"`n_m`.*\(4, 4\)"),
        (lambda o: tfpeft.MagnitudePruning(o, schedule(0.8), n_m=(2, 4)), "`schedule`.*0.5.*0.8"),
        (
            lambda o: tfpeft.MagnitudePruning(o, schedule(), n_m=(2, 4), scope="global"),
            "`n_m`.*scope='layer'",
        ),
        (
            lambda o: tfpeft.MagnitudePruning(o, schedule(), block_size=(4, 1)).build(
                sequential().weights
            ),
            r"`block_size`.*hidden/kernel.*\(4, 1\).*6 x 10",
        ),
        (
            lambda o: tfpeft.MagnitudePruning(o, schedule(), n_m=(2, 4)).build(
                sequential().weights
            ),
            r"`n_m`.*hidden/kernel.*6 inputs",
        ),
    ],
)
def test_bad_input_names_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make(keras.optimizers.SGD())


@pytest.mark.parametrize("dtype", ["float16", "float64"])
@pytest.mark.parametrize("straight_through", [False, True])
def test_kernels_of_another_precision(dtype, straight_through):
    for criterion in (tfpeft.MagnitudePruning, tfpeft.GradientPruning, tfpeft.MovementPruning):
        weight = keras.Variable(KERNEL, name="kernel", dtype=dtype)
        technique = criterion(
            keras.optimizers.SGD(0.1), at(0.5, 2), straight_through=straight_through
        )
        for gradient in GRADIENTS:
            technique.apply([tf.cast(gradient, dtype)], [weight])
        assert zeros(weight) == 3


def attention():
    layer = keras.layers.MultiHeadAttention(2, 4)
    layer.build((None, 3, 8), (None, 3, 8))
    return layer


def einsum():
    layer = keras.layers.EinsumDense("abc,dce->abed", (None, 2, 4))
    layer.build((None, 3, 8))
    return layer


def transposed():
    layer = keras.layers.Conv2DTranspose(4, 3)
    layer.build((None, 5, 5, 8))
    return layer


# A kernel, and the order of its axes as positions x inputs x outputs, and that matrix's shape.
PLACES = {
    "query": (lambda: attention().query_dense, (0, 1, 2), (1, 8, 8)),
    "attention_output": (lambda: attention().output_dense, (0, 1, 2), (1, 8, 8)),
    "einsum": (einsum, (1, 0, 2), (1, 8, 8)),
    "transposed": (transposed, (0, 1, 3, 2), (9, 8, 4)),
}


@pytest.mark.parametrize("place", PLACES)
def test_patterns_know_the_inputs_of_each_layer(place):
    """In NumPy: of each 4 inputs of an output the largest stays, or of blocks half of them."""
    make, order, shape = PLACES[place]
    layer = make()
    values = np.random.default_rng(3).normal(size=layer.kernel.shape).astype("float32")
    positions, inputs, outputs = shape
    matrices = np.abs(values.transpose(order)).reshape(positions, inputs // 4, 4, outputs)
    means = matrices.mean(axis=2, keepdims=True)
    expected = {
        "n_m": matrices == matrices.max(axis=2, keepdims=True),
        "block_size": np.broadcast_to(means > np.median(means), matrices.shape),
    }
    for options, final in (({"n_m": (1, 4)}, 0.75), ({"block_size": (4, 1)}, 0.5)):
        layer.kernel.assign(values)
        technique = tfpeft.MagnitudePruning(keras.optimizers.SGD(0.0), at(final, 1), **options)
        technique.apply([tf.zeros(values.shape)], [layer.kernel])
        kept = (layer.kernel.numpy() != 0).transpose(order).reshape(matrices.shape)
        np.testing.assert_array_equal(kept, expected[next(iter(options))])
        assert technique.promised_zeros() == [([layer.kernel], round(values.size * final))]


@pytest.mark.parametrize("place", PLACES)
def test_groups_are_output_channels_of_each_layer(place):
    make, order, shape = PLACES[place]
    layer = make()
    values = np.random.default_rng(4).normal(size=layer.kernel.shape).astype("float32")
    layer.kernel.assign(values)
    matrix = values.transpose(order).reshape(shape)
    norms = np.sqrt(np.sum(np.square(matrix), axis=(0, 1)))
    root = np.sqrt(shape[0] * shape[1])
    l1 = float(10 * np.median(norms) / root)  # half of the channels vanish
    technique = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.1), l1)
    technique.apply([tf.zeros(values.shape)], [layer.kernel])
    expected = matrix * np.maximum(1 - 0.1 * l1 * root / norms, 0)
    found = layer.kernel.numpy().transpose(order).reshape(shape)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    gone = np.all(found == 0, axis=(0, 1))
    assert 0 < gone.sum() < len(gone)


def test_a_kernel_whose_axes_are_not_known_is_to_be_excluded():
    weights = [keras.Variable(np.ones(shape), name="kernel") for shape in ((4, 8, 8), (8, 8))]
    for make in (
        lambda: tfpeft.ProximalGroupL1(keras.optimizers.SGD(), 0.1),
        lambda: pruning(block_size=(4, 1)),
    ):
        with pytest.raises(InputError, match=r"leave kernel out by `exclude`.*\(4, 8, 8\)"):
            make().build(weights)
        make().build(weights[1:])
    pruning().build(weights)  # single weights need no axes


def test_a_criterion_that_asks_for_axes_needs_no_pattern():
    class PerOutput(tfpeft.Pruning):
        uses_axes = True

        def calculate_scores(self, kernel):
            axes = self.axes_of(self.sparse_variables[kernel.index])
            weight = tf.abs(kernel.weight)
            return weight / tf.reduce_mean(weight, axis=axes.inputs, keepdims=True)

    # Of each output (row of this EinsumDense's kernel, whose equation puts outputs first) the
    # larger weight stays, whatever the output's scale.
    layer = keras.layers.EinsumDense("bi,oi->bo", output_shape=(2,))
    model = keras.Sequential([keras.Input((2,)), layer])
    layer.kernel.assign([[1.0, 3.0], [200.0, 100.0]])
    schedule_ = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=1)
    model.compile(PerOutput(keras.optimizers.SGD(0.0), schedule_), "mse")
    model.fit(np.zeros((4, 2)), np.zeros((4, 2)), verbose=0)
    np.testing.assert_array_equal(layer.kernel, [[0.0, 3.0], [200.0, 0.0]])
