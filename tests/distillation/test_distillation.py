"""The distillation loss against NumPy, and what the Distiller must leave alone."""

import keras
import numpy as np
import pytest

import tfpeft

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 5)).astype("float32")
Y = rng.integers(0, 3, 24)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def net(units=8, activation=None, regularizer=None, classes=3):
    return keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(units, activation="relu", kernel_regularizer=regularizer),
            keras.layers.BatchNormalization(),
            keras.layers.Dense(classes, activation=activation),
        ]
    )


def numpy_log_softmax(z):
    z = z.astype("float64")
    z = z - z.max(-1, keepdims=True)
    return z - np.log(np.exp(z).sum(-1, keepdims=True))


def numpy_loss(teacher_logits, student_logits, y, alpha, temperature, sample_weight=1.0):
    hard = -numpy_log_softmax(student_logits)[np.arange(len(y)), y]
    t = numpy_log_softmax(teacher_logits / temperature)
    s = numpy_log_softmax(student_logits / temperature)
    soft = temperature**2 * np.sum(np.exp(t) * (t - s), -1)
    return np.mean(sample_weight * (alpha * hard + (1 - alpha) * soft))


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize("alpha", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("weighted", [False, True])
def test_value_equals_numpy(alpha, temperature, weighted):
    keras.utils.set_random_seed(1)
    teacher, student = net(16), net()
    distiller = tfpeft.Distiller(teacher, student, alpha=alpha, temperature=temperature)
    distiller.compile(loss=HARD, run_eagerly=temperature != 4.0)  # not all traced: it takes longer
    weight = rng.uniform(0.1, 2.0, 24).astype("float32") if weighted else None
    value = distiller.evaluate(X, Y, sample_weight=weight, batch_size=24, verbose=0)
    value = value["loss"] if isinstance(value, dict) else np.ravel(value)[0]
    expected = numpy_loss(
        teacher.predict(X, verbose=0),
        student.predict(X, verbose=0),
        Y,
        alpha,
        temperature,
        1.0 if weight is None else weight,
    )
    np.testing.assert_allclose(value, expected, rtol=1e-5, atol=1e-6)


def test_wide_logits_by_hand():
    """Where Keras's string default returns 29.20, for N(0, 4) logits and T = 3."""
    z = np.random.default_rng(0).normal(0, 4, (2, 64, 10)).astype("float32")
    loss = tfpeft.SoftLabels(temperature=3.0)
    expected = numpy_loss(z[0], z[1], np.zeros(64, int), 0.0, 3.0)
    np.testing.assert_allclose(float(loss(z[0], z[1])), expected, rtol=1e-5)
    assert float(loss(z[0], z[0])) == pytest.approx(0.0, abs=1e-5)
    assert float(loss(z[0], np.full_like(z[0], 50.0))) > 1.0


@pytest.mark.parametrize("teacher_kind", ["logits", "softmax", "softmax_layer", "nested"])
@pytest.mark.parametrize("student_kind", ["logits", "softmax"])
def test_probabilities_are_turned_into_logits(teacher_kind, student_kind):
    keras.utils.set_random_seed(2)
    plain_teacher, plain_student = net(16), net()

    def variant(model, kind):
        if kind == "logits":
            return model
        if kind == "softmax":
            copy = net(model.layers[0].units, activation="softmax")
            copy.set_weights(model.get_weights())
            return copy
        softmax = keras.Sequential([model, keras.layers.Softmax()])
        if kind == "softmax_layer":
            return softmax
        inputs = keras.Input((5,))
        return keras.Model(inputs, softmax(inputs))

    distiller = tfpeft.Distiller(
        variant(plain_teacher, teacher_kind), variant(plain_student, student_kind), alpha=0.0
    )
    hard = keras.losses.SparseCategoricalCrossentropy(from_logits=student_kind == "logits")
    distiller.compile(loss=hard, run_eagerly=teacher_kind != "nested")
    expected = numpy_loss(
        plain_teacher.predict(X, verbose=0), plain_student.predict(X, verbose=0), Y, 0.0, 4.0
    )
    value = np.ravel(distiller.evaluate(X, Y, batch_size=24, verbose=0))[0]
    np.testing.assert_allclose(value, expected, rtol=1e-4)


def test_one_training_step_equals_a_loop_by_hand():
    keras.utils.set_random_seed(3)
    teacher, student = net(16), net(regularizer=keras.regularizers.L2(0.1))
    import tensorflow as tf

    by_hand = keras.models.clone_model(student)
    by_hand.set_weights(student.get_weights())
    t = tf.nn.softmax(teacher(X, training=False) / 2.0)
    with tf.GradientTape() as tape:
        z = by_hand(X, training=True)
        hard = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(Y, z))
        soft = 4.0 * tf.reduce_mean(
            tf.reduce_sum(t * (tf.math.log(t) - tf.nn.log_softmax(z / 2.0)), -1)
        )
        loss = 0.25 * hard + 0.75 * soft + 0.1 * tf.reduce_sum(by_hand.layers[0].kernel ** 2)
    gradients = tape.gradient(loss, by_hand.trainable_variables)
    keras.optimizers.SGD(0.1).apply(gradients, by_hand.trainable_variables)

    distiller = tfpeft.Distiller(teacher, student, alpha=0.25, temperature=2.0)
    distiller.compile(keras.optimizers.SGD(0.1), HARD)
    history = distiller.fit(X, Y, batch_size=24, verbose=0)
    np.testing.assert_allclose(history.history["loss"][0], loss, rtol=1e-5)
    for expected, weight in zip(by_hand.weights, student.weights, strict=True):
        np.testing.assert_allclose(weight.numpy(), expected.numpy(), atol=1e-5)


@pytest.mark.parametrize("trainable", [True, False])
def test_the_teacher_is_left_as_it_is(trainable):
    teacher, student = net(16, regularizer="l2"), net()
    teacher.trainable = trainable
    flags = [layer.trainable for layer in teacher.layers]
    before, student_before = teacher.get_weights(), student.get_weights()
    distiller = tfpeft.Distiller(teacher, student)
    distiller.compile("adam", HARD, metrics=["accuracy"])
    distiller.fit(X, Y, epochs=2, verbose=0)
    assert teacher.trainable is trainable
    assert [layer.trainable for layer in teacher.layers] == flags
    for expected, weight in zip(before, teacher.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    assert any((a != b).any() for a, b in zip(student_before, student.get_weights(), strict=True))
    assert len(distiller.optimizer.variables) == 2 + 2 * len(student.trainable_variables)


def test_saved_and_loaded_it_trains_on(tmp_path):
    keras.utils.set_random_seed(4)
    distiller = tfpeft.Distiller(net(16), net(), alpha=0.2, temperature=3.0)
    distiller.compile("adam", HARD, metrics=["accuracy"])
    distiller.fit(X, Y, shuffle=False, verbose=0)
    distiller.save(tmp_path / "distiller.keras")
    loaded = keras.models.load_model(tmp_path / "distiller.keras")
    assert (loaded.alpha, loaded.temperature) == (0.2, 3.0)
    for each in (distiller, loaded):
        each.fit(X, Y, epochs=2, shuffle=False, verbose=0)
    for a, b in zip(distiller.weights, loaded.weights, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())


def test_predicts_what_the_student_predicts():
    teacher, student = net(16), net()
    distiller = tfpeft.Distiller(teacher, student)
    np.testing.assert_array_equal(distiller.predict(X, verbose=0), student.predict(X, verbose=0))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"alpha": 1.5}, "`alpha`.*1.5"),
        ({"alpha": -0.1}, "`alpha`.*-0.1"),
        ({"temperature": 0.0}, "`temperature`.*0.0"),
        ({"teacher": "path"}, "`teacher`.*'path'"),
        ({"student": net(classes=4)}, "same shape.*3.*4"),
        ({"teacher": net(activation="sigmoid")}, "`teacher`.*sigmoid"),
        ({"student": net(classes=1), "teacher": net(classes=1)}, "at least 2 classes"),
    ],
)
def test_bad_input_names_the_argument(options, message):
    arguments = {"teacher": net(16), "student": net(), **options}
    with pytest.raises(ValueError, match=message):
        tfpeft.Distiller(**arguments)


def test_mirrored_strategy_and_steps_per_execution_match_a_plain_fit(mirrored):
    import tensorflow as tf

    results = []
    for strategy, steps in (
        (tf.distribute.get_strategy(), 1),
        (tf.distribute.get_strategy(), 3),
        (mirrored, 1),
    ):
        keras.utils.set_random_seed(5)
        with strategy.scope():
            layers = [keras.Input((5,)), keras.layers.Dense(3, kernel_regularizer="l2")]
            distiller = tfpeft.Distiller(net(16), keras.Sequential(layers), alpha=0.3)
            distiller.compile(keras.optimizers.SGD(0.1), HARD, steps_per_execution=steps)
        history = distiller.fit(X, Y, batch_size=8, epochs=2, shuffle=False, verbose=0)
        results.append([history.history["loss"][-1], *distiller.student.get_weights()])
    for other in results[1:]:
        for expected, value in zip(results[0], other, strict=True):
            np.testing.assert_allclose(value, expected, atol=1e-5)
