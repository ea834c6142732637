"""Whether a metric still holds: its name, whether more of it is better, and by how much it fell."""

import math
import numbers
import re

import keras

from tfpeft.core.arguments import check_choice, invalid

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
    if monitor not in metrics:
        raise invalid("monitor", f"one of {', '.join(metrics)}, as compiled", monitor)
    return monitor


def metric_mode(monitor, *, mode=None, model=None):
    """Returns "min" if lower values of a metric are better, "max" if higher ones are.

    Args:
        monitor: The metric's name, as `evaluate` or the logs of `fit` report it.
        mode: The user's choice; None finds it by the name, or by the class of a metric that the
            model is compiled with.
        model: A compiled `keras.Model`, or None.

    Raises:
        InputError: if `mode` is neither, or if it is None and the metric is not one of Keras's.
    """
    if mode is not None:
        check_choice("mode", mode, MODES)
        return mode
    name = monitor.removeprefix("val_")
    for known in (name, *_class_names(name, model)):
        if _ends_in(known, _LOWER_IS_BETTER):
            return "min"
        if _ends_in(known, _HIGHER_IS_BETTER):
            return "max"
    raise invalid("mode", f"'min' or 'max', as {monitor!r} is no metric of Keras", mode)


def _class_names(name, model):
    """Returns the names that Keras itself gives to metrics of the classes of the metric `name`."""
    metrics = [] if model is None else model.metrics
    metrics = [inner for metric in metrics for inner in getattr(metric, "metrics", [metric])]
    return [
        _snake_case(cls.__name__)
        for metric in metrics
        if name == metric.name or name.endswith(f"_{metric.name}")
        for cls in type(metric).__mro__
        if getattr(keras.metrics, cls.__name__, None) is cls
    ]


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
    if not isinstance(tolerance, numbers.Real) or not 0 <= tolerance < math.inf:
        raise invalid("tolerance", "a number of at least 0", tolerance)
