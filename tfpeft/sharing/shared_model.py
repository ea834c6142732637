"""Parameter sharing: one backbone, several tasks; only the parts of the tasks are trained."""

import os
import re
from collections.abc import Sequence
from typing import Any

import keras

from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.caching.precompute import PrecomputedInputs
from tfpeft.core import clone, weight_files
from tfpeft.core.arguments import InputError, invalid
from tfpeft.core.inputs import arrange
from tfpeft.sharing.arguments import check_tasks, joined
from tfpeft.sharing.encoder import Encoder
from tfpeft.sharing.mixing import TaskInputs
from tfpeft.sharing.task_model import (
    TaskModel,
    TaskPart,
    encode,
    make_head,
    read_task,
    task_outputs,
)
from tfpeft.sharing.training import MultiTaskModel


@keras.saving.register_keras_serializable(package="tfpeft")
class SharedModel(MultiTaskModel):
    """One backbone with a head, and perhaps an adapter, for each of several tasks.

    The outputs are {task: head_t(backbone_t(x))}, where backbone_t is the frozen backbone with the
    adapter of task t. The loss of a batch, with the losses and `loss_weights` of `compile`, is

    `L = sum_t w_t * L_t`, or `L = sum_t exp(-s_t) * L_t + s_t / 2` with `learn_task_weights`.

    L_t is the mean over the samples of task t that have a label. A label is missing if it is NaN
    or, for a loss of Keras that takes class numbers, -1. In the second formula, homoscedastic
    uncertainty, s_t is trained from 0, and squared errors get half of exp(-s_t); a task without
    labels in a batch adds nothing. The logs contain each L_t.

    `fit` takes one input with several labels, `fit(x, {"age": ..., "gender": ...})`, or the data
    of each task, from `mix_tasks`. Tasks without an adapter share one pass of the backbone; a task
    with an adapter needs its own pass.

    The backbone passed in stays as it is: the shared model contains a copy. Without adapters and
    unfrozen layers the backbone runs with training=False (no dropout), and
    `precompute(shared.encoder, data).join(data)` returns data with which the backbone does not
    run, so that epochs take seconds. Otherwise dropout is active in training; the statistics of
    frozen BatchNorm layers do not change.

    What it does not give: independent tasks where layers are unfrozen, or where an optimizer clips
    by the norm of all gradients.

    Args:
        backbone: A built `keras.Model`: functional, Sequential, KerasHub's, keras.applications',
            or a subclassed one with `get_config`.
        heads: {task: head}: a layer or model of one output, or the number of classes, for a Dense
            layer of logits. Names of tasks have letters, digits, "_", "-" and ".".
        adapters: `LoRA(...)` or another `AdapterMethod`, from which each task gets its own
            adapter; or {task: method or None}; None for heads only.
        pooling: What the heads get: None for the backbone's output, "mean" for its mean over the
            positions that are not masked, "first" for the first position, BERT's [CLS].
        output: Key or index of the backbone's output, where it has several. None for the only one
            or, with a pooling, for KerasHub's "sequence_output".
        unfreeze: Names or patterns of layers of the backbone that are trained.
        learn_task_weights: Whether tasks are weighted by their uncertainty, see above.
        name: The model's name.

    Attributes:
        encoder: Backbone and pooling, a `keras.Model`.
        tasks: Names of the tasks.

    Raises:
        NoMatchError: for targets of adapters, and names in `unfreeze`, that match no layer.
        InputError: for arguments out of range, and models that are not built or cannot be rebuilt;
            in `fit` and `evaluate`, for data without a task, and labels out of range.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x = np.random.rand(64, 8)
    labels = {"shape": np.random.randint(0, 3, 64), "colour": np.random.randint(0, 2, 64)}
    backbone = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu")])
    shared = tfpeft.SharedModel(backbone, {"shape": 3, "colour": 2}, adapters=tfpeft.LoRA(rank=2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    shared.compile("adam", loss, metrics=["accuracy"])
    shared.fit(x, labels, verbose=0)
    shared.save_task("shape", "shape.weights.h5")
    print(shared.task("shape").predict(x, verbose=0).shape)  # (64, 3)
    ```

    Reference: Caruana, "Multitask Learning", 1997; Kendall, Gal & Cipolla, "Multi-Task Learning
    Using Uncertainty to Weigh Losses for Scene Geometry and Semantics", 2018,
    https://arxiv.org/abs/1705.07115
    """

    def __init__(
        self,
        backbone: keras.Model,
        heads: dict[str, keras.layers.Layer | int],
        *,
        adapters: AdapterMethod | dict[str, AdapterMethod | None] | None = None,
        pooling: str | None = None,
        output: str | int | None = None,
        unfreeze: str | Sequence[str] = (),
        learn_task_weights: bool = False,
        name: str | None = None,
    ):
        super().__init__(learn_task_weights=learn_task_weights, name=name)
        if not isinstance(backbone, keras.Model) or not backbone.built:
            raise invalid("backbone", "a keras.Model that is built", backbone)
        if not isinstance(heads, dict) or not heads:
            raise invalid("heads", "{task: layer, model or number of classes}, one or more", heads)
        if isinstance(adapters, dict):
            without_head = sorted(set(adapters) - set(heads))
            if without_head:
                raise invalid("adapters", f"tasks that have a head, {joined(heads)}", without_head)
        else:
            adapters = dict.fromkeys(heads, adapters)
        copy = clone.copy_model(backbone)
        self.encoder = Encoder(copy, pooling=pooling, output=output, unfreeze=unfreeze)
        self.parts = {}
        for task, head in heads.items():
            self._put(task, self._part(task, head, adapters.get(task)))

    @property
    def tasks(self) -> tuple[str, ...]:
        return tuple(self.parts)

    def _part(self, task, head, method):
        """Returns the part of a task, which is not yet part of this model."""
        if not isinstance(task, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", task):
            raise invalid("task", 'a name of letters, digits, "_", "-" and "."', task)
        part = TaskPart(task, make_head(task, head), method, self.encoder)
        if any(part.head is other.head for other in self.parts.values()):
            raise invalid(f"heads[{task!r}]", "a head that no other task has", head)
        structure = self.encoder.input_structure
        if structure is not None:  # builds the head, or raises if it does not fit
            features = encode(self.encoder, part, structure, training=False)
            try:
                part(features, training=False)
            except InputError:
                raise
            except (ValueError, TypeError) as error:
                shapes = keras.tree.map_structure(lambda tensor: tensor.shape, features)
                expected = f"a head for outputs of the backbone of shape {shapes}"
                raise invalid(f"heads[{task!r}]", expected, head) from error
        return part

    def _put(self, task, part):
        self._tracker.unlock()
        parts = {**self.parts, task: part}
        for known in list(self.parts):
            self.parts.pop(known)  # ends Keras's tracking of the part, which an assignment does not
        self.parts.update(parts)  # in the order of addition, which is the order of weights in files
        self.add_task_state(task)
        self._tracker.lock()
        self.built = self.encoder.input_structure is not None
        self.compiled = False
        self.train_function = self.test_function = self.predict_function = None

    def add_task(
        self, task: str, head: keras.layers.Layer | int, *, adapter: AdapterMethod | None = None
    ) -> None:
        """Adds a task; the outputs of the other tasks do not change, not by a bit.

        Compile the model again before training; `task(name)` trains the new task alone.

        Args:
            task: Its name, a new one.
            head: A layer or model of one output, or the number of classes.
            adapter: `LoRA(...)` or another method; None for none.

        Raises:
            NoMatchError: for targets of the adapter that match no layer.
            InputError: for a name that is taken, and a head that does not fit.
        """
        if isinstance(task, str) and task in self.parts:
            raise invalid("task", f"a new name, none of {joined(self.parts)}", task)
        self._put(task, self._part(task, head, adapter))

    def task(self, task: str) -> TaskModel:
        """Returns a `keras.Model` of one task, which shares backbone, adapter and head.

        Compiled and fitted, it trains this task alone. It saves, exports and distils like any
        model.

        Raises:
            InputError: for a task that this model does not have.
        """
        part = self.parts[self._known(task)]
        return TaskModel(self.encoder, part, name=f"{self.name}_{task}")

    def call(self, inputs, training=None):
        if isinstance(inputs, TaskInputs):
            check_tasks("inputs", inputs.by_task, self.tasks)
            return {
                task: task_outputs(self.encoder, part, inputs.by_task[task], training)
                for task, part in self.parts.items()
            }
        heads_only = [part for part in self.parts.values() if part.adapter is None]
        features = encode(self.encoder, heads_only[0], inputs, training) if heads_only else None
        return {
            task: part(features, training=training)
            if part.adapter is None
            else task_outputs(self.encoder, part, inputs, training)
            for task, part in self.parts.items()
        }

    def check_inputs(self, x):
        if isinstance(x, TaskInputs):
            check_tasks("inputs", x.by_task, self.tasks)
            for inputs in x.by_task.values():
                self.check_inputs(inputs)
        elif not isinstance(x, PrecomputedInputs):
            arrange(self.encoder.backbone, x, "x")

    def save_task(self, task: str, path: str | os.PathLike) -> None:
        """Writes one task to a file: head, adapter, and a fingerprint of the backbone.

        Args:
            task: Its name.
            path: A file that ends in .weights.h5 or .safetensors (which needs `safetensors`).

        Raises:
            InputError: for a task that this model does not have, and a path with another ending.
        """
        self.parts[self._known(task)].save(path, self._about_encoder())

    def load_task(self, path: str | os.PathLike, task: str | None = None) -> str:
        """Adds the task of a file of `save_task`; a task of that name is replaced.

        What it does not give: a comparison of backbones beyond their weights. Layers without
        weights, such as a scaling of inputs or activations, are not compared. Custom heads and
        methods need to be registered with Keras.

        Args:
            path: The file.
            task: Its name here; None for the name in the file.

        Returns:
            The name.

        Raises:
            InputError: for a file of a backbone with other weights or another pooling, and other
                or damaged files; this model then stays as it is.
        """
        about, arrays = read_task(path, self._about_encoder())
        task = about["task"] if task is None else task
        part = self._part(task, about["head"], about["method"])
        part.load(path, arrays)
        self._put(task, part)
        return task

    def _about_encoder(self):
        """Returns the metadata of files of tasks, by which they fit this backbone."""
        return {
            "model": weight_files.fingerprint(self.encoder.backbone),
            "pooling": self.encoder.pooling,
            "output": self.encoder.output_key,
        }

    def _known(self, task):
        if not isinstance(task, str) or task not in self.parts:
            raise invalid("task", f"one of {joined(self.parts)}", task)
        return task

    @property
    def input_structure(self):
        """Symbolic inputs in the structure that the model is called with, or None."""
        return self.encoder.input_structure

    def serving_signatures(self) -> dict[str, TaskModel]:
        """Returns {task: model}; `export_tflite` writes a signature per task."""
        return {task: self.task(task) for task in self.tasks}

    def get_config(self) -> dict[str, Any]:
        serialize = keras.saving.serialize_keras_object
        return {
            "backbone": serialize(self.encoder.backbone),
            "heads": {task: serialize(part.head) for task, part in self.parts.items()},
            "adapters": {
                task: part.adapter and serialize(part.adapter.method)
                for task, part in self.parts.items()
            },
            "pooling": self.encoder.pooling,
            "output": self.encoder.output_key,
            "unfreeze": self.encoder.unfreeze,
            "learn_task_weights": self.learn_task_weights,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "SharedModel":
        restored = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("backbone", "heads", "adapters")
        }
        return cls(**{**config, **restored})
