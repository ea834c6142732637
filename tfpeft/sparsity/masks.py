"""Scores to masks. Pure functions of tensors; no state lives here.

A mask is boolean and has the shape of its weight: True where the weight is kept. Scores are
finite floats of any sign; the highest are kept.
"""

import numpy as np
import tensorflow as tf

from tfpeft.sparsity.threshold import compiles_with_xla, count_true, find_threshold


def kept_count(size, sparsity):
    """Returns how many of `size` weights stay at `sparsity`: round(size * (1 - sparsity)), >= 1.

    It is TFMOT's rule, in float32 like there, so that both keep the same number.
    """
    kept = tf.round(tf.cast(size, tf.float32) * (1.0 - tf.cast(sparsity, tf.float32)))
    return tf.cast(tf.maximum(kept, 1.0), tf.int32)


def layer_mask(scores, sparsity):
    """Keeps the highest scores of one tensor: exactly `kept_count(size, sparsity)` of them."""
    return top_mask(scores, kept_count(tf.size(scores), sparsity))


def global_masks(scores, sparsity):
    """Keeps the highest scores of several tensors taken together, with one threshold.

    Nothing keeps a layer from losing all of its weights.

    Returns:
        A list of masks, in the shapes of the list `scores`.
    """
    sizes = [int(np.prod(each.shape)) for each in scores]
    together = tf.concat([tf.reshape(tf.cast(each, tf.float32), [-1]) for each in scores], 0)
    parts = tf.split(layer_mask(together, sparsity), sizes)
    return [tf.reshape(part, each.shape) for part, each in zip(parts, scores, strict=True)]


def top_mask(scores, count):
    """Keeps exactly the `count` highest scores of one tensor, from none to all.

    Where scores are equal at the threshold, those that come first in row-major order stay, so
    the number of zeros is exact whatever the scores are.
    """
    flat = tf.reshape(tf.cast(scores, tf.float32), [-1])
    some = tf.maximum(count, 1)
    limit, exact = find_threshold(flat, some)
    mask = tf.cond(exact, lambda: flat >= limit, lambda: _mask_without_late_ties(flat, limit, some))
    return tf.reshape(mask & (count > 0), tf.shape(scores))


def _mask_without_late_ties(flat, limit, count):
    """Keeps what is above `limit`, and of what equals it the first, `count` together."""
    above, ties = flat > limit, flat == limit
    wanted = count - count_true(above)
    if compiles_with_xla():
        return above | (ties & (tf.cumsum(tf.cast(ties, tf.int32)) <= wanted))
    # The end of those that stay; the largest index, as there is none where scores are NaN.
    end = tf.reduce_max(tf.where(ties)[:wanted]) + 1
    return tf.concat([flat[:end] >= limit, above[end:]], 0)


def scaled_densities(weights, sizes, sparsity):
    """Returns a density a layer, `min(1, scale * weight)`, that give `sparsity` over all layers.

    Args:
        weights: Positive numbers, one a layer, of any scale.
        sizes: How many weights each layer has.
        sparsity: Scalar (or scalar tensor) in [0, 1).

    Returns:
        A float32 tensor with a density in (0, 1] for each layer.
    """
    weights, sizes = np.asarray(weights, "float64"), np.asarray(sizes, "float64")
    order = np.argsort(-weights)
    # Entry i is the scale where exactly the first i layers of the order are dense; the right
    # one is the first at which no other layer goes past 1.
    capped = np.concatenate([[0.0], np.cumsum(sizes[order])])[:-1]
    others = np.cumsum((weights * sizes)[order][::-1])[::-1]
    kept = (1.0 - tf.cast(sparsity, tf.float64)) * sizes.sum()
    scales = (kept - capped) / others
    # A first index exists but for rounding at sparsity 0, where all layers are dense.
    fits = tf.concat([scales * weights[order] <= 1.0, [True]], 0)
    scales = tf.concat([scales, [1.0 / weights.min()]], 0)
    scale = scales[tf.argmax(tf.cast(fits, tf.int32))]
    return tf.cast(tf.minimum(scale * weights, 1.0), tf.float32)


def erk_densities(shapes, sparsity):
    """Returns the Erdos-Renyi-Kernel densities of kernels: small layers stay denser.

    `density = min(1, scale * sum(shape) / prod(shape))`, with the `scale` that gives `sparsity`
    over all kernels.

    Reference: Evci et al., "Rigging the Lottery", 2020, https://arxiv.org/abs/1911.11134
    """
    sizes = [np.prod(shape) for shape in shapes]
    return scaled_densities(
        [sum(shape) / size for shape, size in zip(shapes, sizes, strict=True)], sizes, sparsity
    )


def pool_blocks(scores, block_size):
    """Returns the mean score of each block of (height, width) in the last two axes."""
    height, width = block_size
    *leading, rows, columns = scores.shape
    blocks = tf.reshape(scores, [*leading, rows // height, height, columns // width, width])
    return tf.reduce_mean(blocks, axis=[-3, -1])


def spread_blocks(mask, block_size):
    """The inverse of `pool_blocks` for masks: each entry becomes a block of its own value."""
    height, width = block_size
    return tf.repeat(tf.repeat(mask, height, axis=-2), width, axis=-1)


def prefer_n_m(scores, n, m):
    """Returns scores by which the best `n` of each `m` come before all others.

    Groups are of `m` neighbours along the second last axis, which is that of the inputs in
    kernels of Dense and convolutions. So the highest `n / m` of these scores are exactly the
    pattern n:m, and keeping more adds the best of the others.
    """
    *leading, rows, columns = scores.shape
    groups = tf.reshape(scores, [*leading, rows // m, m, columns])
    # Rank within a group: how many are higher, or equal and earlier.
    here, there = groups[..., :, None, :], groups[..., None, :, :]
    earlier = tf.constant(np.tril(np.ones((m, m), bool), -1)[:, :, None])
    ahead = (there > here) | ((there == here) & earlier)
    first = tf.reduce_sum(tf.cast(ahead, tf.int32), axis=-2) < n
    above = groups - tf.reduce_min(groups)
    lifted = 1.0 + 2.0 * tf.reduce_max(above)
    return tf.reshape(tf.where(first, lifted, above), scores.shape)
