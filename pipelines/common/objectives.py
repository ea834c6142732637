"""What a model is trained for and measured by: its task, loss and metrics, and which decides.

The task, loss and metrics are those that flags name (--task, --loss, --metrics, --monitor), else
those that the given model was compiled with, else those of the task that labels and outputs show.
"""

import dataclasses
import typing

import numpy as np

import tfpeft
from pipelines.common import classifiers, label_forms, samples
from pipelines.common.keras_names import Named, fitting
from pipelines.common.models import call, predict
from pipelines.common.recognition import CLASSES, SAMPLES, by_name
from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.tasks import TASKS

_CHANCE_SAMPLES = 1000
_ACCURACY = ("accuracy", "acc")


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a model is trained for.

    Attributes:
        task: A name of `TASKS`, or {name of an output: name of a task}.
        loss: A function that returns the loss, as `compile` takes it.
        metrics: A function that returns metrics, as `compile` takes them.
        loss_weights: Weights of the losses of several outputs, as `compile` takes them, or None.
        monitor: The metric of validation data by which the best epoch is chosen, "val_accuracy".
        mode: "min" or "max", what is better of it; None for a metric of Keras.
        extra: Metrics that reports show beside the figures of the task; None for none.
        kinds: {output: its `tfpeft.evaluation.outputs.Outputs`}; the key of one output is None.
    """

    task: str | dict
    loss: typing.Callable
    metrics: typing.Callable
    monitor: str
    loss_weights: typing.Any = None
    mode: str | None = None
    extra: typing.Any = None
    kinds: dict = dataclasses.field(default_factory=dict)

    @property
    def outputs(self):
        """What a model with one class per sample outputs; None of other tasks."""
        is_class = isinstance(self.task, str) and self.task in CLASSES
        return self.kinds[None] if is_class else None

    def compile(self, model, optimizer):
        """Compiles a model with the loss and the metrics, which count samples by their weights."""
        loss, metrics = self.loss(), self.metrics()
        try:
            model.compile(
                optimizer=optimizer,
                loss=loss,
                loss_weights=self.loss_weights,
                weighted_metrics=metrics,
            )
        except ValueError as error:
            raise InputError(
                f"Cannot train with --loss or --metrics: {last_cause(error)}"
            ) from error

    def soft_losses(self):
        """Returns the losses that compare the outputs of a student with those of teachers."""
        if isinstance(self.task, dict):
            return [_soft_loss(task, output=name) for name, task in self.task.items()]
        if self.outputs is not None:
            return [tfpeft.SoftLabels() if self.outputs.is_softmax else tfpeft.BinarySoftLabels()]
        return [_soft_loss(self.task)]

    def chance_of(self, model, split):
        """Returns the `Chances` of a model, or a .tflite file, on some samples of a split."""
        x, y, weight = samples.some(split, _CHANCE_SAMPLES)
        found, tasks = predict(model, x), self.task
        if isinstance(tasks, dict):
            found = by_name(model, found)
        else:
            found, y, tasks, weight = {None: found}, {None: y}, {None: tasks}, {None: weight}
        weights = weight if isinstance(weight, dict) else dict.fromkeys(found, weight)
        return Chances(
            [
                TASKS[tasks[name]].is_better_than_chance(y[name], found[name], kind, weights[name])
                for name, kind in self.kinds.items()
            ]
        )

    @property
    def from_logits(self):
        """Whether outputs are logits; None where the last activation says it."""
        return None if self.outputs is None else self.outputs.from_logits

    def __str__(self):
        if self.outputs is not None:
            return str(self.outputs)
        if isinstance(self.task, dict):
            return ", ".join(f"{name}: {task}" for name, task in self.task.items())
        return self.task


@dataclasses.dataclass(frozen=True)
class Chances:
    """Whether a model does better than chance, by output."""

    by_output: list

    @property
    def is_better(self):
        """Whether it does in one output or more."""
        return any(chance.is_better for chance in self.by_output)

    def check(self, received, allowed):
        """Raises unless the predictions are better, or `allowed`."""
        if not self.is_better and not allowed:
            raise unexpected(
                "a model that does better than chance on its own data",
                f"{received} with {self}. Does it expect pixels in another range (--pixel_range), "
                "or classes in another order (--classes)? --allow_chance goes on",
            )

    def __str__(self):
        return "; ".join(map(str, self.by_output))


def _soft_loss(task, output=None):
    kinds = {
        **dict.fromkeys(("classification", "segmentation"), tfpeft.SoftLabels),
        **dict.fromkeys(("binary", "multi_label"), tfpeft.BinarySoftLabels),
        **dict.fromkeys(("regression", "reconstruction"), tfpeft.SquaredError),
    }
    return kinds[task](output=output)


def of(data, model, received="--model"):
    """Returns the `Objective` of a model for data.

    Raises:
        InputError: for outputs that do not fit the task, and inputs that the model does not take.
    """
    x, y, _ = samples.some(data.train, SAMPLES)
    if isinstance(data.task, dict):
        return _of_several(data, model, x, y, received)
    if data.task in CLASSES:
        return _of_classes(data, model, x, y, received)
    request, outputs, task = data.request, call(model, x, received), TASKS[data.task]
    loss, metric, kind = _made(task, outputs, y, model, received)
    given = Named(request.loss, _others(request.metrics, (task.headline,)))
    given = given.of(y, outputs, kind.from_logits)

    def others():
        return given.metrics() or _others(request.compiled_metrics(), (task.headline,))

    wanted = given.loss() or request.wanted_loss() or loss
    return Objective(
        task=data.task,
        loss=lambda: wanted,
        metrics=lambda: [metric(), *others()],
        extra=others() or None,
        kinds={None: kind},
        **_monitor(request, task.headline, "max" if task.higher_is_better else "min"),
    )


def _of_classes(data, model, x, y, received):
    """Returns the objective of a model with one class per sample."""
    request, task = data.request, TASKS["classification"]
    kind = classifiers.outputs_of(model, x, received)
    given = Named(request.loss, _others(request.metrics, _ACCURACY))
    compiled = label_forms.Compiled(request, kind, data)
    if request.loss or request.metrics or request.compiled_metrics():
        outputs = call(model, x, received)
        given, compiled = given.of(y, outputs, kind.from_logits), compiled.of(y, outputs)
    named = given.loss()

    def others():
        return given.metrics() or _others(compiled.metrics(), _ACCURACY)

    return Objective(
        task=data.task,
        loss=lambda: named or compiled.loss() or task.loss(kind),
        metrics=lambda: [task.training_metric(kind), *others()],
        extra=others() or None,
        kinds={None: kind},
        **_monitor(request, task.headline, None),
    )


def _of_several(data, model, x, y, received):
    """Returns the objective of a model with several outputs."""
    request, made, given = data.request, {}, {}
    outputs = by_name(model, call(model, x, received))
    if set(outputs) != set(data.task):
        expected = f"a model with the outputs {', '.join(data.task)}"
        raise unexpected(expected, f"{received} with {', '.join(outputs)}")
    for name, output in outputs.items():
        task, where = TASKS[data.task[name]], f"{received}, {name}"
        made[name] = loss, metric, kind = _made(task, output, y[name], model, where, name)
        named = Named(request.loss, _others(request.metrics, (task.headline,)))
        given[name] = named.of(y[name], output, kind.from_logits)
    given = fitting(given)
    losses = {name: given[name].loss() or loss for name, (loss, _, _) in made.items()}
    wanted = losses if request.loss else request.wanted_loss() or losses
    extra = {name: each.metrics() for name, each in given.items()}
    return Objective(
        task=data.task,
        loss_weights=None if request.loss else request.loss_weights,
        loss=lambda: wanted,
        metrics=lambda: {
            name: [metric(), *given[name].metrics()] for name, (_, metric, _) in made.items()
        },
        extra=extra if request.metrics else None,
        kinds={name: kind for name, (_, _, kind) in made.items()},
        **_monitor(request, "loss", "min"),
    )


def _made(task, outputs, y, model, received, output=None):
    """Returns the loss of a task, a function that makes its metric, and what the outputs are."""
    outputs = np.asarray(outputs)
    y = outputs if y is None else np.asarray(y)
    outputs = outputs[:, None] if outputs.ndim == 1 else outputs
    task.labels(y, outputs.shape, received, task.name)  # raises for labels that do not fit
    found = recognize_outputs(
        outputs,
        task.name,
        activation=classifiers.activation_of(model, output),
        one_hot=task.name == "segmentation" and y.shape == outputs.shape and y.shape[-1] > 1,
    )
    return task.loss(found), lambda: task.training_metric(found), found


def _others(metrics, names):
    """Returns the metrics that are not among the names; only of one output they are added."""
    if not isinstance(metrics, (list, tuple)):
        return []
    return [each for each in metrics if getattr(each, "name", each) not in names]


def _monitor(request, default, mode):
    """Returns the arguments `monitor` and `mode` of an objective."""
    name = (request.monitor or default).removeprefix("val_")
    if name != default:
        mode = "min" if name.endswith("loss") else None
    return {"monitor": f"val_{name}", "mode": mode}


def compare(models, split, kinds):
    """Returns the `tfpeft.Comparison` of models and files, whose objectives are `kinds`."""
    outputs = [objective.outputs for objective in kinds if objective.outputs is not None]
    task = kinds[-1].task
    return tfpeft.compare(
        models,
        samples.as_data(split),
        task="binary" if outputs and outputs[-1].units == 1 else task,
        metrics=kinds[-1].extra,
        from_logits=classifiers.from_logits(outputs) if outputs else None,
    )
