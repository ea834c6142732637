"""Training of several tasks together: one loss of all losses, and the metrics of all tasks."""

import contextlib
from typing import Any

import keras
from keras import ops

from tfpeft.core.arguments import check_boolean, check_name, invalid, unexpected
from tfpeft.core.training import CheckedModel
from tfpeft.sharing.arguments import (
    check_class_weight,
    check_loss_weights,
    check_tasks,
    per_task,
)
from tfpeft.sharing.task_losses import TaskLoss
from tfpeft.sharing.task_metrics import task_metrics
from tfpeft.sharing.weighting import weighted_by_uncertainty, with_class_weights


class MultiTaskModel(CheckedModel):
    """A model whose outputs are {task: outputs}: base of `SharedModel`, which has the formula.

    A subclass has the property `tasks`, and calls `add_task_state` for each task.
    """

    def __init__(self, *, learn_task_weights, name):
        check_name(name)
        check_boolean("learn_task_weights", learn_task_weights)
        super().__init__(name=name)
        self.learn_task_weights = bool(learn_task_weights)
        self._class_weight = self._task_losses = self._given_losses = self._given_weights = None
        # Saved models have the names of these attributes, which hold variables.
        self._log_variances = {}
        self._regularization = keras.metrics.Mean(name="regularization_term")
        self._loss_trackers = {}  # {task: mean of L_t}
        self._terms = {}  # {task: mean of what the task adds to the loss}

    def add_task_state(self, task):
        """Adds the variables of a new task, while Keras's tracker is unlocked."""
        if self.learn_task_weights and task not in self._log_variances:
            variable = self.add_weight(name=f"{task}_log_variance", initializer="zeros")
            self._log_variances[task] = variable
        for trackers, name in ((self._loss_trackers, "loss"), (self._terms, "term")):
            if task not in trackers:
                trackers[task] = keras.metrics.Mean(name=f"{task}_{name}")

    def compile(
        self,
        optimizer: str | keras.optimizers.Optimizer = "rmsprop",
        loss: Any = None,
        loss_weights: dict[str, float] | None = None,
        metrics: list | dict[str, list] | None = None,
        weighted_metrics: list | dict[str, list] | None = None,
        **options,
    ) -> None:
        """As of `keras.Model`; a loss, or a list of metrics, may be one for all tasks.

        XLA cannot compile the check of labels. So `jit_compile` is False unless True is given;
        labels out of range are then not found.

        Args:
            optimizer: As of Keras, or a sparse one.
            loss: A loss, or {task: loss}.
            loss_weights: {task: w_t >= 0}, or a number for all tasks; None for ones.
            metrics: A list of metrics, or {task: list}.
            weighted_metrics: The same, of metrics that use sample and class weights.
            **options: Further arguments of `keras.Model.compile`.

        Raises:
            InputError: for values that are not given for the tasks, and `loss_weights` where task
                weights are learned.
        """
        if self.learn_task_weights and loss_weights is not None:
            raise invalid("loss_weights", "None with learn_task_weights", loss_weights)
        losses = per_task("loss", loss, self.tasks)
        self._given_weights = check_loss_weights(loss_weights, self.tasks)
        self._task_losses = {task: TaskLoss(given, task) for task, given in (losses or {}).items()}
        self._given_losses = losses
        if options.get("jit_compile", "auto") == "auto":
            options["jit_compile"] = False
        super().compile(
            optimizer=optimizer,
            metrics=task_metrics("metrics", metrics, losses, self.tasks),
            weighted_metrics=task_metrics("weighted_metrics", weighted_metrics, losses, self.tasks),
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
    def task_weights(self) -> dict[str, float]:
        """{task: exp(-s_t)}, the learned weights; empty unless `learn_task_weights`."""
        return {
            task: float(ops.exp(-log_variance))
            for task, log_variance in self._log_variances.items()
        }

    def fit(self, *args, class_weight: dict[str, dict[int, float]] | None = None, **kwargs):
        """As of `keras.Model`, but for `class_weight`: {task: {class number: weight}}.

        They multiply the loss in training, not the metrics; other classes have the weight 1.

        Raises:
            InputError: for data without a task, that is empty or does not end; for labels out of
                range or infinite, before any weight changes; and for another `class_weight`.
        """
        with self._class_weights(class_weight):
            return super().fit(*args, **kwargs)

    def train_on_batch(self, *args, class_weight=None, **kwargs):
        """As of `keras.Model`, with a `class_weight` as of `fit`.

        Raises:
            InputError: as of `fit`.
        """
        with self._class_weights(class_weight):
            return super().train_on_batch(*args, **kwargs)

    @contextlib.contextmanager
    def _class_weights(self, class_weight):
        self._set_class_weight(class_weight)
        try:
            yield
        finally:
            self._set_class_weight(None)

    def _set_class_weight(self, class_weight):
        if class_weight is not None:
            check_class_weight(class_weight, self.tasks)
        if class_weight != self._class_weight:
            self._class_weight = class_weight
            self.train_function = None  # it was traced with the weights of the call before

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        self._check_data(y, sample_weight)
        if not self._task_losses:
            raise unexpected("a `loss` in compile", "none")
        if training and self._class_weight:
            sample_weight = with_class_weights(y, y_pred, sample_weight, self._class_weight)
        checks = self._label_checks(y, y_pred)
        total = sum(self._aggregate_additional_loss(loss) for loss in self.losses)
        self._track(self._regularization, total, 1.0)
        for task in self.tasks:
            weight = sample_weight[task] if isinstance(sample_weight, dict) else sample_weight
            loss, count = self._task_losses[task](y[task], y_pred[task], weight, after=checks)
            self._track(self._loss_trackers[task], loss, count)
            weighted = self._weighted(task, loss, count)
            self._track(self._terms[task], weighted, count)
            total += weighted
        return total

    def _label_checks(self, y, y_pred):
        """Returns checks of all labels, which run before all losses, and so before any gradient."""
        if self.jit_compile:
            return []
        return [
            check
            for task in self.tasks
            for check in self._task_losses[task].check(y[task], y_pred[task])
        ]

    def _weighted(self, task, loss, count):
        """Returns what a task adds to the loss of a batch with `count` labels of the task."""
        if not self.learn_task_weights:
            return loss * (1.0 if self._given_weights is None else self._given_weights[task])
        log_variance = self._log_variances[task]
        is_squared_error = self._task_losses[task].is_squared_error
        weighted, penalty = weighted_by_uncertainty(loss, log_variance, is_squared_error)
        # A batch without labels has no penalty, with which s would fall without end.
        has_labels = ops.cast(ops.greater(count, 0), log_variance.dtype)
        return weighted + has_labels * self._aggregate_additional_loss(penalty)

    def _track(self, tracker, value, count):
        # `value` is the replica's share of the batch's value.
        tracker.update_state(
            value * self.distribute_strategy.num_replicas_in_sync, sample_weight=count
        )

    def get_metrics_result(self):
        results = super().get_metrics_result()
        hidden = [self._regularization, *self._terms.values()]
        if "loss" in results:
            # The mean of a task is over its labels: a batch with few of them counts less.
            results["loss"] = sum(tracker.result() for tracker in hidden)
        for tracker in hidden:
            results.pop(tracker.name, None)
        return results

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        self._check_data(y, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _check_data(self, y, sample_weight):
        check_tasks("labels", y, self.tasks)
        if isinstance(sample_weight, dict):
            check_tasks("sample weights", sample_weight, self.tasks)
