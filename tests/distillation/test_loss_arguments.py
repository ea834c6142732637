"""Custom losses of distillation, and what losses of distillation do not take."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.distillation.loops import (
    LOGITS,
    LOSSES,
    MASK,
    OF_BATCHES,
    assert_equals,
    in_float64,
    keras_mean,
    labels_of,
    negative_cosine,
    pair,
    soft_labels,
    weights_of,
)
from tfpeft.distillation.keras_losses import from_keras


def test_names_of_losses():
    names = [LOSSES[name]().name for name in ("soft", "binary", "decoupled", "dist", "angle")]
    expected = ["soft_labels", "binary_soft_labels", "decoupled_kd", "dist", "relational_angle"]
    assert names == expected


# Bad input.


@pytest.mark.parametrize("value", [0.0, -1, float("nan"), float("inf"), "1", None])
@pytest.mark.parametrize("name", LOSSES)
def test_a_bad_weight_raises(name, value):
    with pytest.raises(ValueError, match=f"`weight`.*positive number.*weight={value!r}"):
        LOSSES[name](weight=value)


@pytest.mark.parametrize("value", [0.0, -1, float("nan"), float("inf"), "1"])
@pytest.mark.parametrize("name", LOGITS)
def test_a_bad_temperature_raises(name, value):
    with pytest.raises(ValueError, match=f"`temperature`.*positive number.*temperature={value!r}"):
        LOSSES[name](temperature=value)


@pytest.mark.parametrize(
    ("name", "teacher_shape", "student_shape"),
    [
        *(
            (name, (6, 5), student)
            for name in (*LOGITS, "squared_error")
            for student in [(6, 4), (6, 1), (1, 5), (4, 5), (6, 6, 5)]
        ),
        ("fitnets", (6, 5), (6, 4)),
        ("fitnets", (6, 4, 5), (6, 4, 1)),
        ("fitnets", (6, 2, 2, 5), (6, 4, 5)),
        ("fitnets", (6, 5), (4, 5)),
        ("attention", (6, 5), (6, 5)),
        ("attention", (6, 2, 5), (6, 5)),
        ("attention", (6, 2, 2, 5), (6, 4, 5)),
        ("attention", (6, 2, 5), (4, 2, 5)),
        *((name, (6, 5), student) for name in OF_BATCHES for student in [(4, 5), (1, 5)]),
    ],
    ids=str,
)
def test_shapes_that_do_not_match_raise(name, teacher_shape, student_shape):
    """Not broadcast, and not left to an error of an operation somewhere below."""
    teacher, student = pair(teacher_shape, student_shape)
    with pytest.raises(ValueError, match=r"xpected.*Received.*teacher \(.*student \("):
        LOSSES[name]()(teacher, student, labels=labels_of(teacher))


@pytest.mark.parametrize("shape", [None, (5,), (1,), (6, 4), (6, 2), (5, 5)], ids=str)
def test_labels_that_do_not_match_raise(shape):
    labels = None if shape is None else np.zeros(shape, int)
    with pytest.raises(ValueError, match="labels"):
        tfpeft.DecoupledKD()(*pair((6, 5)), labels=labels)


@pytest.mark.parametrize("value", ["mse", 3, tfpeft.SoftLabels])
def test_other_kinds_of_losses_raise(value):
    with pytest.raises(ValueError, match="`distillation_losses`.*keras.distillation.*losses="):
        from_keras(value)


# Custom losses.


class Cosine(tfpeft.DistillationLoss):
    match_widths = True

    def call(self, teacher, student):
        return 1.0 + keras.losses.cosine_similarity(teacher, student, axis=-1)


class OfSomeClass(tfpeft.DistillationLoss):
    uses = ("labels", "mask")

    def call(self, teacher, student, labels, mask):
        wanted = keras.ops.cast(labels == 1, "float32") * keras.ops.cast(mask, "float32")
        return keras.ops.sum(wanted * keras.ops.sum(teacher - student, axis=-1), axis=-1)


class Reversed(tfpeft.SoftLabels):
    def call(self, teacher, student):
        return super().call(student, teacher)


def test_a_custom_loss():
    teacher, student = pair((4, 3, 5))
    t, s = in_float64(teacher, student)
    labels, weights = labels_of(teacher), weights_of("samples", teacher.shape)
    loss = Cosine(weight=0.5)
    assert (loss.name, loss.weight) == ("cosine", 0.5)
    values = 1.0 + negative_cosine(t, s)
    assert_equals(loss(teacher, student, labels=labels), values.mean())
    assert_equals(loss(teacher, student, weights, mask=MASK), keras_mean(values, weights, MASK))

    values = np.sum(((labels == 1) & MASK) * np.sum(t - s, axis=-1), axis=-1)
    value = OfSomeClass()(teacher, student, weights, labels=labels, mask=MASK)
    assert_equals(value, keras_mean(values, weights))

    value = Reversed(temperature=2.0)(teacher, student)
    assert_equals(value, soft_labels(s, t, 2.0).mean())

    with pytest.raises(NotImplementedError):
        tfpeft.DistillationLoss()(teacher, student)


@pytest.mark.parametrize("value", ["a", True, None, -1.0, np.nan, np.inf, 10**400, [1.0], 1j])
@pytest.mark.parametrize(
    ("cls", "argument"),
    [
        (tfpeft.DecoupledKD, "target"),
        (tfpeft.DecoupledKD, "other"),
        (tfpeft.DIST, "inter"),
        (tfpeft.DIST, "intra"),
    ],
)
def test_a_bad_part_raises(cls, argument, value):
    with pytest.raises(tfpeft.InputError, match=f"`{argument}`, expected a number >= 0"):
        cls(**{argument: value})


def test_a_loss_of_no_part_raises():
    assert tfpeft.DecoupledKD(target=0.0).target == 0.0
    with pytest.raises(tfpeft.InputError, match="above 0 for target or other"):
        tfpeft.DecoupledKD(target=0, other=0)


@pytest.mark.parametrize("name", ["SoftLabels", "DIST", "FeatureMatching", "SquaredError"])
@pytest.mark.parametrize(
    ("argument", "value"),
    [
        *[("output", value) for value in (True, 1.5, ["a"])],
        *[("name", value) for value in (3, "", "a/b")],
        *[("weight", value) for value in (True, "1", np.nan, 0)],
    ],
)
def test_bad_arguments_raise(name, argument, value):
    with pytest.raises(tfpeft.InputError, match=f"`{argument}`, expected"):
        getattr(tfpeft, name)(**{argument: value})
