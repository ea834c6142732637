"""Sparse training against NumPy and numbers worked by hand."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.networks import X, Y, compiled, sequential, train, zeros
from tests.sparsity.kernel import KERNEL, variable
from tfpeft.core.arguments import InputError


def test_targeted_dropout_drops_targets_only_and_gives_them_back():
    rng = np.random.default_rng(2)
    kernel = rng.normal(size=(40, 50)).astype("float32")
    weight = variable(kernel)
    technique = tfpeft.TargetedDropout(keras.optimizers.SGD(0.0), 0.3, 0.6, end_step=50)
    targets = np.abs(kernel) < np.sort(np.abs(kernel).reshape(-1))[1200]
    drops = []
    for _ in range(49):
        technique.apply([tf.ones(kernel.shape)], [weight])
        drops.append(weight.numpy() == 0)
        assert not np.any(drops[-1] & ~targets)
        np.testing.assert_array_equal(weight.numpy()[~drops[-1]], kernel[~drops[-1]])
    np.testing.assert_allclose(np.mean([d[targets].mean() for d in drops]), 0.3, atol=0.01)
    assert np.all(np.any(drops, axis=0)[targets])
    technique.apply([tf.ones(kernel.shape)], [weight])
    np.testing.assert_array_equal(weight.numpy() == 0, targets)
    technique.apply([tf.ones(kernel.shape)], [weight])
    np.testing.assert_array_equal(weight.numpy() == 0, targets)


def test_targeted_dropout_trains_what_is_not_dropped():
    """SGD and a drop at each second update, written out in NumPy."""
    technique = tfpeft.TargetedDropout(keras.optimizers.SGD(0.1), 1.0, 0.5, frequency=2)
    weight, dense, mask = variable(), KERNEL, np.ones_like(KERNEL, bool)
    rng = np.random.default_rng(3)
    for step in range(1, 8):
        gradient = rng.normal(size=(3, 2)).astype("float32")
        technique.apply([gradient], [weight])
        dense = dense - 0.1 * gradient * mask
        if step % 2 == 0:
            mask = np.abs(dense) >= np.sort(np.abs(dense).reshape(-1))[3]
        np.testing.assert_allclose(weight.numpy(), dense * mask, atol=1e-6)


@pytest.mark.parametrize("distribution", ["erk", "uniform"])
def test_static_sparse_counts_by_hand(distribution):
    model = compiled(
        sequential(),
        tfpeft.StaticSparse(keras.optimizers.Adam(1e-2), 0.6, distribution=distribution),
    )
    train(model, epochs=1)
    # 36 of 90 stay. ERK: 16/60 and 13/30; scale = 36 / 29, densities .331 and .538.
    wanted = {"erk": [60 - 20, 30 - 16], "uniform": [36, 18]}[distribution]
    masks = [mask.numpy() for mask in model.optimizer._states["mask"]]
    assert [int((mask == 0).sum()) for mask in masks] == wanted
    train(model)
    for before, mask in zip(masks, model.optimizer._states["mask"], strict=True):
        np.testing.assert_array_equal(mask.numpy(), before)


def test_masks_of_numbers_load_as_booleans():
    """Files of 0.1.0 hold a mask as numbers of the kernel's dtype."""
    technique = tfpeft.StaticSparse(keras.optimizers.SGD(), 0.5)
    weight = variable(np.ones((4, 5)))
    technique.build([weight])
    mask = np.eye(4, 5, dtype="float32")
    store = {str(i): each.numpy() for i, each in enumerate(technique._variables)}
    [index] = [i for i, each in store.items() if each.dtype == bool]
    technique.load_own_variables({**store, index: mask})
    np.testing.assert_array_equal(technique._states["mask"][0].numpy(), mask == 1)
    technique.apply([np.zeros((4, 5), "float32")], [weight])
    np.testing.assert_array_equal(weight.numpy(), mask)


def test_seeds_draw_the_masks():
    def drawn(seed):
        technique = tfpeft.StaticSparse(keras.optimizers.SGD(), 0.5, seed=seed)
        technique.build([variable(np.ones((20, 20)))])
        return technique._states["mask"][0].numpy()

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert np.any(drawn(1) != drawn(2))


def rewired(technique_class, gradient, steps):
    """Yields (mask, kernel) after each update, from a kernel whose sizes count up."""
    kernel = np.arange(1.0, 41.0).reshape(5, 8).astype("float32")
    weight = variable(kernel)
    technique = technique_class(
        keras.optimizers.SGD(0.0), 0.5, end_step=8, frequency=2, drop_fraction=0.4
    )
    technique.build([weight])
    for _ in range(steps):
        technique.apply([gradient], [weight])
        yield technique._states["mask"][0].numpy() > 0, weight.numpy()


def test_rigl_drops_the_smallest_and_grows_by_gradient():
    gradient = np.random.default_rng(4).normal(size=(5, 8)).astype("float32")
    magnitude = np.arange(40)
    states = list(rewired(tfpeft.RigL, gradient, 9))
    for step in range(2, 10):
        (before, _), (after, kernel) = states[step - 2 : step]
        if step % 2 or step >= 8:
            np.testing.assert_array_equal(after, before)
            continue
        # n = 20 * 0.4 / 2 * (1 + cos(pi * step / 8)), rounded down
        count = int(20 * 0.2 * (1 + np.cos(np.pi * step / 8)))
        assert count == {2: 6, 4: 4, 6: 1}[step]
        # Weights that were grown are still 0, and so the smallest.
        sizes = np.where(states[step - 2][1] != 0, 1.0 + magnitude.reshape(5, 8), 0.0)
        ranked = sorted(np.flatnonzero(before), key=lambda i: sizes.reshape(-1)[i])
        stays = np.setdiff1d(np.flatnonzero(before), ranked[:count])
        others = np.setdiff1d(np.arange(40), stays)
        best = sorted(others, key=lambda i: -abs(gradient.reshape(-1)[i]))[:count]
        expected = np.zeros(40, bool)
        expected[[*stays, *best]] = True
        np.testing.assert_array_equal(after.reshape(-1), expected)
        assert np.all(kernel.reshape(-1)[np.setdiff1d(best, stays)] == 0)


def test_set_grows_at_random_and_keeps_the_count():
    states = list(rewired(tfpeft.SET, np.ones((5, 8), "float32"), 7))
    assert {int(mask.sum()) for mask, _ in states} == {20}
    changed = [int(np.sum(a[0] & ~b[0])) for a, b in zip(states[:-1], states[1:], strict=True)]
    assert changed[1] == changed[3] == changed[5] == 0
    assert 0 < changed[0] <= 6
    assert 0 < changed[2] <= 4
    again = list(rewired(tfpeft.SET, np.ones((5, 8), "float32"), 7))
    np.testing.assert_array_equal(again[-1][0], states[-1][0])


def test_a_dense_kernel_stays_as_it_is():
    """ERK makes small kernels dense; there is nothing to drop and grow in them."""
    large, small = variable(np.ones((40, 40))), keras.Variable(np.ones((2, 2)), name="small_kernel")
    technique = tfpeft.RigL(keras.optimizers.SGD(0.0), 0.9, end_step=10, frequency=1)
    for _ in range(5):
        technique.apply([tf.ones((40, 40)), tf.ones((2, 2))], [large, small])
    np.testing.assert_array_equal(small.numpy(), np.ones((2, 2)))


@pytest.mark.parametrize("dtype", ["float16", "float64"])
def test_kernels_of_another_precision(dtype):
    for make in (
        lambda inner: tfpeft.TargetedDropout(inner, 0.5, 0.5, end_step=2),
        lambda inner: tfpeft.RigL(inner, 0.5, end_step=8, frequency=2),
        lambda inner: tfpeft.SET(inner, 0.5, end_step=8, frequency=2),
        lambda inner: tfpeft.ProximalL1(inner, 2.0),
        lambda inner: tfpeft.ProximalGroupL1(inner, 4.0),
    ):
        weight = variable(dtype=dtype)
        technique = make(keras.optimizers.SGD(0.1))
        for _ in range(2):
            technique.apply([tf.cast(0.1 * KERNEL, dtype)], [weight])
        assert zeros(weight) >= 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda o: tfpeft.ProximalL1(o, 0.0), "`l1`.*positive.*0.0"),
        (lambda o: tfpeft.ProximalGroupL1(o, -1.0), "`l1`.*-1.0"),
        (lambda o: tfpeft.TargetedDropout(o, 0.0, 0.5), r"`drop_rate`.*\(0, 1\].*0.0"),
        (lambda o: tfpeft.TargetedDropout(o, 0.5, 1.0), r"`target_fraction`.*\[0, 1\).*1.0"),
        (lambda o: tfpeft.TargetedDropout(o, 0.5, 0.5, end_step=0), "`end_step`.*0"),
        (lambda o: tfpeft.StaticSparse(o, 1.0), r"`sparsity`.*\[0, 1\).*1.0"),
        (lambda o: tfpeft.StaticSparse(o, 0.5, distribution="even"), "`distribution`.*'even'"),
        (lambda o: tfpeft.StaticSparse(o, 0.5, seed=None), "`seed`.*None"),
        (lambda o: tfpeft.TargetedDropout(o, 0.5, 0.5, seed=1.5), "`seed`.*1.5"),
        (lambda o: tfpeft.SET(o, 0.5, end_step=0.5), "`end_step`.*0.5"),
        (lambda o: tfpeft.RigL(o, 0.5, end_step=5, frequency=0), "`frequency`.*0"),
        (lambda o: tfpeft.RigL(o, 0.5, end_step=5, drop_fraction=2), "`drop_fraction`.*2"),
        (lambda o: tfpeft.l1_regularize("model", 0.1), "`model`.*'model'"),
        (lambda o: tfpeft.l1_regularize(sequential(), 0.0), "`l1`.*0.0"),
        (lambda o: tfpeft.l1_regularize(sequential(), 0.1, exclude="head"), "`exclude`.*'head'"),
        (lambda o: tfpeft.l1_regularize(sequential(), 0.1, exclude=["tail"]), "`exclude`.*tail"),
        (
            lambda o: tfpeft.l1_regularize(
                keras.Sequential(
                    [keras.Input((2,)), keras.layers.Dense(1, kernel_regularizer=_odd)]
                ),
                0.1,
            ),
            "`model`.*L1 or L2",
        ),
    ],
)
def test_bad_input_names_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make(keras.optimizers.SGD())


@keras.saving.register_keras_serializable(package="tests")
def _odd(weight):
    return keras.ops.sum(weight)


def test_targeted_dropout_ends_sparse_with_fit_and_goes_on():
    model = compiled(sequential(), tfpeft.TargetedDropout(keras.optimizers.Adam(1e-2), 0.5, 0.5))
    for _ in range(2):
        model.fit(X, Y, batch_size=8, verbose=0)
        assert [zeros(layer.kernel) for layer in model.layers] == [30, 15]
        tfpeft.strip_pruning(model)


def test_small_numbers_of_float16_are_not_lost():
    """Squares of 1e-4 are 0 in float16, and so would their norm be."""
    weight = variable(np.full((8, 2), 1e-4), "float16")
    before = weight.numpy()
    technique = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.01), 1e-5)
    technique.apply([tf.zeros((8, 2), tf.float16)], [weight])
    np.testing.assert_allclose(weight.numpy(), before, rtol=2e-3)


def test_scores_add_up_in_float32():
    always = tfpeft.constant_sparsity(0.5, begin=0, total_steps=10, frequency=1)
    weight = variable(np.ones((2, 2)), "bfloat16")
    technique = tfpeft.MovementPruning(keras.optimizers.SGD(0.0), always, straight_through=True)
    step = tf.function(lambda g: technique.apply([g], [weight]))
    for _ in range(300):  # bfloat16 has no odd number above 256
        step(tf.constant([[-1.0, -1.25], [-1.5, -1.75]], tf.bfloat16))
    scores = technique._states["score"][0].numpy()
    np.testing.assert_allclose(scores, [[300, 375], [450, 525]])


INNER = {
    "adam": lambda: keras.optimizers.Adam(0.01, amsgrad=True, use_ema=True),
    "adagrad": lambda: keras.optimizers.Adagrad(0.01),
    "loss_scale": lambda: keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01), 8.0),
    "nested": lambda: tfpeft.ProximalL1(keras.optimizers.SGD(0.01, momentum=0.9), 1e-4),
    "adafactor": lambda: keras.optimizers.Adafactor(0.01),
}
MOMENTS = {"adam": 3, "adagrad": 1, "loss_scale": 2, "nested": 1, "adafactor": 1}


def test_an_optimizer_of_other_variables_raises_as_in_keras():
    adam = keras.optimizers.Adam()
    adam.build([variable(np.ones((4, 4)))])
    technique = tfpeft.RigL(adam, 0.5, end_step=80)
    with pytest.raises(ValueError, match="Unknown variable"):
        technique.build([variable(np.ones((4, 4)))])


@pytest.mark.parametrize("inner", INNER)
def test_what_grows_starts_with_fresh_moments(inner):
    """All gradients are 1 before, so a moment is 0 (or Adagrad's 0.1) only where it was reset."""
    others = keras.Variable(np.ones(3), name="bias")
    weight = variable(np.arange(1.0, 41.0).reshape(5, 8))
    technique = tfpeft.RigL(INNER[inner](), 0.5, end_step=80, frequency=4, drop_fraction=0.4)
    gradients = [tf.ones((5, 8)), tf.ones(3)]
    for step in range(1, 5):
        before = technique._states["mask"][0].numpy() > 0 if step > 1 else None
        technique.apply(gradients, [weight, others])
    grown = (technique._states["mask"][0].numpy() > 0) & ~before
    assert grown.sum() > 0
    moments = {name: m for name, m in technique.states().items() if name.startswith("moment")}
    assert len(moments) == MOMENTS[inner]
    own = {id(v) for v in technique._variables}
    assert not own & {id(v) for v in technique.inner_optimizer.variables}  # saved once
    stayed = (technique._states["mask"][0].numpy() > 0) & (weight.numpy() != 0)
    for (moment,) in moments.values():
        initial = np.float32(0.1 if inner == "adagrad" else 0.0)
        assert np.all(moment.numpy()[grown] == initial)
        if inner != "adafactor":  # whose velocity of a matrix is not used
            assert np.all(moment.numpy()[stayed] != initial)
    for moment in technique.inner_optimizer.variables:
        if "bias" in moment.path and inner != "adafactor":
            assert np.all(moment.numpy() != 0)


@pytest.mark.parametrize(
    ("end_step", "frequency"), [(2, 1), (20, 5), (100, 25), (101, 100), (1000, 100)]
)
def test_connections_change_before_the_end_by_default(end_step, frequency):
    for cls in (tfpeft.SET, tfpeft.RigL):
        assert cls(keras.optimizers.SGD(), 0.5, end_step=end_step).frequency == frequency


@pytest.mark.parametrize(
    ("options", "name"),
    [
        ({"end_step": 50, "frequency": 50}, "frequency"),
        ({"end_step": 50, "frequency": 100}, "frequency"),
        ({"end_step": 1}, "end_step"),
        ({"end_step": True}, "end_step"),
        ({"end_step": "20"}, "end_step"),
    ],
)
def test_connections_that_could_never_change(options, name):
    for cls in (tfpeft.SET, tfpeft.RigL):
        with pytest.raises(InputError, match=f"`{name}`.*Received: {name}="):
            cls(keras.optimizers.SGD(), 0.5, **options)


def test_masks_of_a_short_run_move_without_a_frequency():
    kernel = variable(np.ones((8, 8)))
    technique = tfpeft.SET(keras.optimizers.SGD(0.0), 0.5, end_step=20)
    technique.build([kernel])
    before = technique._states["mask"][0].numpy()
    for _ in range(20):
        technique.apply([np.ones((8, 8), "float32")], [kernel])
    mask = technique._states["mask"][0].numpy()
    assert np.sum(mask) == 32
    assert np.any(mask != before)


def test_a_frequency_that_version_0_1_0_saved_is_replaced():
    config = tfpeft.RigL(keras.optimizers.SGD(), 0.5, end_step=40).get_config()
    assert tfpeft.RigL.from_config({**config, "frequency": 100}).frequency == 10
    assert tfpeft.RigL.from_config({**config, "end_step": 1, "frequency": 100}).end_step == 2
