"""What an .h5 file or a file of Keras 2 was compiled with: loss and metrics, for Keras 3."""

import warnings

import keras

from tfpeft.core.arguments import last_cause
from tfpeft.loading.old_layers import accepted_arguments

_OLD_ARGUMENTS = {"lr": "learning_rate"}
_RATE = 1e-3


def compile_as_saved(model, config, custom_objects):
    """Compiles a model as the file says; warns, and does not, where the loss cannot be made.

    The optimizer is one of the same class and learning rate, without its states; Adam, where
    Keras 3 has no such class.

    Args:
        model: A built model.
        config: `training_config` of an .h5 file, or `compile_config` of a .keras file; or None.
        custom_objects: Name -> class or function.
    """
    if not config or not config.get("loss"):
        return
    with keras.saving.custom_object_scope(custom_objects or {}):
        try:
            loss = loss_of(config["loss"])
        except Exception as error:  # a function of the user's code, or of Keras 2
            warn_uncompiled(f"its loss is not there: {last_cause(error)}")
            return
        arguments = {"loss": loss, "loss_weights": config.get("loss_weights")}
        for name in ("metrics", "weighted_metrics"):
            arguments[name] = metrics_of(config.get(name), getattr(model, "output_names", ()))
        optimizer = _optimizer(config.get("optimizer_config") or config.get("optimizer"))
        try:
            model.compile(optimizer, **arguments)
        except Exception as error:  # a structure that Keras 3 does not take
            warn_uncompiled(last_cause(error))


def warn_uncompiled(why):
    """Warns that a model is returned without loss and metrics."""
    warnings.warn(
        f"The model is not compiled, call `compile` before `fit` and `evaluate`: {why}",
        UserWarning,
        stacklevel=2,
    )


def loss_of(config):
    """Returns the loss of a configuration, or a structure of losses, as `compile` takes it."""
    return _each(config, _loss)


def _each(config, make):
    """Returns a structure of objects for one of configurations."""
    if config is None or isinstance(config, str) or _is_object(config):
        return make(config)
    if isinstance(config, dict):
        return {key: _each(value, make) for key, value in config.items()}
    return [_each(value, make) for value in config]


def _is_object(config):
    return isinstance(config, dict) and "class_name" in config


def _loss(config):
    return _named(config) or keras.losses.get(_plain(config)) if config is not None else None


def _named(config):
    """Returns the function or class of the user's that a configuration names, or None.

    In a text Keras looks for its own ones only.
    """
    name = _plain(config)
    return keras.saving.get_registered_object(name) if isinstance(name, str) else None


def _plain(config):
    """Returns a configuration without what Keras 2 adds: modules, and the name `auto`."""
    if not _is_object(config):
        return config
    if config["class_name"] == "function":
        return config["config"]
    arguments = dict(config.get("config") or {})
    if arguments.get("reduction") in ("auto", "AUTO"):
        arguments["reduction"] = "sum_over_batch_size"
    arguments.pop("fn", None)
    return {"class_name": config["class_name"].rsplit(">", 1)[-1], "config": arguments}


def metrics_of(config, output_names=()):
    """Returns the metrics of a configuration; those that cannot be made are left out."""
    lost = []

    def make(each):
        try:
            return _metric(each, output_names)
        except Exception as error:  # a function of the user's code, or of Keras 2
            lost.append(last_cause(error))
            return None

    metrics = _without_none(_each(config, make))
    if lost:
        warnings.warn(f"Metrics are left out: {'; '.join(lost)}", UserWarning, stacklevel=2)
    return metrics


def _metric(config, outputs):
    if not _is_object(config):
        if config in _BY_OUTPUT or config is None:
            return config
        # The text itself is the metric's name, too.
        return _named(config) or (keras.metrics.get(config) and config)
    if config["class_name"] == "function":
        return _named(config) or keras.metrics.get(_plain(config))
    arguments = config.get("config") or {}
    if config["class_name"] != "MeanMetricWrapper":
        made = keras.metrics.get(_plain(config))
        made.name = _without_output(made.name, outputs)
        return made
    function, name = arguments.get("fn"), _without_output(arguments.get("name"), outputs)
    if isinstance(function, dict):
        function = function["config"]
    if name in _BY_OUTPUT:  # Keras 3 finds the function for the output, as Keras 2 did
        return name
    return keras.metrics.MeanMetricWrapper(
        _named(function) or keras.metrics.get(function), name=name
    )


_BY_OUTPUT = ("acc", "accuracy", "ce", "crossentropy")


def _without_output(name, outputs):
    """Returns a metric's name without that of its output, which Keras adds itself."""
    for output in outputs if len(outputs) > 1 else ():
        if name and name.startswith(f"{output}_"):
            return name.removeprefix(f"{output}_")
    return name


def _without_none(structure):
    if isinstance(structure, dict):
        return {key: _without_none(each) for key, each in structure.items()}
    if isinstance(structure, list):
        return [_without_none(each) for each in structure if each is not None]
    return structure


def _optimizer(config):
    """Returns an optimizer of the saved class and learning rate; Adam where there is none."""
    config = config if isinstance(config, dict) else {}
    arguments = config.get("config") or {}
    arguments = {_OLD_ARGUMENTS.get(key, key): value for key, value in arguments.items()}
    rate = arguments.get("learning_rate")
    name = str(config.get("class_name")).rsplit(">", 1)[-1]
    found = getattr(keras.optimizers, name, None)
    is_number = isinstance(rate, (int, float))
    if isinstance(found, type) and issubclass(found, keras.optimizers.Optimizer) and is_number:
        known = accepted_arguments(found)
        try:
            return found(**{key: value for key, value in arguments.items() if key in known})
        except Exception:  # its arguments have other forms
            pass
    return keras.optimizers.Adam(rate if is_number else _RATE)
