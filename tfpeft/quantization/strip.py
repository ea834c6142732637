"""strip_clustering: a plain model of the clustered weights, its distinct values verified."""

from typing import Any

import keras

from tfpeft.core.arguments import InputError, invalid
from tfpeft.sparsity.promises import missing_zeros, promises_of, too_many_values
from tfpeft.sparsity.strip import plain_model
from tfpeft.sparsity.tfmot_import import import_tfmot


def strip_clustering(model: keras.Model) -> Any:
    """Returns a plain model with the clustered weights, its distinct values verified.

    The new model has the architecture and the weights of `model`, and no optimizer, no loss and
    no regularizers. `model` stays as it is. Each kernel that took part, or each of its output
    channels, must have at most `number_of_clusters` distinct values, zero included; and the zeros
    that other optimizers promised, of which `strip_pruning` has more. They are known however the
    model was trained: compiled, inside a `Distiller`, or in a custom loop; and from the .keras
    file that `model.save` wrote, if tfpeft was imported before it was loaded.

    Args:
        model: A `keras.Model`; a subclassed one needs `get_config`. A tf_keras model is given to
            TFMOT's `strip_clustering`.

    Returns:
        A new, uncompiled model.

    Raises:
        InputError: if no `WeightClustering` trained this model, or if a kernel has more values
            or fewer zeros than were promised, with the step and the numbers.

    Example: see `WeightClustering`.
    """
    if not isinstance(model, keras.Model):
        import tf_keras

        if isinstance(model, tf_keras.Model):
            return import_tfmot().clustering.keras.strip_clustering(model)
        raise invalid("model", "a keras.Model or a tf_keras model", model)
    _check_values(model)
    return plain_model(model)


def _check_values(model):
    kernels = [w for w in model.weights if len(w.shape) >= 2]
    optimizers = promises_of(kernels)
    if not any(optimizer.promised_values() for optimizer in optimizers):
        raise InputError(
            "Received an invalid value for `model`, expected a clustered one. Received: "
            f"{model.name!r}, which no WeightClustering trained"
        )
    broken = [text for each in optimizers for text in too_many_values(each, kernels)]
    broken += [text for each in optimizers for text in missing_zeros(each, kernels)]
    if broken:
        raise InputError(
            "Received an invalid value for `model`, expected the distinct values and the zeros "
            "that its optimizers promised. Train beyond `begin_step`, and only with these "
            f"optimizers. Received: {'; '.join(broken)}"
        )
