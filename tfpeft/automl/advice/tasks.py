"""Recommendations for several tasks: one backbone with heads, or adapters, against a model each."""

import dataclasses
import functools
import time

import keras
import numpy as np

from tfpeft.adapters.lora import LoRA
from tfpeft.automl.advice import figures
from tfpeft.automl.advice.adapters import MOST_STEPS, RATE, TRAINING_SHARE
from tfpeft.automl.advice.layers import facts_of, layer_rows
from tfpeft.automl.advice.request import check_taken
from tfpeft.automl.advice.result import recommendations
from tfpeft.automl.advice.training import evenly, split
from tfpeft.automl.advice.trials import kept_model
from tfpeft.automl.advice.words import BEGINNING, MODEL
from tfpeft.caching.precompute import precompute
from tfpeft.core.arguments import invalid, unexpected
from tfpeft.core.graph import is_graph, last_activation
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.sharing.mixing import mix_tasks
from tfpeft.sharing.shared_model import SharedModel

_RANK = 8
_WAYS = {"heads": lambda: None, "lora": lambda: LoRA(rank=_RANK)}
_TITLES = {
    "heads": "Share one frozen backbone, with a head for each task",
    "lora": "Share one backbone, with an adapter (LoRA) and a head for each task",
}
_LIMITS = {
    "heads": "The backbone's outputs are those of its first training: where they do not suit a "
    "task, adapters help. All tasks share one pass of the backbone.",
    "lora": "A task with an adapter needs a pass of the backbone of its own: a request for all "
    "tasks takes as long as separate models.",
}


def recommend_tasks(request, folder):
    """Returns the `Recommendations` of a `Request`, whose trials are in a folder."""
    if request.data is not None:
        raise unexpected("`data=None` with `tasks`, which hold the data", "both")
    tasks = _tasks(request)
    for task in tasks.values():
        check_taken(request.model, task.train)
    pooling = _pooling(request.model, next(iter(tasks.values())).train)
    batches = [batch for task in tasks.values() for batch in (task.train, task.validation)]
    store = request.store(folder, batches)
    with store.folder:
        trials = _Trials(request, tasks, pooling, store)
        for name in request.techniques:
            store.run(name, name, lambda name=name: trials.shared(name))
        request.clock.finish()
        rate = RATE * request.training["learning_rate"]
        found = {
            **(facts_of(request.model) if is_graph(request.model) else {}),
            "parameters": request.model.count_params(),
            "tasks": {name: task.title for name, task in tasks.items()},
        }
        reasons = [
            f"A file for each of {len(tasks)} tasks is what trials are compared with: all weights "
            f"trained, for {trials.steps} updates, as in the trials."
        ]
        return recommendations(
            request,
            store,
            trials,
            words=lambda each: _words(each["name"], tasks, rate, pooling),
            model=found,
            layers=layer_rows(request.model, next(iter(tasks.values())).train.x),
            reasons=reasons,
        )


@dataclasses.dataclass(frozen=True)
class _Task:
    """The data of a task, and what its head is.

    Attributes:
        train, validation: `Batch`es.
        units: Classes, or targets.
        has_classes: Whether labels are class numbers.
    """

    train: object
    validation: object
    units: int
    has_classes: bool

    @property
    def title(self):
        return f"{self.units} {'classes' if self.has_classes else 'targets'}"

    def head(self):
        """Returns a new head as `SharedModel` takes it."""
        return self.units if self.has_classes else keras.layers.Dense(self.units)

    def loss(self):
        if self.has_classes:
            return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        return keras.losses.MeanSquaredError()


def _tasks(request):
    """Returns {name: `_Task`}."""
    given, found = request.validation_data, {}
    if given is not None and (not isinstance(given, dict) or set(given) != set(request.tasks)):
        expected = f"`validation_data`, a dict of the data of {', '.join(request.tasks)}, or None"
        received = f"one of {', '.join(map(str, given))}" if isinstance(given, dict) else "another"
        raise unexpected(expected, received)
    for name, data in request.tasks.items():
        seed = request.training["seed"]
        argument = f"tasks[{name!r}]"
        train, validation = split(request.model, data, given and given[name], seed, argument)
        if train.y is None or not hasattr(train.y, "shape"):
            raise unexpected(f"`{argument}` of one array of labels", "data of others")
        labels = np.concatenate([np.asarray(batch.y) for batch in (train, validation)])
        has_classes = labels.dtype.kind in "biu" and labels.ndim == 1
        units = int(labels.max()) + 1 if has_classes else int(np.prod(labels.shape[1:]))
        found[name] = _Task(train, validation, units, has_classes)
    return found


def _pooling(backbone, batch):
    """Returns the argument `pooling` of `SharedModel` that makes one vector of the outputs."""
    outputs = backbone.predict_on_batch(keras.tree.map_structure(lambda a: a[:2], batch.x))
    outputs = outputs.get("sequence_output") if isinstance(outputs, dict) else outputs
    rank = len(getattr(outputs, "shape", ()))
    if rank not in (2, 3):
        expected = "a backbone of outputs (samples, features) or (samples, positions, features)"
        raise invalid("model", expected, backbone)
    if rank == 2 and last_activation(backbone) == "softmax":
        expected = "a backbone without its head, as features of a softmax hold little of a sample"
        raise invalid("model", expected, backbone)
    return None if rank == 2 else "mean"


class _Trials:
    """A model for each task, and models that share a backbone, after as many updates.

    Attributes:
        steps: Updates.
        before: {figure: (value, None)} of the models for each task.
    """

    def __init__(self, request, tasks, pooling, store):
        self._backbone, self._tasks, self._pooling = request.model, tasks, pooling
        self._options, self._folder = request.training, store.folder
        trained = [way for way in request.techniques if _WAYS[way]() is not None]
        self.steps = store.updates(
            request.steps,
            self._seconds_of_update,
            trainings=len(tasks) * (1 + len(trained)),  # the batches of a way hold all tasks
            share=TRAINING_SHARE,
            most=MOST_STEPS,
        )
        found = store.of_model(self._separate_figures)
        self.before = {name: (value, None) for name, value in found["before"].items()}
        self._separate_bytes = found["size_bytes"]

    def _separate_figures(self):
        """Returns the metrics of the models for each task, and the bytes of their files."""
        sizes = [self._size(self._alone(name), f"separate-{name}.tflite") for name in self._tasks]
        before = {
            f"{name}/{figure}": value
            for name, metric in self._metrics.items()
            for figure, (value, _) in metric.before.items()
        }
        return {"before": before, "size_bytes": sum(sizes)}

    def _seconds_of_update(self):
        """Returns those of the model of the first task alone."""
        name = next(iter(self._tasks))
        alone = self._unfrozen(name)
        batches = self._fit(alone, [name], steps=2)  # traces
        started = time.perf_counter()
        alone.fit(batches, steps_per_epoch=5, shuffle=False, verbose=0)
        return (time.perf_counter() - started) / 5

    def _unfrozen(self, name):
        """Returns the model of a task alone, of which all weights are trained."""
        head = {name: self._tasks[name].head()}
        return SharedModel(self._backbone, head, pooling=self._pooling, unfreeze=["*"])

    def _alone(self, name):
        """Returns the trained model of a task alone."""

        def trained():
            alone = self._unfrozen(name)
            self._fit(alone, [name], self.steps)
            return alone.task(name)

        return kept_model(self._folder, f"separate-{name}", trained)

    @functools.cached_property
    def _metrics(self):
        return {
            name: figures.Metric(self._alone(name), task.validation)
            for name, task in self._tasks.items()
        }

    def _fit(self, shared, names, steps):
        """Trains a model, and returns its batches, without an end."""
        keras.utils.set_random_seed(self._options["seed"])
        data = {name: self._tasks[name].train.element() for name in names}
        if not shared.encoder.trainable_variables and all(
            part.adapter is None for part in shared.parts.values()
        ):
            data = {n: precompute(shared.encoder, pair).join(pair) for n, pair in data.items()}
        batch_size = self._options["batch_size"] * len(names)
        batches = mix_tasks(data, sampling="uniform", batch_size=batch_size).repeat()
        rate = self._options["learning_rate"]
        rate = rate if shared.encoder.trainable_variables else RATE * rate
        schedule = keras.optimizers.schedules.CosineDecay(rate, steps)
        losses = {name: self._tasks[name].loss() for name in names}
        shared.compile(keras.optimizers.Adam(schedule), losses)
        shared.fit(batches, steps_per_epoch=steps, shuffle=False, verbose=0)
        return batches

    def _size(self, model, name):
        """Returns the bytes of the float32 file of a model."""
        path = self._folder / name
        some = evenly(next(iter(self._tasks.values())).train, 64).x
        export_tflite(model, path, representative_data=(some,))
        return TFLiteFile(path).contents.size_bytes

    def shared(self, way):
        """Returns what the trial of a way of sharing found."""
        heads = {name: task.head() for name, task in self._tasks.items()}
        shared = SharedModel(self._backbone, heads, adapters=_WAYS[way](), pooling=self._pooling)
        self._fit(shared, list(self._tasks), self.steps)
        size = self._size(shared, f"{way}.tflite")
        losses = []
        for name, metric in self._metrics.items():
            loss = metric.loss(shared.task(name))
            losses.append(dataclasses.replace(loss, metric=f"{name}/{loss.metric}"))
        gain = figures.Gain.counted("size_bytes", self._separate_bytes, size)
        return {
            "updates": self.steps,
            "size_bytes": size,
            "separate_size_bytes": self._separate_bytes,
            "gain": dataclasses.asdict(gain),
            "loss": dataclasses.asdict(max(losses, key=lambda loss: loss.relative)),
            "losses": {loss.metric: loss.relative for loss in losses},
        }


def _words(way, tasks, rate, pooling):
    """Returns the title, the limits, the command and the code of a trial."""
    command = None  # of tasks without classes, which the scripts do not share
    if all(task.has_classes for task in tasks.values()):
        named = " ".join(f"--task={name}={name}.npz" for name in tasks)
        adapter = "none" if way == "heads" else f"lora --rank={_RANK}"
        command = f"python -m pipelines.share --backbone={MODEL} {named} --adapter={adapter}"
        command += f" --learning_rate={rate:g}"
    heads = ", ".join(
        f'"{name}": {task.units if task.has_classes else f"keras.layers.Dense({task.units})"}'
        for name, task in tasks.items()
    )
    losses = ", ".join(
        f'"{name}": '
        + (
            "keras.losses.SparseCategoricalCrossentropy(from_logits=True)"
            if task.has_classes
            else "keras.losses.MeanSquaredError()"
        )
        for name, task in tasks.items()
    )
    options = "" if way == "heads" else f", adapters=tfpeft.LoRA(rank={_RANK})"
    options += "" if pooling is None else f', pooling="{pooling}"'
    lines = [
        BEGINNING.replace(
            "# x, y and validation are the data; loss and metrics are those of the task.",
            "# data is {task: (x, y)}.",
        ),
        f"shared = tfpeft.SharedModel(model, {{{heads}}}{options})",
        f"shared.compile(keras.optimizers.Adam({rate:g}), {{{losses}}})",
        "shared.fit(tfpeft.mix_tasks(data), epochs=3, shuffle=False)",
        'tfpeft.export_tflite(shared, "model.tflite")',
    ]
    return {
        "title": _TITLES[way],
        "limits": _LIMITS[way],
        "command": command,
        "code": "\n".join(lines),
    }
