"""Labels against outputs and losses of Keras: form, range, and what is missing."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpeft import InputError
from tfpeft.core.labels import (
    check_form,
    is_loss,
    is_metric,
    named_by_shapes,
    range_checks,
    split_missing,
)

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
    assert check_form(tf.constant(labels), outputs, loss, "the task age") is None


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


@pytest.mark.parametrize(
    "value",
    ["mse", SPARSE, keras.losses.mean_squared_error, lambda y, p: p, keras.losses.Huber],
)
def test_losses(value):
    assert is_loss(value)
    assert is_metric(value)  # as in Keras


@pytest.mark.parametrize("name", ["accuracy", "Acc", "crossentropy", "CE"])
def test_names_that_shapes_decide(name):
    is_accuracy = name.lower().startswith("a")
    assert (is_metric(name), is_loss(name)) == (is_accuracy, not is_accuracy)  # as in Keras
    end = "accuracy" if is_accuracy else "crossentropy"
    for labels, outputs, kind in (
        (NUMBERS, OUTPUTS, "sparse_categorical"),
        (NUMBERS[:, None], OUTPUTS, "sparse_categorical"),
        (ROWS, OUTPUTS, "categorical"),
        (NUMBERS, OUTPUTS[:, :1], "binary"),
    ):
        assert named_by_shapes(name, labels, outputs) == f"{kind}_{end}"
    assert named_by_shapes("mse", NUMBERS, OUTPUTS) == "mse"


def test_labels_of_a_short_name():
    with pytest.raises(InputError, match="a number per class"):
        check_form(ROWS[:, :2], OUTPUTS, "crossentropy", "the task age")
    with pytest.raises(InputError, match="expected 0 to 2 .*0 to 3$"):
        range_checks(NUMBERS + [0, 0, 0, 1], OUTPUTS, "ce", "the task age", may_be_missing=False)
    present = split_missing(np.array([0, -1, 2, 2]), OUTPUTS, "ce")[1]
    assert present.numpy().tolist() == [True, False, True, True]


@pytest.mark.parametrize(
    "value",
    ["nope", None, 3, [SPARSE], int, keras.layers.Dense, keras.layers.ReLU, keras.metrics.MeanIoU],
)
def test_what_is_no_loss(value):
    assert not is_loss(value)
    assert not is_metric(value)


@pytest.mark.parametrize("value", [keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy])
def test_a_metric_is_no_loss(value):
    assert is_metric(value)
    assert not is_loss(value)


class _OwnSparse(keras.losses.Loss):
    """A loss whose labels of 255 count in nothing."""

    def call(self, y_true, y_pred):
        return y_pred[..., 0] * keras.ops.cast(y_true != 255, "float32")


CUSTOM = {
    "quantiles": (np.array([-14.7, -1.0, 0.5, 16.5], "float32"), lambda y, p: p),
    "quantiles in a column": (np.array([[-14.7], [-1.0], [0.5], [16.5]]), lambda y, p: p),
    "mean and variance": (np.array([-3.0, -1.0, 7.0, 1e4]), lambda y, p: p[:, 0]),
    "ignored class": (np.array([0, 1, 255, 2]), _OwnSparse()),
    "padding": (np.array([0, 1, -100, 2]), lambda y, p: p[:, 0]),
    "counts": (np.array([0, -1, 12, 2]), lambda y, p: p),
    "Poisson": (np.array([0.0, 1.0, 12.0, 2.0]), keras.losses.Poisson()),
}


@pytest.mark.parametrize("missing", [True, False])
@pytest.mark.parametrize(("labels", "loss"), CUSTOM.values(), ids=CUSTOM)
def test_labels_of_other_losses_are_no_class_numbers(labels, loss, missing):
    labels = tf.constant(labels)
    check_form(labels, OUTPUTS, loss, "the task age")
    assert range_checks(labels, OUTPUTS, loss, "the task age", may_be_missing=missing) == []
    kept, present = split_missing(labels, OUTPUTS, loss)
    np.testing.assert_array_equal(kept, labels)
    assert present is None or np.all(present)


def test_a_custom_loss_may_leave_out_labels_that_are_not_finite():
    labels = tf.constant([0.5, np.nan, np.inf, 1.0])
    arguments = labels, OUTPUTS, lambda y, p: p, "the task age"
    assert range_checks(*arguments, may_be_missing=False) == []


@pytest.mark.parametrize(
    "loss",
    [
        SPARSE,
        keras.losses.SparseCategoricalCrossentropy,
        functools.partial(keras.losses.sparse_categorical_crossentropy, from_logits=True),
        type("Own", (keras.losses.SparseCategoricalCrossentropy,), {})(),
    ],
    ids=["object", "class", "partial", "derived"],
)
def test_losses_of_class_numbers(loss):
    labels = tf.constant([0, 1, 2, 3])
    with pytest.raises(InputError, match="0 to 2 for the task age. Received: 0 to 3$"):
        range_checks(labels, OUTPUTS, loss, "the task age", may_be_missing=False)
    assert split_missing(tf.constant([0, -1, 2, 2]), OUTPUTS, loss)[1].numpy().tolist() == [
        *(True, False, True, True)
    ]
