"""One task of a shared model: its head, its adapter, and both with the backbone as a model."""

import contextlib
import numbers

import keras

from tfpeft.adapters.adapter import Adapter
from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.caching.precompute import PrecomputedInputs
from tfpeft.core import weight_files
from tfpeft.core.arguments import invalid
from tfpeft.core.graph import flatten_layers


@keras.saving.register_keras_serializable(package="tfpeft")
class TaskModel(keras.Model):
    """One task of a `SharedModel`, as a model of one output; see `SharedModel.task`."""

    def __init__(self, encoder, part, *, name=None):
        super().__init__(name=name)
        self.encoder, self.part = encoder, part
        self.built = encoder.built and part.built

    def call(self, inputs, training=None):
        return answer(self.encoder, self.part, inputs, training)

    @property
    def input_structure(self):
        return self.encoder.input_structure

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "encoder": serialize(self.encoder),
            "task": self.part.name,
            "head": serialize(self.part.head),
            "method": self.part.adapter and serialize(self.part.adapter.method),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        encoder, head, method = (
            keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("encoder", "head", "method")
        )
        part = TaskPart(config["task"], head, method, encoder)
        if encoder.input_structure is not None:
            answer(encoder, part, encoder.input_structure, training=False)
        return cls(encoder, part, name=config["name"])


class TaskPart(keras.layers.Layer):
    """What belongs to one task: a head, and perhaps an adapter."""

    def __init__(self, task, head, method, encoder):
        super().__init__(name=task)
        self.supports_masking = True  # of a head with a label a token
        self.head = head
        self.adapter = None
        if method is not None:
            if not isinstance(method, AdapterMethod):
                raise invalid("adapters", "LoRA(...) or another AdapterMethod", method)
            with keras.name_scope(task):
                self.adapter = Adapter(method, method.layers(encoder.backbone), "adapter")

    def build(self, input_shape):
        self.built = True

    def call(self, features, training=None):
        if isinstance(features, dict) and isinstance(self.head, keras.layers.Dense):
            known = ", ".join(map(repr, features))
            expected = f'"mean" or "first", or an `output` among {known}, for a backbone of several'
            raise invalid("pooling", expected, None)
        return self.head(features, training=training)

    def attached(self):
        """A context in which the backbone answers as adapted to this task."""
        return contextlib.nullcontext() if self.adapter is None else self.adapter.attached()

    def arrays(self):
        """Returns {name in a file: variable}."""
        head = {f"head/{i:03d}_{v.name}": v for i, v in enumerate(self.head.weights)}
        adapter = self.adapter.arrays() if self.adapter is not None else {}
        return {**head, **{f"adapter/{key}": variable for key, variable in adapter.items()}}

    def save(self, path, about_encoder):
        if not self.head.built:
            raise invalid("task", "a task that has answered once", self.name)
        serialize = keras.saving.serialize_keras_object
        about = {
            "task": self.name,
            "head": serialize(self.head),
            "method": self.adapter and serialize(self.adapter.method),
            **about_encoder,
        }
        weights = {key: variable.numpy() for key, variable in self.arrays().items()}
        weight_files.write(path, weights, about)

    def load(self, path, arrays):
        variables = self.arrays()
        if {key: tuple(v.shape) for key, v in variables.items()} != {
            key: array.shape for key, array in arrays.items()
        }:
            raise invalid("path", "a whole file of `save_task`", str(path))
        for key, variable in variables.items():
            variable.assign(arrays[key])
        for layer in flatten_layers(self.head):
            if hasattr(layer, "adapt"):  # keeps more than weights, and prepares it when it loads
                state = {}
                layer.save_own_variables(state)
                layer.load_own_variables(state)


def read_task(path, about_encoder):
    """Returns what a file of `TaskPart.save` tells, head and adapter's method made, and its arrays.

    Raises:
        ValueError: if the file was made for another encoder, or is none.
    """
    arrays, about = weight_files.read(path)
    if "head" not in about:
        raise invalid("path", "a file of `save_task`", str(path))
    if about["model"] != about_encoder["model"]:
        expected = f"a task of this backbone, whose weights are {about_encoder['model']}"
        raise invalid("path", expected, f"{path} for {about['model']}")
    for key, here in about_encoder.items():
        if about[key] != here:
            raise invalid("path", f"a task of {key}={here!r}", f"{path} with {about[key]!r}")
    deserialize = keras.saving.deserialize_keras_object
    made = {key: about[key] and deserialize(about[key]) for key in ("head", "method")}
    return {**about, **made}, arrays


def features_of(encoder, part, inputs, training):
    """Returns what the encoder answers for a task, or what was computed before."""
    inputs, computed = PrecomputedInputs.split(inputs)
    if computed is None:
        if part.adapter is None and not encoder.unfreeze:
            training = False
        with part.attached():
            return encoder(inputs, training=training)
    if part.adapter is not None or encoder.unfreeze:
        raise ValueError(
            "Received what the backbone answers, computed before, expected inputs: the adapter of "
            f"the task {part.name!r}, or a layer that is trained, changes the answers"
        )
    if encoder.answers_mask:
        raise ValueError(
            "Received what the backbone answers, computed before, expected inputs: the mask of "
            'its positions is not in there. With pooling="mean" or "first" none is needed'
        )
    return computed["outputs"][0]


def answer(encoder, part, inputs, training):
    """Returns what a task answers to inputs: its head on the backbone under its adapter."""
    return part(features_of(encoder, part, inputs, training), training=training)


def as_head(task, head):
    """Returns the layer that a head is; a number of classes is a Dense layer of logits."""
    if isinstance(head, keras.layers.Layer):
        return head
    if isinstance(head, numbers.Integral) and not isinstance(head, bool) and head >= 1:
        return keras.layers.Dense(int(head), dtype="float32", name=task)
    raise invalid(f"heads[{task!r}]", "a layer, a model, or a number of classes >= 1", head)
