"""Random numbers that depend on their arguments alone, so that a resumed run draws the same."""

import tensorflow as tf


def uniform_noise(seed, index, shape, step):
    """Returns uniform numbers in [0, 1) for the kernel `index` at `step`."""
    seed = tf.stack([tf.constant(seed * 1_000_003 + index, tf.int64), tf.cast(step, tf.int64)])
    return tf.random.stateless_uniform(shape, seed)
