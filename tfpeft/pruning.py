"""Pruning: dense weights that become zeros, the least important first."""

import keras
import numpy as np
import tensorflow as tf

from tfpeft import cloning, masks, schedules
from tfpeft.sparse_optimizer import SparseOptimizer


@keras.saving.register_keras_serializable(package="tfpeft")
class MagnitudePruning(SparseOptimizer):
    """Prunes the weights of smallest magnitude, gradually, while the others train on.

    At each step where the schedule updates, in each kernel by itself:
    `mask = |w| among the round(size * (1 - sparsity)) largest`, then `w <- mask * w`.
    A weight that was pruned gets gradients still, and may come back at the next update.

    What it does not give: speed on x86 (no dense kernel skips zeros), or a smaller file before
    it is compressed. See `SparseOptimizer`.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        schedule: TFMOT's `PolynomialDecay` or `ConstantSparsity`, or any callable
            `step -> (update_now, sparsity)`, in updates of the optimizer.
        exclude: Names or patterns of layers to leave dense.
        name: The optimizer's name.

    Example:

    ```python
    import keras, numpy as np, tfpeft
    import tensorflow_model_optimization as tfmot

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    schedule = tfmot.sparsity.keras.PolynomialDecay(0.0, 0.5, begin_step=0, end_step=4, frequency=1)
    model.compile(tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-3), schedule), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=2, verbose=0)
    small = tfpeft.strip_pruning(model)
    print(np.mean(small.layers[0].kernel == 0))  # 0.5
    ```

    Reference: Zhu & Gupta, "To prune, or not to prune", 2017, https://arxiv.org/abs/1710.01878
    """

    def calculate_mask(self, weight, sparsity):
        return masks.layer_mask(tf.abs(weight), sparsity)


def strip_pruning(model):
    """Returns a plain model with the pruned weights, its zeros verified.

    The new model has the architecture and the weights of `model`, and no optimizer, no loss and
    no regularizers. `model` stays as it is. The zeros that must be there are those that the
    schedule of the `SparseOptimizer` ends with, in each kernel it worked on; it is found
    however the model was trained: compiled, inside a `Distiller`, or in a loop of one's own.

    Args:
        model: A `keras.Model`; a subclassed one needs `get_config`. A tf_keras model is handed
            to TFMOT's own `strip_pruning`.

    Returns:
        A new, uncompiled model.

    Raises:
        ValueError: if nothing pruned this model and it holds no zeros, or if a kernel has fewer
            zeros than its schedule promised, with the reason as far as it is known.

    Example: see `MagnitudePruning`.
    """
    if not isinstance(model, keras.Model):
        import tf_keras

        if isinstance(model, tf_keras.Model):
            return schedules.tfmot.sparsity.keras.strip_pruning(model)
        raise ValueError(
            "Received an invalid value for `model`, expected a keras.Model or a tf_keras model. "
            f"Received: model={model!r}"
        )
    _check_zeros(model)
    return cloning.rebuild(model, _without_regularizers)


def _check_zeros(model):
    kernels = [w for w in model.weights if len(w.shape) >= 2]
    pruned = [w for w in kernels if hasattr(w, "sparse_optimizer")]
    if not pruned and all(np.all(w.numpy()) for w in kernels):
        raise ValueError(
            "Received an invalid value for `model`, expected a pruned one. "
            f"Received: {model.name!r}, which no SparseOptimizer trained and which has no zeros"
        )
    missing = []
    for weight in pruned:
        optimizer = weight.sparse_optimizer
        size = int(np.prod(weight.shape))
        promised = size - int(masks.kept_count(size, optimizer.promised_sparsity))
        zeros = size - int(np.count_nonzero(weight.numpy()))
        if zeros < promised:
            missing.append(
                f"{weight.path}: {zeros} of {promised} zeros at step {int(optimizer.iterations)}"
            )
    if missing:
        raise ValueError(
            "Received an invalid value for `model`, expected the zeros that its schedule ends "
            "with. Train until the end step (a PolynomialDecay updates only at begin_step + "
            "k * frequency: let the end step be one of these), and only with the pruning "
            f"optimizer. Received: {'; '.join(missing)}"
        )


def _without_regularizers(config):
    return {k: None if k.endswith("_regularizer") else v for k, v in config.items()}
