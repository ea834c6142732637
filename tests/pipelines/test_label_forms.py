"""The compiled loss and metrics of classifiers, as scripts train with them."""

import keras
import numpy as np
import pytest

from pipelines import compress
from pipelines.common import models, objectives, splits
from pipelines.common.compilation import compilation_of
from pipelines.common.label_forms import FormedLoss, FormedMetric
from pipelines.common.request import Request
from tests.pipelines.scripts import call
from tfpeft.core.arguments import InputError
from tfpeft.core.clone import copy_object
from tfpeft.evaluation.quality import measure_quality
from tfpeft.evaluation.subjects import KerasSubject

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
Y = np.arange(60) % 3
ROWS = np.eye(3, dtype="float32")[Y]
WEIGHTS = RNG.uniform(0.5, 2.0, 60).astype("float32")
CODE = '''
import keras

class Doubled(keras.losses.Loss):
    """Twice the square of rows, or of numbers in a column: (samples,) would become (n, n)."""

    def call(self, y, outputs):
        return 2 * keras.ops.mean((y - outputs) ** 2, axis=-1)

class Share(keras.metrics.Mean):
    def update_state(self, y, outputs, sample_weight=None):
        return super().update_state(keras.ops.sum(y * outputs, axis=-1), sample_weight)
'''


def net(activation=None, units=3):
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(units, activation)])


def smoothed(from_logits=True):
    return keras.losses.CategoricalCrossentropy(from_logits=from_logits, label_smoothing=0.2)


def focal():
    return keras.losses.CategoricalFocalCrossentropy(gamma=3.0)


@pytest.fixture
def code(tmp_path):
    (tmp_path / "mine.py").write_text(CODE)
    return models.import_custom_objects(str(tmp_path / "mine.py"))


def objective_of(model, y, path, custom_objects=None, student=None):
    """Returns the objective of a saved model, or of a student of it, and the data."""
    model.save(path)
    request = Request(compilation=compilation_of(path, custom_objects))
    data = splits.checked({"train": (X, y, WEIGHTS)}, "mine", model=model, request=request)
    return objectives.of(data, student or model), data


LOSSES = {
    "smoothed, of rows": (None, smoothed, ROWS, ROWS),
    "smoothed, of names": (None, smoothed, np.array(["a", "b", "c"])[Y], ROWS),
    "focal": ("softmax", focal, Y, ROWS),
    "binary, of rows": ("sigmoid", keras.losses.BinaryFocalCrossentropy, ROWS, ROWS),
    "sparse": ("softmax", keras.losses.SparseCategoricalCrossentropy, ROWS, Y),
    "function": ("softmax", lambda: "categorical_focal_crossentropy", Y, ROWS),
    "custom, of rows": (None, "Doubled", ROWS, ROWS),
}


@pytest.mark.parametrize("name", LOSSES)
def test_training_with_a_compiled_loss_is_that_of_keras(name, code, tmp_path):
    """One update of the weights, on weighted samples, and the loss, by both."""
    activation, make, given, y = LOSSES[name]
    loss = code[make]() if isinstance(make, str) else make()
    metrics = [keras.metrics.CategoricalAccuracy(name="mine"), "kl_divergence"]
    own = [code["Share"](name="share")] if make == "Doubled" else []
    metrics = [*metrics, *own] if y is ROWS else ["sparse_categorical_crossentropy"]
    reference, model = net(activation), net(activation)
    reference.compile(keras.optimizers.SGD(0.5), loss, weighted_metrics=metrics)
    objective, data = objective_of(reference, given, tmp_path / "m.keras", code)
    objective.compile(model, keras.optimizers.SGD(0.5))
    x, numbers, weight = data.train
    expected = ROWS[numbers] if y is ROWS else numbers
    reference.run_eagerly = model.run_eagerly = True
    wanted = reference.train_on_batch(x, expected, weight, return_dict=True)
    found = model.train_on_batch(x, numbers, weight, return_dict=True)
    for value, other in zip(model.get_weights(), reference.get_weights(), strict=True):
        np.testing.assert_allclose(value, other, rtol=1e-4, atol=1e-6)
    assert set(found) == {*wanted, "accuracy"}
    assert {key: found[key] for key in wanted} == pytest.approx(wanted, rel=1e-4)


def test_a_custom_loss_gets_a_column_where_data_has_one(code, tmp_path):
    model, y = net("sigmoid", 1), np.arange(60) % 2
    model.compile("sgd", code["Doubled"]())
    objective, data = objective_of(model, y[:, None], tmp_path / "m.keras", code)
    x, numbers, _ = data.train
    objective.compile(model, "sgd")
    model.run_eagerly = True
    expected = 2 * np.mean((numbers - model.predict(x, verbose=0)[:, 0]) ** 2)
    assert numbers.ndim == 1
    assert model.evaluate(x, numbers, verbose=0)[0] == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize(
    ("of_model", "loss", "of_student"),
    [
        ((None, 3), smoothed(), ("softmax", 3)),  # of probabilities now
        (("softmax", 3), smoothed(False), (None, 3)),  # of logits now
        (("sigmoid", 1), keras.losses.BinaryCrossentropy(label_smoothing=0.2), (None, 1)),
    ],
)
def test_a_student_learns_with_the_loss_for_its_own_outputs(of_model, loss, of_student, tmp_path):
    model, student = net(*of_model), net(*of_student)
    model.compile("sgd", loss)
    y = Y if of_model[1] == 3 else Y % 2
    objective, data = objective_of(model, y, tmp_path / "m.keras", student=student)
    x, numbers, _ = data.train
    z = student.predict(x, verbose=0).astype("float64")
    z = np.log(z) if of_student[0] else z
    if of_model[1] == 1:
        z = np.concatenate([-np.logaddexp(0, z), -np.logaddexp(0, -z)], axis=1)
    z = z - np.log(np.exp(z).sum(1, keepdims=True))
    classes = z.shape[1]
    smooth = np.eye(classes)[numbers] * 0.8 + 0.2 / classes
    objective.compile(student, "sgd")
    student.run_eagerly = True
    found = student.evaluate(x, numbers, verbose=0, return_dict=True)
    assert found["loss"] == pytest.approx(-(smooth * z).sum(1).mean(), rel=1e-4)


def test_a_loss_of_one_output_is_not_that_of_a_student_of_two(tmp_path):
    model = net("sigmoid", 1)
    model.compile("sgd", keras.losses.BinaryCrossentropy(label_smoothing=0.2))
    objective, _ = objective_of(model, Y % 2, tmp_path / "m.keras", student=net(None, 2))
    assert isinstance(objective.loss(), keras.losses.SparseCategoricalCrossentropy)


def test_metrics_that_do_not_fit_are_left_out_and_others_copied(code, tmp_path):
    model = net()
    metrics = ["accuracy", keras.metrics.TopKCategoricalAccuracy(2, name="top"), "mae"]
    model.compile("sgd", smoothed(), metrics=metrics)
    objective, data = objective_of(model, Y, tmp_path / "m.keras", student=net(None, 3))
    assert [metric.name for metric in objective.extra] == ["top", "mae"]
    subjects = {"model": KerasSubject(model)}
    found = measure_quality(subjects, data.test, metrics=objective.extra)[0]["model"][None]
    x, numbers, weight = data.test
    z = model.predict(x, verbose=0)
    hits = np.argsort(-z, axis=1)[:, :2] == numbers[:, None]
    expected = np.average(hits.any(axis=1), weights=weight)
    assert found.values["top"] == pytest.approx(expected, rel=1e-5)
    for formed in (FormedLoss(code["Doubled"](), 3), FormedMetric(code["Share"](), 3)):
        copied = copy_object(formed)
        np.testing.assert_allclose(copied(numbers, z), formed(numbers, z), rtol=1e-6)


def test_a_loss_whose_code_is_not_there_stops_training_only(code, tmp_path):
    model = net()
    model.compile("sgd", code["Doubled"](), metrics=["categorical_accuracy"])
    objective, data = objective_of(model, ROWS, tmp_path / "m.keras")
    assert [metric.name for metric in objective.extra] == ["categorical_accuracy"]
    assert objective.chance_of(model, data.test).by_output[0].samples == 12
    with pytest.raises(InputError, match="a loss of Keras or of --custom_objects; --loss names"):
        objective.compile(model, "sgd")


def test_a_script_trains_with_a_custom_loss(tmp_path, monkeypatch, capsys, code):
    monkeypatch.chdir(tmp_path)
    model = net()
    model.compile("sgd", code["Doubled"](), metrics=[code["Share"]()])
    model.save("mine.keras")
    np.savez("mine.npz", x_train=X, y_train=ROWS, x_test=X, y_test=ROWS, x_val=X, y_val=ROWS)
    flags = ["--dataset=mine.npz", "--model=mine.keras", "--custom_objects=mine.py"]
    stages = ["--stages=tune", "--epochs=1", "--monitor=loss", "--allow_chance"]
    assert call(compress, *flags, *stages) == 0
    expected = 2 * np.mean((ROWS - model.predict(X, verbose=0)) ** 2)
    assert f"Validation loss: {expected:.4g} before" in capsys.readouterr().out
