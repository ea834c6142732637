"""Every loss of distillation against loops in float64, written from the papers.

Where the papers leave something open, their authors' code decides: lenscloth/RKD,
szagoruyko/attention-transfer, megvii-research/mdistiller (DKD, SP), hunto/DIST_KD.
"""

import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.distillation.loops import (
    FEATURES,
    LOGITS,
    LOSSES,
    MASK,
    OF_BATCHES,
    adaptive_average,
    assert_equals,
    binary_soft_labels,
    decoupled_kd,
    in_float64,
    keras_mean,
    labels_of,
    normal,
    pair,
    relational_angle,
    relational_distance,
    sigmoid,
    soft_labels,
    softmax,
    weights_of,
)
from tfpeft.distillation.features import same_positions


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
@pytest.mark.parametrize(
    ("shape", "weighting", "masked"),
    [
        ((7, 5), None, False),
        ((7, 5), "samples", False),
        ((4, 3, 5), None, False),
        ((4, 3, 5), None, True),
        ((4, 3, 5), "samples", False),
        ((4, 3, 5), "samples", True),
        ((4, 3, 5), "positions", False),
        ((4, 3, 5), "positions", True),
    ],
)
@pytest.mark.parametrize("name", LOGITS)
def test_losses_on_classes_equal_loops(name, shape, weighting, masked, temperature):
    make, formula = LOGITS[name]
    teacher, student = pair(shape)
    labels, weights = labels_of(teacher), weights_of(weighting, shape)
    mask = MASK if masked else None
    expected = keras_mean(
        formula(*in_float64(teacher, student), temperature, labels, mask), weights, mask
    )
    options = {"sample_weight": weights, "labels": labels, "mask": mask}
    own = make(temperature=temperature)
    assert_equals(own(teacher, student, **options), expected)
    assert_equals(own(teacher, student, **options, temperature=9.0), expected)
    assert_equals(make()(teacher, student, **options, temperature=temperature), expected)
    if temperature == 1.0:
        assert_equals(make()(teacher, student, **options), expected)


@pytest.mark.parametrize("shape", [(6, 1), (6, 4), (4, 3, 1), (4, 3, 2)])
def test_binary_soft_labels_of_one_output_and_of_several(shape):
    teacher, student = pair(shape)
    expected = binary_soft_labels(*in_float64(teacher, student), 2.0).mean()
    assert_equals(tfpeft.BinarySoftLabels(temperature=2.0)(teacher, student), expected)


def test_one_binary_output_is_two_classes():
    teacher, student = pair((6, 1))
    two = [np.concatenate([np.zeros_like(z), z], axis=-1) for z in (teacher, student)]
    expected = soft_labels(*in_float64(*two), 3.0).mean()
    assert_equals(tfpeft.BinarySoftLabels(temperature=3.0)(teacher, student), expected)


@pytest.mark.parametrize("kind", ["numbers", "column", "one_hot"])
@pytest.mark.parametrize("shape", [(7, 5), (5, 5), (4, 3, 5), (4, 3, 3), (6, 2)])
def test_decoupled_kd_takes_labels_as_numbers_and_one_hot(shape, kind):
    teacher, student = pair(shape)
    labels = labels_of(teacher)
    expected = decoupled_kd(*in_float64(teacher, student), 2.0, labels).mean()
    given = {
        "numbers": labels,
        "column": labels[..., None].astype("float32"),
        "one_hot": np.eye(shape[-1])[labels],
    }[kind]
    assert_equals(tfpeft.DecoupledKD(temperature=2.0)(teacher, student, labels=given), expected)


def test_decoupled_kd_with_the_teachers_doubt_is_soft_labels():
    """KL = TCKD + (1 - p_y) NCKD, equation 7 of the paper."""
    teacher, student = pair((1, 5))
    doubt = 1.0 - softmax(teacher[0].astype("float64"))[2]
    loss = tfpeft.DecoupledKD(target=1.0, other=float(doubt))
    expected = soft_labels(*in_float64(teacher, student), 1.0).mean()
    assert_equals(loss(teacher, student, labels=np.array([2])), expected)


def test_dist_ignores_what_correlation_does():
    """Probabilities that are linear in the teacher's cost nothing."""
    p = np.array([[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.2, 0.3, 0.5]])
    loss = tfpeft.DIST()
    value = loss(*(loss.logits(each.astype("float32")) for each in (p, 0.5 * p + 0.5 / 3)))
    assert abs(float(value)) < 1e-6


@pytest.mark.parametrize("weights", [(0.5, 0.5), (0.2, 0.3, 0.5)])
@pytest.mark.parametrize("shape", [(7, 5), (4, 3, 5)])
@pytest.mark.parametrize("temperature", [0.5, 4.0])
@pytest.mark.parametrize("name", LOGITS)
def test_several_teachers_are_the_mean_of_their_softened_probabilities(
    name, temperature, shape, weights
):
    make, formula = LOGITS[name]
    teachers = [normal(*shape, seed=10 + k) for k in range(len(weights))]
    student, labels = normal(*shape, seed=2), labels_of(teachers[0])
    mean = np.zeros(shape)
    for z, weight in zip(in_float64(*teachers), weights, strict=True):
        for i in np.ndindex(shape[:-1]):
            soften = sigmoid if name == "binary" else softmax
            mean[i] += weight * soften(z[i] / temperature)
    as_logits = temperature * np.log(mean / (1.0 - mean) if name == "binary" else mean)
    expected = formula(as_logits, *in_float64(student), temperature, labels).mean()
    loss = make(temperature=temperature)
    teacher = loss.mean_of(teachers, weights, temperature)
    assert_equals(loss(teacher, student, labels=labels), expected)


# Values of losses on numbers and features.


@pytest.mark.parametrize(
    ("name", "teacher_shape", "student_shape"),
    [
        ("squared_error", (6, 5), (6, 5)),
        ("squared_error", (4, 3, 5), (4, 3, 5)),
        ("fitnets", (5, 7), (5, 7)),
        ("fitnets", (5, 4, 3, 2), (5, 4, 3, 2)),
        ("fitnets", (5, 6, 4, 3), (5, 3, 4, 3)),  # the teacher's positions are more,
        ("fitnets", (5, 3, 5, 2), (5, 7, 2, 2)),  # on one axis only
        ("fitnets", (5, 8, 3), (5, 3, 3)),
        ("fitnets", (5, 3), (5, 4, 2, 3)),
        ("fitnets", (5, 4, 3), (5, 3)),
        ("attention", (5, 4, 4, 3), (5, 4, 4, 6)),
        ("attention", (5, 6, 4, 3), (5, 4, 6, 2)),
        ("attention", (5, 8, 3), (5, 3, 2)),
        *((name, (6, 5), (6, 5)) for name in OF_BATCHES),
        *((name, (6, 5), (6, 3)) for name in OF_BATCHES),
        *((name, (6, 2, 3, 4), (6, 7)) for name in OF_BATCHES),
        *((name, (6, 4, 3), (6, 5, 2)) for name in OF_BATCHES),
    ],
    ids=str,
)
@pytest.mark.parametrize("weighting", [None, "samples", "positions"])
def test_losses_on_features_equal_loops(name, teacher_shape, student_shape, weighting):
    make, formula = FEATURES[name]
    teacher, student = pair(teacher_shape, student_shape)
    values = formula(*in_float64(teacher, student))
    weights = weights_of(weighting, (*values.shape, 1))
    expected = keras_mean(values, weights)
    assert_equals(make()(teacher, student, sample_weight=weights), expected)


@pytest.mark.parametrize("weighting", [None, "samples", "positions"])
@pytest.mark.parametrize("name", ["squared_error", "fitnets", *OF_BATCHES])
def test_masked_features_equal_loops(name, weighting):
    make, formula = FEATURES[name]
    teacher, student = pair((4, 3, 5))
    weights = weights_of(weighting, teacher.shape)
    t, s = in_float64(teacher, student)
    if name in OF_BATCHES:  # of sequences of any length: those without the masked positions
        expected = keras_mean(formula(t * MASK[..., None], s * MASK[..., None]), weights)
    else:
        expected = keras_mean(formula(t, s), weights, MASK)
    assert_equals(make()(teacher, student, sample_weight=weights, mask=MASK), expected)


def test_huber_counts_large_differences_linearly():
    """Random features hardly differ by more than 1: a row far from all others, and angles of 0
    that are 180 degrees for the student, do."""
    teacher, student = np.zeros((2, 6, 1), "float32")
    teacher[:, 0] = [0, 1, 2, 3, 4, 100]
    student[:, 0] = [0, 50, 3, 2, 1, 4]
    t, s = in_float64(teacher, student)
    assert_equals(tfpeft.RelationalDistance()(teacher, student), relational_distance(t, s).mean())
    assert_equals(tfpeft.RelationalAngle()(teacher, student), relational_angle(t, s).mean())


@pytest.mark.parametrize(
    ("teacher_shape", "student_shape"),
    [
        ((3, 7, 2), (3, 3, 5)),
        ((3, 1, 2), (3, 4, 2)),
        ((3, 5, 4, 2), (3, 5, 4, 6)),
        ((3, 8, 6, 2), (3, 4, 3, 1)),
        ((3, 5, 2, 2), (3, 3, 7, 4)),
        ((2, 3, 4, 5, 2), (2, 2, 6, 5, 1)),
    ],
)
def test_same_positions_is_adaptive_average_pooling(teacher_shape, student_shape):
    teacher, student = pair(teacher_shape, student_shape)
    sizes = tuple(map(min, teacher_shape[1:-1], student_shape[1:-1]))
    results = same_positions(tf.constant(teacher), tf.constant(student))
    assert results[2] is None
    for features, result in zip((teacher, student), results[:2], strict=True):
        expected = adaptive_average(features.astype("float64"), sizes)
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


# Masks: what is padding must not count.


@pytest.mark.parametrize("name", LOSSES)
def test_padding_changes_nothing(name):
    teacher, student = pair((4, 3, 5))
    labels, mask = labels_of(teacher), np.ones((4, 3), bool)
    loss = LOSSES[name]()
    expected = loss(teacher, student, labels=labels)
    more = ((0, 0), (0, 2), (0, 0))
    value = loss(
        np.pad(teacher, more, constant_values=-7.0),
        np.pad(student, more, constant_values=40.0),
        labels=np.pad(labels, more[:2]),
        mask=np.pad(mask, more[:2]),
    )
    assert_equals(value, float(expected))


@pytest.mark.parametrize("name", [*LOSSES, "fitnets to a vector"])
def test_what_is_at_masked_positions_does_not_count(name):
    loss = LOSSES[name.split()[0]]()
    teacher, student = pair((4, 3, 5))
    labels = labels_of(teacher)
    mask = MASK.copy()
    mask[1] = False  # nothing is left of this sample
    changed = np.where(mask[..., None], student, 30.0 * normal(4, 3, 5, seed=7))
    changed_labels = np.where(mask, labels, 0)
    if name.endswith("vector"):
        teacher = teacher[:, 0]
    expected = loss(teacher, student, labels=labels, mask=mask)
    value = loss(teacher, changed, labels=changed_labels, mask=mask)
    assert np.isfinite(float(value))
    assert_equals(value, float(expected))


@pytest.mark.parametrize("name", LOSSES)
def test_nothing_but_padding_costs_nothing(name):
    teacher, student = pair((4, 3, 5))
    mask = np.zeros((4, 3), bool)
    assert float(LOSSES[name]()(teacher, student, labels=labels_of(teacher), mask=mask)) == 0.0


@pytest.mark.parametrize(("teacher_steps", "student_steps"), [(8, 4), (4, 8)])
@pytest.mark.parametrize("name", ["fitnets", "attention", *OF_BATCHES])
def test_the_students_mask_suits_a_teacher_of_other_positions(name, teacher_steps, student_steps):
    """Padding at the end, which fills whole cells of the pooling: no half masked ones."""
    make, _ = FEATURES[name]
    teacher, student = pair((3, teacher_steps, 5), (3, student_steps, 5))
    padding = np.pad(np.ones((3, student_steps // 2), bool), ((0, 0), (0, student_steps // 2)))
    expected = make()(teacher[:, : teacher_steps // 2], student[:, : student_steps // 2])
    value = make()(teacher, student, mask=padding)
    # Two float32 values of small differences of numbers near 1.
    np.testing.assert_allclose(float(value), float(expected), rtol=1e-5, atol=1e-8)
