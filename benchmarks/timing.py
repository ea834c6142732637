"""Taking the time of training steps."""

import time

import keras
import numpy as np
import tensorflow as tf


class Clock(keras.callbacks.Callback):
    """Takes the time of each step of a `fit`, but the first one, which waits for the data.

    Args:
        now: Returns seconds; `time.process_time` counts what this process computes, however busy
            the machine is with other processes.
    """

    def __init__(self, now=time.perf_counter):
        super().__init__()
        self._now = now

    def on_train_begin(self, logs=None):
        self.times = []

    def on_train_batch_end(self, batch, logs=None):
        self.times.append(self._now())

    def steps(self):
        return np.diff(self.times)


def without_autotuning(data):
    """Returns the dataset without the thread that may hold up the end of an epoch by a second."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return data.with_options(options)
