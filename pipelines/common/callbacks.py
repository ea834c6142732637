"""Callbacks of training: an end at a loss that is NaN."""

import math

import keras

from tfpeft.core.arguments import InputError


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
