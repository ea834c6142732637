"""Taking the time of training steps."""

import time

import keras
import numpy as np
import tensorflow as tf


class Clock(keras.callbacks.Callback):
    """Takes the time of each step of a `fit`, but the first one, which waits for the data."""

    def on_train_begin(self, logs=None):
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(time.perf_counter())

    def steps(self):
        return np.diff(self.times)


def without_autotuning(data):
    """Returns the dataset without the thread that may hold up the end of an epoch by a second."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)
