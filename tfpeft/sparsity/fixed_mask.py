"""FixedMask: the zeros that a model has stay while it is tuned further."""

import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.layers import path_of
from tfpeft.core.registration import register
from tfpeft.sparsity.masked_optimizer import MaskedOptimizer


@register()
class FixedMask(MaskedOptimizer):
    """Keeps the zeros that a model already has, while its other weights are tuned further.

    `mask = (w != 0)` when it is built, as training begins, then `w <- mask * w` after each
    update. The wrapped optimizer gets gradients of the kept weights only.

    Memory: 1 byte per weight.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        exclude: Names or patterns of layers whose zeros need not stay.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        name: The optimizer's name.

    Raises:
        InputError: when training begins, if no kernel has zeros; and as `SparseOptimizer` does.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.layers[0].kernel.assign(np.tri(8, 4))
    model.compile(tfpeft.FixedMask(keras.optimizers.Adam(1e-3)), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), verbose=0)
    print(np.sum(model.layers[0].kernel == 0))  # 6
    ```
    """

    masks_gradients = True

    def initial_mask(self, index, variable):
        return tf.not_equal(variable, 0)

    def before_update(self, kernels, step):
        # Not in `build`: loading a model builds its optimizer before the weights are there.
        with tf.init_scope():
            for mask, variable in zip(self._states["mask"], self.sparse_variables, strict=True):
                if np.all(mask.numpy()):
                    mask.assign(tf.not_equal(variable, 0))
            if all(np.all(mask.numpy()) for mask in self._states["mask"]):
                raise InputError(
                    "FixedMask expected a model with zeros to keep. "
                    f"Received none in: {[path_of(v) for v in self.sparse_variables]}"
                )

    def promised_zeros(self):
        return [
            ([variable], int(np.sum(mask.numpy() == 0)))
            for variable, mask in zip(self.sparse_variables, self._states["mask"], strict=True)
        ]
