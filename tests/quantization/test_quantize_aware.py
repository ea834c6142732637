"""quantize_aware: training, ranges, saving, and what it is combined with."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.quantization import networks
from tests.quantization.networks import samples, shaken

X = samples(networks.cnn(), 32)
Y = np.random.default_rng(2).integers(0, 4, 32)


@pytest.fixture(scope="module")
def plain():
    keras.utils.set_random_seed(0)
    return shaken(networks.cnn())


def compiled(model, optimizer=None):
    optimizer = optimizer or keras.optimizers.SGD(0.05, momentum=0.9)
    model.compile(optimizer, "sparse_categorical_crossentropy")
    return model


def fit(model, **options):
    model.fit(X, Y, batch_size=8, shuffle=False, verbose=0, **options)
    return model


def dense_only():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="dense")])
    return shaken(model)


def test_a_dense_layer_is_that_of_numpy():
    model = dense_only()
    x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
    aware = tfpeft.quantize_aware(model, representative_data=x)
    kernel, bias = model.get_weights()
    steps = np.abs(kernel).max(0) / 127
    kernel = np.round(kernel / steps) * steps

    def rounded(values):
        low, high = min(values.min(), 0), max(values.max(), 0)
        step = (high - low) / 255
        zero = np.round(-low / step)
        return (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step

    outputs = rounded(x) @ kernel + bias
    step = np.ptp(outputs) / 255
    assert np.max(np.abs(aware(x) - rounded(outputs))) <= step * 1.01
    np.testing.assert_allclose(aware(x), rounded(outputs), atol=step / 2 + 1e-6)


def test_it_trains_and_the_model_stays_as_it_is(plain):
    before = [w.numpy() for w in plain.weights]
    aware = compiled(tfpeft.quantize_aware(plain))
    history = aware.fit(X, Y, batch_size=8, epochs=3, verbose=0).history["loss"]
    assert history[-1] < history[0]
    for old, weight in zip(before, plain.weights, strict=True):
        np.testing.assert_array_equal(old, weight)
    stripped = tfpeft.strip_quantization(aware)
    assert type(stripped) is type(plain)
    for trained, weight in zip(aware.model.weights, stripped.weights, strict=True):
        np.testing.assert_array_equal(trained, weight)
    gaps = np.abs(np.asarray(aware(X)) - np.asarray(stripped(X)))
    assert 0 < gaps.max() < 0.1


def test_ranges_follow_the_batches_and_freeze():
    aware = tfpeft.quantize_aware(dense_only(), momentum=0.5, freeze_after=3)
    quantizer = aware.quantizers["input_0"]
    highs = [2.0, 4.0, 8.0, 100.0]
    expected, steps = 0.0, []
    for step, high in enumerate(highs[:3]):
        expected += max(1 / (step + 1), 0.5) * (high - expected)
        steps.append(expected)
    for i, high in enumerate(highs):
        aware(np.full((1, 3), high, "float32"), training=True)
        assert float(quantizer.high) == pytest.approx(steps[min(i, 2)])
    assert float(quantizer.low) == 0.0  # 0 is inside


def test_ranges_are_learned():
    x = np.random.default_rng(0).normal(size=(64, 3)).astype("float32")
    aware = tfpeft.quantize_aware(dense_only(), ranges="learned", representative_data=x)
    quantizer = aware.quantizers["input_0"]
    assert {"low", "high"} <= {w.path.rpartition("/")[2] for w in aware.trainable_weights}
    aware.compile(keras.optimizers.SGD(0.1), "mse")
    y = np.random.default_rng(1).normal(size=(64, 2))
    aware.fit(x, y, batch_size=8, epochs=4, verbose=0)  # past the warm-up
    before = float(quantizer.high)
    aware.fit(x, y, batch_size=8, epochs=1, verbose=0)
    assert float(quantizer.high) != before


def test_before_data_nothing_is_rounded_but_kernels(plain):
    aware = tfpeft.quantize_aware(plain)
    assert np.max(np.abs(np.asarray(aware(X)) - np.asarray(plain(X)))) < 0.05
    assert not any(float(quantizer.steps) for quantizer in aware.quantizers.values())


def test_losses_of_probabilities_have_the_gradient_of_logits(plain):
    aware = tfpeft.quantize_aware(plain, representative_data=X)
    y, kernel = tf.constant(Y), aware.model.layers[-1].kernel
    kernel.assign(kernel * 100.0)  # probabilities of 0 and 1, which rounding makes exact
    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(keras.losses.sparse_categorical_crossentropy(y, aware(X)))
    gradient = tape.gradient(loss, aware.model.layers[-1].bias.value)
    assert np.all(np.isfinite(gradient))
    assert np.max(np.abs(gradient)) > 1e-3


def test_saved_and_resumed_is_the_same_run(plain, tmp_path):
    keras.utils.set_random_seed(1)
    whole = fit(fit(compiled(tfpeft.quantize_aware(plain))))
    keras.utils.set_random_seed(1)
    half = fit(compiled(tfpeft.quantize_aware(plain)))
    half.save(tmp_path / "half.keras")
    resumed = fit(keras.models.load_model(tmp_path / "half.keras"))
    for a, b in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    np.testing.assert_allclose(whole(X), resumed(X), atol=1e-6)


def test_mixed_precision():
    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = shaken(networks.cnn())
    finally:
        keras.config.set_dtype_policy("float32")
    aware = fit(compiled(tfpeft.quantize_aware(model)))
    assert aware(X).dtype == model(X).dtype
    assert aware.model.layers[1].compute_dtype == "float16"
    assert all(w.dtype == "float32" for w in aware.trainable_weights)
    exact = tfpeft.strip_quantization(aware)
    assert np.max(np.abs(np.asarray(aware(X)) - np.asarray(exact(X)))) < 0.1


def test_replicas(plain, mirrored):
    with mirrored.scope():
        aware = compiled(tfpeft.quantize_aware(plain))
    fit(aware)
    assert all(np.all(np.isfinite(w)) for w in aware.weights)
    quantizer = aware.quantizers["input_0"]
    steps, low, high = (w.numpy() for w in (quantizer.steps, quantizer.low, quantizer.high))
    assert steps == 4.0
    assert X.min() <= low < 0 < high <= X.max()
    assert quantizer.deployed_range()[1] == pytest.approx(high, rel=0.01)


def test_pruned_weights_stay_zero(plain):
    optimizer = tfpeft.StaticSparse(keras.optimizers.SGD(0.05), 0.5)
    aware = fit(compiled(tfpeft.quantize_aware(plain), optimizer))
    stripped = tfpeft.strip_quantization(aware)
    kernels = [w for w in stripped.weights if len(w.shape) > 1]
    zeros = sum(np.sum(np.asarray(w) == 0) for w in kernels)
    assert zeros / sum(np.size(w) for w in kernels) == pytest.approx(0.5, abs=0.01)
    tuned = fit(compiled(tfpeft.quantize_aware(stripped), tfpeft.FixedMask(keras.optimizers.SGD())))
    after = [w for w in tuned.model.weights if len(w.shape) > 1]
    for old, new in zip(kernels, after, strict=True):
        assert np.all(np.asarray(new)[np.asarray(old) == 0] == 0)
        assert np.any(np.asarray(new) != np.asarray(old))


def test_a_student_in_a_distiller(plain):
    confident = keras.models.clone_model(plain)  # probabilities of 0 and 1
    confident.set_weights([*plain.get_weights()[:-2], *(30 * w for w in plain.get_weights()[-2:])])
    plain, aware = confident, tfpeft.quantize_aware(confident, representative_data=X)
    distiller = tfpeft.Distiller(plain, aware, alpha=0.5, temperature=2.0)
    distiller.compile(keras.optimizers.SGD(0.01), keras.losses.SparseCategoricalCrossentropy())
    before = distiller.evaluate(X, Y, verbose=0, return_dict=True)
    assert before["soft_labels"] < 0.01  # of logits, as rounded probabilities may be 0
    distiller.fit(X, Y, batch_size=8, verbose=0)
    assert float(aware.quantizers["input_0"].steps) == 1 + 4  # calibration, training
    assert isinstance(distiller.student, tfpeft.QuantizeAwareModel)


def test_shared_and_subclassed_models():
    from tests import networks as others

    for build in (others.nested_shared, others.subclassed):
        model = build()
        aware = tfpeft.quantize_aware(model, representative_data=others.X)
        assert aware.quantized
        gaps = np.abs(np.asarray(aware(others.X)) - np.asarray(model(others.X)))
        assert 0 < gaps.max() < 0.2 * np.max(np.abs(model(others.X)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"weight_bits": 3}, "`weight_bits`, expected one of 8, 4.*3"),
        ({"activation_bits": 4}, "`activation_bits`, expected one of 8, 16.*4"),
        ({"weight_bits": 4, "activation_bits": 16}, "`weight_bits` of 8"),
        ({"ranges": "best"}, "`ranges`, expected one of 'moving_average', 'learned'"),
        ({"momentum": 1.5}, r"`momentum`, expected a number in \(0, 1\]"),
        ({"freeze_after": 0}, "`freeze_after`, expected an integer of at least 1"),
        ({"freeze_after": 5, "ranges": "learned"}, "moving_average.*`freeze_after`"),
        ({"exclude": "head"}, "`exclude`, expected a list"),
        ({"representative_data": np.zeros((4, 5))}, "representative_data"),
    ],
)
def test_bad_arguments(plain, options, message):
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.quantize_aware(plain, **options)


def test_bad_models(plain):
    aware = tfpeft.quantize_aware(plain)
    with pytest.raises(tfpeft.InputError, match="not quantise-aware already"):
        tfpeft.quantize_aware(aware)
    with pytest.raises(tfpeft.InputError, match="keras.Model that is built"):
        tfpeft.quantize_aware(keras.Sequential([keras.layers.Dense(2)]))
    with pytest.raises(tfpeft.InputError, match="`quantize_aware` returned"):
        tfpeft.strip_quantization(plain)
