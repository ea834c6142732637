"""Callbacks for sparse training: `SparsityLogger`, `KeepBest`."""

import keras
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.sparsity.sparse_optimizer import sparse_optimizer_of


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
    pass
