"""Losses and distillation losses of Keras in a Distiller, and losses that are saved."""

import functools
import json

import keras
import numpy as np
import pytest

import tfpeft
from tests.distillation.loops import (
    assert_equals,
    in_float64,
    keras_mean,
    labels_of,
    negative_cosine,
    pair,
    soft_labels,
    softmax,
    squared_error,
    weights_of,
)
from tfpeft.distillation.keras_losses import KerasFeatures, KerasLogits, KerasLoss, from_keras


def crossentropy(t, s, temperature, label_smoothing=0.0):
    values = np.zeros(t.shape[:-1])
    for i in np.ndindex(values.shape):
        p, q = softmax(t[i] / temperature), softmax(s[i] / temperature)
        p = (1.0 - label_smoothing) * p + label_smoothing / len(p)
        values[i] = -(temperature**2) * np.sum(p * np.log(q))
    return values


def scaled_squares(t, s, temperature):
    return np.mean((t / temperature - s / temperature) ** 2, axis=-1)


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
