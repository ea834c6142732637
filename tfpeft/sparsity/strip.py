"""strip_pruning: a plain model of the pruned weights, its zeros verified."""

from typing import Any

import keras
import numpy as np

from tfpeft.core import clone
from tfpeft.core.arguments import InputError, invalid
from tfpeft.sparsity.promises import missing_zeros, promises_of
from tfpeft.sparsity.tfmot_import import import_tfmot


def strip_pruning(model: keras.Model) -> Any:
    """Returns a plain model with the pruned weights, its zeros verified.

    The new model has the architecture and the weights of `model`, and no optimizer, no loss and
    no regularizers. `model` stays as it is. The zeros that must be there are those that the
    schedule of the `SparseOptimizer` ends with, in each kernel that took part. They are known
    however the model was trained: compiled, inside a `Distiller`, or in a custom loop.

    `model.save` writes them into the .keras file, beside the weights. So they are verified after
    `keras.models.load_model`, too, with `compile=False` as well, if tfpeft was imported before.
    Without tfpeft the file loads as any other.

    Args:
        model: A `keras.Model`; a subclassed one needs `get_config`. A tf_keras model is given to
            TFMOT's `strip_pruning`.

    Returns:
        A new, uncompiled model.

    Raises:
        InputError: if nothing pruned this model and it holds no zeros, or if a kernel has fewer
            zeros than its schedule promised, with the step and the numbers.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(tfpeft.StaticSparse(keras.optimizers.Adam(1e-3), 0.75), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), verbose=0)
    small = tfpeft.strip_pruning(model)
    print(np.mean(small.layers[0].kernel == 0))  # 0.75
    ```
    """
    if not isinstance(model, keras.Model):
        import tf_keras

        if isinstance(model, tf_keras.Model):
            return import_tfmot().sparsity.keras.strip_pruning(model)
        raise invalid("model", "a keras.Model or a tf_keras model", model)
    _check_zeros(model)
    return plain_model(model)


def plain_model(model):
    """Returns a new, uncompiled model of the same weights, without regularizers."""
    new = clone.rebuild(model, _without_regularizers)
    for weight in new.weights:
        if len(weight.shape) >= 2 and np.any(weight.numpy() == 0):
            weight.assign(weight.numpy() + 0)  # -0.0, of which masks leave some, costs bytes
    return new


def _check_zeros(model):
    kernels = [w for w in model.weights if len(w.shape) >= 2]
    promises = promises_of(kernels)
    if not promises and all(np.all(w.numpy()) for w in kernels):
        received = f"{model.name!r}, which no SparseOptimizer trained and which has no zeros"
        raise InputError(
            f"Received an invalid value for `model`, expected a pruned one. Received: {received}"
        )
    missing = [text for optimizer in promises for text in missing_zeros(optimizer, kernels)]
    if missing:
        raise InputError(
            "Received an invalid value for `model`, expected the zeros that its schedule ends "
            "with. Train until the end step (a PolynomialDecay updates only at begin_step + "
            "k * frequency: let the end step be one of these), and only with the pruning "
            f"optimizer. Received: {'; '.join(missing)}"
        )


def _without_regularizers(config, parents):
    return {k: None if k.endswith("_regularizer") else v for k, v in config.items()}
