"""Parameter sharing: one backbone, several tasks, and only what belongs to a task is trained."""

import re

import keras
from keras import ops

from tfpeft.core import clone, weight_files
from tfpeft.core.arguments import invalid
from tfpeft.sharing.encoder import Encoder
from tfpeft.sharing.mixing import TaskInputs
from tfpeft.sharing.task_losses import (
    TaskLoss,
    check_class_weight,
    check_tasks,
    errors_about_labels,
    listed,
    of_every_task,
    task_metrics,
    with_class_weights,
)
from tfpeft.sharing.task_model import TaskModel, TaskPart, answer, as_head, features_of, read_task


@keras.saving.register_keras_serializable(package="tfpeft")
class SharedModel(keras.Model):
    """One backbone with a head, and perhaps an adapter, for each of several tasks.

    It answers {task: head_t(backbone_t(x))}, where backbone_t is the frozen backbone under the
    adapter of task t. The loss of a batch, with the losses and `loss_weights` of `compile`, is

    `L = sum_t w_t * L_t`, or `L = sum_t exp(-s_t) * L_t + s_t / 2` with `learn_task_weights`,

    L_t being the mean over the samples of task t that have a label. Where labels are class numbers
    -1 means that there is none, in labels that are floats NaN does. In the second, homoscedastic
    uncertainty, s_t are trained, begin at 0, and squared errors get half of exp(-s_t); tasks
    without a label in a batch add nothing. The logs tell each L_t.

    `fit` takes one input with several labels, `fit(x, {"age": ..., "gender": ...})`, or data of
    each task from `mix_tasks`. Tasks without an adapter share one pass of the backbone; each
    adapter needs a pass of its own, as it changes what is inside.

    The model that is given stays as it is: the shared one has a copy. Without adapters and freed
    layers the backbone runs with training=False (no dropout), and `precompute(shared.encoder, data)
    .join(data)` gives data on which it does not run at all, so that epochs take seconds. With them,
    dropout acts in training; BatchNorm's statistics stay in all that is frozen.

    What it does not give: tasks whose training cannot touch each other once layers are freed with
    `unfreeze`, or where an optimizer clips by the norm of all gradients.

    Args:
        backbone: A built `keras.Model`: functional, Sequential, KerasHub's, keras.applications',
            or a subclassed one with `get_config`.
        heads: {task: head}, a layer or model of one output, or the number of classes, which makes
            a Dense layer of logits. Names have letters, digits, "_", "-" and ".".
        adapters: `LoRA(...)` or another method of `add_adapters`, one adapter a task, or
            {task: method or None}; None for heads only.
        pooling: What a head gets: None for what the backbone answers, "mean" over its positions,
            masked ones left out, or "first" for the first one, BERT's [CLS].
        output: Key or index of the backbone's output that is taken, where it has several; None
            for the only one, or with a pooling for KerasHub's "sequence_output".
        unfreeze: Names or patterns of layers of the backbone that are trained, too.
        learn_task_weights: Whether tasks are weighted by their uncertainty, as above.
        name: The model's name.

    Attributes:
        encoder: Backbone and pooling, a `keras.Model`.
        tasks: Names of the tasks.

    Raises:
        ValueError: for arguments out of range, targets that match nothing, models that are not
            built or cannot be made again; in `fit` and `evaluate`, for data without a task, and
            labels that a head does not have.

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
        backbone,
        heads,
        *,
        adapters=None,
        pooling=None,
        output=None,
        unfreeze=(),
        learn_task_weights=False,
        name=None,
    ):
        super().__init__(name=name)
        if not isinstance(backbone, keras.Model) or not backbone.built:
            raise invalid("backbone", "a keras.Model that is built", backbone)
        if not isinstance(heads, dict) or not heads:
            raise invalid("heads", "{task: layer, model or number of classes}, one or more", heads)
        if isinstance(adapters, dict):
            without_head = sorted(set(adapters) - set(heads))
            if without_head:
                raise invalid("adapters", f"tasks that have a head, {listed(heads)}", without_head)
        else:
            adapters = dict.fromkeys(heads, adapters)
        self.learn_task_weights = bool(learn_task_weights)
        copy = clone.rebuild(backbone, lambda config, parents: config)
        self.encoder = Encoder(copy, pooling=pooling, output=output, unfreeze=unfreeze)
        self.parts, self._log_variances = {}, {}
        self._class_weight = self._task_losses = self._given_losses = self._given_weights = None
        self._regularization = keras.metrics.Mean(name="regularization_term")
        self._loss_trackers, self._terms = {}, {}  # of each task: L_t, and what it adds to the loss
        for task, head in heads.items():
            self._put(task, self._part(task, head, adapters.get(task)))

    @property
    def tasks(self):
        return tuple(self.parts)

    def _part(self, task, head, method):
        """Returns what is to belong to a task; the model does not have it yet."""
        if not isinstance(task, str) or not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", task):
            raise invalid("task", 'a name of letters, digits, "_", "-" and "."', task)
        part = TaskPart(task, as_head(task, head), method, self.encoder)
        if any(part.head is each.head for each in self.parts.values()):
            raise invalid(f"heads[{task!r}]", "a head of its own", head)
        structure = self.encoder.input_structure
        if structure is not None:  # builds the head, or finds that it does not fit
            answer(self.encoder, part, structure, training=False)
        return part

    def _put(self, task, part):
        self._tracker.unlock()
        parts = {**self.parts, task: part}
        for each in list(self.parts):
            self.parts.pop(each)  # which untracks it, as an assignment does not
        self.parts.update(parts)  # in the order in which they came, as files have it
        if self.learn_task_weights and task not in self._log_variances:
            variable = self.add_weight(name=f"{task}_log_variance", initializer="zeros")
            self._log_variances[task] = variable
        for trackers, name in ((self._loss_trackers, "loss"), (self._terms, "term")):
            if task not in trackers:
                trackers[task] = keras.metrics.Mean(name=f"{task}_{name}")
        self._tracker.lock()
        self.built = self.encoder.input_structure is not None
        self.compiled = False
        self.train_function = self.test_function = self.predict_function = None

    def add_task(self, task, head, *, adapter=None):
        """Adds a task; what the others answer stays the same, bit by bit.

        The model is to be compiled again for training; `task(name)` trains the new one alone.

        Args:
            task: Its name.
            head: A layer or model of one output, or the number of classes.
            adapter: `LoRA(...)` or another method; None for none.
        """
        if task in self.parts:
            raise invalid("task", f"a new name, none of {listed(self.parts)}", task)
        self._put(task, self._part(task, head, adapter))

    def task(self, task):
        """Returns a `keras.Model` of one task: backbone, adapter and head, which it shares.

        Compiled and fitted, it trains this task alone. It saves, exports and distils like any
        model.
        """
        part = self.parts[self._known(task)]
        return TaskModel(self.encoder, part, name=f"{self.name}_{task}")

    def call(self, inputs, training=None):
        if isinstance(inputs, TaskInputs):
            check_tasks("inputs", inputs.by_task, self.tasks)
            return {
                task: answer(self.encoder, part, inputs.by_task[task], training)
                for task, part in self.parts.items()
            }
        alone = [part for part in self.parts.values() if part.adapter is None]
        features = features_of(self.encoder, alone[0], inputs, training) if alone else None
        return {
            task: part(features, training=training)
            if part.adapter is None
            else answer(self.encoder, part, inputs, training)
            for task, part in self.parts.items()
        }

    def compile(
        self,
        optimizer="rmsprop",
        loss=None,
        loss_weights=None,
        metrics=None,
        weighted_metrics=None,
        **options,
    ):
        """As of `keras.Model`; a loss, or list of metrics, that is not in a dict is every task's.

        XLA drops the check of labels, so that `jit_compile` is False unless it is given as True;
        labels that a head does not have are then not found.

        Args:
            optimizer: As of Keras, sparse ones included.
            loss: A loss, or {task: loss}.
            loss_weights: {task: w_t}; None for ones.
            metrics: A list of metrics, or {task: list}.
            weighted_metrics: The same, of metrics that see sample and class weights.
            **options: The others of `keras.Model.compile`.
        """
        if self.learn_task_weights and loss_weights is not None:
            raise invalid("loss_weights", "None with learn_task_weights", loss_weights)
        self._given_losses = of_every_task("loss", loss, self.tasks)
        self._given_weights = of_every_task("loss_weights", loss_weights, self.tasks)
        self._task_losses = {
            task: TaskLoss(each, task) for task, each in (self._given_losses or {}).items()
        }
        if options.get("jit_compile", "auto") == "auto":
            options["jit_compile"] = False
        super().compile(
            optimizer=optimizer,
            metrics=task_metrics("metrics", metrics, self.tasks),
            weighted_metrics=task_metrics("weighted_metrics", weighted_metrics, self.tasks),
            **options,
        )

    def get_compile_config(self):
        serialize = keras.saving.serialize_keras_object
        config = super().get_compile_config()
        return config and {
            **config,
            "loss": serialize(self._given_losses),
            "loss_weights": self._given_weights,
        }

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        if self.optimizer is not None and self.built:
            self.optimizer.build(self.trainable_variables)

    @property
    def task_weights(self):
        """{task: exp(-s_t)}, the weights that are learned; of `loss_weights` otherwise nothing."""
        return {
            task: float(ops.exp(-log_variance))
            for task, log_variance in self._log_variances.items()
        }

    def fit(self, *args, class_weight=None, **kwargs):
        """As of `keras.Model`, but for `class_weight`: {task: {class number: weight}}.

        They multiply the loss in training, not metrics; classes that are not named weigh 1.
        """
        self._set_class_weight(class_weight)
        try:
            with errors_about_labels():
                return super().fit(*args, **kwargs)
        finally:
            self._set_class_weight(None)

    def evaluate(self, *args, **kwargs):
        with errors_about_labels():
            return super().evaluate(*args, **kwargs)

    def _set_class_weight(self, class_weight):
        if class_weight is not None:
            check_class_weight(class_weight, self.tasks)
        if class_weight != self._class_weight:
            self._class_weight = class_weight
            self.train_function = None  # it has traced the weights of the last call

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self._check_labels(y, sample_weight)
        if not self._task_losses:
            raise ValueError("Expected a `loss` in compile. Received: none")
        if training and self._class_weight:
            sample_weight = with_class_weights(y, y_pred, sample_weight, self._class_weight)
        # Before any gradient: a step with a label out of range changes no task.
        checks = [
            each
            for task in self.tasks
            for each in self._task_losses[task].check(y[task], y_pred[task])
        ]
        total = sum(self._aggregate_additional_loss(loss) for loss in self.losses)
        self._track(self._regularization, total, 1.0)
        for task in self.tasks:
            weight = sample_weight[task] if isinstance(sample_weight, dict) else sample_weight
            loss = self._task_losses[task]
            value, count = loss(y[task], y_pred[task], weight, after=checks)
            self._track(self._loss_trackers[task], value, count)
            if not self.learn_task_weights:
                term = value * (1.0 if self._given_weights is None else self._given_weights[task])
            else:
                log_variance = self._log_variances[task]
                term = ops.exp(-log_variance) * value * (0.5 if loss.is_squared_error else 1.0)
                # Without a label nothing is known of the task, and s would fall without end.
                known = ops.cast(ops.greater(count, 0), log_variance.dtype)
                term += known * self._aggregate_additional_loss(0.5 * log_variance)
            self._track(self._terms[task], term, count)
            total += term
        return total

    def _track(self, tracker, value, count):
        # The value is a replica's share of the batch's.
        tracker.update_state(
            value * self.distribute_strategy.num_replicas_in_sync, sample_weight=count
        )

    def get_metrics_result(self):
        results = super().get_metrics_result()
        hidden = [self._regularization, *self._terms.values()]
        if "loss" in results:
            # Each task over its own labels: batches that have fewer of a task count less for it.
            results["loss"] = sum(tracker.result() for tracker in hidden)
        for tracker in hidden:
            results.pop(tracker.name, None)
        return results

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self._check_labels(y, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _check_labels(self, y, sample_weight):
        check_tasks("labels", y, self.tasks)
        if isinstance(sample_weight, dict):
            check_tasks("sample weights", sample_weight, self.tasks)

    def save_task(self, task, path):
        """Writes what belongs to one task: its head, its adapter, a fingerprint of the backbone.

        Args:
            task: Its name.
            path: A file that ends in .weights.h5 or .safetensors (which needs `safetensors`).

        Raises:
            ValueError: for a task that is not there, or a file of another kind.
        """
        self.parts[self._known(task)].save(path, self._about_encoder())

    def load_task(self, path, task=None):
        """Adds the task of a file of `save_task`; a task of that name is replaced.

        Args:
            path: The file.
            task: Its name here; None for the one in the file.

        Returns:
            The name.

        Raises:
            ValueError: if the file was made for a backbone of other weights, or another pooling,
                or is none; the model is then as it was.

        What it does not give: backbones are told apart by their weights; scaling of inputs, or
        activations, which have none, are not compared. Heads and methods of one's own need to be
        registered with Keras.
        """
        about, arrays = read_task(path, self._about_encoder())
        task = about["task"] if task is None else task
        part = self._part(task, about["head"], about["method"])
        part.load(path, arrays)
        self._put(task, part)
        return task

    def _about_encoder(self):
        return {
            "model": weight_files.fingerprint(self.encoder.backbone),
            "pooling": self.encoder.pooling,
            "output": self.encoder.output_key,
        }

    def _known(self, task):
        if task not in self.parts:
            raise invalid("task", f"one of {listed(self.parts)}", task)
        return task

    @property
    def input_structure(self):
        return self.encoder.input_structure

    def serving_signatures(self):
        """Returns {task: model}: what `export_tflite` makes a signature of."""
        return {task: self.task(task) for task in self.tasks}

    def get_config(self):
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
    def from_config(cls, config, custom_objects=None):
        restored = {
            key: keras.saving.deserialize_keras_object(config[key], custom_objects=custom_objects)
            for key in ("backbone", "heads", "adapters")
        }
        return cls(**{**config, **restored})
