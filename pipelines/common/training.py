"""Training as the flags say: seeds, optimizer, schedule, and errors of what cannot be trained."""

import contextlib
import math
import sys

import keras
import tensorflow as tf

import tfpeft
from pipelines.common import samples, workers
from pipelines.common.errors import invalid_flag
from tfpeft.core.arguments import InputError
from tfpeft.core.checks import input_errors
from tfpeft.core.model_files import not_finite
from tfpeft.core.monitor import metric_mode
from tfpeft.sparsity.gradients import NonFiniteGradientsError

_FIRST = 32  # samples that show which metrics there are


def seed_everything(seed):
    """Makes what follows depend on `seed` alone, also after a stage that did run or did not."""
    workers.clear_session()
    keras.utils.set_random_seed(seed)
    tf.config.experimental.enable_op_determinism()


def total_steps(settings, data):
    """Returns the number of updates in a stage."""
    return settings.epochs * math.ceil(samples.count(data.train) / settings.batch_size)


def verbosity():
    """A bar that redraws itself is for a terminal; a log gets a line an epoch."""
    return 1 if sys.stdout.isatty() else 2


def fit(settings, model, data, objective, *, train=None, sparsify=None, first_step=0):
    """Compiles and trains `model`, and leaves it with the weights of its best epoch.

    Args:
        settings: Has the settings of `flags.TRAIN_FLAGS`.
        model: A `keras.Model`.
        data: The `Data`.
        objective: The `Objective` of the model.
        train: What a Distiller trains on, instead of the training data itself.
        sparsify: A function that wraps the optimizer in a `SparseOptimizer`.
        first_step: The update after which epochs can be the best one.
    """
    decay = keras.optimizers.schedules.CosineDecay
    optimizer = keras.optimizers.Adam(decay(settings.learning_rate, total_steps(settings, data)))
    objective.compile(model, sparsify(optimizer) if sparsify else optimizer)
    if data.request.monitor is not None:
        x, y, weight = samples.some(data.validation, _FIRST)
        values = model.evaluate(x, y, sample_weight=weight, verbose=0, return_dict=True)
        check_monitor(objective, values, model)
    best = tfpeft.KeepBest(objective.monitor, mode=objective.mode, first_step=first_step)
    with _gradients_checked(settings):
        model.fit(
            **samples.fit_arguments(
                data.train if train is None else train, settings.batch_size, settings.seed
            ),
            validation_data=samples.as_data(data.validation, settings.batch_size),
            epochs=settings.epochs,
            callbacks=[
                RaiseOnNaN(settings.learning_rate),
                *([tfpeft.SparsityLogger()] if sparsify else []),
                best,
            ],
            verbose=verbosity(),
        )


def check_monitor(objective, values, model):
    """Raises unless --monitor is a metric of which it is known whether more is better.

    Args:
        objective: The `Objective`.
        values: {metric: value} of the model.
        model: The compiled model.
    """
    name = objective.monitor.removeprefix("val_")
    if name not in values:
        raise invalid_flag("monitor", f"one of {', '.join(values)}", name)
    try:
        metric_mode(name, mode=objective.mode, model=model)
    except InputError as error:
        expected = "a metric of Keras, of which it is known whether more is better"
        raise invalid_flag("monitor", expected, name) from error


class RaiseOnNaN(keras.callbacks.Callback):
    """Raises after an epoch whose loss is NaN or infinite, or a weight of the model or student."""

    def __init__(self, learning_rate):
        super().__init__()
        self.learning_rate = learning_rate

    def on_epoch_end(self, epoch, logs=None):
        where = None if math.isfinite(logs["loss"]) else "loss"
        where = where or not_finite(getattr(self.model, "student", self.model))
        if where:
            raise InputError(
                f"Training met NaN or infinity in {where}, expected a lower rate. "
                f"Received: --learning_rate={self.learning_rate}"
            )


@contextlib.contextmanager
def _gradients_checked(settings):
    """Turns the error of a sparse optimizer about gradients into one about --learning_rate."""
    try:
        with input_errors():
            yield
    except NonFiniteGradientsError as error:
        raise InputError(
            "Training met a gradient that is NaN or infinite, expected finite ones: look for such "
            "values in --dataset, or lower the rate. "
            f"Received: --learning_rate={settings.learning_rate}"
        ) from error
