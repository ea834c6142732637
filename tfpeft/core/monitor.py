"""Whether a metric still holds: its name, whether more of it is better, and by how much it fell."""

import math
import re

import keras
import numpy as np

from tfpeft.core.arguments import check_choice, invalid, is_real
from tfpeft.core.graph import metric_function

MODES = ("min", "max")

# Ends of the names of Keras's metrics and losses, and of the short names that people give them.
_LOWER_IS_BETTER = (
    *("loss", "error", "mae", "mse", "rmse", "mape", "msle", "hinge", "huber", "logcosh"),
    *("log_cosh", "crossentropy", "divergence", "poisson", "perplexity"),
    *("false_positives", "false_negatives"),
)
_HIGHER_IS_BETTER = (
    *("accuracy", "acc", "auc", "precision", "recall", "f1", "f1_score", "fbeta_score", "r2_score"),
    *("io_u", "iou", "true_positives", "true_negatives", "cosine_similarity"),
    *("pearson_correlation", "concordance_correlation", "at_sensitivity", "at_specificity"),
    *("at_precision", "at_recall"),
)
_KNOWN = {*_LOWER_IS_BETTER, *_HIGHER_IS_BETTER}
# Metrics are float32: 0.95 - 0.94 is a little more or less than 0.01.
_ROUNDING = 1e-6


def monitor_name(monitor, metrics):
    """Returns the name of the metric that decides: `monitor`, or the first one that is no loss.

    Args:
        monitor: The user's choice, or None.
        metrics: The names that `evaluate` reports, in its order.
    """
    if monitor is None:
        return next((name for name in metrics if name != "loss"), "loss")
    if not isinstance(monitor, str) or monitor not in metrics:
        raise invalid("monitor", f"one of {', '.join(metrics)}, as compiled", monitor)
    return monitor


def check_one_number(monitor, value):
    """Raises unless the value of a metric is one number, and not one for each class."""
    shape = np.shape(value)
    if math.prod(shape) != 1:
        expected = "a metric of one number, such as the mean over the classes"
        raise invalid("monitor", expected, f"{monitor}, an array of shape {shape}")


def metric_mode(monitor, *, mode=None, model=None):
    """Returns "min" if lower values of a metric are better, "max" if higher ones are.

    Args:
        monitor: The metric's name, as `evaluate` or the logs of `fit` report it.
        mode: The user's choice; None finds it by the class of the metric that the model is
            compiled with, as a name is anybody's choice; by the name, if there is no model.
        model: A compiled `keras.Model` that has been evaluated, or None.

    Raises:
        InputError: if `mode` is neither, or if it is None and the metric is not one of Keras's.
    """
    if mode is not None:
        check_choice("mode", mode, MODES)
        return mode
    name = monitor.removeprefix("val_")
    found = {_mode_of_name(name)} if model is None else _modes_in(model, name)
    if len(found) != 1 or None in found:
        raise invalid("mode", f"'min' or 'max', as {monitor!r} is no metric of Keras", mode)
    return found.pop()


def _mode_of_name(name):
    name = re.sub(r"_\d+$", "", name)  # Keras numbers the second metric of a class
    if _ends_in(name, _LOWER_IS_BETTER):
        return "min"
    return "max" if _ends_in(name, _HIGHER_IS_BETTER) else None


def _modes_in(model, name):
    """Returns the modes of the metrics of a model that report a value by this name."""
    names = [getattr(model, attribute, None) or () for attribute in ("output_names", "tasks")]
    outputs = (*names[0], *names[1], "hard")
    if name in ("loss", *(f"{output}_loss" for output in outputs)):
        return {"min"}
    metrics = [inner for each in model.metrics for inner in getattr(each, "metrics", [each])]
    metrics = [each for each in metrics if each.name != "loss"]
    # Keras puts the name of an output before that of its metric.
    named = [each for each in metrics if name == each.name or name.endswith(f"_{each.name}")]
    if not named:  # a callback has put it into the logs
        return {_mode_of_name(name)} if name in _KNOWN or name.endswith("_loss") else {None}
    longest = max(len(each.name) for each in named)
    return {mode_of_metric(each) for each in named if len(each.name) == longest}


def mode_of_metric(metric):
    """Returns "min" or "max" for a `keras.metrics.Metric`; None if it is not one of Keras's."""
    metric = getattr(metric, "metric", metric)  # that of a task
    for cls in type(metric).__mro__:
        if cls is keras.metrics.MeanMetricWrapper:
            return _mode_of_function(metric_function(metric))
        if getattr(keras.metrics, cls.__name__, None) is cls:
            return _mode_of_name(_snake_case(cls.__name__))
        if "result" in vars(cls) or "update_state" in vars(cls):
            return None  # a custom metric, whatever its base class is
    return None


def _mode_of_function(function):
    if isinstance(function, keras.losses.Loss):
        return "min"
    name = getattr(function, "__name__", "")
    if getattr(keras.losses, name, None) is function:
        return "min"
    return _mode_of_name(name) if getattr(keras.metrics, name, None) is function else None


def _snake_case(name):
    return re.sub("([a-z])([A-Z])", r"\1_\2", re.sub("(.)([A-Z][a-z]+)", r"\1_\2", name)).lower()


def _ends_in(name, ends):
    return any(name == end or name.endswith(f"_{end}") for end in ends)


def is_better(value, best, *, mode):
    """Whether a value is better than the best one, or as good."""
    return value <= best if mode == "min" else value >= best


def within_tolerance(value, baseline, *, mode, tolerance):
    """Whether a metric is worse than the baseline by `tolerance` at most, up to rounding."""
    worse = value - baseline if mode == "min" else baseline - value
    return bool(worse <= tolerance + _ROUNDING)


def check_tolerance(tolerance):
    """Raises unless it is a number >= 0."""
    if not is_real(tolerance) or not 0 <= tolerance < math.inf:
        raise invalid("tolerance", "a number of at least 0", tolerance)
