"""Gradients of the losses: against finite differences, and tame where a formula divides by zero."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.distillation.loops import (
    FEATURES,
    LOGITS,
    LOSSES,
    OF_BATCHES,
    assert_equals,
    in_float64,
    labels_of,
    normal,
    pair,
    sigmoid,
    softmax,
)


def value_and_gradient(loss, teacher, student, **options):
    student = tf.convert_to_tensor(student)
    with tf.GradientTape() as tape:
        tape.watch(student)
        value = loss(teacher, student, **options)
    return value, tape.gradient(value, student)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_equal_finite_differences(name):
    """In a graph that knows neither the size of the batch nor the number of positions."""
    make, formula = (LOGITS | FEATURES)[name]
    shape = (5, 3, 2) if name in ("fitnets", "attention") else (5, 4)
    teacher, student = pair(shape)
    labels = labels_of(teacher)
    options, more = {}, ()
    if name in LOGITS:
        options, more = {"labels": labels, "temperature": 2.0}, (2.0, labels)
    t, s = in_float64(teacher, student)
    expected = np.zeros(shape)
    for i in np.ndindex(shape):
        step = np.zeros(shape)
        step[i] = 1e-5
        up, down = (formula(t, s + sign * step, *more).mean() for sign in (1.0, -1.0))
        expected[i] = (up - down) / 2e-5
    spec = tf.TensorSpec((*[None] * (len(shape) - 1), shape[-1]))
    run = tf.function(functools.partial(value_and_gradient, make(), **options), [spec, spec])
    value, gradients = run(teacher, student)
    np.testing.assert_allclose(value, formula(t, s, *more).mean(), rtol=1e-5)
    np.testing.assert_allclose(gradients, expected, rtol=1e-4, atol=1e-4 * np.abs(expected).max())


def assert_tame(value, gradients):
    assert np.isfinite(value)
    assert np.all(np.isfinite(gradients))
    assert np.abs(gradients).max() < 100.0  # all inputs are about 1


DEGENERATE = {
    "two rows alike": lambda s: np.concatenate([s[:1], s[:1], s[2:]]),
    "two teacher and student rows alike": lambda s: np.concatenate([s[:1], s[:1], s[2:]]),
    "a row of zeros": lambda s: np.concatenate([0.0 * s[:1], s[1:]]),
    "two rows of zeros": lambda s: np.concatenate([0.0 * s[:2], s[2:]]),
    "rows all alike": lambda s: np.repeat(s[:1], len(s), axis=0),
    "zeros": lambda s: 0.0 * s,
}


@pytest.mark.parametrize("case", DEGENERATE)
@pytest.mark.parametrize("name", ["attention", *OF_BATCHES])
def test_gradients_stay_tame_where_lengths_are_zero(name, case):
    teacher, student = pair((6, 4, 3))
    student = DEGENERATE[case](student)
    if "teacher" in case:
        teacher = DEGENERATE[case](teacher)
    assert_tame(*value_and_gradient(LOSSES[name](), teacher, student))
    assert_tame(*value_and_gradient(LOSSES[name](), student, teacher))


@pytest.mark.parametrize("classes", [2, 3, 10])
@pytest.mark.parametrize("case", DEGENERATE)
def test_gradients_of_dist_stay_tame_where_probabilities_do_not_vary(case, classes):
    """A head that starts at zero returns the same for all classes and samples."""
    teacher, student = pair((6, classes))
    student = DEGENERATE[case](student)
    if "teacher" in case:
        teacher = DEGENERATE[case](teacher)
    assert_tame(*value_and_gradient(tfpeft.DIST(), teacher, student))
    assert_tame(*value_and_gradient(tfpeft.DIST(), student, teacher))


@pytest.mark.parametrize("name", LOGITS)
def test_gradients_stay_tame_where_probabilities_are_0_or_1(name):
    """The student may return probabilities as well as the teacher."""
    loss, labels = LOSSES[name](temperature=2.0), np.array([0, 1, 2])
    certain = np.eye(3, dtype="float32")
    doubtful = np.array([softmax(row) for row in normal(3, 3)], "float32")

    def on_probabilities(teacher, student, **options):
        return loss(loss.logits(teacher), loss.logits(student), **options)

    for p in (certain, doubtful):
        for q in (certain, certain[::-1], doubtful):
            assert_tame(*value_and_gradient(on_probabilities, p, q.copy(), labels=labels))
            assert_tame(*value_and_gradient(loss, loss.logits(p), loss.logits(q), labels=labels))


@pytest.mark.parametrize("name", ["soft", "binary"])
def test_a_certain_teacher_is_a_label(name):
    make, _ = LOGITS[name]
    certain, student = np.eye(3, dtype="float32")[[0, 2]], normal(2, 3, seed=2)
    loss = make()
    if name == "soft":
        expected = -np.mean([np.log(softmax(z)[y]) for z, y in zip(student, (0, 2), strict=True)])
    else:
        expected = -np.mean(np.log(np.where(certain, sigmoid(student), sigmoid(-student))))
    assert_equals(loss(loss.logits(certain), student), expected)


@pytest.mark.parametrize("name", LOGITS)
def test_probabilities_come_back_from_their_logits(name):
    loss = LOSSES[name]()
    p = np.array([[0.7, 0.2, 0.1], [1.0, 0.0, 0.0], [1e-6, 0.5, 0.5 - 1e-6]], "float32")
    restore = keras.activations.get(loss.activation)
    # A yes is no surer than float32 can tell from 1, and a no neither.
    atol = 2.0**-24 if loss.activation == "sigmoid" else 1e-12
    np.testing.assert_allclose(restore(loss.logits(p)), p, rtol=1e-5, atol=atol)


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name):
    teacher, student = (z.astype("float16") for z in pair((4, 3, 5)))
    loss, labels = LOSSES[name](), labels_of(teacher)
    expected = loss(teacher.astype("float32"), student.astype("float32"), labels=labels)
    assert_equals(loss(teacher, student, labels=labels), float(expected))


def test_classes_that_a_teacher_excludes_cost_nothing():
    """0 * log(0) = 0, also where a logarithm is infinite in float32."""
    teacher = np.array([[3e38, -3e38, 0.0]], "float32")
    student = np.array([[1.0, 2.0, 3.0]], "float32")
    expected = np.log(np.exp(student[0] - 1.0).sum())
    np.testing.assert_allclose(tfpeft.SoftLabels()(teacher, student), expected, rtol=1e-6)
