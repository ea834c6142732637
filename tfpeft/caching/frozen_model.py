"""Frozen models as layers: Keras models, .tflite files and functions, and their outputs."""

import inspect
import os
import threading
from collections.abc import Callable

import keras
import tensorflow as tf

from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.hooks import recording
from tfpeft.core.layers import find_layer
from tfpeft.core.paths import as_path
from tfpeft.core.registration import register
from tfpeft.export.tflite_file import TFLiteFile

FrozenModel = keras.layers.Layer | str | os.PathLike | Callable
"""What `as_frozen_model` takes."""


def as_frozen_model(model, argument):
    """Returns a layer whose outputs are those of `model`.

    Args:
        model: A built `keras.Model` or another layer, such as `TFSMLayer`; the path of a .tflite
            file of one input and one output; or a function of a batch.
        argument: What the user passed it as, for errors.
    """
    if isinstance(model, keras.layers.Layer):
        if isinstance(model, keras.Model) and not model.built:
            raise invalid(argument, "a model that is built, and trained", model)
        return model
    if isinstance(model, (str, os.PathLike)):
        path = as_path(model, f"`{argument}`", "a .tflite file")
        if path.suffix == ".tflite":
            return TFLiteLayer(file=str(path))
    if callable(model):
        return FunctionLayer(function=model)
    expected = "a keras.Model, a layer, a .tflite file, or a function of a batch"
    raise invalid(argument, expected, model)


def frozen_outputs(models, x, layer_names=(), argument="features"):
    """Runs each model once on a batch, with training=False.

    Args:
        models: Layers.
        x: The batch.
        layer_names: Names of layers in the models whose outputs are recorded.
        argument: What the user passed the names as, for errors.

    Returns:
        A list of the outputs of each model, and the features {layer name: tensor}.

    Raises:
        InputError: if there is no such layer, or the model does not call it.
    """
    layers = {name: find_layer(models, name, argument) for name in layer_names}
    with recording(layers) as features:
        outputs = [_call(model, x) for model in models]
    missing = sorted(set(layers) - set(features))
    if missing:
        raise invalid(argument, "layers that the model calls", ", ".join(missing))
    return outputs, features


def _call(model, x):
    takes_training = "training" in inspect.signature(model.call).parameters
    return model(x, training=False) if takes_training else model(x)


@register("TFLiteTeacher")
class TFLiteLayer(keras.layers.Layer):
    """A .tflite file of one input and one output as a layer; its outputs are float32."""

    def __init__(self, *, file, name=None):
        super().__init__(name=name, trainable=False, dtype="float32")
        self.file = file
        self.supports_jit = False
        self._run_lock = threading.Lock()
        self.opened = TFLiteFile(file)  # raises early for a bad file
        signature = self.opened.signature()
        if len(signature.inputs) != 1 or len(signature.outputs) != 1:
            received = f"{file} of {len(signature.inputs)} and {len(signature.outputs)}"
            raise unexpected("a .tflite file of one input and one output", received)
        (shape,) = signature.outputs.values()
        self._shape = shape[1:]

    @property
    def last_activation(self):
        """ "softmax" if the outputs come from a SOFTMAX; None if unknown."""
        return "softmax" if self.opened.is_softmax() else None

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        outputs = tf.numpy_function(self._run, [inputs], tf.float32, stateful=False)
        outputs.set_shape([inputs.shape[0], *(None if side < 0 else side for side in self._shape)])
        return outputs

    def _run(self, x):
        with self._run_lock:  # an interpreter has one set of tensors
            return self.opened.predict(x)

    def get_config(self):
        return {"file": self.file, "name": self.name}


@register("FunctionTeacher")
class FunctionLayer(keras.layers.Layer):
    """A function of a batch as a layer.

    To be saved, the function must be registered with
    `keras.saving.register_keras_serializable`.
    """

    def __init__(self, *, function, name=None):
        super().__init__(name=name, trainable=False, dtype="float32", autocast=False)
        self.function = function

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        return self.function(inputs)

    def get_config(self):
        return {
            "function": keras.saving.serialize_keras_object(self.function),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        function = keras.saving.deserialize_keras_object(
            config["function"], custom_objects=custom_objects
        )
        return cls(**{**config, "function": function})
