"""The task of outputs and labels, which are logits, and where two tasks fit."""

import keras
import numpy as np
import pytest

from tfpeft.core.arguments import InputError
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.recognition import recognize_task

rng = np.random.default_rng(0)
CLASSES = rng.integers(0, 3, 40)
ROWS = rng.integers(0, 2, (40, 3))
BITS = rng.integers(0, 2, 40)
NUMBERS = rng.normal(size=40)
LOGITS, SIGMOIDS = rng.normal(size=(40, 3)), rng.random((40, 3))
POSITIONS = rng.normal(size=(40, 5, 3))
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("outputs", "labels", "known", "task"),
    [
        (LOGITS, CLASSES, {}, "classification"),
        (LOGITS, CLASSES[:, None].astype("float32"), {}, "classification"),
        (LOGITS, np.eye(3)[CLASSES], {"activation": "linear"}, "classification"),
        (SIGMOIDS, np.eye(3)[CLASSES], {"activation": "sigmoid"}, "classification"),
        (SIGMOIDS, ROWS, {"activation": "sigmoid"}, "multi_label"),
        (SIGMOIDS, ROWS, {}, "multi_label"),
        (LOGITS, ROWS, {"loss": BINARY, "activation": "linear"}, "multi_label"),
        (LOGITS, ROWS, {"from_logits": True}, "multi_label"),
        (LOGITS, ROWS, {"loss": "mse", "activation": "linear"}, "regression"),
        (LOGITS, LOGITS + 1, {}, "regression"),
        (LOGITS[:, 0], BITS, {"loss": ["mae"]}, "regression"),
        (LOGITS[:, :1], NUMBERS, {}, "regression"),
        (LOGITS[:, :1], CLASSES, {}, "regression"),
        (LOGITS[:, :1], BITS, {"loss": BINARY}, "binary"),
        (LOGITS[:, :1], BITS, {"from_logits": True}, "binary"),
        (SIGMOIDS[:, :1], BITS, {}, "binary"),
        (SIGMOIDS[:, :1], BITS, {"activation": "sigmoid", "loss": "mse"}, "binary"),
        (SIGMOIDS[:, :1], NUMBERS, {"activation": "sigmoid"}, "regression"),
        (POSITIONS, rng.integers(0, 3, (40, 5)), {}, "segmentation"),
        (POSITIONS, np.eye(3)[rng.integers(0, 3, (40, 5))], {}, "segmentation"),
        (SIGMOIDS[..., None], ROWS, {"activation": "sigmoid"}, "segmentation"),
        (SIGMOIDS[..., None], ROWS[..., None], {}, "segmentation"),
        (POSITIONS, POSITIONS + 1, {"inputs": POSITIONS[:8] - 1}, "regression"),
        (POSITIONS, POSITIONS + 1, {"inputs": POSITIONS[:8] + 1}, "reconstruction"),
        (POSITIONS, None, {"inputs": POSITIONS[:8]}, "reconstruction"),
    ],
)
def test_the_task(outputs, labels, known, task):
    assert recognize_task(outputs, labels, **known) == task


@pytest.mark.parametrize(
    ("outputs", "labels", "known", "message"),
    [
        (
            LOGITS[:, :1],
            BITS,
            {"activation": "linear"},
            "`task`, expected 'binary' or 'regression'",
        ),
        (LOGITS, ROWS, {}, "`task`, expected 'multi_label' or 'regression'.*which fit both"),
        (LOGITS[..., None], ROWS, {}, "`task`, expected 'segmentation' or 'regression'"),
        (LOGITS, None, {}, r"expected \(x, y\), x alone for .*, or `reference`.*x alone"),
        (LOGITS, rng.random((40, 7)), {}, r"fit outputs of shape \(3,\).*labels of shape \(7,\)"),
        (POSITIONS, CLASSES, {}, r"fit outputs of shape \(5, 3\).*labels of shape \(\)"),
        (LOGITS[:, :1], ROWS, {}, r"fit outputs of shape \(1,\).*labels of shape \(3,\)"),
        (LOGITS, np.array(["a"] * 40), {}, "array of numbers for y"),
    ],
)
def test_what_does_not_fit_or_fits_two(outputs, labels, known, message):
    with pytest.raises(InputError, match=message):
        recognize_task(outputs, labels, **known)


@pytest.mark.parametrize(
    ("outputs", "task", "known", "kind"),
    [
        (LOGITS, "classification", {}, "logits"),
        (SIGMOIDS, "classification", {}, "sigmoid"),
        (SIGMOIDS, "classification", {"activation": "linear"}, "logits"),
        (SIGMOIDS / SIGMOIDS.sum(1, keepdims=True), "classification", {}, "softmax"),
        (0.9 * SIGMOIDS, "classification", {"activation": "softmax"}, "softmax"),
        (SIGMOIDS, "classification", {"from_logits": True}, "logits"),
        (SIGMOIDS, "classification", {"from_logits": False}, "sigmoid"),
        (SIGMOIDS, "multi_label", {"activation": "linear"}, "logits"),
        (LOGITS[:, :1], "binary", {}, "logits"),
        (SIGMOIDS[:, :1], "binary", {}, "sigmoid"),
        (SIGMOIDS, "regression", {"activation": "sigmoid"}, "values"),
    ],
)
def test_what_outputs_are(outputs, task, known, kind):
    assert recognize_outputs(outputs, task, **known).kind == kind
