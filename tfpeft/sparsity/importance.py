"""How much each weight matters in `prune_iteratively`, and the masks that follow."""

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import invalid
from tfpeft.core.arrays import invalid_data
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
        scores = [_custom_scores(criterion, variable) for variable in variables]
    for variable, each in zip(variables, scores, strict=True):
        expected = f"finite scores of the shape of {variable.path}, {tuple(variable.shape)}"
        if each.shape != tuple(variable.shape) or each.dtype.kind not in "biuf":
            received = (
                f"{criterion!r}, whose scores are of type {each.dtype} and shape {each.shape}"
            )
            raise invalid_data("criterion", expected, received)
        if not np.all(np.isfinite(each)):
            raise invalid_data(
                "criterion", expected, f"{criterion!r}, whose scores are nan or infinite"
            )
    return scores


def _custom_scores(criterion, variable):
    try:
        return np.asarray(criterion(variable))
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        expected = "a callable `variable -> scores`"
        received = f"{criterion!r}, which failed: {type(error).__name__}: {error}"
        raise invalid_data("criterion", expected, received) from error


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
    new = [mask.numpy() for mask in new]
    _check_reached(new, sparsity)
    return [mask & here for mask, here in zip(new, kept, strict=True)]


def _check_reached(masks, sparsity):
    """Raises unless masks have the zeros that were asked for, up to one for each kernel."""
    size = sum(mask.size for mask in masks)
    zeros = size - sum(int(mask.sum()) for mask in masks)
    if abs(zeros - sparsity * size) > len(masks):
        expected = f"numbers that give {100 * sparsity:g}% zeros over all kernels"
        raise invalid("densities", expected, f"numbers that give {100 * zeros / size:g}%")


def _densities(scores, sparsity, scope, weights):
    if weights is not None:
        return masks.scaled_densities(weights, [each.size for each in scores], sparsity).numpy()
    if scope == "erk":
        return masks.erk_densities([each.shape for each in scores], sparsity).numpy()
    return [1.0 - sparsity] * len(scores)
