"""Whether a metric still holds, by hand, and directions of metrics against Keras's own."""

import keras
import numpy as np
import pytest

from tests.networks import compiled
from tfpeft.core.arguments import InputError
from tfpeft.core.monitor import metric_mode, monitor_name, within_tolerance


def test_the_first_metric_decides_that_is_no_loss():
    assert monitor_name(None, ["loss", "accuracy", "auc"]) == "accuracy"
    assert monitor_name(None, ["loss"]) == "loss"
    assert monitor_name("auc", ["loss", "accuracy", "auc"]) == "auc"
    with pytest.raises(InputError, match="`monitor`.*loss, accuracy, as compiled.*'recall'"):
        monitor_name("recall", ["loss", "accuracy"])


def test_tolerances_in_float32():
    baseline, value = float(np.float32(0.97)), float(np.float32(0.96))
    assert baseline - value > 0.01  # by 5e-8
    assert within_tolerance(value, baseline, mode="max", tolerance=0.01)
    assert not within_tolerance(0.9399, 0.95, mode="max", tolerance=0.01)
    assert within_tolerance(0.99, 0.95, mode="max", tolerance=0.0)
    assert within_tolerance(1.3, 1.0, mode="min", tolerance=0.3)
    assert not within_tolerance(1.31, 1.0, mode="min", tolerance=0.3)
    assert within_tolerance(0.5, 1.0, mode="min", tolerance=0.0)


def test_directions_are_those_of_keras():
    """`_direction` is where Keras notes it; metrics with none count right and wrong samples."""
    options = {"IoU": (3, [0]), "MeanIoU": (3,), "OneHotIoU": (3, [0]), "OneHotMeanIoU": (3,)}
    neither = {"Mean", "MeanMetricWrapper", "Metric", "Sum"}
    seen = 0
    for name, cls in vars(keras.metrics).items():
        if not isinstance(cls, type) or name in neither:
            continue
        needs_number = "At" in name
        metric = cls(*options.get(name, (0.5,) if needs_number else ()))
        direction = getattr(metric, "_direction", None)
        direction = direction or ("up" if name.startswith("True") else "down")
        expected = {"up": "max", "down": "min"}[direction]
        for monitor in (metric.name, f"val_{metric.name}", f"head_{metric.name}"):
            assert metric_mode(monitor) == expected, monitor
        seen += 1
    assert seen > 30
    for name in ("loss", "val_loss", "rmse", "perplexity"):
        assert metric_mode(name) == "min"
    for name in ("acc", "f1", "auc_1", "val_precision_12"):
        assert metric_mode(name) == "max"


def test_custom_names_need_a_mode_or_a_class_of_keras():
    def gain(y, logits):
        return keras.ops.max(logits, axis=-1)

    class Area(keras.metrics.AUC):
        pass

    metrics = [gain, keras.metrics.MeanSquaredError(name="deviation"), Area(name="surface")]
    model = compiled(
        keras.Sequential([keras.Input((6,)), keras.layers.Dense(1, activation="sigmoid")]), "sgd"
    )
    model.compile("sgd", "mse", metrics=metrics)
    model.evaluate(np.ones((2, 6)), np.ones((2, 1)), verbose=0)
    assert metric_mode("val_deviation", model=model) == "min"
    assert metric_mode("surface", model=model) == "max"
    assert metric_mode("gain", mode="max", model=model) == "max"
    with pytest.raises(InputError, match="`mode`.*'min' or 'max', as 'gain' is no metric of Keras"):
        metric_mode("gain", model=model)
    with pytest.raises(InputError, match="`mode`.*'auto'"):
        metric_mode("loss", mode="auto")
    assert metric_mode("head_deviation", model=model) == "min"


def halved(y, outputs):
    return keras.ops.abs(y - outputs) / 2


class Regret(keras.metrics.AUC):
    def result(self):
        return 1 - super().result()


class Margin(keras.losses.Loss):
    def call(self, y, outputs):
        return outputs - y


METRICS = [
    (keras.metrics.MeanSquaredError(name="accuracy"), "min"),
    (keras.metrics.BinaryAccuracy(name="error"), "max"),
    (keras.metrics.CosineSimilarity(name="similarity_loss"), "max"),
    (keras.metrics.MeanMetricWrapper(keras.losses.mean_absolute_error, name="auc"), "min"),
    (keras.metrics.MeanMetricWrapper(keras.metrics.binary_accuracy, name="hinge"), "max"),
    (keras.metrics.MeanMetricWrapper(Margin(), name="precision"), "min"),
    (keras.metrics.MeanMetricWrapper(keras.losses.CosineSimilarity(), name="recall"), "min"),
    (keras.metrics.MeanMetricWrapper(halved, name="accuracy"), None),
    (keras.metrics.Mean(name="accuracy"), None),
    (keras.metrics.Mean(name="gain_loss"), None),
    (Regret(name="auc"), None),
]


@pytest.mark.parametrize(("metric", "expected"), METRICS, ids=lambda value: str(value)[:30])
def test_the_class_of_a_metric_counts_not_its_name(metric, expected):
    class Model:
        metrics = [keras.metrics.Mean(name="loss"), metric]
        output_names = ["out"]

    for name in (metric.name, f"val_{metric.name}", f"val_out_{metric.name}"):
        if expected is None:
            with pytest.raises(InputError, match="`mode`, expected 'min' or 'max', as "):
                metric_mode(name, model=Model())
            assert metric_mode(name, mode="max", model=Model()) == "max"
        else:
            assert metric_mode(name, model=Model()) == expected
    assert metric_mode("val_loss", model=Model()) == "min"
    assert metric_mode("out_loss", model=Model()) == "min"


def test_metrics_of_one_name_must_agree():
    class Model:
        metrics = [keras.metrics.AUC(name="score"), keras.metrics.MeanSquaredError(name="score")]

    with pytest.raises(InputError, match="`mode`"):
        metric_mode("head_score", model=Model())
    with pytest.raises(InputError, match="`mode`.*'sparsity' is no metric"):
        metric_mode("sparsity", model=Model())
