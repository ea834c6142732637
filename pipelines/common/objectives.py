"""What a model is trained for and measured by: its task, loss and metrics, and which decides.

The task, loss and metrics are those that flags name (--task, --loss, --metrics, --monitor), else
those that the given model was compiled with, else those of the task that labels and outputs show.
"""

import dataclasses
import typing

import keras
import numpy as np

import tfpeft
from pipelines.common import classifiers, samples
from pipelines.common.errors import invalid_flag
from pipelines.common.keras_names import Named, fitting
from pipelines.common.models import call, predict
from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.recognition import recognize_task
from tfpeft.evaluation.tasks import TASKS

CLASSES = ("classification", "binary")
"""Tasks with one class per sample, whose labels the scripts turn into class numbers."""
SEVERAL = "several outputs"
SAMPLES = 64  # that show what outputs and labels are
_CHANCE_SAMPLES = 1000


@dataclasses.dataclass(frozen=True)
class Request:
    """What flags, and the compilation of a given model, say of the objective; None: nothing.

    Attributes:
        task: A name of `tfpeft.evaluation.tasks.TASKS`.
        loss: A loss of Keras by name.
        metrics: Metrics of Keras by name.
        monitor: The metric of `fit` by which the best epoch is chosen.
        compilation: The `compilation.Compilation` of the given model.
    """

    task: str | None = None
    loss: str | None = None
    metrics: tuple = ()
    monitor: str | None = None
    compilation: typing.Any = None

    @property
    def loss_name(self):
        """The name of the loss that is asked for, or compiled; None if there is none."""
        return self.loss or (self.compilation and self.compilation.loss_name)

    @property
    def loss_weights(self):
        """The weights of the losses of several outputs that are compiled; None without any."""
        return self.compilation and self.compilation.config.get("loss_weights")

    def wanted_loss(self):
        """Returns the loss, as `compile` takes it, or None."""
        return self.loss or _only(self.compilation and self.compilation.loss())

    def compiled_metrics(self):
        """Returns new metrics, unless flags name some: a list, or a list or dict by output."""
        if self.metrics:
            return []
        return _only(self.compilation and self.compilation.metrics()) or []


def _only(structure):
    """Returns what a dict has for its only output; others as they are."""
    is_one = isinstance(structure, dict) and len(structure) == 1
    return next(iter(structure.values())) if is_one else structure


def request_of(settings, compilation=None):
    """Returns the `Request` of the flags, and of the compilation of a model."""
    if settings.loss is not None:
        _check_known("loss", settings.loss)
    for name in settings.metrics:
        _check_known("metrics", name)
    return Request(
        task=settings.task,
        loss=settings.loss,
        metrics=tuple(settings.metrics),
        monitor=settings.monitor,
        compilation=compilation,
    )


def _check_known(flag, name):
    get = keras.losses.get if flag == "loss" else keras.metrics.get
    if name in ("accuracy", "acc"):
        return
    try:
        get(name)
    except ValueError as error:
        expected = f"a {'loss' if flag == 'loss' else 'metric'} of Keras, such as mae"
        raise invalid_flag(flag, expected, name) from error


@dataclasses.dataclass(frozen=True)
class Objective:
    """What a model is trained for.

    Attributes:
        task: A name of `TASKS`, or {name of an output: name of a task}.
        loss: The loss, as `compile` takes it.
        metrics: A function that returns metrics, as `compile` takes them.
        loss_weights: Weights of the losses of several outputs, as `compile` takes them, or None.
        monitor: The metric of validation data by which the best epoch is chosen, "val_accuracy".
        mode: "min" or "max", what is better of it; None for a metric of Keras.
        extra: Metrics that reports show beside the figures of the task; None for none.
        outputs: The `classifiers.Outputs` of a model with one class per sample; None of others.
        kinds: {output: the `Outputs` of `tfpeft.evaluation`} of others; of one output, None: that.
    """

    task: str | dict
    loss: typing.Any
    metrics: typing.Callable
    monitor: str
    loss_weights: typing.Any = None
    mode: str | None = None
    extra: typing.Any = None
    outputs: classifiers.Outputs | None = None
    kinds: dict = dataclasses.field(default_factory=dict)

    def compile(self, model, optimizer):
        """Compiles a model with the loss and the metrics, which count samples by their weights."""
        try:
            model.compile(
                optimizer=optimizer,
                loss=self.loss,
                loss_weights=self.loss_weights,
                weighted_metrics=self.metrics(),
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
        if self.outputs is not None:
            return Chances([classifiers.chance_of(model, split, self.outputs)])
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


def task_of(pair, model, request, received, model_name="--model"):
    """Returns the task of samples: a name of `TASKS`, or {name of an output: name of a task}.

    Args:
        pair: Arrays (x, y, sample_weight) of some samples, y None where there are no labels.
        model: The model that is given, a Keras model or a `TFLiteFile`, or None.
        request: The `Request`.
        received: What an error names for the data.
        model_name: What an error names for the model.
    """
    x, y, _ = pair
    if request.task is not None and not isinstance(y, dict):
        return request.task
    if y is None:
        return "reconstruction"
    if model is None:
        if isinstance(y, dict):
            raise unexpected(
                "--model for labels of several outputs, as the scripts train models of one",
                f"{received} with {', '.join(y)}",
            )
        return _task_of_labels(x, y, received)
    outputs = call(model, x, model_name)
    if not isinstance(y, dict):
        found = _task_of_labels(x, y, received)
        if found == "classification" and not classifiers.is_of_numbers(request.loss_name):
            return found
        return recognize_task(
            outputs,
            y,
            inputs=x if hasattr(x, "shape") else None,
            activation=classifiers.activation_of(model),
            loss=request.wanted_loss(),
        )
    loss = request.wanted_loss()
    named = by_name(model, outputs)
    missing = sorted(set(named) ^ set(y))
    if missing:
        expected = f"labels by the names of the model's outputs, {', '.join(named)}"
        raise unexpected(expected, f"{received} with {', '.join(y)}")
    tasks = {}
    for name, output in named.items():
        of_output = loss.get(name) if isinstance(loss, dict) else loss
        tasks[name] = request.task or recognize_task(output, y[name], loss=of_output)
    return tasks


def by_name(model, outputs):
    """Returns {name: output} of a model of several outputs; raises for those in a list."""
    if isinstance(outputs, dict):
        return outputs
    if isinstance(outputs, (list, tuple)):
        expected = "a model whose outputs have names, as of keras.Model(inputs, {name: output})"
        raise unexpected(expected, f"{len(outputs)} outputs in a list")
    names = getattr(model, "output_names", None) or ["output"]
    return {names[0]: outputs}


def _task_of_labels(x, y, received):
    """Returns the task that labels show by themselves, where there is no model."""
    y = np.asarray(y)
    if y.dtype.kind not in "biuf" or y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
        is_class = y.dtype.kind != "f" or np.all(y == np.floor(y))
        return "classification" if is_class else "regression"
    if y.ndim == 2:
        if np.all((y == 0) | (y == 1)):
            return "classification" if np.all(y.sum(axis=1) == 1) else "multi_label"
        if y.dtype.kind == "f" and np.all(y >= 0) and np.allclose(y.sum(axis=1), 1, atol=1e-3):
            raise unexpected(
                "labels of one kind: --task=regression predicts such numbers, and np.argmax(y, "
                "axis=1) makes classes of them",
                f"{received} with rows of probabilities (soft or smoothed labels)",
            )
        if y.dtype.kind == "f":
            return "regression"
    if hasattr(x, "shape") and x.shape == y.shape and y.dtype.kind == "f":
        return "reconstruction"
    of_positions = not hasattr(x, "shape") or x.ndim > 2 or x.shape == y.shape
    if of_positions and (y.dtype.kind != "f" or np.all(y == np.floor(y))):
        return "segmentation"
    return "regression"


def of(data, model, received="--model"):
    """Returns the `Objective` of a model for data.

    Raises:
        InputError: for outputs that do not fit the task, and inputs that the model does not take.
    """
    request = data.request
    x, y, _ = samples.some(data.train, SAMPLES)
    if isinstance(data.task, str) and data.task in CLASSES:
        outputs = classifiers.outputs_of(model, x, received)
        given = Named(request.loss, _others(request.metrics, ("accuracy", "acc")))
        if request.loss or request.metrics:
            given = given.of(y, call(model, x, received), outputs.from_logits)
        return Objective(
            task=data.task,
            loss=given.loss() or outputs.loss(),
            metrics=lambda: [outputs.accuracy(), *given.metrics()],
            extra=given.metrics() or None,
            outputs=outputs,
            **_monitor(request, "accuracy", None),
        )
    outputs = call(model, x, received)
    if not isinstance(data.task, dict):
        task = TASKS[data.task]
        loss, metric, kind = _made(task, outputs, y, model, received)
        given = Named(request.loss, _others(request.metrics, (task.headline,)))
        given = given.of(y, outputs, kind.from_logits)

        def others():
            return given.metrics() or _others(request.compiled_metrics(), (task.headline,))

        return Objective(
            task=data.task,
            loss=given.loss() or request.wanted_loss() or loss,
            metrics=lambda: [metric(), *others()],
            extra=others() or None,
            kinds={None: kind},
            **_monitor(request, task.headline, "max" if task.higher_is_better else "min"),
        )
    made, given = {}, {}
    for name, output in by_name(model, outputs).items():
        task, where = TASKS[data.task[name]], f"{received}, {name}"
        made[name] = loss, metric, kind = _made(task, output, y[name], model, where, name)
        named = Named(request.loss, _others(request.metrics, (task.headline,)))
        given[name] = named.of(y[name], output, kind.from_logits)
    given = fitting(given)
    losses = {name: given[name].loss() or loss for name, (loss, _, _) in made.items()}
    extra = {name: each.metrics() for name, each in given.items()}
    return Objective(
        task=data.task,
        loss_weights=None if request.loss else request.loss_weights,
        loss=losses if request.loss else request.wanted_loss() or losses,
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
