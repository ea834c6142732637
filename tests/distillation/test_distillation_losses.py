"""Every loss of distillation against loops in float64, written from the papers.

Where the papers leave something open, their authors' code decides: lenscloth/RKD,
szagoruyko/attention-transfer, megvii-research/mdistiller (DKD, SP), hunto/DIST_KD.
"""

import functools
import itertools
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.distillation.features import same_positions
from tfpeft.distillation.keras_losses import KerasFeatures, KerasLogits, KerasLoss, from_keras


def normal(*shape, seed=0, scale=1.5):
    return np.random.default_rng((seed, *shape)).normal(0.0, scale, shape).astype("float32")


def pair(teacher_shape, student_shape=None):
    return normal(*teacher_shape, seed=1), normal(*(student_shape or teacher_shape), seed=2)


def assert_equals(value, expected):
    assert value.dtype == "float32"
    np.testing.assert_allclose(float(value), expected, rtol=1e-5)


# What the formulas say: each function returns the values that are averaged.


def softmax(z):
    e = np.exp(z - np.max(z))
    return e / e.sum()


def sigmoid(z):
    return 1.0 / (1.0 + np.exp(-z))


def kl(p, q):
    """KL divergence of two distributions, where 0 log 0 = 0."""
    return sum(a * np.log(a / b) for a, b in zip(p, q, strict=True) if a > 0.0)


def smooth_l1(difference):
    return 0.5 * difference**2 if abs(difference) < 1.0 else abs(difference) - 0.5


def soft_labels(t, s, temperature, labels=None, mask=None):
    values = np.zeros(t.shape[:-1])
    for i in np.ndindex(values.shape):
        values[i] = temperature**2 * kl(softmax(t[i] / temperature), softmax(s[i] / temperature))
    return values


def binary_soft_labels(t, s, temperature, labels=None, mask=None):
    values = np.zeros(t.shape)
    for i in np.ndindex(values.shape):
        p, q = sigmoid(t[i] / temperature), sigmoid(s[i] / temperature)
        values[i] = temperature**2 * kl((p, 1.0 - p), (q, 1.0 - q))
    return values.mean(-1)


def decoupled_kd(t, s, temperature, labels, mask=None, target=1.0, other=8.0):
    values = np.zeros(t.shape[:-1])
    for i in np.ndindex(values.shape):
        p, q, y = softmax(t[i] / temperature), softmax(s[i] / temperature), labels[i]
        tckd = kl((p[y], 1.0 - p[y]), (q[y], 1.0 - q[y]))
        nckd = kl(np.delete(p, y) / (1.0 - p[y]), np.delete(q, y) / (1.0 - q[y]))
        values[i] = temperature**2 * (target * tckd + other * nckd)
    return values


def dist(t, s, temperature, labels=None, mask=None, inter=1.0, intra=1.0):
    shape, classes = t.shape[:-1], t.shape[-1]
    p = np.array([softmax(row) for row in t.reshape(-1, classes) / temperature])
    q = np.array([softmax(row) for row in s.reshape(-1, classes) / temperature])
    rows = slice(None) if mask is None else mask.ravel()
    of_classes = [np.corrcoef(p[rows, c], q[rows, c])[0, 1] for c in range(classes)]
    of_samples = np.array([np.corrcoef(a, b)[0, 1] for a, b in zip(p, q, strict=True)])
    values = inter * (1.0 - of_samples) + intra * (1.0 - np.mean(of_classes))
    return temperature**2 * values.reshape(shape)


def adaptive_average(features, sizes):
    """Adaptive average pooling: cell i of S holds the positions floor(iL/S) to ceil((i+1)L/S)."""
    lengths = features.shape[1:-1]
    pooled = np.zeros((len(features), *sizes, features.shape[-1]))
    for cell in np.ndindex(*sizes):
        window = [
            range(int(np.floor(i * length / size)), int(np.ceil((i + 1) * length / size)))
            for i, length, size in zip(cell, lengths, sizes, strict=True)
        ]
        inside = [features[(slice(None), *position)] for position in itertools.product(*window)]
        pooled[(slice(None), *cell)] = np.mean(inside, axis=0)
    return pooled


def brought_together(t, s):
    if t.ndim != s.ndim:
        return tuple(f.reshape(len(f), -1, f.shape[-1]).mean(1) for f in (t, s))
    sizes = tuple(map(min, t.shape[1:-1], s.shape[1:-1]))
    return adaptive_average(t, sizes), adaptive_average(s, sizes)


def squared_error(t, s):
    return np.mean((t - s) ** 2, axis=-1)


def feature_matching(t, s):
    return squared_error(*brought_together(t, s))


def attention_transfer(t, s):
    values = []
    for one, other in zip(*brought_together(t, s), strict=True):
        maps = [np.array([np.mean(c**2) for c in f.reshape(-1, f.shape[-1])]) for f in (one, other)]
        maps = [v / np.sqrt(np.sum(v**2)) for v in maps]
        values.append(np.mean((maps[0] - maps[1]) ** 2))
    return np.array(values)


def similarity_preserving(t, s):
    grams = []
    for features in (t, s):
        rows = [row.ravel() for row in features]
        gram = np.array([[a @ b for b in rows] for a in rows])
        grams.append([row / np.sqrt(np.sum(row**2)) for row in gram])
    # The mean over the batch makes 1 / batch of it 1 / batch^2.
    return np.array([np.sum((a - b) ** 2) / len(t) for a, b in zip(*grams, strict=True)])


def relational_distance(t, s):
    distances = []
    for features in (t, s):
        rows = [row.ravel() for row in features]
        d = np.array([[np.sqrt(np.sum((a - b) ** 2)) for b in rows] for a in rows])
        distances.append(d / np.mean(d[d > 0.0]))
    differences = distances[0] - distances[1]
    return np.array([np.mean([smooth_l1(d) for d in row]) for row in differences])


def relational_angle(t, s):
    def cosine(rows, i, j, k):
        a, b = rows[j] - rows[i], rows[k] - rows[i]
        lengths = np.sqrt(np.sum(a**2)) * np.sqrt(np.sum(b**2))
        return a @ b / lengths if lengths > 0.0 else 0.0

    t, s, n = t.reshape(len(t), -1), s.reshape(len(s), -1), range(len(t))
    return np.array(
        [
            np.mean([smooth_l1(cosine(t, i, j, k) - cosine(s, i, j, k)) for j in n for k in n])
            for i in n
        ]
    )


def keras_mean(values, weights=None, mask=None):
    """Weights multiply, the divisor is the number of what is not masked."""
    total, count = 0.0, 0
    for i in np.ndindex(values.shape):
        if mask is None or mask[i]:
            # Weights of samples hold for their positions; those of positions average to a sample.
            weight = 1.0 if weights is None else np.mean(weights[i[: weights.ndim]])
            total, count = total + weight * values[i], count + 1
    return total / count


LOGITS = {
    "soft": (tfpeft.SoftLabels, soft_labels),
    "binary": (tfpeft.BinarySoftLabels, binary_soft_labels),
    "decoupled": (
        functools.partial(tfpeft.DecoupledKD, target=0.7, other=3.0),
        functools.partial(decoupled_kd, target=0.7, other=3.0),
    ),
    "dist": (
        functools.partial(tfpeft.DIST, inter=0.5, intra=2.0),
        functools.partial(dist, inter=0.5, intra=2.0),
    ),
}
FEATURES = {
    "squared_error": (tfpeft.SquaredError, squared_error),
    "fitnets": (tfpeft.FeatureMatching, feature_matching),
    "attention": (tfpeft.AttentionTransfer, attention_transfer),
    "similarity": (tfpeft.SimilarityPreserving, similarity_preserving),
    "distance": (tfpeft.RelationalDistance, relational_distance),
    "angle": (tfpeft.RelationalAngle, relational_angle),
}
OF_BATCHES = ("similarity", "distance", "angle")  # rows of any size, related to each other
LOSSES = {name: make for name, (make, _) in (LOGITS | FEATURES).items()}
MASK = np.array([[1, 1, 0], [1, 0, 0], [1, 1, 1], [0, 1, 1]], bool)


def labels_of(logits):
    shape = logits.shape[:-1]
    return np.random.default_rng(3).integers(0, logits.shape[-1], shape)


def weights_of(kind, shape):
    shape = {"samples": shape[:1], "positions": shape[:-1]}.get(kind)
    return shape and np.random.default_rng(4).uniform(0.1, 2.0, shape).astype("float32")


def in_float64(*arrays):
    return tuple(array.astype("float64") for array in arrays)


# Values of losses on classes.


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


# Gradients.


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


# Losses of keras.distillation.


def crossentropy(t, s, temperature, label_smoothing=0.0):
    values = np.zeros(t.shape[:-1])
    for i in np.ndindex(values.shape):
        p, q = softmax(t[i] / temperature), softmax(s[i] / temperature)
        p = (1.0 - label_smoothing) * p + label_smoothing / len(p)
        values[i] = -(temperature**2) * np.sum(p * np.log(q))
    return values


def scaled_squares(t, s, temperature):
    return np.mean((t / temperature - s / temperature) ** 2, axis=-1)


def negative_cosine(t, s):
    values = np.zeros(t.shape[:-1])
    for i in np.ndindex(values.shape):
        values[i] = -(t[i] @ s[i]) / np.sqrt((t[i] @ t[i]) * (s[i] @ s[i]))
    return values


def name_of(value):
    if isinstance(value, keras.losses.Loss):
        return f"{type(value).__name__}({value.name})"
    if isinstance(value, functools.partial):
        return f"{value.func.__name__}({value.keywords})"
    return getattr(value, "__name__", str(value))


@pytest.mark.parametrize(
    ("loss", "kind", "formula"),
    [
        ("kl_divergence", tfpeft.SoftLabels, soft_labels),
        (keras.losses.kl_divergence, tfpeft.SoftLabels, soft_labels),
        (keras.losses.KLDivergence(), tfpeft.SoftLabels, soft_labels),
        (keras.losses.KLDivergence(name="soft"), tfpeft.SoftLabels, soft_labels),
        ("categorical_crossentropy", KerasLogits, crossentropy),
        (keras.losses.CategoricalCrossentropy(from_logits=True), KerasLogits, crossentropy),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True, name="soft"),
            KerasLogits,
            crossentropy,
        ),
        (
            keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.3),
            KerasLogits,
            functools.partial(crossentropy, label_smoothing=0.3),
        ),
        ("mse", KerasLogits, scaled_squares),
        (keras.losses.MeanSquaredError(), KerasLogits, scaled_squares),
    ],
    ids=name_of,
)
@pytest.mark.parametrize("weighting", [None, "samples"])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_logits_distillation_of_keras(loss, kind, formula, weighting, temperature):
    given = keras.distillation.LogitsDistillation(temperature=temperature, loss=loss)
    (converted,) = from_keras(given, weight=0.5)
    assert (type(converted), converted.weight, converted.temperature) == (kind, 0.5, temperature)
    teacher, student = pair((7, 5))
    weights = weights_of(weighting, teacher.shape)
    expected = keras_mean(formula(*in_float64(teacher, student), temperature), weights)
    assert_equals(converted(teacher, student, weights, temperature=9.0), expected)
    right_in_keras = isinstance(loss, keras.losses.KLDivergence) or formula is scaled_squares
    if weights is None and right_in_keras:
        assert_equals(given.compute_loss(teacher, student), expected)


def test_logits_distillation_by_default():
    (loss,) = from_keras(keras.distillation.LogitsDistillation())
    assert loss.get_config() == tfpeft.SoftLabels(temperature=3.0).get_config()
    teacher, student = pair((7, 5))
    assert_equals(loss(teacher, student), soft_labels(*in_float64(teacher, student), 3.0).mean())


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("mse", squared_error),
        (keras.losses.MeanSquaredError(), squared_error),
        ("cosine_similarity", negative_cosine),
        (keras.losses.CosineSimilarity(), negative_cosine),
    ],
    ids=name_of,
)
@pytest.mark.parametrize(
    ("shape", "weighting"), [((7, 5), None), ((7, 5), "samples"), ((4, 3, 5), "positions")]
)
def test_feature_distillation_of_keras(loss, formula, shape, weighting):
    given = keras.distillation.FeatureDistillation(loss, "conv_3", "conv_2")
    (converted,) = from_keras(given, weight=0.5)
    assert isinstance(converted, KerasFeatures)
    assert (converted.teacher_layer, converted.student_layer, converted.weight) == (
        "conv_3",
        "conv_2",
        0.5,
    )
    teacher, student = pair(shape)
    weights = weights_of(weighting, shape)
    values = formula(*in_float64(teacher, student))
    assert_equals(converted(teacher, student, weights), keras_mean(values, weights))
    if weights is None:
        assert_equals(given.compute_loss(teacher, student), values.mean())


@pytest.mark.parametrize(
    ("losses", "outputs"),
    [
        (["mse", None, "kl_divergence"], [0, 2]),
        ((None, "mse"), [1]),
        ({"a": None, "b": "mse", "c": "kl_divergence"}, ["b", "c"]),
    ],
)
@pytest.mark.parametrize(
    "cls", [keras.distillation.LogitsDistillation, keras.distillation.FeatureDistillation]
)
def test_structures_of_losses_are_a_loss_per_output(cls, losses, outputs):
    found = from_keras(cls(loss=losses), weight=2.0)
    assert [(loss.output, loss.weight) for loss in found] == [(output, 2.0) for output in outputs]


@keras.saving.register_keras_serializable(package="tests")
class Largest(keras.distillation.DistillationLoss):
    def __init__(self, factor=3.0):
        self.factor = factor

    def compute_loss(self, teacher_outputs, student_outputs, **kwargs):
        return self.factor * keras.ops.max(keras.ops.abs(teacher_outputs - student_outputs))

    def get_config(self):
        return {"factor": self.factor}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class LargestOfLogits(keras.distillation.LogitsDistillation):
    compute_loss = Largest.compute_loss
    factor = 3.0


class LargestOfFeatures(keras.distillation.FeatureDistillation):
    compute_loss = Largest.compute_loss
    factor = 3.0


@pytest.mark.parametrize("cls", [Largest, LargestOfLogits, LargestOfFeatures])
def test_a_custom_distillation_loss_of_keras(cls):
    (loss,) = from_keras(cls(), weight=0.5)
    assert isinstance(loss, KerasLoss)
    assert loss.weight == 0.5
    teacher, student = pair((7, 5))
    weights = weights_of("samples", teacher.shape)
    expected = 3.0 * np.abs(teacher - student).max()
    assert_equals(loss(teacher, student), expected)
    assert_equals(loss(teacher, student, weights), expected * weights.mean())


# Saving.

LAYERS = {"teacher_layer": "a/b", "student_layer": "c", "weight": 2.0, "output": "y", "name": "n"}
SAVED = [
    tfpeft.SoftLabels(),
    tfpeft.SoftLabels(temperature=2.0, weight=3.0, output="y", name="n"),
    tfpeft.BinarySoftLabels(temperature=2.0, weight=3.0, output=1, name="n"),
    tfpeft.DecoupledKD(target=0.5, other=2.0, temperature=2.0, weight=3.0, output="y", name="n"),
    tfpeft.DIST(inter=0.5, intra=2.0, temperature=2.0, weight=3.0, output="y", name="n"),
    tfpeft.SquaredError(weight=3.0, output="y", name="n"),
    tfpeft.FeatureMatching(**LAYERS),
    tfpeft.AttentionTransfer(**LAYERS),
    tfpeft.SimilarityPreserving(**LAYERS),
    tfpeft.RelationalDistance(**LAYERS),
    tfpeft.RelationalAngle(**LAYERS),
    *from_keras(keras.distillation.LogitsDistillation(2.0, ["mse", None, "kl_divergence"]), 3.0),
    *from_keras(keras.distillation.LogitsDistillation(2.0, keras.losses.CategoricalCrossentropy())),
    *from_keras(keras.distillation.FeatureDistillation("cosine_similarity", "a/b", "c"), 3.0),
    *from_keras(keras.distillation.FeatureDistillation(keras.losses.CosineSimilarity())),
    *from_keras(Largest(2.0), 3.0),
]


@pytest.mark.parametrize("loss", SAVED, ids=lambda loss: type(loss).__name__)
def test_losses_are_saved_and_restored(loss):
    text = json.dumps(keras.saving.serialize_keras_object(loss))
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(restored) is type(loss)
    assert restored.get_config() == loss.get_config()
    teacher, student = pair((4, 3, 5))
    options = {"labels": labels_of(teacher), "sample_weight": weights_of("samples", (4, 3, 5))}
    assert float(restored(teacher, student, **options)) == float(loss(teacher, student, **options))


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


@pytest.mark.parametrize("name", LOSSES)
def test_half_precision_is_computed_in_float32(name):
    teacher, student = (z.astype("float16") for z in pair((4, 3, 5)))
    loss, labels = LOSSES[name](), labels_of(teacher)
    expected = loss(teacher.astype("float32"), student.astype("float32"), labels=labels)
    assert_equals(loss(teacher, student, labels=labels), float(expected))


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


def test_classes_that_a_teacher_excludes_cost_nothing():
    """0 * log(0) = 0, also where a logarithm is infinite in float32."""
    teacher = np.array([[3e38, -3e38, 0.0]], "float32")
    student = np.array([[1.0, 2.0, 3.0]], "float32")
    expected = np.log(np.exp(student[0] - 1.0).sum())
    np.testing.assert_allclose(tfpeft.SoftLabels()(teacher, student), expected, rtol=1e-6)
