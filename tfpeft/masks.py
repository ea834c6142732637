"""Scores to masks. Pure functions of tensors; no state lives here.

A mask is boolean and has the shape of its weight: True where the weight is kept.
"""

import tensorflow as tf


def kept_count(size, sparsity):
    """Returns how many of `size` weights stay at `sparsity`: round(size * (1 - sparsity)), >= 1.

    It is TFMOT's rule, in float32 like there, so that both keep the same number.
    """
    kept = tf.round(tf.cast(size, tf.float32) * (1.0 - tf.cast(sparsity, tf.float32)))
    return tf.cast(tf.maximum(kept, 1.0), tf.int32)


def layer_mask(scores, sparsity):
    """Keeps the highest scores of one tensor: exactly `kept_count(size, sparsity)` of them.

    Where scores are equal at the threshold, those that come first in row-major order stay, so
    the number of zeros is exact whatever the scores are.

    Args:
        scores: Float tensor of any shape, >= 0, and finite.
        sparsity: Scalar in [0, 1), the fraction to remove.

    Returns:
        A boolean tensor of the shape of `scores`.
    """
    flat = tf.reshape(tf.cast(scores, tf.float32), [-1])
    kept = kept_count(tf.size(flat), sparsity)
    threshold = kth_largest(flat, kept)
    above = flat > threshold
    ties = flat == threshold
    wanted = kept - tf.reduce_sum(tf.cast(above, tf.int32))
    mask = above | (ties & (tf.cumsum(tf.cast(ties, tf.int32)) <= wanted))
    return tf.reshape(mask, tf.shape(scores))


def kth_largest(values, k):
    """Returns the k-th largest of a flat tensor of floats >= 0, exactly, without sorting.

    Floats >= 0 are ordered as their bit patterns are, so the answer is found a bit at a time,
    from the highest: 31 counting passes, whatever the size. Sorting costs more from a few
    thousand values on, and XLA has no top_k for a k that it learns while running.
    """
    # Adding 0.0 turns -0.0, whose bit pattern is negative, into 0.0.
    bits = tf.bitcast(values + 0.0, tf.int32)

    def refine(position, threshold):
        candidate = tf.bitwise.bitwise_or(threshold, tf.bitwise.left_shift(1, position))
        enough = tf.reduce_sum(tf.cast(bits >= candidate, tf.int32)) >= k
        return position - 1, tf.where(enough, candidate, threshold)

    # A loop in the graph: 31 copies a kernel make large models slow to trace.
    _, threshold = tf.while_loop(lambda position, _: position >= 0, refine, (30, 0))
    return tf.bitcast(threshold, tf.float32)
