"""NaN and infinity of a teacher never reach a student; saturated teachers do."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft import InputError

X = np.random.default_rng(0).normal(size=(16, 5)).astype("float32")
Y = np.random.default_rng(1).integers(0, 3, 16)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
FINITE = "Expected finite outputs of the teacher. Received: NaN or infinity in "


def mlp(scale=None, hidden="hidden", dtype=None):
    """Returns a model; with a `scale` its logits are the first inputs times that."""
    keras.utils.set_random_seed(0)
    first = keras.layers.Dense(5, name=hidden, dtype=dtype)
    model = keras.Sequential([keras.Input((5,)), first, keras.layers.Dense(3, dtype=dtype)])
    if scale is not None:
        model.set_weights([np.eye(5), np.zeros(5), np.eye(5)[:, :3] * scale, np.zeros(3)])
    return model


def teacher_of(value):
    """Returns a function whose outputs have `value` in the last sample of each batch."""

    def function(x):
        rows = tf.range(tf.shape(x)[0])[:, None]
        return tf.where(rows == tf.shape(x)[0] - 1, value, x[:, :3])

    return function


def distiller_of(teacher, student=None, loss=HARD, optimizer="sgd", **options):
    names = ("run_eagerly", "jit_compile", "steps_per_execution")
    compiled = {name: options.pop(name) for name in names if name in options}
    distiller = tfpeft.Distiller(teacher, student or mlp(), **options)
    distiller.compile(optimizer, loss, **compiled)
    return distiller


def assert_raises_before_training(distiller, message=FINITE, x=X, y=Y):
    before = [variable.numpy() for variable in distiller.student.variables]
    with pytest.raises(InputError, match=message) as raised:
        distiller.fit(x, y, batch_size=8, verbose=0)
    assert "\n" not in str(raised.value)
    for expected, variable in zip(before, distiller.student.variables, strict=True):
        np.testing.assert_array_equal(variable, expected)


@pytest.mark.parametrize(
    ("value", "options"),
    [
        (np.nan, {"run_eagerly": True}),
        (-np.inf, {"run_eagerly": True, "alpha": 1.0}),
        (np.inf, {}),
        (np.nan, {"steps_per_execution": 2}),
        (np.nan, {"jit_compile": True}),
    ],
)
def test_nothing_changes(value, options):
    teacher = teacher_of(value)
    distiller = distiller_of(teacher, teacher_from_logits=True, **options)
    compiled = options.get("jit_compile")
    assert_raises_before_training(distiller, FINITE + ("what" if compiled else "the outputs of te"))
    with pytest.raises(InputError, match=FINITE):
        distiller.evaluate(X, Y, batch_size=8, verbose=0)


def test_compiled_steps_train_with_finite_teachers():
    history = distiller_of(mlp(2.0), jit_compile=True).fit(X, Y, epochs=2, verbose=0).history
    plain = distiller_of(mlp(2.0)).fit(X, Y, epochs=2, verbose=0).history
    np.testing.assert_allclose(history["loss"], plain["loss"], rtol=1e-5)


def test_which_of_several_teachers_it_is():
    teachers = [mlp(2.0), teacher_of(np.nan)]
    distiller = distiller_of(teachers, teacher_from_logits=True, run_eagerly=True)
    assert_raises_before_training(distiller, "in the outputs of teacher 1$")


def test_features():
    teacher = mlp(1.0, hidden="block")
    weights = teacher.get_weights()
    teacher.set_weights([weights[0] * 3e38, *weights[1:]])
    losses = [tfpeft.FeatureMatching(teacher_layer="block", student_layer="hidden")]
    distiller = distiller_of(teacher, distillation_losses=losses, run_eagerly=True)
    assert_raises_before_training(distiller, "the features 'block'")


def test_half_precision():
    assert_raises_before_training(distiller_of(mlp(1e6, dtype="mixed_float16")))


@pytest.mark.parametrize("value", [1.0, np.nan])
def test_compiled_steps_of_a_strategy(value):
    strategy = tf.distribute.MirroredStrategy(["CPU:0"])  # XLA cannot reduce over several CPUs
    with strategy.scope():
        options = {"teacher_from_logits": True, "jit_compile": True}
        distiller = distiller_of(teacher_of(value), **options)
    data = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    if np.isnan(value):
        assert_raises_before_training(distiller, FINITE, data, None)
    else:
        plain = distiller_of(teacher_of(value), teacher_from_logits=True)
        expected = plain.fit(data, verbose=0).history["loss"]
        found = distiller.fit(data, verbose=0).history["loss"]
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_every_replica(mirrored):
    with mirrored.scope():
        distiller = distiller_of(teacher_of(np.nan), teacher_from_logits=True)
    assert_raises_before_training(distiller)


@pytest.mark.parametrize("form", ["arrays", "dataset"])
def test_stored_outputs(form):
    data = X, Y
    if form == "dataset":
        data = tf.data.Dataset.from_tensor_slices(data).batch(8)
    options = {"features": ["hidden"]}
    for scale in (np.nan, 3e38):
        with pytest.raises(InputError, match="`model`, .* finite. .* in outputs of sample [01]$"):
            tfpeft.precompute(mlp(scale), data, **options)
    broken = mlp(1.0)
    broken.layers[0].bias.assign([np.inf, 0, 0, 0, 0])
    with pytest.raises(InputError, match="infinity in .* of sample 0$"):
        tfpeft.precompute(broken, data, **options)


def test_the_sample_is_named():
    with pytest.raises(InputError, match="of sample 7$"):
        tfpeft.precompute(teacher_of(np.nan), X, batch_size=8)


def test_outputs_that_others_have_stored():
    inputs = tfpeft.PrecomputedInputs(X, {"outputs": (np.full((16, 3), np.nan),), "features": {}})
    distiller = distiller_of(None, teacher_from_logits=True, run_eagerly=True)
    assert_raises_before_training(distiller, x=inputs)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_saturated_teachers_stay_labels(temperature):
    """A teacher that is sure: the loss is T^2 times the cross-entropy with its class."""
    teacher, student = mlp(1e37), mlp()
    distiller = distiller_of(
        teacher, student, loss=None, alpha=0.0, temperature=temperature, run_eagerly=True
    )
    found = distiller.evaluate(X, batch_size=16, verbose=0, return_dict=True)["loss"]
    z = np.asarray(student(X), "float64") / temperature
    z -= np.log(np.exp(z).sum(-1, keepdims=True))
    expected = -(temperature**2) * np.mean(z[np.arange(16), X[:, :3].argmax(-1)])
    np.testing.assert_allclose(found, expected, rtol=1e-5)
    distiller.fit(X, verbose=0)
    assert all(np.all(np.isfinite(weight)) for weight in student.get_weights())


def test_a_student_of_its_own_nan_is_as_in_keras():
    student = mlp(np.nan)
    history = distiller_of(mlp(1.0), student, run_eagerly=True).fit(X, Y, verbose=0).history
    assert np.isnan(history["loss"][0])
