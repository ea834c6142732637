"""How much each weight matters in `prune_iteratively`, and the masks that follow."""

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import invalid
from tfpeft.sparsity import masks


def scores_of(model, variables, criterion, data, batch_size):
    """Returns an array of finite scores for each variable; the highest ones are kept.

    Args:
        model: The compiled model.
        variables: Its kernels.
        criterion: "magnitude", "gradient" or a callable, as in `prune_iteratively`.
        data: A `core.data.Data`, for the gradients.
        batch_size: For arrays.
    """
    if criterion == "magnitude":
        scores = [np.abs(variable.numpy()) for variable in variables]
    elif criterion == "gradient":
        scores = _gradient_scores(model, variables, data, batch_size)
    else:
        scores = [np.asarray(criterion(variable)) for variable in variables]
    for variable, each in zip(variables, scores, strict=True):
        if each.shape != tuple(variable.shape) or not np.all(np.isfinite(each)):
            raise invalid("criterion", f"finite scores of the shape of {variable.path}", each)
    return scores


def _gradient_scores(model, variables, data, batch_size):
    """Returns the mean over batches of |w * dL/dw|."""
    totals = [tf.Variable(tf.zeros(v.shape)) for v in variables]

    @tf.function
    def add(x, y, sample_weight):
        with tf.GradientTape() as tape:
            outputs = model(x, training=False)
            loss = model.compute_loss(x, y, outputs, sample_weight, training=False)
        sources = [v.value for v in variables]
        gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
        for total, variable, gradient in zip(totals, variables, gradients, strict=True):
            total.assign_add(tf.cast(tf.abs(variable * gradient), tf.float32))

    batches = 0
    for batch in data.dataset(batch_size):
        add(*keras.utils.unpack_x_y_sample_weight(batch))
        batches += 1
    return [total.numpy() / batches for total in totals]


def nested_masks(variables, scores, sparsity, scope, weights):
    """Returns a mask for each variable in which what is zero already stays zero.

    Args:
        variables: Kernels.
        scores: An array for each of them.
        sparsity: The fraction of zeros in all of them, in [0, 1).
        scope: "layer", "global" or "erk".
        weights: Numbers that densities are proportional to, in place of `scope`; or None.
    """
    kept = [variable.numpy() != 0 for variable in variables]
    floor = min(float(each.min()) for each in scores)
    # Below all others; a layer is not asked for more than it has left.
    floor -= 1 + abs(floor)
    scores = [np.where(here, each, floor) for here, each in zip(kept, scores, strict=True)]
    if weights is None and scope == "global":
        new = masks.global_masks([tf.constant(each, tf.float32) for each in scores], sparsity)
    else:
        densities = _densities(scores, sparsity, scope, weights)
        new = [
            masks.layer_mask(each, 1.0 - density)
            for each, density in zip(scores, densities, strict=True)
        ]
    return [mask.numpy() & here for mask, here in zip(new, kept, strict=True)]


def _densities(scores, sparsity, scope, weights):
    if weights is not None:
        return masks.scaled_densities(weights, [each.size for each in scores], sparsity).numpy()
    if scope == "erk":
        return masks.erk_densities([each.shape for each in scores], sparsity).numpy()
    return [1.0 - sparsity] * len(scores)
