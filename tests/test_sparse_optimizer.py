"""MagnitudePruning and strip_pruning against TFMOT, NumPy and what training must keep."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft import masks, schedules  # before TFMOT itself: see schedules.py

from tensorflow_model_optimization.python.core.sparsity.keras import (  # isort: skip
    pruning_impl,
)

tfmot = schedules.tfmot
X = np.random.default_rng(0).normal(size=(32, 6)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 32)


def schedule(final=0.5, begin=2, end=6, frequency=2):
    return tfmot.sparsity.keras.PolynomialDecay(0.0, final, begin, end, frequency=frequency)


def sequential():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(10, activation="relu", kernel_regularizer="l2", name="hidden"),
            keras.layers.Dense(3, name="head"),
        ]
    )


def convolutional():
    inputs = keras.Input((6,))
    hidden = keras.layers.Reshape((2, 3, 1))(inputs)
    hidden = keras.layers.Conv2D(4, 2, padding="same")(hidden)
    hidden = keras.layers.DepthwiseConv2D(2, padding="same")(hidden)
    hidden = keras.layers.BatchNormalization()(hidden)
    return keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))


def nested_shared():
    shared = keras.Sequential([keras.Input((6,)), keras.layers.Dense(6)])
    inputs = keras.Input((6,))
    return keras.Model(inputs, keras.layers.Dense(3)(shared(shared(inputs))))


@keras.saving.register_keras_serializable(package="tests")
class Subclassed(keras.Model):
    def __init__(self, units=8, **kwargs):
        super().__init__(**kwargs)
        self.units = units
        self.hidden = keras.layers.Dense(units, activation="relu")
        self.head = keras.layers.Dense(3)

    def build(self, input_shape):
        self.hidden.build(input_shape)
        self.head.build((None, self.units))

    def call(self, inputs):
        return self.head(self.hidden(inputs))

    def get_config(self):
        return {**super().get_config(), "units": self.units}


MODELS = [sequential, convolutional, nested_shared, Subclassed]


def compiled(model, optimizer, **options):
    model.compile(
        optimizer,
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        **options,
    )
    return model


def train(model, epochs=2, **options):
    return model.fit(X, Y, batch_size=8, epochs=epochs, shuffle=False, verbose=0, **options)


def pruning(**options):
    return tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-2), schedule(), **options)


def zeros(variable):
    return int(np.sum(variable.numpy() == 0.0))


@pytest.mark.parametrize("sparsity", [0.0, 0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("shape", [(7, 5), (3, 3, 4, 6), (200, 50)])
def test_masks_are_those_of_tfmot(sparsity, shape):
    """On equal weights, element by element, through TFMOT's own pruning of one step."""
    weights = np.random.default_rng(2).normal(size=shape).astype("float32")
    pruner = pruning_impl.Pruning(
        training_step_fn=lambda: tf.constant(0, tf.int64),
        pruning_vars=lambda: [],
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


@pytest.mark.parametrize("k", [1, 2, 500, 999, 1000])
def test_kth_largest_equals_sorting(k):
    values = np.abs(np.random.default_rng(3).standard_cauchy(1000)).astype("float32")
    values[:100] = 0.0
    values[100:110] = -0.0
    assert float(masks.kth_largest(tf.constant(values), k)) == np.sort(values)[-k]


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


@pytest.mark.parametrize("build", MODELS)
def test_zeros_are_exact_after_every_step(build):
    keras.utils.set_random_seed(0)
    model = compiled(build(), pruning())
    seen = []

    class Watch(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            kernels = self.model.optimizer.sparse_variables
            expected = schedule()(tf.constant(min(batch + 1, 6) // 2 * 2, tf.int64))[1]
            wanted = [
                int(np.prod(k.shape)) - int(masks.kept_count(int(np.prod(k.shape)), expected))
                for k in kernels
            ]
            seen.append(([zeros(k) for k in kernels], wanted if batch else [0] * len(kernels)))

    model.fit(X, Y, batch_size=4, shuffle=False, verbose=0, callbacks=[Watch()])
    assert len(seen) == 8
    for counted, wanted in seen:
        assert counted == wanted
    assert zeros(model.optimizer.sparse_variables[0]) > 0


@pytest.mark.parametrize("build", MODELS)
def test_strip_returns_a_plain_model_of_the_same_outputs(build):
    keras.utils.set_random_seed(0)
    model = compiled(build(), pruning())
    train(model)
    stripped = tfpeft.strip_pruning(model)
    assert stripped is not model
    assert not stripped.compiled
    assert not stripped.losses
    assert bool(model.losses) == (build is sequential)  # the model itself keeps its own
    np.testing.assert_array_equal(stripped.predict(X, verbose=0), model.predict(X, verbose=0))


def test_strip_finds_the_promise_of_a_student_and_of_a_custom_loop():
    keras.utils.set_random_seed(0)
    teacher, student = sequential(), sequential()
    distiller = tfpeft.Distiller(teacher, student)
    compiled(distiller, pruning())
    train(distiller, epochs=1)
    with pytest.raises(ValueError, match="zeros at step 4"):
        tfpeft.strip_pruning(distiller.student)
    train(distiller, epochs=1)
    assert zeros(tfpeft.strip_pruning(distiller.student).layers[0].kernel) == 30
    with pytest.raises(ValueError, match="no SparseOptimizer trained"):
        tfpeft.strip_pruning(teacher)

    model, optimizer = sequential(), pruning()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    @tf.function
    def step(x, y):
        with tf.GradientTape() as tape:
            value = loss(y, model(x, training=True))
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply(gradients, model.trainable_variables)

    optimizer.build(model.trainable_variables)
    for _ in range(6):
        step(X, Y)
    assert zeros(tfpeft.strip_pruning(model).layers[0].kernel) == 30


def test_strip_refuses_lost_zeros():
    model = compiled(sequential(), pruning())
    train(model)
    compiled(model, keras.optimizers.Adam(1e-2))
    train(model)
    with pytest.raises(ValueError, match="hidden/kernel: .* of 30 zeros"):
        tfpeft.strip_pruning(model)


def test_strip_hands_tf_keras_models_to_tfmot():
    import tf_keras

    inner = tf_keras.Sequential([tf_keras.layers.Dense(4, input_shape=(6,))])
    wrapped = tfmot.sparsity.keras.prune_low_magnitude(inner)
    stripped = tfpeft.strip_pruning(wrapped)
    assert isinstance(stripped.layers[0], tf_keras.layers.Dense)
    assert type(wrapped.layers[0]) is not type(stripped.layers[0])


@pytest.mark.parametrize("build", MODELS)
def test_saved_and_resumed_in_the_middle_is_the_same_run(build, tmp_path):
    keras.utils.set_random_seed(0)
    model = compiled(build(), pruning())
    train(model, epochs=1)
    model.save(tmp_path / "half.keras")
    train(model, epochs=1)
    resumed = keras.models.load_model(tmp_path / "half.keras")
    assert int(resumed.optimizer.iterations) == 4
    train(resumed, epochs=1)
    for expected, weight in zip(model.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    for expected, state in zip(model.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_array_equal(state.numpy(), expected.numpy())
    tfpeft.strip_pruning(resumed)


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_mixed_precision(policy):
    keras.config.set_dtype_policy(policy)
    try:
        model = compiled(sequential(), pruning())
    finally:
        keras.config.set_dtype_policy("float32")
    train(model)
    wrapped = isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    assert wrapped == (policy == "mixed_float16")
    assert zeros(model.layers[0].kernel) == 30


@pytest.mark.parametrize(
    "inner",
    [
        keras.optimizers.SGD(1e-2, momentum=0.9, clipnorm=1.0),
        keras.optimizers.Adam(1e-2, use_ema=True, ema_overwrite_frequency=3),
        keras.optimizers.AdamW(1e-2, gradient_accumulation_steps=2),
        keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(1e-2)),
    ],
    ids=["clipping", "ema", "accumulation", "loss_scale"],
)
def test_options_of_the_wrapped_optimizer_hold(inner):
    model = compiled(sequential(), tfpeft.MagnitudePruning(inner, schedule()))
    train(model, epochs=4)
    assert zeros(model.layers[0].kernel) == 30
    assert model.optimizer.learning_rate is inner.learning_rate
    tfpeft.strip_pruning(model)


@pytest.mark.parametrize("options", [{"steps_per_execution": 3}, {"jit_compile": True}])
def test_compile_options_give_the_same_masks(options):
    results = []
    for each in ({}, options):
        keras.utils.set_random_seed(0)
        model = compiled(sequential(), pruning(), **each)
        train(model)
        assert bool(model.jit_compile) == ("jit_compile" in each)
        results.append([w.numpy() for w in model.weights])
    for expected, weight in zip(*results, strict=True):
        np.testing.assert_array_equal(weight == 0, expected == 0)
        np.testing.assert_allclose(weight, expected, atol=1e-5)


def test_mirrored_strategy_matches_one_device(mirrored):
    results = []
    for strategy in (
        tf.distribute.get_strategy(),
        mirrored,
    ):
        keras.utils.set_random_seed(0)
        with strategy.scope():
            model = compiled(sequential(), pruning())
        train(model)
        results.append([w.numpy() for w in model.trainable_weights])
    for expected, weight in zip(*results, strict=True):
        np.testing.assert_array_equal(weight == 0, expected == 0)
        np.testing.assert_allclose(weight, expected, atol=1e-4)


def test_exclude_and_the_reasons_for_skipping():
    model = compiled(sequential(), pruning(exclude=("head",)))
    train(model)
    assert [zeros(layer.kernel) for layer in model.layers] == [30, 0]
    reasons = {path.split("/", 1)[1]: why for path, why in model.optimizer.skipped.items()}
    assert reasons == {
        "hidden/bias": "rank 1: no kernel",
        "head/bias": "rank 1: no kernel",
        "head/kernel": "excluded by 'head'",
    }


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: tfpeft.MagnitudePruning("adam", schedule()), "`optimizer`.*'adam'"),
        (lambda: tfpeft.MagnitudePruning(keras.optimizers.SGD(), 0.5), "`schedule`.*0.5"),
        (lambda: pruning(exclude="head"), "`exclude`.*'head'"),
        (lambda: pruning(exclude=("tail",)).build(sequential().weights), "`exclude`.*tail"),
        (lambda: pruning(exclude=("*",)).build(sequential().weights), "no kernel"),
        (lambda: tfpeft.strip_pruning("model"), "`model`.*'model'"),
    ],
)
def test_bad_input_names_the_argument(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_strip_keeps_what_preprocessing_was_adapted_to():
    normalization = keras.layers.Normalization()
    normalization.adapt(3 * X + 1)
    model = keras.Sequential([keras.Input((6,)), normalization, keras.layers.Dense(3)])
    compiled(model, pruning())
    train(model)
    stripped = tfpeft.strip_pruning(model)
    np.testing.assert_array_equal(stripped.predict(X, verbose=0), model.predict(X, verbose=0))
