"""Copies of a model, and models rebuilt from an edited configuration."""

import warnings

import keras

from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.graph import flatten_layers
from tfpeft.core.references import References
from tfpeft.core.same_outputs import check_same_outputs, outputs_of, run


class RebuildError(InputError):
    """A model that cannot be rebuilt from its configuration; `cause` is Keras's sentence."""

    def __init__(self, model, cause):
        self.cause = cause
        super().__init__(
            f"Cannot rebuild {model.name!r} from its configuration, expected a functional or "
            "Sequential model, or a subclassed one with `get_config` that builds all its layers in "
            f"`__init__` or `build`. Received: {cause}"
        )


def copy_model(model, *, sample=None, compare=True):
    """Returns a new model with the configuration and the weights of `model`; see `rebuild`."""
    return rebuild(model, lambda config, parents: config, sample=sample, compare=compare)


def rebuild(model, edit, *, edits=None, copy_weights=True, plain=False, sample=None, compare=True):
    """Returns a new model with the edited configuration of `model`; `model` stays as it is.

    Classes and functions are those of `model`, registered or not. Vocabularies are copied. The new
    model is called with a batch, and its outputs are compared with those of `model`.

    Args:
        model: A built `keras.Model`; a subclassed one needs `get_config`.
        edit: A function `edit(config, parents)` that returns the new configuration of a layer.
            `config` is the old one, a dict of constructor arguments with `name`; `parents` are
            the names of the models and layers that contain the layer, the outermost first. It is
            called for nested layers, too.
        edits: {id of a layer or an operation: function}, of the layers and operations of `model`:
            the function returns the new configuration for the old one, after `edit`.
        plain: Whether models of a class that is written for one architecture, such as a backbone of
            KerasHub, become functional models of the same layers.
        copy_weights: Whether the new model gets the weights; then shapes and outputs must not
            change. If False, the shapes that Keras recorded when it built the layers are left out,
            too, and nothing is compared.
        sample: A `Run` of `model`, where there is one already.
        compare: Whether outputs are compared; False for a caller that does it.

    Raises:
        InputError: naming the layer, if the model cannot be rebuilt from its configuration, or has
            other outputs then.
    """
    dropped = {"compile_config"} if copy_weights else {"compile_config", "build_config"}
    with warnings.catch_warnings():
        # Keras's advice on lambdas and `build`, for those who save a file.
        warnings.simplefilter("ignore", UserWarning)
        sample = (sample or run(model)) if copy_weights else None
        references = References(model, edits=edits, plain=plain)
        config = _edited(references.config, edit, dropped, references)
        try:
            with keras.saving.custom_object_scope(references.custom_objects):
                new = keras.saving.deserialize_keras_object(config, safe_mode=False)
            if sample is not None and len(new.weights) != len(model.weights):
                outputs_of(new, sample.batch)  # creates the weights of layers without `build`
            if copy_weights:
                _check_weights(model, new)
                new.set_weights(model.get_weights())
            references.copy_adapted(new)
        except InputError:
            raise
        except Exception as error:  # whatever the code of a custom layer raises
            raise RebuildError(model, last_cause(error)) from error
        if sample is not None and compare:
            check_same_outputs(model, new, sample)
    return new


def copy_object(each):
    """Returns a new optimizer, metric or another object with a configuration, without its state.

    Raises:
        InputError: if it cannot be made from its configuration.
    """
    references = References(each)
    config = _edited(references.config, lambda config, parents: config, (), references)
    try:
        with keras.saving.custom_object_scope(references.custom_objects):
            return keras.saving.deserialize_keras_object(config, safe_mode=False)
    except InputError:
        raise
    except Exception as error:  # whatever the code of a custom class raises
        raise InputError(
            f"Cannot copy a {type(each).__name__}, expected a `get_config` with all arguments of "
            f"`__init__`. Received: {last_cause(error)}"
        ) from error


def _check_weights(model, new):
    """Raises, naming the first layer, unless two models have weights of the same shapes."""
    shapes, copied = ([w.shape for w in each.weights] for each in (model, new))
    if shapes == copied:
        return
    for layer, other in zip(flatten_layers(model), flatten_layers(new), strict=False):
        is_leaf = len(flatten_layers(layer)) == 1
        if is_leaf and [w.shape for w in layer.weights] != [w.shape for w in other.weights]:
            name = f"layer {layer.name!r} ({type(layer).__name__})"
            mode = getattr(layer, "quantization_mode", None)
            if mode:
                raise InputError(
                    f"Cannot copy {model.name!r}, expected layers with weights of floats. "
                    f"Received: {name}, which Keras quantized ({mode}) and does not rebuild from "
                    "its configuration; copy the model before `quantize`"
                )
            own = ", with Keras's own LoRA," if getattr(layer, "lora_enabled", False) else ","
            names = [", ".join(w.name for w in each.weights[:4]) for each in (layer, other)]
            raise InputError(
                f"Cannot copy {model.name!r}, expected layers whose configuration makes all "
                f"their weights again. Received: {name}{own} whose weights {names[0] or 'none'} "
                f"are copied as {names[1] or 'none'}"
            )
    raise RebuildError(model, f"{len(shapes)} weights, copied as {len(copied)}")


def _edited(config, edit, dropped, references, parents=()):
    if isinstance(config, dict):
        inside = parents
        is_object = "config" in config and "class_name" in config
        is_layer = is_object and isinstance(config["config"], dict)
        if is_layer and "name" in config["config"]:
            inside = (*parents, config["config"]["name"])
        config = {
            k: _edited(v, edit, dropped, references, inside)
            for k, v in config.items()
            if k not in dropped
        }
        if is_object:
            config = references.resolved(config)
        if is_layer and isinstance(config["config"], dict):
            config["config"] = edit(config["config"], parents)
        return config
    if isinstance(config, (list, tuple)):
        return type(config)(_edited(v, edit, dropped, references, parents) for v in config)
    return config
