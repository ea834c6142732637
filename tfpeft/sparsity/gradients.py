"""Whether gradients are finite, told before anything is changed by them."""

import numpy as np
import tensorflow as tf


def checked(grads, names):
    """Returns `grads`, of which whatever reads them waits until they are known to be finite.

    Args:
        grads: Tensors, `tf.IndexedSlices` or None.
        names: A name each, for the error.

    Raises:
        ValueError: if one is NaN or infinite, where it runs eagerly.
        tf.errors.InvalidArgumentError: the same in a graph; not if XLA compiles that, which
            leaves assertions out.
    """
    known = [pair for pair in zip(names, grads, strict=True) if pair[1] is not None]
    if not known:
        return grads
    # A sum is finite only if each of its terms is.
    finite = tf.math.is_finite(_sum([part for _, each in known for part in _parts(each)]))
    message = "Received an invalid value for `grads`, expected finite gradients. Received: "

    def sums():
        return tf.stack([_sum(_parts(each)) for _, each in known])

    if tf.executing_eagerly():
        if not finite:
            bad = [known[i][0] for i in np.flatnonzero(~np.isfinite(sums()))]
            raise ValueError(f"{message}NaN or infinite at {', '.join(bad)}")
        return grads

    def complain():
        told = [f"{message}these sums over {', '.join(name for name, _ in known)}:", sums()]
        return tf.debugging.Assert(finite, told, summarize=1000)

    check = tf.cond(finite, tf.no_op, complain)
    with tf.control_dependencies([check]):
        return [g if g is None else tf.nest.map_structure(tf.identity, g) for g in grads]


def _sum(parts):
    return tf.reduce_sum(tf.concat([tf.reshape(each, [-1]) for each in parts], 0))


def _parts(gradient):
    """Returns parts of `gradient` of which one is not finite if the gradient is not.

    A gradient is a sum of products of what goes into a layer and what comes back to it. NaN in
    one of its inputs makes all it is multiplied with NaN, up to the last axis; NaN in what comes
    back does so from the first axis on. So of large ones two slices are enough.
    """
    sliced = isinstance(gradient, tf.IndexedSlices)
    values = gradient.values if sliced else tf.convert_to_tensor(gradient)
    parts = [values]
    if not sliced and len(values.shape) >= 2 and (values.shape.num_elements() or 0) >= 2**16:
        # The middle of the first axis: in convolutions the border may meet padding only.
        parts = [values[values.shape[0] // 2], values[..., 0]]
    return [tf.cast(each, tf.float32) for each in parts]
