"""Frozen models as layers: Keras models, .tflite files and functions, and their outputs."""

import dataclasses
import inspect
import itertools
import os
import threading
from collections.abc import Callable

import keras
import tensorflow as tf

from tfpeft.core.arguments import InputError, invalid, unexpected
from tfpeft.core.arrays import invalid_data
from tfpeft.core.checks import assert_in_graph, passing_errors
from tfpeft.core.hooks import recording
from tfpeft.core.inputs import ModelInput, arrange, match, may_use_others, model_inputs
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
            file of one output; or a function of a batch.
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
    if callable(model) and not isinstance(model, type):
        return FunctionLayer(function=model)
    expected = "a keras.Model, a layer, a .tflite file, or a function of a batch"
    raise invalid(argument, expected, model)


def inputs_of_models(models, x, name="x", *, may_have_more=False):
    """Returns the inputs of each model: of a dict those of its names, of a list all by position.

    Args:
        models: Layers. One whose inputs are not known gets `x` as it is.
        x: Inputs of all models.
        name: The argument that gave `x`, for errors.
        may_have_more: Whether a dict may have inputs that none of the models has in any case.

    Raises:
        InputError: for inputs that a model lacks; for those that no model has, if one of them is
            subclassed, as it may use them; and for a list, if models have inputs of the same names
            in another order.
    """
    known = [_names(model) for model in models]
    if isinstance(x, dict):
        if not may_have_more and None not in known and any(map(may_use_others, models)):
            more = set(x) - {each for names in known for each in names}
            if more:
                expected = f"inputs of the names {', '.join(dict.fromkeys(_first(known)))}"
                raise invalid_data(name, expected, ", ".join(map(str, x)))
        # A model that takes one of several inputs gets it alone.
        xs = [_named(x, names) for names in known]
    else:
        orders = {tuple(_first([names])) for names in known if names is not None}
        if any(sorted(a) == sorted(b) for a, b in itertools.combinations(orders, 2)):
            received = f"a {type(x).__name__}, and models that have them in another order"
            raise invalid_data(name, f"a dict of {', '.join(min(orders))}", received)
        xs = [x] * len(models)
    return [_arranged(model, each, name) for model, each in zip(models, xs, strict=True)]


def _named(x, names):
    """Returns the inputs of these names, or all if there are none."""
    return {key: value for key, value in x.items() if names is None or key in names} or x


def _first(known):
    """Returns the name by which each input goes first."""
    return [each for names in known for each, is_first in (names or {}).items() if is_first]


def _names(model):
    """Returns {name: whether it is not an alias} of a model's inputs; None if they are unknown."""
    if isinstance(model, TFLiteLayer):
        return dict.fromkeys(model.opened.signature().inputs, True)
    inputs = model_inputs(model)
    if inputs is None:
        return None
    names = {}
    for path, each in keras.tree.flatten_with_path(inputs):
        for alias in (*each.aliases, *(path[:1] if len(path) > 1 else ())):
            names.setdefault(alias, False)
        names[each.name] = True
    return names


def _arranged(model, x, name):
    if not isinstance(model, TFLiteLayer):
        return arrange(model, x, name)
    return model.arranged(x, name)


def frozen_outputs(models, xs, layer_names=(), argument="features"):
    """Runs each model once on a batch, with training=False.

    Args:
        models: Layers.
        xs: The batch of each model, see `inputs_of_models`.
        layer_names: Names of layers in the models whose outputs are recorded.
        argument: What the user passed the names as, for errors.

    Returns:
        A list of the outputs of each model, and the features {layer name: tensor}.

    Raises:
        InputError: if there is no such layer, or the model does not call it; if a function does
            not return tensors.
    """
    layers = {name: find_layer(models, name, argument) for name in layer_names}
    with recording(layers) as features:
        outputs = [_call(model, x) for model, x in zip(models, xs, strict=True)]
    missing = sorted(set(layers) - set(features))
    if missing:
        raise invalid(argument, "layers that the model calls", ", ".join(missing))
    return outputs, features


def _call(model, x):
    takes_training = "training" in inspect.signature(model.call).parameters
    return model(x, training=False) if takes_training else model(x)


@register("TFLiteTeacher")
class TFLiteLayer(keras.layers.Layer):
    """A .tflite file of one output as a layer; its outputs are float32."""

    def __init__(self, *, file, name=None):
        super().__init__(name=name, trainable=False, dtype="float32")
        self.file = file
        self.supports_jit = False
        self._run_lock = threading.Lock()
        self.opened = TFLiteFile(file)  # raises early for a bad file
        signature = self.opened.signature()
        if len(signature.outputs) != 1:
            raise unexpected("a .tflite file of one output", f"{file} of {len(signature.outputs)}")
        (shape,) = signature.outputs.values()
        self._shape = shape[1:]

    @property
    def last_activation(self):
        """ "softmax" if the outputs come from a SOFTMAX; None if unknown."""
        return "softmax" if self.opened.is_softmax() else None

    def build(self, input_shape):
        self.built = True

    def arranged(self, x, name):
        """Returns inputs as the file takes them: of a dict by name, of a list by position."""
        names = list(self.opened.signature().inputs)
        if len(names) == 1:
            (leaf,) = match([ModelInput(names[0])], x, name, self.file)
            return leaf
        if isinstance(x, dict):
            parts = {each: ModelInput(each) for each in names}
            return match(parts, x, name, self.file)
        return match([ModelInput(each) for each in names], x, name, self.file)

    def call(self, inputs):
        leaves = keras.tree.flatten(inputs)

        @passing_errors
        def run(*arrays):
            x = keras.tree.pack_sequence_as(inputs, list(arrays))
            with self._run_lock:  # an interpreter has one set of tensors
                return self.opened.predict(x)

        outputs = tf.numpy_function(run, leaves, tf.float32, stateful=False)
        sides = (None if side < 0 else side for side in self._shape)
        outputs.set_shape([leaves[0].shape[0], *sides])
        return outputs

    def get_config(self):
        return {"file": self.file, "name": self.name}


@dataclasses.dataclass(frozen=True)
class _OtherCount:
    """Makes the error for outputs of another number of samples than the inputs."""

    expected: str

    def __call__(self):
        return unexpected(self.expected, "outputs of another number of samples than its inputs")


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
        name = getattr(self.function, "__name__", type(self.function).__name__)
        expected = f"tensors of (batch, ...) from the function {name}"
        try:
            outputs = self.function(inputs)
        except InputError:
            raise
        except Exception as error:  # a user's function may raise anything
            raise unexpected(expected, f"{type(error).__name__}: {error}") from error
        leaves = keras.tree.flatten(outputs)
        if not leaves or not all(len(getattr(leaf, "shape", ())) for leaf in leaves):
            raise unexpected(expected, ", ".join(type(leaf).__name__ for leaf in leaves) or "none")
        outputs = keras.tree.map_structure(tf.convert_to_tensor, outputs)
        counts = [tf.shape(leaf)[0] for leaf in keras.tree.flatten((inputs, outputs))]
        same = tf.reduce_all(tf.equal(counts, counts[0]))
        checks = assert_in_graph(same, _OtherCount(expected))  # without values, which XLA lacks
        with tf.control_dependencies(checks):
            return keras.tree.map_structure(tf.identity, outputs)

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
