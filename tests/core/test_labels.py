"""Labels against outputs and losses of Keras: form, range, and what is missing."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpeft import InputError
from tfpeft.core.labels import check_form, is_loss, is_metric, range_checks

OUTPUTS = tf.zeros((4, 3))
NUMBERS = np.array([0, 1, 2, 2])
ROWS = np.eye(3, dtype="float32")[NUMBERS]
SPARSE = keras.losses.SparseCategoricalCrossentropy(from_logits=True, name="own")
ROWS_LOSS = keras.losses.CategoricalCrossentropy(from_logits=True)
BINARY = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("labels", "outputs", "loss"),
    [
        (NUMBERS, OUTPUTS, SPARSE),
        (NUMBERS[:, None], OUTPUTS, "sparse_categorical_crossentropy"),
        (ROWS, OUTPUTS, ROWS_LOSS),
        (ROWS, OUTPUTS, "mse"),
        (NUMBERS, OUTPUTS[:, :1], "mse"),
        (NUMBERS[:, None], OUTPUTS[:, 0], keras.losses.Huber()),
        (NUMBERS, OUTPUTS[:, :1], BINARY),
        (ROWS, OUTPUTS, BINARY),
        (np.zeros((4, 5)), tf.zeros((4, 5, 3)), SPARSE),
        (NUMBERS[:, None, None], OUTPUTS, lambda y, p: p),
    ],
)
def test_labels_that_suit(labels, outputs, loss):
    check_form(tf.constant(labels), outputs, loss, "the task age")


@pytest.mark.parametrize(
    ("labels", "outputs", "loss", "message"),
    [
        (ROWS, OUTPUTS, SPARSE, "class numbers .*CategoricalCrossentropy.*shape \\(4, 3\\)$"),
        (NUMBERS, OUTPUTS, ROWS_LOSS, "a number per class .*Sparse.*shape \\(4,\\)$"),
        # Keras repeats one number over all outputs, in silence.
        (NUMBERS[:, None], OUTPUTS, "mse", "a number per output. Received: .*\\(4, 1\\)$"),
        (NUMBERS[:, None], OUTPUTS, BINARY, "a number per output"),
        (np.zeros((4, 3)), tf.zeros((4, 5, 3)), "mse", "a number per output"),
        (NUMBERS + 1j, OUTPUTS, SPARSE, "real numbers as labels for the task age.*complex128$"),
        (NUMBERS.astype(str), OUTPUTS, SPARSE, "real numbers .*string$"),
    ],
)
def test_labels_of_another_form(labels, outputs, loss, message):
    with pytest.raises(InputError, match=message):
        check_form(tf.constant(labels), outputs, loss, "the task age")


@pytest.mark.parametrize(
    ("labels", "loss", "missing", "message"),
    [
        ([0, 1, 2, 3], SPARSE, False, "expected 0 to 2 for the task age. Received: 0 to 3$"),
        ([0, 1, 2, -1], SPARSE, False, "expected 0 to 2 .*-1 to 2$"),
        ([0, 1, 2, -1], SPARSE, True, None),
        ([0.0, 1.0, 2.0, np.nan], SPARSE, True, None),
        ([0.0, 1.0, 2.0, np.nan], SPARSE, False, "finite labels for the task age. .*NaN"),
        ([0.0, 1.0, 2.0, np.inf], SPARSE, True, "finite labels for the task age"),
        ([0.0, 1.0, 2.0, 0.5], SPARSE, False, "whole class numbers as labels for the task age"),
        (np.full((4, 3), np.inf), "mse", False, "finite labels"),
        (ROWS * 7.0, "mse", False, None),
        (ROWS * 2.0, BINARY, True, "expected 0 to 1 .*0 to 2$"),
        ([0, 1, 2, 255], keras.losses.SparseCategoricalCrossentropy(ignore_class=255), False, None),
    ],
)
def test_values(labels, loss, missing, message):
    def run():
        labels_ = tf.constant(labels)
        return range_checks(labels_, OUTPUTS, loss, "the task age", may_be_missing=missing)

    if message is None:
        assert run() == []  # in eager code
    else:
        with pytest.raises(InputError, match=message):
            run()


@pytest.mark.parametrize("value", ["mse", SPARSE, keras.losses.mean_squared_error, lambda y, p: p])
def test_losses(value):
    assert is_loss(value)


@pytest.mark.parametrize("value", ["nope", None, 3, [SPARSE], keras.losses.Huber])
def test_what_is_no_loss(value):
    assert not is_loss(value)
    assert not is_metric(value)


def test_a_metric_is_no_loss_and_a_loss_no_metric():
    assert is_metric(keras.metrics.Mean())
    assert not is_loss(keras.metrics.Mean())
    assert is_metric("accuracy")
    assert is_metric("acc")
    assert not is_metric(SPARSE)
