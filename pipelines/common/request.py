"""What flags, and the compilation of a given model, ask of training: task, loss, metrics."""

import dataclasses
import typing

import keras

from pipelines.common.errors import invalid_flag


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
        return self.loss or self.compiled_loss()

    def compiled_loss(self):
        """Returns the loss that is compiled, of which only one output has no dict; or None."""
        return _only(self.compilation and self.compilation.loss())

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
