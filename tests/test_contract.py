"""One contract for every technique that is an optimizer: what training must keep."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests import networks
from tests.networks import MODELS, X, Y, compiled, sequential, train, zeros

STEPS = 8  # two epochs of four
HALF = tfpeft.polynomial_decay(0.5, begin=0.0, end=0.75, total_steps=STEPS, frequency=2)


class HalfOfAllMagnitudes(tfpeft.MagnitudePruning):
    """A custom criterion."""

    def calculate_scores(self, kernel):
        return tf.sqrt(super().calculate_scores(kernel))


TECHNIQUES = {
    "magnitude": lambda inner: tfpeft.MagnitudePruning(inner, HALF),
    "magnitude_global": lambda inner: tfpeft.MagnitudePruning(inner, HALF, scope="global"),
    "magnitude_erk": lambda inner: tfpeft.MagnitudePruning(inner, HALF, scope="erk"),
    "magnitude_straight_through": lambda inner: tfpeft.MagnitudePruning(
        inner, HALF, straight_through=True
    ),
    "gradient": lambda inner: tfpeft.GradientPruning(inner, HALF),
    "movement": lambda inner: tfpeft.MovementPruning(inner, HALF),
    "random": lambda inner: tfpeft.RandomPruning(inner, HALF, seed=3),
    "custom_criterion": lambda inner: HalfOfAllMagnitudes(inner, HALF),
    "fixed_mask": lambda inner: tfpeft.FixedMask(inner),
    "proximal_l1": lambda inner: tfpeft.ProximalL1(inner, 1.0),
    "proximal_group_l1": lambda inner: tfpeft.ProximalGroupL1(inner, 3.0),
    "targeted_dropout": lambda inner: tfpeft.TargetedDropout(inner, 0.5, 0.5),
    "targeted_dropout_until": lambda inner: tfpeft.TargetedDropout(inner, 0.5, 0.5, end_step=5),
    "static": lambda inner: tfpeft.StaticSparse(inner, 0.5),
    "set": lambda inner: tfpeft.SET(inner, 0.5, end_step=8, frequency=2),
    "rigl": lambda inner: tfpeft.RigL(inner, 0.5, end_step=8, frequency=2),
    "clustering": lambda inner: tfpeft.WeightClustering(inner, 4, per_channel=True),
    "clustering_fixed": lambda inner: tfpeft.WeightClustering(inner, 4, straight_through=False),
}
PROMISELESS = ("proximal_l1", "proximal_group_l1", "clustering", "clustering_fixed")
# XLA draws other numbers than TensorFlow from the same seed.
NOISY = ("random", "targeted_dropout", "targeted_dropout_until", "set")
technique = pytest.mark.parametrize("name", TECHNIQUES)

# Clustering has values where the others have zeros; its own tests are in tests/quantization.
# One for each way to act on weights: masks of magnitudes, masks with weights behind the zeros,
# masks of gradients, masks that stay, no masks, masks by chance, and masks that move. The other
# techniques differ from one of these in which weights they choose, and share all of its code
# for the wrapped optimizer, for replicas and for the model that is trained.
WAYS = (
    "magnitude",
    "magnitude_straight_through",
    "gradient",
    "fixed_mask",
    "proximal_l1",
    "targeted_dropout",
    "rigl",
)
way = pytest.mark.parametrize("name", WAYS)


def adam(**options):
    return keras.optimizers.Adam(3e-2, **options)


def momentum(**options):
    """A state for each variable, as Adam has two, and fewer operations to trace."""
    return keras.optimizers.SGD(0.1, momentum=0.9, **options)


def prepared(build, name, seed=0):
    """Returns a model to begin with: for a fixed mask one that has zeros."""
    keras.utils.set_random_seed(seed)
    model = build()
    if name == "fixed_mask":
        for weight in model.trainable_weights:
            if len(weight.shape) > 1:
                keep = np.arange(weight.numpy().size).reshape(weight.shape) % 2
                weight.assign(weight * keep)
    return model


def states(optimizer, key):
    return [v.numpy() for v in optimizer._states.get(key, [])]


def assert_zeros(name, model, optimizer):
    """At the end of training: what was promised, or for L1 some."""
    promised = optimizer.promised_zeros()
    if name in PROMISELESS:
        assert not promised
        assert sum(zeros(v) for v in optimizer.sparse_variables) > 0
    for variables, count in promised:
        assert sum(zeros(v) for v in variables) >= count
    total = sum(count for _, count in promised)
    size = sum(v.numpy().size for v in optimizer.sparse_variables)
    assert name in PROMISELESS or 0.4 < total / size < 0.6


# The convolutional model has kernels of every rank, so each technique meets that one; each way to
# act on weights does so in graphs as users have them.
ON_CONVOLUTIONAL = [
    pytest.param(
        name, networks.convolutional, marks=[pytest.mark.as_users_run] if name in WAYS else []
    )
    for name in TECHNIQUES
]
ON_OTHERS = [
    (name, build) for name in WAYS for build in MODELS if build is not networks.convolutional
]


class Watch(keras.callbacks.Callback):
    """Checks, after every step, that what a mask hides is exactly zero."""

    def __init__(self, optimizers):
        super().__init__()
        self.optimizers, self.steps = optimizers, 0

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        for optimizer in self.optimizers:
            for mask, weight in zip(
                states(optimizer, "mask"), optimizer.sparse_variables, strict=False
            ):
                assert np.all(weight.numpy()[mask == 0] == 0.0)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A function that trains a model with a technique, once: with no option, to compare with.

    It returns the trained model and its weights of before; and of the convolutional model, which
    is trained by two calls of `fit`, the file after the first.
    """
    folder = tmp_path_factory.mktemp("runs")

    @functools.cache
    def run(name, build):
        # Kernels of every rank and two moments where states differ; less to trace for the others.
        in_halves = build is networks.convolutional
        inner = adam if in_halves and name in WAYS else momentum
        model = compiled(prepared(build, name), TECHNIQUES[name](inner()))
        before = [w.numpy() for w in model.trainable_weights]
        watch, file = Watch([model.optimizer]), folder / f"{name}.keras"
        if in_halves:
            train(model, epochs=1, callbacks=[watch])
            model.save(file)
        train(model, epochs=1 if in_halves else 2, callbacks=[watch])
        assert watch.steps == STEPS
        return model, before, file

    return run


@pytest.mark.parametrize(("name", "build"), [*ON_CONVOLUTIONAL, *ON_OTHERS])
def test_zeros_are_exact_after_every_step(name, build, runs):
    model, before, _ = runs(name, build)
    optimizer = model.optimizer
    assert_zeros(name, model, optimizer)
    for old, weight in zip(before, model.trainable_weights, strict=True):
        assert np.any(weight.numpy() != old)  # it has been trained
    for weight in optimizer.sparse_variables:  # a negative zero costs bytes once compressed
        values = weight.numpy()
        assert not np.any(np.signbit(values[values == 0]))
    stripped = tfpeft.strip_pruning(model)
    np.testing.assert_array_equal(stripped(X), model(X))


@pytest.mark.parametrize(("name", "build"), ON_CONVOLUTIONAL)
def test_saved_and_resumed_in_the_middle_is_the_same_run(name, build, runs):
    model, _, file = runs(name, build)
    with keras.saving.custom_object_scope({"HalfOfAllMagnitudes": HalfOfAllMagnitudes}):
        resumed = keras.models.load_model(file)
    assert int(resumed.optimizer.iterations) == STEPS // 2
    assert resumed.optimizer.get_config() == model.optimizer.get_config()
    train(resumed, epochs=1)
    assert_same(model, resumed)
    tfpeft.strip_pruning(resumed)


@way
def test_backed_up_and_restored_is_the_same_run(name, runs, tmp_path):
    class Cut(keras.callbacks.Callback):
        def on_train_batch_begin(self, batch, logs=None):
            if int(self.model.optimizer.iterations) == STEPS // 2 + 1:
                raise InterruptedError

    def backup():
        return keras.callbacks.BackupAndRestore(tmp_path / "backup")

    model = compiled(prepared(sequential, name), TECHNIQUES[name](momentum()))
    with pytest.raises(InterruptedError):
        train(model, callbacks=[backup(), Cut()])
    model = compiled(prepared(sequential, name, seed=7), TECHNIQUES[name](momentum()))
    train(model, callbacks=[backup()])
    assert_same(runs(name, sequential)[0], model)


def assert_same(model, other):
    for expected, weight in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    for expected, state in zip(model.optimizer.variables, other.optimizer.variables, strict=True):
        np.testing.assert_array_equal(state.numpy(), expected.numpy(), err_msg=state.path)


# With bfloat16 no loss is scaled, and the variables are of float32: nothing is new but the model.
@pytest.mark.parametrize(
    ("name", "policy"),
    [
        *((name, "mixed_float16") for name in WAYS),
        ("gradient", "mixed_bfloat16"),
    ],
)
def test_mixed_precision(name, policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(prepared(sequential, name), TECHNIQUES[name](momentum()))
    finally:
        keras.config.set_dtype_policy("float32")
    train(model)
    optimizer = model.optimizer
    assert isinstance(optimizer, keras.optimizers.LossScaleOptimizer) == (policy == "mixed_float16")
    assert_zeros(name, model, getattr(optimizer, "inner_optimizer", None) and _sparse(optimizer))


def _sparse(optimizer):
    while not isinstance(optimizer, tfpeft.SparseOptimizer):
        optimizer = optimizer.inner_optimizer
    return optimizer


# Targeted dropout that ends at an update of its own counts them, too.
@pytest.mark.parametrize("name", [*WAYS, "targeted_dropout_until"])
@pytest.mark.parametrize(
    "inner",
    [
        lambda: momentum(clipnorm=1.0, use_ema=True, ema_momentum=0.5, ema_overwrite_frequency=3),
        lambda: keras.optimizers.LossScaleOptimizer(
            keras.optimizers.AdamW(3e-2, gradient_accumulation_steps=2)
        ),
    ],
    ids=["clipping_and_ema", "accumulation_and_loss_scale"],
)
def test_options_of_the_wrapped_optimizer_hold(name, inner):
    inner = inner()
    model = compiled(prepared(sequential, name), TECHNIQUES[name](inner))
    train(model, epochs=4)
    assert_zeros(name, model, model.optimizer)
    assert model.optimizer.learning_rate is inner.learning_rate
    assert np.all(np.isfinite(model(X)))


@way
def test_steps_per_execution_give_the_same_masks(name, runs):
    assert_compiled_gives_the_same(name, runs(name, sequential)[0], steps_per_execution=3)


# Those whose operations are not all among another's: XLA is slow to compile.
@pytest.mark.parametrize(
    "name",
    [
        *("magnitude_global", "magnitude_erk", "magnitude_straight_through", "gradient", "random"),
        *("proximal_l1", "proximal_group_l1", "targeted_dropout", "set", "rigl", "clustering"),
    ],
)
def test_jit_compile_gives_the_same_masks(name, runs):
    assert_compiled_gives_the_same(name, runs(name, sequential)[0], jit_compile=True)


def assert_compiled_gives_the_same(name, expected_model, **options):
    assert not expected_model.jit_compile
    model = compiled(prepared(sequential, name), TECHNIQUES[name](momentum()), **options)
    train(model)
    assert bool(model.jit_compile) == ("jit_compile" in options)
    for expected, weight in zip(expected_model.weights, model.weights, strict=True):
        if name in NOISY and "jit_compile" in options:
            assert_zeros(name, model, model.optimizer)
            continue
        np.testing.assert_array_equal(weight.numpy() == 0, expected.numpy() == 0)
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), atol=1e-4)


@pytest.mark.parametrize("name", [*WAYS, "clustering"])
def test_mirrored_strategy_matches_one_device(name, runs, mirrored):
    with mirrored.scope():
        model = compiled(prepared(sequential, name), TECHNIQUES[name](momentum()))
    train(model)
    assert_zeros(name, model, model.optimizer)
    one_device = runs(name, sequential)[0].trainable_weights
    for expected, weight in zip(one_device, model.trainable_weights, strict=True):
        np.testing.assert_array_equal(weight.numpy() == 0, expected.numpy() == 0)
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), atol=1e-3)


@way
@pytest.mark.parametrize("order", ["outside", "inside"])
def test_composes_with_a_second_technique(name, order):
    """Both keep what they promise, the other one inside or outside."""
    if "magnitude" in name:
        other = lambda inner: tfpeft.ProximalL1(inner, 1.0)  # noqa: E731
    else:
        other = TECHNIQUES["magnitude"]
    outer, inner = (TECHNIQUES[name], other) if order == "outside" else (other, TECHNIQUES[name])
    model = compiled(prepared(sequential, name), outer(inner(momentum())))
    both = [model.optimizer, model.optimizer.inner_optimizer]

    train(model, callbacks=[Watch(both)])
    for optimizer in both:
        for variables, count in optimizer.promised_zeros():
            assert sum(zeros(v) for v in variables) >= count
    assert sum(zeros(v) for v in model.optimizer.sparse_variables) >= 0.4 * 90
    masks = [states(optimizer, "mask") for optimizer in both if states(optimizer, "mask")]
    for each in masks:
        for mask, weight in zip(each, model.optimizer.sparse_variables, strict=True):
            assert np.all(weight.numpy()[mask == 0] == 0)
    tfpeft.strip_pruning(model)


@way
def test_trains_a_student_and_in_a_custom_loop(name):
    student = prepared(sequential, name)
    distiller = compiled(
        tfpeft.Distiller(sequential(), student),
        TECHNIQUES[name](momentum()),
        run_eagerly=name != "rigl",  # half of the time that a graph takes
    )
    train(distiller)
    assert_zeros(name, student, distiller.optimizer)
    tfpeft.strip_pruning(distiller.student)

    model, optimizer = prepared(sequential, name), TECHNIQUES[name](momentum())
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    if name != "fixed_mask":  # which builds itself in the first step, from the weights
        optimizer.build(model.trainable_variables)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    for _ in range(STEPS):
        step(X, Y)
    optimizer.finalize_variable_values(model.trainable_variables)
    assert_zeros(name, model, optimizer)
    tfpeft.strip_pruning(model)


@technique
def test_what_cannot_be_wrapped_raises(name):
    make = TECHNIQUES[name]
    with pytest.raises(ValueError, match=r"`optimizer`.*'adam'"):
        make("adam")
    with pytest.raises(ValueError, match=r"`optimizer`.*does not wrap already"):
        make(keras.optimizers.LossScaleOptimizer(make(adam())))


@way
def test_bad_gradients_raise_and_leave_the_model_unharmed(name):
    make = TECHNIQUES[name]
    model = compiled(prepared(sequential, name), make(momentum()))
    train(model, epochs=1)
    before = model.get_weights()
    for _ in range(2):
        with pytest.raises(tf.errors.InvalidArgumentError, match="`grads`, expected finite"):
            model.fit(np.full_like(X, np.nan), Y, batch_size=8, verbose=0)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)
    model = prepared(sequential, name)
    before = model.get_weights()
    eager = [tf.fill(v.shape, np.nan) for v in model.trainable_variables]
    with pytest.raises(ValueError, match=r"`grads`, expected finite.*hidden/kernel"):
        make(adam()).apply(eager, model.trainable_variables)
    for old, new in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(new, old)


def test_a_fixed_mask_needs_zeros():
    with pytest.raises(ValueError, match="FixedMask expected a model with zeros"):
        train(compiled(sequential(), tfpeft.FixedMask(adam())))
