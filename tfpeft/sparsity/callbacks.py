"""Callbacks for sparse training: `SparsityLogger`, `KeepBest`."""

import math
import numbers
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfpeft.core.arguments import InputError, check_choice, invalid
from tfpeft.core.graph import flatten_layers
from tfpeft.core.monitor import MODES, check_one_number, is_better, metric_mode
from tfpeft.sparsity.promises import missing_zeros, steps_done
from tfpeft.sparsity.sparse_optimizer import sparse_optimizer_of, sparse_optimizers_of


class SparsityLogger(keras.callbacks.Callback):
    """Adds `sparsity` to the logs of each epoch: for the progress bar's end, History, TensorBoard.

    `sparsity` is the fraction of zeros, in [0, 1], in all kernels that the model's sparse
    optimizer works on. List it before the callbacks that read it.

    Raises:
        InputError: when training begins, if the optimizer is no `SparseOptimizer`.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(tfpeft.StaticSparse(keras.optimizers.Adam(1e-3), 0.5), loss="mse")
    history = model.fit(
        np.ones((8, 8)), np.ones((8, 4)), verbose=0, callbacks=[tfpeft.SparsityLogger()]
    )
    print(history.history["sparsity"])  # [0.5]
    ```
    """

    def on_train_begin(self, logs=None):
        self._optimizer = sparse_optimizer_of(self.model.optimizer)
        if self._optimizer is None:
            raise InputError(
                "SparsityLogger expected a model that was compiled with a SparseOptimizer. "
                f"Received: {type(self.model.optimizer).__name__}"
            )

    def on_epoch_end(self, epoch, logs=None):
        kernels = self._optimizer.sparse_variables
        zeros = sum(float(tf.math.zero_fraction(k)) * int(tf.size(k)) for k in kernels)
        logs["sparsity"] = zeros / sum(int(tf.size(k)) for k in kernels)


class KeepBest(keras.callbacks.Callback):
    """Ends training with the weights of the best epoch after the schedule of zeros has ended.

    `keras.callbacks.EarlyStopping(restore_best_weights=True)` takes the best of all epochs, which
    is often one before the weights were pruned. Here epochs count from the step on at which the
    model's sparse optimizer has reached its zeros. Among equal values the last epoch counts: on
    little data metrics are coarse, and the later epoch has the lower learning rate.

    It keeps the variables of layers that are trained, with their exact zeros; a frozen backbone
    is not copied. With a metric of `validation_data` it keeps the weights that were validated, such
    as the averages that `keras.callbacks.SwapEMAWeights` shows. The optimizer's state stays as it
    is after the last step.

    Args:
        monitor: The metric's name in the logs of `fit`, or a list of names whose mean counts.
        mode: "min" if lower values are better, "max" if higher ones are; None finds it for the
            metrics and losses of Keras.
        first_step: Epochs that end after this update of the optimizer count, and those before do
            not; None is the end step of the model's sparse optimizers, 0 if there is none.

    Attributes:
        best: The best value that counted; None if no epoch did.
        best_epoch: Its epoch, from 0.

    Raises:
        InputError: while training, if the logs lack the metric, if its value is not one number,
            or `mode` is None and it is not one of Keras's; when it ends, if no epoch counted.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.ones((8, 8)), np.ones((8, 4))
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    schedule = tfpeft.polynomial_decay(0.5, begin=0, end=2, steps_per_epoch=4, frequency=1)
    model.compile(tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-3), schedule), loss="mse")
    best = tfpeft.KeepBest("val_loss")
    data = {"x": x, "y": y, "batch_size": 2, "validation_data": (x, y)}
    model.fit(**data, epochs=4, verbose=0, callbacks=[best])
    print(best.best_epoch >= 1)  # True: the schedule ends with the second epoch
    ```
    """

    def __init__(
        self,
        monitor: str | Sequence[str] = "val_accuracy",
        *,
        mode: str | None = None,
        first_step: int | None = None,
    ):
        super().__init__()
        names = [monitor] if isinstance(monitor, str) else monitor
        is_list = isinstance(names, (list, tuple)) and len(names) > 0
        if not is_list or not all(isinstance(name, str) for name in names):
            raise invalid("monitor", "the name of a metric, or a list of names", monitor)
        if mode is not None:
            check_choice("mode", mode, MODES)
        if first_step is not None and (
            isinstance(first_step, bool)
            or not isinstance(first_step, numbers.Integral)
            or first_step < 0
        ):
            raise invalid("first_step", "an integer of at least 0, or None", first_step)
        self.monitor, self.mode, self.first_step = list(names), mode, first_step
        self.best, self.best_epoch = None, None

    def on_train_begin(self, logs=None):
        self.best, self.best_epoch, self._kept = None, None, []
        self._epochs, self._missing = 0, []
        self._optimizers = sparse_optimizers_of(self.model.optimizer)
        self._first_step = self.first_step
        if self.first_step is None:
            steps = [optimizer.end_step for optimizer in self._optimizers]
            if None in steps:
                raise InputError(
                    "KeepBest expected an optimizer whose zeros are there before `fit` ends, such "
                    "as TargetedDropout with `end_step`; or give `first_step`. "
                    f"Received: {type(self._optimizers[steps.index(None)]).__name__}"
                )
            self._first_step = max(steps, default=0)

    def on_epoch_begin(self, epoch, logs=None):
        self._validated = None

    def on_test_batch_begin(self, batch, logs=None):
        # Other callbacks may swap weights before the first batch, and when the epoch ends.
        if batch == 0:
            self._validated = self._current_weights()

    def on_epoch_end(self, epoch, logs=None):
        value = self._current_value(logs or {})
        self._epochs += 1
        if steps_done(self.model.optimizer) < self._first_step or math.isnan(value):
            return
        if self.first_step is None:
            self._missing = [text for each in self._optimizers for text in missing_zeros(each)]
        if self._missing:
            return
        mode = self._current_mode()
        if self.best is None or is_better(value, self.best, mode=mode):
            self.best, self.best_epoch = value, epoch
            is_validation = any(name.startswith("val_") for name in self.monitor)
            self._kept = (is_validation and self._validated) or self._current_weights()

    def _current_weights(self):
        return [(v, v.numpy()) for v in _variables_in_training(self.model)]

    def _current_mode(self):
        modes = {metric_mode(name, mode=self.mode, model=self.model) for name in self.monitor}
        if len(modes) > 1:
            raise invalid("monitor", "metrics of one mode, as their mean counts", self.monitor)
        return modes.pop()

    def _current_value(self, logs):
        missing = [name for name in self.monitor if name not in logs]
        if missing:
            expected = f"names among {', '.join(logs)}; those of `val_` need validation_data"
            raise invalid("monitor", expected, missing)
        for name in self.monitor:
            check_one_number(name, logs[name])
        return sum(float(logs[name]) for name in self.monitor) / len(self.monitor)

    def on_train_end(self, logs=None):
        if self._epochs and self.best is None:
            raise InputError(
                f"KeepBest expected an epoch that ends at update {self._first_step} or later, "
                f"with a number for {', '.join(self.monitor)} and the zeros that were promised. "
                f"Received: {steps_done(self.model.optimizer)} updates"
                + "".join(f"; {text}" for text in self._missing)
            )
        for variable, value in self._kept:
            variable.assign(value)


def _variables_in_training(model):
    """Returns the weights of a model but for those of frozen layers."""
    frozen = {
        id(v) for layer in flatten_layers(model) if not layer.trainable for v in layer.weights
    }
    return [v for v in model.weights if v.trainable or id(v) not in frozen]
