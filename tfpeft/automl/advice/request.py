"""What `recommend` was asked for, checked, as the trials of each kind of goal take it."""

import dataclasses
import typing

import keras

from tfpeft.automl.advice.figures import digest_of
from tfpeft.automl.advice.goals import Device, Goal
from tfpeft.automl.advice.training import labelled, split
from tfpeft.automl.advice.trials import Clock, open_store
from tfpeft.core.arguments import last_cause, unexpected
from tfpeft.core.compiling import compiled_parts, described


@dataclasses.dataclass(frozen=True)
class Request:
    """The arguments of `recommend`; see there.

    Attributes:
        model, data, validation_data, tasks: The arguments.
        name: The goal.
        goal: The `Goal` of it on the device.
        device: The `Device`.
        techniques: Names of those that may be tried.
        max_metric_loss: A fraction.
        options: {"task", "from_logits"}, of the metric.
        steps: Updates of a trial, or None.
        training: {"batch_size", "learning_rate", "seed"}.
        clock: The `Clock`.
    """

    model: keras.Model
    data: typing.Any
    validation_data: typing.Any
    tasks: dict | None
    name: str
    goal: Goal
    device: Device
    techniques: tuple
    max_metric_loss: float
    options: dict
    steps: int | None
    training: dict
    clock: Clock

    def store(self, folder, batches):
        """Returns the `Store` of a folder, which holds trials of the same request or is new.

        Args:
            folder: The folder.
            batches: The `Batch`es that trials train and measure on.
        """
        settings = {
            "goal": self.name,
            "target": self.device.target,
            "max_metric_loss": self.max_metric_loss,
            **self.options,
            "steps": self.steps,
            **self.training,
            "loss": described(compiled_parts(self.model)[0]),
            "weights": digest_of([weight.numpy() for weight in self.model.weights]),
            "data": digest_of(list(batches)),
        }
        return open_store(folder, settings, self.clock)


def check_taken(model, batch, name="data"):
    """Raises unless a model takes the inputs of a `Batch`, which the argument `name` gave."""
    try:
        model.predict_on_batch(keras.tree.map_structure(lambda array: array[:2], batch.x))
    except Exception as error:  # whatever a layer raises
        expected = f"`{name}` whose inputs {model.name!r} takes"
        raise unexpected(expected, last_cause(error)) from error


def samples_of(request):
    """Returns two `Batch`es with labels that the model takes, to train on and to measure on."""
    model, seed = request.model, request.training["seed"]
    batches = split(model, request.data, request.validation_data, seed)
    names = ("data", "data" if request.validation_data is None else "validation_data")
    for batch, name in zip(batches, names, strict=True):
        check_taken(model, batch, name)
    return [labelled(model, *pair) for pair in zip(batches, names, strict=True)]
