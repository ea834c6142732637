"""Copies of a model, and models rebuilt from an edited configuration."""

import keras

from tfpeft.core.arguments import InputError
from tfpeft.core.graph import flatten_layers


def copy_model(model):
    """Returns a new model with the configuration and the weights of `model`; see `rebuild`."""
    return rebuild(model, lambda config, parents: config)


def rebuild(model, edit, *, copy_weights=True):
    """Returns a new model with the edited configuration of `model`; `model` stays as it is.

    Args:
        model: A built `keras.Model`; a subclassed one needs `get_config`.
        edit: A function `edit(config, parents)` that returns the new configuration of a layer.
            `config` is the old one, a dict of constructor arguments with `name`; `parents` are
            the names of the models and layers that contain the layer, the outermost first. It is
            called for nested layers, too.
        copy_weights: Whether the new model gets the weights; then shapes must not change. If
            False, the shapes that Keras recorded when it built the layers are left out, too.

    Raises:
        InputError: if the model cannot be rebuilt from its configuration.
    """
    classes = {type(layer).__name__: type(layer) for layer in flatten_layers(model)}
    dropped = {"compile_config"} if copy_weights else {"compile_config", "build_config"}
    try:
        config = keras.saving.serialize_keras_object(model)
        with keras.saving.custom_object_scope(classes):
            new = keras.saving.deserialize_keras_object(
                _edited(config, edit, dropped), safe_mode=False
            )
        if copy_weights:
            new.set_weights(model.get_weights())
            copy_adapted(model, new)
    except (TypeError, ValueError, NotImplementedError) as error:
        raise InputError(
            f"Cannot rebuild {model.name!r} from its configuration, expected a functional or "
            "Sequential model, or a subclassed one with `get_config` that builds all its layers "
            f"in `__init__` or `build`. Received: {type(error).__name__}: {error}"
        ) from error
    return new


def copy_adapted(model, new):
    """Copies the state of preprocessing layers, such as the mean of `Normalization`.

    They have state beside their weights, and prepare it when they load it.
    """
    for old_layer, new_layer in zip(flatten_layers(model), flatten_layers(new), strict=True):
        if hasattr(old_layer, "adapt"):
            state = {}
            old_layer.save_own_variables(state)
            new_layer.load_own_variables(state)


def _edited(config, edit, dropped, parents=()):
    if isinstance(config, dict):
        inside = parents
        is_object = isinstance(config.get("config"), dict) and "class_name" in config
        if is_object and "name" in config["config"]:
            inside = (*parents, config["config"]["name"])
        config = {
            k: _edited(v, edit, dropped, inside) for k, v in config.items() if k not in dropped
        }
        if is_object:
            config["config"] = edit(config["config"], parents)
        return config
    if isinstance(config, (list, tuple)):
        return type(config)(_edited(v, edit, dropped, parents) for v in config)
    return config
