"""The same model again, from an edited configuration."""

import keras

from tfpeft.core.graph import flatten_layers


def rebuild(model, edit, *, copy_weights=True):
    """Returns a new model made from the configuration of `model`; `model` stays as it is.

    Args:
        model: A built `keras.Model`; a subclassed one needs `get_config`.
        edit: A function that returns the new configuration of one layer, of its old one (a dict
            of constructor arguments, `name` among them) and of the names of the layers that it
            is in, from the outside. Nested layers are edited, too.
        copy_weights: Whether the new model gets the weights; then shapes must not change. If
            they do, what Keras remembers of the shapes it built with is left out as well.

    Raises:
        ValueError: if the model cannot be made from its configuration.
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
        raise ValueError(
            f"Cannot make {model.name!r} again from its configuration, expected a functional or "
            "Sequential model, or a subclassed one with `get_config` that builds all its layers "
            f"in `__init__` or `build`. Received: {type(error).__name__}: {error}"
        ) from error
    return new


def copy_adapted(model, new):
    """Copies what preprocessing layers were adapted to, such as the mean of `Normalization`.

    They keep more than weights, and prepare it when they load their state.
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
