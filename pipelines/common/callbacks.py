"""Callbacks of training: the best epoch's weights, and an end at a loss that is NaN."""

import math

import keras
import numpy as np

from tfpeft.core.arguments import InputError


class KeepBest(keras.callbacks.Callback):
    """Ends training with the weights of the epoch in which a metric was best.

    Among equal epochs the last one counts: on little data accuracies are coarse, and the later
    epoch has the lower learning rate.

    Args:
        monitor: Name of a metric in the logs, or a list of names whose mean counts.
        mode: "max" or "min".
        first_step: Epochs that end before that many updates do not count, such as those in which
            a schedule still prunes.
    """

    def __init__(self, monitor, *, mode="max", first_step=0):
        super().__init__()
        self.monitor = [monitor] if isinstance(monitor, str) else list(monitor)
        self.sign = 1.0 if mode == "max" else -1.0
        self.first_step = first_step
        self.best, self.weights = -math.inf, None

    def on_epoch_end(self, epoch, logs=None):
        if int(self.model.optimizer.iterations) < self.first_step:
            return
        value = self.sign * np.mean([logs[name] for name in self.monitor])
        if value >= self.best:
            self.best, self.weights = value, self.model.get_weights()

    def on_train_end(self, logs=None):
        if self.weights is not None:
            self.model.set_weights(self.weights)


class RaiseOnNaN(keras.callbacks.Callback):
    """Raises after an epoch whose loss is NaN or infinite."""

    def __init__(self, learning_rate):
        super().__init__()
        self.learning_rate = learning_rate

    def on_epoch_end(self, epoch, logs=None):
        if not math.isfinite(logs["loss"]):
            raise InputError(
                "Training met a loss that is NaN or infinite, expected a lower rate. "
                f"Received: --learning_rate={self.learning_rate}"
            )
