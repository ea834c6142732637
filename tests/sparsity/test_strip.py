"""strip_pruning: plain models, and the zeros that were promised."""

import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests import networks
from tests.networks import MODELS, X, Y, compiled, sequential, train, zeros
from tests.sparsity.tfmot_schedules import pruning, schedule, tfmot
from tfpeft.core.arguments import InputError


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
    np.testing.assert_array_equal(stripped(X, training=False), model(X, training=False))


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


def test_strip_leaves_no_negative_zeros():
    model = sequential()
    kernel = model.layers[0].kernel
    kernel.assign(np.copysign(kernel.numpy() * (np.arange(60).reshape(6, 10) % 2), -1))
    assert np.any(np.signbit(kernel.numpy()[kernel.numpy() == 0]))
    stripped = tfpeft.strip_pruning(model).layers[0].kernel.numpy()
    np.testing.assert_array_equal(stripped, kernel.numpy())
    assert not np.any(np.signbit(stripped[stripped == 0]))


def test_strip_raises_for_lost_zeros():
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


def test_strip_keeps_what_preprocessing_was_adapted_to():
    normalization = keras.layers.Normalization()
    normalization.adapt(3 * X + 1)
    model = keras.Sequential([keras.Input((6,)), normalization, keras.layers.Dense(3)])
    compiled(model, pruning())
    train(model)
    stripped = tfpeft.strip_pruning(model)
    np.testing.assert_array_equal(stripped(X, training=False), model(X, training=False))


def partly_subclassed():
    """A kernel of a plain layer, and kernels whose layers are in no configuration."""
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(6, name="hidden")(inputs)
    return keras.Model(inputs, networks.subclassed()(hidden))


def loaded(model, path):
    """Returns a model as a file has it: without its optimizer."""
    model.save(path)
    return keras.models.load_model(path, compile=False)


def test_the_promise_travels_with_the_model(tmp_path):
    inner = tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-2), schedule())
    model = compiled(partly_subclassed(), tfpeft.ProximalL1(inner, 1e-3))
    train(model, epochs=1)
    early = loaded(model, tmp_path / "early.keras")
    with pytest.raises(InputError, match=r"hidden/kernel: \d+ of 18 zeros at step 4.*dense"):
        tfpeft.strip_pruning(early)
    with pytest.raises(InputError, match="zeros at step 4"):
        tfpeft.strip_pruning(loaded(early, tmp_path / "again.keras"))
    resumed = keras.models.load_model(tmp_path / "early.keras")
    train(resumed)
    tfpeft.strip_pruning(resumed)  # by its optimizer, not by what was saved

    done = loaded(resumed, tmp_path / "done.keras")
    assert done.count_params() == model.count_params()
    assert "promise" not in done.to_json()
    stripped = tfpeft.strip_pruning(done)
    np.testing.assert_array_equal(stripped.predict(X, verbose=0), resumed.predict(X, verbose=0))
    hidden = done.layers[-1].hidden.kernel
    hidden.assign(np.ones(hidden.shape))
    with pytest.raises(InputError, match=": 0 of 24 zeros at step 12"):
        tfpeft.strip_pruning(done)
    hidden.assign(np.tri(*hidden.shape))
    tfpeft.FixedMask(keras.optimizers.SGD()).build(done.trainable_variables)  # a new promise
    tfpeft.strip_pruning(done)


def test_a_promise_about_all_kernels_together_travels(tmp_path):
    model = sequential()
    pruning(scope="global").build(model.trainable_variables)
    copy = loaded(model, tmp_path / "model.keras")
    message = r"hidden/kernel, .*head/kernel: 0 of 45 zeros at step 0"
    with pytest.raises(InputError, match=message):
        tfpeft.strip_pruning(copy)
    copy.layers[0].kernel.assign(np.arange(60).reshape(6, 10) % 4 == 0)
    tfpeft.strip_pruning(copy)


def test_a_promise_of_replicas_travels_and_their_best_epoch_is_kept(tmp_path, mirrored):
    with mirrored.scope():
        model = compiled(sequential(), tfpeft.StaticSparse(keras.optimizers.SGD(1e-2), 0.5))
    best = tfpeft.KeepBest("loss")
    model.fit(X, Y, batch_size=4, verbose=0, callbacks=[best])
    assert best.best_epoch == 0
    copy = loaded(model, tmp_path / "model.keras")
    tfpeft.strip_pruning(copy)
    copy.layers[0].kernel.assign(np.ones(copy.layers[0].kernel.shape))
    with pytest.raises(InputError, match=f"zeros at step {-(-len(X) // 4)}"):
        tfpeft.strip_pruning(copy)


def test_files_of_other_models_stay_as_they_are(tmp_path, monkeypatch):
    sequential().save(tmp_path / "plain.keras")
    with zipfile.ZipFile(tmp_path / "plain.keras") as file:
        assert set(file.namelist()) == {"metadata.json", "config.json", "model.weights.h5"}
    model = compiled(sequential(), pruning())
    train(model)
    model.save(tmp_path / "pruned.keras")
    tfpeft.strip_pruning(model).save(tmp_path / "stripped.keras")
    with zipfile.ZipFile(tmp_path / "pruned.keras") as file:
        added = set(file.namelist()) - {"metadata.json", "config.json", "model.weights.h5"}
    assert added == {"assets/_tfpeft_promised_zeros/promised_zeros.json"}
    with zipfile.ZipFile(tmp_path / "stripped.keras") as file:
        assert len(file.namelist()) == 3
    # As in a process without tfpeft: nothing of it is needed, or missed.
    monkeypatch.delattr(keras.Model, "_tfpeft_promised_zeros")
    copy = keras.models.load_model(tmp_path / "pruned.keras", compile=False)
    np.testing.assert_array_equal(copy.predict(X, verbose=0), model.predict(X, verbose=0))
