"""The zeros that a model has: kept while it is tuned further, and verified when it is done."""

import keras
import numpy as np

from tfpeft.core import clone
from tfpeft.sparsity.promises import missing_zeros
from tfpeft.sparsity.sparse_optimizer import sparse_optimizers_of
from tfpeft.sparsity.tfmot_import import import_tfmot


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
            return import_tfmot().sparsity.keras.strip_pruning(model)
        raise ValueError(
            "Received an invalid value for `model`, expected a keras.Model or a tf_keras model. "
            f"Received: model={model!r}"
        )
    _check_zeros(model)
    new = clone.rebuild(model, _without_regularizers)
    for weight in new.weights:
        if len(weight.shape) >= 2 and np.any(weight.numpy() == 0):
            weight.assign(weight.numpy() + 0)  # -0.0, of which masks leave some, costs bytes
    return new


def _check_zeros(model):
    kernels = [w for w in model.weights if len(w.shape) >= 2]
    pruned = {id(w): w for w in kernels if hasattr(w, "sparse_optimizer")}
    if not pruned and all(np.all(w.numpy()) for w in kernels):
        raise ValueError(
            "Received an invalid value for `model`, expected a pruned one. "
            f"Received: {model.name!r}, which no SparseOptimizer trained and which has no zeros"
        )
    missing = [
        text
        for optimizer in _sparse_optimizers(pruned.values())
        # Others are of another model that was trained with this one.
        for text in missing_zeros(optimizer, belongs=lambda variable: id(variable) in pruned)
    ]
    if missing:
        raise ValueError(
            "Received an invalid value for `model`, expected the zeros that its schedule ends "
            "with. Train until the end step (a PolynomialDecay updates only at begin_step + "
            "k * frequency: let the end step be one of these), and only with the pruning "
            f"optimizer. Received: {'; '.join(missing)}"
        )


def _sparse_optimizers(variables):
    """Returns the sparse optimizers of the variables, and those inside them, each once."""
    found = [each for v in variables for each in sparse_optimizers_of(v.sparse_optimizer)]
    return {id(optimizer): optimizer for optimizer in found}.values()


def _without_regularizers(config, parents):
    return {k: None if k.endswith("_regularizer") else v for k, v in config.items()}
