"""Losses and metrics that flags name, for the outputs and labels of a model."""

import keras
import numpy as np
import pytest

from pipelines import predict
from pipelines.common import arrays, augmentation, models, splits
from pipelines.common.compilation import Compilation, compilation_of
from pipelines.common.keras_names import Named, fitting
from pipelines.common.request import Request
from pipelines.stages import compression_report
from tfpeft.core.arguments import InputError
from tfpeft.core.json_files import mismatch
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.tasks import TASKS

RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(30, 3)).astype("float32")
CLASSES = RNG.integers(0, 3, 30)
LABELS = RNG.integers(0, 2, (30, 3))


@pytest.mark.parametrize("name", ["categorical_crossentropy", "SparseCategoricalCrossentropy"])
def test_a_loss_for_classes_takes_class_numbers_and_logits(name):
    exponents = np.exp(LOGITS)
    own = exponents[np.arange(30), CLASSES] / exponents.sum(1)
    loss = Named(name, []).of(CLASSES, LOGITS, True).loss()
    assert float(loss(CLASSES, LOGITS)) == pytest.approx(-np.log(own).mean(), rel=1e-5)


@pytest.mark.parametrize("name", ["binary_crossentropy", "BinaryFocalCrossentropy"])
def test_a_loss_of_labels_takes_logits(name):
    loss = Named(name, []).of(LABELS, LOGITS, True).loss()
    expected = keras.losses.get(name)(LABELS, 1 / (1 + np.exp(-LOGITS)))
    assert float(np.mean(loss(LABELS, LOGITS))) == pytest.approx(np.mean(expected), rel=1e-5)


def test_metrics_take_class_numbers_and_logits():
    (accuracy,) = Named(None, ["categorical_accuracy"]).of(CLASSES, LOGITS, True).metrics()
    assert float(accuracy(CLASSES, LOGITS)) == pytest.approx(np.mean(LOGITS.argmax(1) == CLASSES))
    names = ["binary_accuracy", "precision"]
    accuracy, precision = Named(None, names).of(LABELS, LOGITS, True).metrics()
    assert float(accuracy(LABELS, LOGITS)) == pytest.approx(np.mean((LOGITS > 0) == LABELS))
    assert float(precision(LABELS, LOGITS)) == pytest.approx(LABELS[LOGITS > 0].mean())


def test_a_loss_and_metrics_that_do_not_fit():
    with pytest.raises(InputError, match="--loss=mse.*labels of shape"):
        Named("mse", []).of(CLASSES, LOGITS, True).loss()
    for name in ("mae", "f1_score", "mean_io_u"):
        with pytest.raises(InputError, match=name):
            Named(None, [name]).of(CLASSES, LOGITS, True).metrics()


def test_metrics_of_several_outputs_are_of_those_that_they_fit():
    named = Named(None, ["mae"])
    numbers = named.of(LOGITS[:, 0], LOGITS[:, :1], False)
    found = fitting({"kind": named.of(CLASSES, LOGITS, True), "size": numbers})
    assert [each.metric_names for each in found.values()] == [[], ["mae"]]
    with pytest.raises(InputError, match="mae"):
        fitting({"kind": named.of(CLASSES, LOGITS, True)})


def test_a_loss_and_metrics_by_the_name_of_the_only_output():
    request = Request(compilation=Compilation({"loss": {"a": "mse"}, "metrics": {"a": ["mae"]}}))
    assert request.wanted_loss() is keras.losses.mean_squared_error
    assert request.compiled_metrics() == ["mae"]


@pytest.mark.parametrize(
    ("metrics", "weighted", "expected"),
    [
        (["mae"], None, ["mae"]),
        (None, ["mae"], ["mae"]),
        (["mae"], ["mse"], ["mae", "mse"]),
        ({"a": ["mae"]}, {"a": "mse", "b": ["mse"]}, {"a": ["mae", "mse"], "b": ["mse"]}),
        ([["mae"], []], [["mse"], ["mape"]], [["mae", "mse"], ["mape"]]),
    ],
)
def test_weighted_metrics_of_a_compiled_model_are_metrics_too(metrics, weighted, expected):
    config = {"loss": "mse", "metrics": metrics, "weighted_metrics": weighted}
    assert Compilation(config).metrics() == expected


def test_what_is_lost_of_a_metric_that_is_zero():
    def lost(teacher, file, task):
        name = TASKS[task].headline
        rows = [{"metrics": {name: value}} for value in (teacher, file)]
        found = compression_report._lost(*rows, task)
        assert mismatch({"metrics": found}, {"metrics": compression_report.FORM["metrics"]}) is None
        return found[name]["loss"]

    assert lost(0.0, 0.5, "multi_label") == -np.inf
    assert lost(0.0, 0.5, "regression") == np.inf
    assert lost(0.0, 0.0, "regression") == 0
    assert lost(0.8, 0.6, "multi_label") == pytest.approx(25)


def test_one_hot_rows_of_positions_say_how_many_classes_there_are():
    y = np.eye(4)[RNG.integers(0, 3, (5, 6, 6))]
    assert arrays.labels_of(y, "segmentation", None, "mine")["classes"] == 4
    assert arrays.labels_of(y.argmax(-1), "segmentation", None, "mine")["classes"] == 3


def test_several_inputs_with_a_class_per_sample():
    inputs = {name: keras.Input((2,), name=name) for name in ("left", "right")}
    both = keras.layers.Concatenate()(list(inputs.values()))
    model = keras.Model(inputs, keras.layers.Dense(3)(both))
    x = dict.fromkeys(inputs, RNG.normal(size=(30, 2)))
    data = splits.checked({"train": (x, np.arange(30) % 3)}, "mine", model=model)
    assert str(data.for_model(model)[1]) == "logits of 3 classes"


def test_whole_numbers_are_positions_or_targets():
    y = np.arange(60).reshape(30, 2)
    parts = {
        "targets": (LOGITS, y),
        "tokens": (y, y),
        "sequences": (RNG.normal(size=(30, 2, 5)), y),
    }
    tasks = {name: splits.checked({"train": part}, "mine").task for name, part in parts.items()}
    assert tasks == {
        "targets": "regression",
        "tokens": "segmentation",
        "sequences": "segmentation",
    }


def test_three_classes_are_not_binary():
    request = Request(task="binary")
    with pytest.raises(InputError, match="two classes.*with 3"):
        splits.checked({"train": (LOGITS, np.arange(30) % 3)}, "mine", request=request)


def test_outputs_of_one_name_raise_before_training():
    inputs, layer = keras.Input((3,)), keras.layers.Dense(1, name="a")
    model = models.with_named_outputs(keras.Model(inputs, [layer(inputs), layer(-inputs)]))
    y = {"a": LOGITS[:, 0], "b": LOGITS[:, 1]}
    with pytest.raises(InputError, match="outputs have names.*2 outputs in a list"):
        splits.checked({"train": (LOGITS, y)}, "mine", model=model)


@pytest.mark.parametrize("ending", ["keras", "h5"])
def test_what_is_compiled_in_lists_goes_by_the_names_of_outputs(tmp_path, ending):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, [keras.layers.Dense(1, name=name)(inputs) for name in "ba"])
    metrics = [["mae"], []]
    model.compile("sgd", ["mse", "mae"], loss_weights=[2, 1], metrics=metrics)
    model.save(tmp_path / f"m.{ending}")
    found = compilation_of(tmp_path / f"m.{ending}")
    assert found.loss()["b"] is keras.losses.mean_squared_error
    assert found.config["loss_weights"] == {"b": 2, "a": 1}
    assert found.metrics() == {"b": ["mae"], "a": []}
    named = models.load_model(tmp_path / f"m.{ending}")
    of_list, of_dict = model(LOGITS), named(LOGITS)
    assert named.output_names == ["a", "b"]
    np.testing.assert_array_equal(of_dict["b"], of_list[0])
    assert models.with_named_outputs(named) is named


def test_pixels_without_a_class_do_not_count_as_chance():
    outputs, task = Outputs("logits", 2), TASKS["segmentation"]
    y = RNG.integers(0, 2, (40, 8))
    logits, weight = np.eye(2)[y], RNG.integers(0, 2, y.shape)
    found = task.is_better_than_chance(np.where(weight, y, -1), logits, outputs, weight)
    share = (weight * y).sum() / weight.sum()
    assert (found.value, found.is_better) == (1.0, True)
    assert found.constant == pytest.approx(max(share, 1 - share) / 2)


def test_the_constant_prediction_is_that_of_weighted_samples():
    y, weight = np.array([0.0, 10.0, 20.0]), np.array([3.0, 1.0, 0.0])
    found = TASKS["regression"].is_better_than_chance(y, y, Outputs("values", 1), weight)
    assert found.constant == pytest.approx(np.sqrt((3 * 2.5**2 + 7.5**2) / 4))


def test_clean_images_beside_noisy_ones_are_not_augmented():
    x = RNG.normal(size=(40, 4, 4, 1)).astype("float32")
    data = splits.checked({"train": (x + 1, x)}, "mine")
    with pytest.raises(InputError, match="labels that are the images"):
        augmentation.augmented(data, ("flip",), None, "mine")


@pytest.mark.parametrize(("kind", "half"), [("logits", 0.0), ("sigmoid", 0.5)])
def test_predictions_of_logits_and_of_sigmoids(kind, half):
    high, low = half + 0.2, half - 0.2

    def shown(task, values):
        report = {"task": task, "kinds": {"": kind}}
        (row,) = predict.numbers_of(["s"], np.array([values]), ["cat", "dog"], report)
        return row[task]

    assert shown("multi_label", [low, high]) == "dog"
    assert shown("segmentation", [[low], [high], [low]]) == "cat: 2, dog: 1"
    report = {"task": {"a": "binary"}, "kinds": {"a": kind}}
    rows = predict.numbers_of("st", {"a": np.array([[low], [high]])}, [], report)
    assert [row["a"] for row in rows] == ["0", "1"]
