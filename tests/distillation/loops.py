"""Every loss of distillation as a loop in float64, written from the papers.

Where the papers leave something open, their authors' code decides: lenscloth/RKD,
szagoruyko/attention-transfer, megvii-research/mdistiller (DKD, SP), hunto/DIST_KD.
"""

import functools
import itertools

import numpy as np

import tfpeft


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


def negative_cosine(t, s):
    values = np.zeros(t.shape[:-1])
    for i in np.ndindex(values.shape):
        values[i] = -(t[i] @ s[i]) / np.sqrt((t[i] @ t[i]) * (s[i] @ s[i]))
    return values
