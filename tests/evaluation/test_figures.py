"""Figures of every task against scikit-learn, Keras and NumPy, on random data with weights."""

import keras
import numpy as np
import pytest
from sklearn import metrics

from tfpeft.core.arguments import InputError
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.tasks import TASKS

rng = np.random.default_rng(0)
SAMPLES = 300
WEIGHTS = rng.integers(0, 4, SAMPLES).astype("float64")


def softmax(z):
    p = np.exp(z - z.max(-1, keepdims=True))
    return p / p.sum(-1, keepdims=True)


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def approx(value):
    return pytest.approx(value, rel=1e-6, abs=1e-9)


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("kind", ["logits", "softmax"])
def test_classes_have_the_figures_of_scikit_learn(weight, kind):
    """Class 6 is in no label, and class 5 is hardly ever predicted."""
    y = rng.integers(0, 6, SAMPLES)
    z = rng.normal(size=(SAMPLES, 7)) + 1.5 * np.eye(7)[y]
    z[:, 5] -= 3
    p = softmax(z)
    predicted = p.argmax(1)
    task, outputs = TASKS["classification"], Outputs(kind, 7)
    found = task.figures(y, z if kind == "logits" else p, outputs, weight)
    more = {"sample_weight": weight}
    classes = np.arange(7)
    precision, recall, f1, support = metrics.precision_recall_fscore_support(
        y, predicted, labels=classes, zero_division=0, **more
    )
    there = np.union1d(y, predicted)
    aucs = [metrics.roc_auc_score(y == c, p[:, c], **more) for c in range(6)]
    expected = {
        "accuracy": metrics.accuracy_score(y, predicted, **more),
        "top_5": metrics.top_k_accuracy_score(y, p, k=5, labels=classes, **more),
        "loss": metrics.log_loss(y, p, labels=classes, **more),
        "precision": precision[there].mean(),
        "recall": recall[there].mean(),
        "f1": f1[there].mean(),
        "auc": np.mean(aucs),
    }
    for name, value in expected.items():
        assert found.values[name] == approx(value), name
    np.testing.assert_allclose(found.per_class["recall"], recall)
    np.testing.assert_allclose(found.per_class["f1"], f1)
    np.testing.assert_allclose(found.per_class["auc"], [*aucs, np.nan])
    matrix = metrics.confusion_matrix(y, predicted, labels=classes, **more)
    np.testing.assert_allclose(found.confusion_matrix, matrix)
    assert support.sum() == approx(found.per_class["weight"].sum())


def test_the_calibration_error_by_hand():
    """Two samples of confidence .9, one right; one of .6, right: 2/3 * .4 + 1/3 * .4."""
    p = np.array([[0.9, 0.1], [0.9, 0.1], [0.4, 0.6]])
    found = TASKS["classification"].figures(np.array([0, 1, 1]), p, Outputs("softmax", 2))
    assert found.values["calibration_error"] == approx(0.4)


@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
def test_one_unit_of_two_classes(kind):
    y = rng.integers(0, 2, (SAMPLES, 1))
    z = rng.normal(size=(SAMPLES, 1)) + y
    found = TASKS["binary"].figures(y, z if kind == "logits" else sigmoid(z), Outputs(kind, 1))
    assert found.values["accuracy"] == approx(np.mean((z > 0) == y))
    assert found.values["auc"] == approx(metrics.roc_auc_score(y, z))
    assert found.values["loss"] == approx(metrics.log_loss(y, sigmoid(z)))
    assert found.values["f1"] == approx(metrics.f1_score(y, z > 0, average="macro"))


def test_ties_count_half():
    """Of 2 * 3 pairs 2 are in order and 2 are ties: (2 + 1) / 6."""
    y, p = np.array([1, 1, 0, 0, 0]), np.array([0.5, 0.7, 0.5, 0.6, 0.7])[:, None]
    found = TASKS["binary"].figures(y, p, Outputs("sigmoid", 1))
    assert found.values["auc"] == approx(0.5)
    assert found.values["auc"] == approx(metrics.roc_auc_score(y, p))


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("kind", ["logits", "sigmoid"])
def test_labels_have_the_figures_of_scikit_learn(weight, kind):
    """The fourth label is never there, and never predicted."""
    y = (rng.random((SAMPLES, 4)) < [0.5, 0.2, 0.8, 0.0]).astype(int)
    z = rng.normal(size=(SAMPLES, 4)) + y
    z[:, 3] = -1
    predicted, more = z > 0, {"sample_weight": weight}
    scores = z if kind == "logits" else sigmoid(z)
    found = TASKS["multi_label"].figures(y, scores, Outputs(kind, 4), weight)
    expected = {"accuracy": metrics.accuracy_score(y, predicted, **more)}
    for average, suffix, part in (("micro", "", y), ("macro", "_macro", y[:, :3])):
        given = predicted[:, : part.shape[1]]
        more = {"average": average, "zero_division": 0, "sample_weight": weight}
        for name in ("precision", "recall", "f1"):
            score = getattr(metrics, f"{name}_score")
            expected[f"{name}{suffix}"] = score(part, given, **more)
    more = {"sample_weight": weight}
    aucs = [metrics.roc_auc_score(y[:, i], z[:, i], **more) for i in range(3)]
    expected["auc"] = np.mean(aucs)
    p = np.where(y, sigmoid(z), 1 - sigmoid(z))
    expected["loss"] = np.average(-np.log(p).mean(1), weights=weight)
    for name, value in expected.items():
        assert found.values[name] == approx(value), name
    np.testing.assert_allclose(found.per_class["auc"], [*aucs, np.nan])


@pytest.mark.parametrize("weight", [None, WEIGHTS])
@pytest.mark.parametrize("offset", [0, 1e6])
def test_numbers_have_the_figures_of_scikit_learn(weight, offset):
    y = rng.normal(size=(SAMPLES, 3)) * [1, 5, 0.1] + offset
    p = y + rng.normal(size=y.shape) * [0.5, 1, 0.2]
    found = TASKS["regression"].figures(y, p, Outputs("values", 3), weight)
    more = {"sample_weight": weight}
    assert found.values["mae"] == approx(metrics.mean_absolute_error(y, p, **more))
    assert found.values["rmse"] == approx(np.sqrt(metrics.mean_squared_error(y, p, **more)))
    assert found.values["r2"] == approx(metrics.r2_score(y, p, **more))
    covariances = [np.cov(y[:, i], p[:, i], aweights=weight) for i in range(3)]
    pearson = [c[0, 1] / np.sqrt(c[0, 0] * c[1, 1]) for c in covariances]
    assert found.values["pearson"] == approx(np.mean(pearson))
    r2 = metrics.r2_score(y, p, multioutput="raw_values", **more)
    np.testing.assert_allclose(found.per_class["r2"], r2, rtol=1e-5)


def test_a_constant_target_has_no_r2():
    y = np.full(SAMPLES, 0.1)
    found = TASKS["regression"].figures(y, rng.normal(size=SAMPLES), Outputs("values", 1))
    assert set(found.values) == {"rmse", "mae"}
    assert [note.split(",")[0] for note in found.notes] == ["no r2", "no pearson"]


@pytest.mark.parametrize("units", [1, 3])
def test_positions_have_the_figures_of_scikit_learn_and_keras(units):
    """Positions that weigh nothing have the label -1."""
    classes = max(units, 2)
    y = rng.integers(0, classes, (20, 6, 5))
    z = rng.normal(size=(*y.shape, units)) + (np.eye(3)[y] if units > 1 else y[..., None])
    predicted = z.argmax(-1) if units > 1 else (z[..., 0] > 0).astype(int)
    mask = rng.integers(0, 3, y.shape)
    task, outputs = TASKS["segmentation"], Outputs("logits", units)
    found = task.figures(np.where(mask, y, -1), z, outputs, mask)
    flat = {"sample_weight": mask.ravel()}
    pair = (y.ravel(), predicted.ravel())
    each = metrics.jaccard_score(*pair, average=None, **flat)
    np.testing.assert_allclose(found.per_class["iou"], each)
    assert found.values["mean_iou"] == approx(each.mean())
    assert found.values["accuracy"] == approx(metrics.accuracy_score(*pair, **flat))
    assert found.values["f1"] == approx(metrics.f1_score(*pair, average="macro", **flat))
    p = softmax(z).reshape(-1, units) if units > 1 else sigmoid(z).ravel()
    assert found.values["loss"] == approx(metrics.log_loss(y.ravel(), p, **flat))
    metric = task.training_metric(outputs)
    metric.update_state(y, z, sample_weight=mask)
    assert float(metric.result()) == pytest.approx(each.mean(), rel=1e-5)


def test_samples_that_are_reconstructed():
    y = rng.random((40, 6, 6, 2))
    p = y + 0.1 * rng.normal(size=y.shape)
    found = TASKS["reconstruction"].figures(y, p, Outputs("values", 2))
    mse = np.mean((y - p) ** 2)
    assert found.values["mse"] == approx(mse)
    assert found.values["mae"] == approx(np.mean(np.abs(y - p)))
    assert found.values["psnr"] == approx(10 * np.log10((y.max() - y.min()) ** 2 / mse))
    assert found.values["r2"] == approx(1 - mse / y.var())


@pytest.mark.parametrize(
    ("task", "outputs", "y", "z"),
    [
        ("classification", Outputs("logits", 3), rng.integers(0, 3, 64), rng.normal(size=(64, 3))),
        ("classification", Outputs("softmax", 3, True), np.eye(3)[rng.integers(0, 3, 64)], None),
        ("classification", Outputs("sigmoid", 3), rng.integers(0, 3, 64), rng.random((64, 3))),
        ("binary", Outputs("logits", 1), rng.integers(0, 2, (64, 1)), rng.normal(size=(64, 1))),
        ("binary", Outputs("sigmoid", 1), rng.integers(0, 2, (64, 1)), rng.random((64, 1))),
        ("multi_label", Outputs("logits", 3), rng.integers(0, 2, (64, 3)), None),
        ("multi_label", Outputs("sigmoid", 3), rng.integers(0, 2, (64, 3)), rng.random((64, 3))),
        ("regression", Outputs("values", 2), rng.normal(size=(64, 2)), None),
        ("reconstruction", Outputs("values", 2), rng.normal(size=(64, 4, 2)), None),
    ],
)
def test_what_a_model_is_trained_with_is_what_is_measured(task, outputs, y, z):
    task = TASKS[task]
    z = rng.normal(size=y.shape) if z is None else z
    z = softmax(z) if outputs.kind == "softmax" else z
    found = task.figures(y, z, outputs).values
    metric = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(task.training_metric(outputs))
    )
    metric.update_state(y, z)
    assert metric.name == task.headline
    assert float(metric.result()) == pytest.approx(found[task.headline], rel=1e-5)
    loss = task.loss(outputs)
    expected = found["loss"] if "loss" in found else np.mean((y - z) ** 2)
    value = np.mean(loss(y.astype("float32"), z.astype("float32")))
    assert value == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize(
    ("task", "outputs", "y", "chance"),
    [
        ("classification", Outputs("logits", 3), np.array([0, 1, 1, 2]), 0.5),
        ("binary", Outputs("sigmoid", 1), np.array([0, 1, 1, 1]), 0.75),
        # The first label alone: 3 of 3 predicted ones are right, 3 of 4 are found.
        ("multi_label", Outputs("logits", 2), np.array([[1, 0], [1, 1], [1, 0]]), 6 / 7),
        ("regression", Outputs("values", 1), np.array([1.0, 2.0, 3.0, 6.0]), np.sqrt(3.5)),
        ("segmentation", Outputs("logits", 3), np.array([[0, 0, 1, 0], [0, 1, 2, 0]]), 5 / 8 / 3),
        ("segmentation", Outputs("sigmoid", 1), np.array([[0, 0, 0, 1]]), 0.75 / 2),
        ("reconstruction", Outputs("values", 1), np.array([[[0.0], [1.0]], [[2.0], [1.0]]]), 0.5),
    ],
)
def test_the_best_constant_prediction_by_hand(task, outputs, y, chance):
    is_row = outputs.kind == "values" or task == "multi_label"
    z = np.zeros(y.shape if is_row and y.ndim > 1 else (*y.shape, outputs.units))
    assert TASKS[task].is_better_than_chance(y, z, outputs).constant == approx(chance)


@pytest.mark.parametrize(
    ("task", "outputs", "y", "noise"),
    [
        ("multi_label", Outputs("sigmoid", 4), rng.integers(0, 2, (200, 4)), 0.3),
        ("regression", Outputs("values", 1), rng.normal(size=200), 0.5),
        ("segmentation", Outputs("sigmoid", 1), rng.integers(0, 2, (50, 30)), 0.3),
        ("reconstruction", Outputs("values", 3), rng.normal(size=(50, 4, 3)), 0.5),
    ],
)
def test_better_than_chance(task, outputs, y, noise):
    task = TASKS[task]
    shape = (*y.shape, 1) if y.ndim == 1 or task.name == "segmentation" else y.shape
    z = y.reshape(shape) + noise * rng.normal(size=shape)
    z = np.clip(z, 0, 1) if outputs.kind == "sigmoid" else z
    good = task.is_better_than_chance(y, z, outputs)
    assert good.is_better
    assert str(good).startswith(f"{task.headline} ")
    assert not task.is_better_than_chance(y, rng.permutation(z), outputs).is_better


def test_outputs_that_are_not_what_the_first_ones_were():
    outputs = Outputs("sigmoid", 3, is_recognized=True)
    with pytest.raises(InputError, match="from_logits=True.*from -2 to 2"):
        outputs.check(np.array([[-2.0, 0.0, 2.0]]), "m.tflite")
