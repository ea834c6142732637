"""What can teach: Keras models, and as layers also .tflite files and functions."""

import inspect
import pathlib
import threading

import keras
import tensorflow as tf

from tfpeft.core.arguments import invalid
from tfpeft.core.hooks import recording
from tfpeft.core.layers import find_layer
from tfpeft.export.tflite_file import TFLiteFile


def as_teacher(teacher, argument="teacher"):
    """Returns a layer that answers as `teacher` does.

    Args:
        teacher: A `keras.Model` or another layer, such as `TFSMLayer`; the path of a .tflite file
            of one input and one output; or a function of a batch.
        argument: What an error names.
    """
    if isinstance(teacher, keras.layers.Layer):
        if isinstance(teacher, keras.Model) and not teacher.built:
            raise invalid(argument, "a model that is built, and trained", teacher)
        return teacher
    if isinstance(teacher, (str, pathlib.Path)) and str(teacher).endswith(".tflite"):
        return TFLiteTeacher(file=str(teacher))
    if callable(teacher):
        return FunctionTeacher(function=teacher)
    expected = "a keras.Model, a layer, a .tflite file, or a function of a batch"
    raise invalid(argument, expected, teacher)


def answers(teachers, x, feature_layers=()):
    """Runs each teacher once, with training=False.

    Args:
        teachers: Layers.
        x: A batch.
        feature_layers: Names of layers in one of the teachers.

    Returns:
        A list of what each answers, and the features {name: tensor}.
    """
    layers = {name: find_layer(teachers, name, "teacher_layer") for name in feature_layers}
    with recording(layers) as features:
        outputs = [_call(teacher, x) for teacher in teachers]
    missing = sorted(set(layers) - set(features))
    if missing:
        raise ValueError(
            f"Received an invalid value for `teacher_layer`, expected layers that the teacher "
            f"calls. Received: {', '.join(missing)}"
        )
    return outputs, features


def _call(teacher, x):
    takes_training = "training" in inspect.signature(teacher.call).parameters
    return teacher(x, training=False) if takes_training else teacher(x)


@keras.saving.register_keras_serializable(package="tfpeft")
class TFLiteTeacher(keras.layers.Layer):
    """Answers as a .tflite file of one input and one output does, in float32."""

    def __init__(self, *, file, name=None):
        super().__init__(name=name, trainable=False, dtype="float32")
        self.file = file
        self.supports_jit = False
        self._alone = threading.Lock()
        self.opened = TFLiteFile(file)
        signature = self.opened.signature()
        for role, tensors in (("input", signature.inputs), ("output", signature.outputs)):
            if len(tensors) != 1:
                raise invalid("teacher", f"a .tflite file of one {role}", file)
        (shape,) = signature.outputs.values()
        self._shape = shape[1:]

    def build(self, input_shape):
        self.built = True

    def call(self, inputs):
        outputs = tf.numpy_function(self._run, [inputs], tf.float32, stateful=False)
        outputs.set_shape([inputs.shape[0], *(None if side < 0 else side for side in self._shape)])
        return outputs

    def _run(self, x):
        with self._alone:  # an interpreter has one set of tensors
            return self.opened.predict(x)

    def get_config(self):
        return {"file": self.file, "name": self.name}


@keras.saving.register_keras_serializable(package="tfpeft")
class FunctionTeacher(keras.layers.Layer):
    """Answers what a function of a batch returns.

    To be saved, the function must be one that Keras can find again:
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
