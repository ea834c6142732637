"""Compiled copies: the optimizer, loss and metrics of one model for another."""

import contextlib
import json

import keras

from tfpeft.core import clone


def compile_like(new, model, wrap=lambda optimizer: optimizer):
    """Compiles a model as another one is, with a new optimizer and new metrics.

    Args:
        new: The model that is compiled.
        model: The compiled model.
        wrap: A function of the new optimizer that returns the one to use.
    """
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer  # `compile` adds one again
    optimizer = clone.copy_object(optimizer)
    options = dict(model._compile_config.config)
    for key in ("metrics", "weighted_metrics"):
        options[key] = keras.tree.map_structure(_new_metric, options.get(key))
    new.compile(**{**options, "optimizer": wrap(optimizer)})


def compiled_parts(model):
    """Returns the loss and the metrics, weighted ones among them, that a model is compiled with.

    They are what `compile` was given; None for a model that is not compiled.
    """
    if not model.compiled:
        return None, None
    options = getattr(model, "_compile_config", None)
    options = {} if options is None else options.config
    metrics = [options.get(key) for key in ("metrics", "weighted_metrics")]
    return options.get("loss"), [each for each in metrics if each]


def described(value):
    """Returns what says whether losses or metrics are the same, as plain JSON values.

    Args:
        value: As `compile` takes them: names, objects, functions, or lists and dicts of these.
    """
    if value is None or isinstance(value, (str, int, float)):
        return value
    if isinstance(value, dict):
        return {str(key): described(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(each) for each in value]
    if hasattr(value, "get_config"):
        with contextlib.suppress(Exception):  # whatever a class of the user raises
            # Names that Keras gives are numbered, and of another number in each call.
            config = {k: v for k, v in value.get_config().items() if k != "name"}
            return [type(value).__name__, json.loads(json.dumps(config, default=described))]
    return getattr(value, "__qualname__", type(value).__name__)


def _new_metric(metric):
    if isinstance(metric, keras.metrics.Metric):
        return clone.copy_object(metric)
    return metric
