"""Models of Keras 1 and 2: from their configuration, layer by layer."""

import dataclasses

import keras

from tfpeft.core.arguments import InputError, last_cause
from tfpeft.loading import old_layers
from tfpeft.loading.keras1_layers import time_distributed
from tfpeft.loading.lambdas import lambda_layer
from tfpeft.loading.old_calls import Calls, give_unique_names, new_name
from tfpeft.loading.old_functions import OLD_CLASSES

MODELS = ("Functional", "Model", "Network", "Sequential")
SYMBOLS = ("SlicingOpLambda", "TFOpLambda", "TensorFlowOpLayer")
_WRAPPED = {"layer": False, "backward_layer": False, "cell": False, "cells": True}
_ACTIVATIONS = ("activation", "recurrent_activation")  # that may be layers
_OBJECTS = (*_WRAPPED, *_ACTIVATIONS)


@dataclasses.dataclass
class Made:
    """A layer or model of a file, and how it was made.

    Attributes:
        layer: The Keras 3 layer; None for what became operations of the graph.
        class_name: Its class in the file.
        name: Its name in the file.
        inside: Of a model, what it is made of, in the order of the file; None of a layer.
        is_frozen: Whether it is a model that the file says not to train.
    """

    layer: keras.layers.Layer | None
    class_name: str
    name: str
    inside: list | None = None
    is_frozen: bool = False

    def freeze(self):
        """Freezes the models that the file says not to train, when the weights are assigned.

        The order of weights in the file is that of the layers' own flags, which this changes.
        """
        for each in self.inside or ():
            each.freeze()
        if self.is_frozen:
            self.layer.trainable = False


class OldModels:
    """Makes models of configurations, and notes what Keras 3 does not have.

    Attributes:
        problems: {name of a layer: why it cannot be made}.
    """

    def __init__(self, keras_version, custom_objects, safe_mode):
        self.keras_version = keras_version
        self.custom_objects = custom_objects or {}
        self.safe_mode = safe_mode
        self.problems = {}

    def made(self, config, input_shape=None):
        """Returns the `Made` of a layer's or a model's configuration; None after a problem."""
        class_name = config["class_name"].rsplit(">", 1)[-1]
        inner = config["config"]
        name = self._name(config)
        try:
            if class_name == "Sequential":
                return self._sequential(class_name, name, inner)
            if isinstance(inner, dict) and "layers" in inner and "output_layers" in inner:
                return self._graph_model(config["class_name"], name, inner)
            return Made(self._layer(config, class_name), class_name, name)
        except InputError as error:
            self.problems[name] = f"{class_name}: {error}"
        except Exception as error:  # layers check their arguments in their own ways
            self.problems[name] = f"{class_name}: {last_cause(error)}"
        return None

    @staticmethod
    def _name(config):
        inner = config["config"]
        name = config.get("name") or (inner.get("name") if isinstance(inner, dict) else None)
        return name or config["class_name"].lower()

    def _layer(self, config, class_name):
        arguments = {**config["config"], "name": new_name(self._name(config))}
        if class_name == "TimeDistributedDense":
            class_name, arguments = "TimeDistributed", time_distributed(arguments)
        for key, is_list in _WRAPPED.items():
            if isinstance(arguments.get(key), (list if is_list else dict)):
                inner = arguments[key] if is_list else [arguments[key]]
                made = [self._wrapped(each) for each in inner]
                arguments[key] = made if is_list else made[0]
        for key in _ACTIVATIONS:
            value = arguments.get(key)
            if isinstance(value, dict) and hasattr(keras.layers, value.get("class_name", "")):
                arguments[key] = self._wrapped(value)
        custom = self._custom_class(config["class_name"])
        if custom is not None:
            arguments = old_layers.translated_custom(arguments)
            with keras.saving.custom_object_scope(self.custom_objects):
                return custom.from_config(arguments)
        if class_name == "Lambda":
            return lambda_layer(arguments, self.custom_objects, self.safe_mode)
        new_class, arguments = old_layers.translated(class_name, arguments, self.keras_version)
        with keras.saving.custom_object_scope(self.custom_objects):
            layer_class = getattr(keras.layers, new_class)
            if any(isinstance(arguments.get(key), list | keras.layers.Layer) for key in _OBJECTS):
                return layer_class(**arguments)
            return layer_class.from_config(arguments)

    def _wrapped(self, config):
        before = len(self.problems)
        made = self.made(config)
        if made is None:
            _, why = self.problems.popitem()
            raise InputError(f"inside it, {why}")
        if len(self.problems) > before:
            raise InputError("a model inside it cannot be made")
        return made.layer

    def _custom_class(self, class_name):
        """Returns the user's class, or one that computes what a class of Keras 2 did; or None."""
        short = class_name.rsplit(">", 1)[-1]
        for name in (class_name, short):
            if name in self.custom_objects:
                return self.custom_objects[name]
        registered = keras.saving.get_registered_object(class_name)
        return registered or OLD_CLASSES.get(short)

    def _sequential(self, class_name, name, config):
        layers = config["layers"] if isinstance(config, dict) else config
        made = [self.made(each) for each in layers]
        if None in made:
            return None
        first = layers[0]["config"] if layers else {}
        model = keras.Sequential(name=new_name(name) if isinstance(config, dict) else None)
        if isinstance(first, dict) and layers[0]["class_name"] != "InputLayer":
            shape = first.get("batch_input_shape") or _inner_shape(first)
            if shape is None and isinstance(config, dict):
                shape = config.get("build_input_shape")
            is_model = made[0].inside is not None
            if shape is not None and not is_model:
                dtype = old_layers.old_dtype(first.get("input_dtype") or first.get("dtype"))
                model.add(keras.Input(batch_shape=shape, dtype=_number_type(dtype)))
        for each in made:
            if each.layer is not None:
                model.add(each.layer)
        if not model.built:
            raise InputError("the file does not say the shape of its input")
        return Made(model, class_name, name, made, _is_frozen(config))

    def _graph_model(self, class_name, name, config):
        made = {}
        for layer in config["layers"]:
            layer_class = layer["class_name"].rsplit(">", 1)[-1]
            if layer_class in SYMBOLS:
                made[layer["name"]] = Made(None, layer_class, layer["name"])
            else:
                made[layer["name"]] = self.made(layer)
        calls = Calls(config, made, self.problems)
        if None in made.values() or not calls.run():
            return None
        inputs, outputs = (
            calls.tensors(config["input_layers"]),
            calls.tensors(config["output_layers"]),
        )
        give_unique_names(outputs)
        model_class = self._custom_class(class_name) or keras.Model
        model = model_class(inputs, outputs, name=new_name(name))
        return Made(model, class_name, name, list(made.values()), _is_frozen(config))


def _is_frozen(config):
    return isinstance(config, dict) and config.get("trainable") is False


def _inner_shape(config):
    """Returns the shape that a wrapper's layer, or Keras 1, says in another way; or None."""
    if config.get("input_shape"):
        return (None, *config["input_shape"])
    inner = config.get("layer")
    return inner["config"].get("batch_input_shape") if isinstance(inner, dict) else None


def _number_type(dtype):
    """Returns the type of an input of a layer with a dtype or a policy."""
    return "float32" if dtype is None or dtype.startswith("mixed_") else dtype
