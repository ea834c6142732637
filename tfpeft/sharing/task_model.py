"""One task of a shared model: its head and adapter, alone or with the backbone as a model."""

import contextlib
import numbers
from typing import Any

import keras

from tfpeft.adapters.adapter import Adapter
from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.caching.frozen_model import inputs_of_models
from tfpeft.caching.precompute import PrecomputedInputs
from tfpeft.core import weight_files
from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.graph import flatten_layers
from tfpeft.core.json_files import mismatch
from tfpeft.sharing.encoder import Encoder


@keras.saving.register_keras_serializable(package="tfpeft")
class TaskModel(keras.Model):
    """One task of a `SharedModel` as a model of one output; `SharedModel.task` returns it.

    It shares backbone, adapter and head with the `SharedModel`.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    backbone = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu")])
    shared = tfpeft.SharedModel(backbone, {"shape": 3, "colour": 2})
    model = shared.task("shape")
    print(type(model).__name__, model(np.zeros((4, 8))).shape)  # TaskModel (4, 3)
    model.save("shape.keras")
    ```
    """

    def __init__(self, encoder, part, *, name=None):
        super().__init__(name=name)
        if not isinstance(encoder, Encoder):
            raise invalid("encoder", "the `encoder` of a SharedModel", encoder)
        if not isinstance(part, TaskPart):
            raise invalid("part", "one of the `parts` of a SharedModel", part)
        self.encoder, self.part = encoder, part
        self.built = encoder.built and part.built

    def call(self, inputs, training=None):
        return task_outputs(self.encoder, self.part, inputs, training)

    @property
    def input_structure(self):
        """Symbolic inputs in the structure that the model is called with, or None."""
        return self.encoder.input_structure

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "encoder": serialize(self.encoder),
            "task": self.part.name,
            "head": serialize(self.part.head),
            "method": self.part.adapter and serialize(self.part.adapter.method),
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "TaskModel":
        encoder, head, method = (
            keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("encoder", "head", "method")
        )
        part = TaskPart(config["task"], head, method, encoder)
        if encoder.input_structure is not None:
            task_outputs(encoder, part, encoder.input_structure, training=False)
        return cls(encoder, part, name=config["name"])


class TaskPart(keras.layers.Layer):
    """The head of one task, and perhaps its adapter."""

    def __init__(self, task, head, method, encoder):
        super().__init__(name=task)
        self.supports_masking = True  # for a head with a label per token
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
            expected = f'"mean" or "first", or an `output` among {known}, for a model with several'
            raise invalid("pooling", expected, None)
        if isinstance(features, dict) and isinstance(self.head, keras.Model):
            (features,) = inputs_of_models([self.head], features, "heads", may_have_more=True)
        return self.head(features, training=training)

    def attached(self):
        """Returns a context in which the backbone has the adapter of this task."""
        return contextlib.nullcontext() if self.adapter is None else self.adapter.attached()

    def arrays(self):
        """Returns {name in a file: variable}."""
        head = {f"head/{i:03d}_{v.name}": v for i, v in enumerate(self.head.weights)}
        adapter = self.adapter.arrays() if self.adapter is not None else {}
        return {**head, **{f"adapter/{key}": variable for key, variable in adapter.items()}}

    def save(self, path, about_encoder):
        """Writes the task to a file with the metadata of the encoder."""
        if not self.head.built:
            raise invalid("task", "a task whose head is built, by a call of the model", self.name)
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
        """Assigns the arrays of a file of `save`."""
        weight_files.assign(self.arrays(), arrays, path, "save_task")
        for layer in flatten_layers(self.head):
            if hasattr(layer, "adapt"):  # has state beside weights, and prepares it when it loads
                state = {}
                layer.save_own_variables(state)
                layer.load_own_variables(state)


def read_task(path, about_encoder):
    """Returns metadata and arrays of a file of `TaskPart.save`.

    The metadata have the head and the adapter's method as objects.

    Raises:
        InputError: for a file of another encoder, and other files.
    """
    arrays, about = weight_files.read(path)
    found = mismatch(about, {"task": str, "head": dict, "method": (dict, None), "model": str})
    if found:
        raise invalid("path", f"a file of `save_task`, with {found}", str(path))
    if about["model"] != about_encoder["model"]:
        expected = f"a task of this backbone, whose weights are {about_encoder['model']}"
        raise invalid("path", expected, f"{path} for {about['model']}")
    for key, here in about_encoder.items():
        if about.get(key) != here:
            raise invalid("path", f"a task of {key}={here!r}", f"{path} with {about.get(key)!r}")
    head = weight_files.rebuild(about["head"], keras.layers.Layer, path)
    method = about["method"] and weight_files.rebuild(about["method"], AdapterMethod, path)
    return {**about, "head": head, "method": method}, arrays


def encode(encoder, part, inputs, training):
    """Returns the encoder's outputs for a task: computed, or those of `PrecomputedInputs`.

    Raises:
        InputError: for precomputed outputs that are not the task's outputs of the backbone.
    """
    inputs, precomputed = PrecomputedInputs.split(inputs)
    if precomputed is None:
        if part.adapter is None and not encoder.unfreeze:
            training = False
        with part.attached():
            return encoder(inputs, training=training)
    if part.adapter is not None or encoder.unfreeze:
        raise unexpected(
            f"inputs of the backbone: the adapter of the task {part.name!r}, or an unfrozen layer, "
            "changes the backbone's outputs",
            "its precomputed outputs",
        )
    if encoder.has_output_mask:
        raise unexpected(
            "inputs of the backbone: precomputed outputs have no mask of their positions; with "
            'pooling="mean" or "first" none is needed',
            "its precomputed outputs",
        )
    return precomputed["outputs"][0]


def task_outputs(encoder, part, inputs, training):
    """Returns the outputs of a task: its head on the backbone with its adapter."""
    return part(encode(encoder, part, inputs, training), training=training)


def make_head(task, head):
    """Returns the layer of a head; a number of classes becomes a Dense layer of logits."""
    if isinstance(head, keras.layers.Layer):
        return head
    if isinstance(head, numbers.Integral) and not isinstance(head, bool) and 1 <= head < 2**24:
        return keras.layers.Dense(int(head), dtype="float32", name=task)
    raise invalid(f"heads[{task!r}]", "a layer, a model, or a number of classes >= 1", head)
