"""The threshold of a mask: the value of a given rank among many, exact and without sorting."""

import numpy as np
import tensorflow as tf
from tensorflow.python.ops import control_flow_util

_BINS = 2**16
_SMALLEST_NORMAL = float(np.finfo("float32").tiny)


def find_threshold(values, count):
    """Finds a number that exactly `count` of `values` reach, without sorting.

    Args:
        values: Flat float32 tensor of finite numbers.
        count: Scalar integer tensor, from 1 to the number of values.

    Returns:
        The number, and whether exactly `count` values are known to reach it. Where values are
        equal there may be no such number; then it is the value of rank `count`.
    """
    if compiles_with_xla():
        return _search(values, count)
    return _find_by_histograms(values, count)


def compiles_with_xla():
    """Returns whether the function being traced is compiled by XLA."""
    if tf.executing_eagerly():
        return False
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


# A function, traced once for all kernels, of all models: to trace its operations for each kernel
# took a quarter of the time until the first step of training.
@tf.function(input_signature=[tf.TensorSpec([None], tf.float32), tf.TensorSpec([], tf.int32)])
def _find_by_histograms(values, count):
    """Finds the value of rank `count` by its bits: first the upper 16, then the lower 16.

    Two passes that count each value into one of 65,536 bins find it, whatever the values are. XLA
    has no fast histogram.
    """
    bits = tf.bitcast(values, tf.uint32)
    # Positive floats are ordered as their bits are; those of negative ones run backwards.
    positive, negative = tf.split(_histogram(tf.bitwise.right_shift(bits, 16)), 2)
    highest_first = tf.concat([tf.reverse(positive, [0]), negative], 0)
    index, above, _ = _bin_of_rank(highest_first, count)
    is_positive = index < _BINS // 2
    upper = tf.where(is_positive, _BINS // 2 - 1 - index, index)
    base = tf.bitwise.left_shift(tf.cast(upper, tf.uint32), 16)
    # Values of other bins get numbers of 65,536 and more, which the histogram leaves out.
    lowest_first = _histogram(tf.minimum(bits - base, tf.constant(_BINS, tf.uint32)))
    highest_first = tf.where(is_positive, tf.reverse(lowest_first, [0]), lowest_first)
    index, also_above, equal = _bin_of_rank(highest_first, count - above)
    lower = tf.where(is_positive, _BINS - 1 - index, index)
    limit = tf.bitcast(base + tf.cast(lower, tf.uint32), tf.float32)
    # 0.0 and -0.0 are equal, whatever their bits; TensorFlow takes the smallest floats for zero.
    return limit, (above + also_above + equal == count) & (tf.abs(limit) >= _SMALLEST_NORMAL)


def _histogram(numbers):
    """Returns how many of the uint32 `numbers` are 0, 1, ... 65,535; larger ones are left out."""
    # Not tf.math.bincount, which makes more passes over them.
    return tf.raw_ops.Bincount(
        arr=tf.bitcast(numbers, tf.int32), size=_BINS, weights=tf.constant([], tf.int32)
    )


def _bin_of_rank(counts, rank):
    """Returns the bin of the item of `rank`, from 1; how many are before it; how many in it."""
    # Row by row: a sum over all bins so far would take longer than counting a small layer.
    rows = tf.reshape(counts, [256, 256])
    row, before, _ = _entry_of_rank(tf.reduce_sum(rows, axis=1), rank)
    column, also_before, here = _entry_of_rank(rows[row], rank - before)
    return row * 256 + column, before + also_before, here


def _entry_of_rank(counts, rank):
    reached = tf.cumsum(counts)
    index = count_true(reached < rank)
    return index, reached[index] - counts[index], counts[index]


def _search(values, count):
    """Searches floats by their rank among all floats, by counting the values that reach them.

    Where between two ranks the wanted one is, is guessed from the counts of values that reach
    these two, and halved in every second turn, which bounds the number of turns. About 15
    counting passes find it among millions of weights. XLA has no top_k for a number that it
    learns while running.
    """

    def refine(turn, low, high, at_low, at_high):
        share = tf.cast(at_low - count, tf.float64) + 0.5
        share = tf.where(turn % 2 == 0, share / tf.cast(at_low - at_high, tf.float64), 0.5)
        guess = low + tf.cast(share * tf.cast(high - low, tf.float64), tf.int64)
        guess = tf.clip_by_value(guess, low + 1, high - 1)
        here = count_true(values >= _float_of(guess))
        enough = here >= count
        return (
            turn + 1,
            tf.where(enough, guess, low),
            tf.where(enough, high, guess),
            tf.where(enough, here, at_low),
            tf.where(enough, at_high, here),
        )

    low = _rank_of(tf.reduce_min(values))
    high = _rank_of(tf.reduce_max(values)) + 1
    _, low, _, reached, _ = tf.while_loop(
        lambda _, low, high, at_low, at_high: (at_low != count) & (high - low > 1),
        refine,
        (0, low, high, tf.size(values), 0),
    )
    return _float_of(low), reached == count


def _rank_of(value):
    """Floats are ordered as their bits are, once those of negative ones are turned round."""
    # Adding 0.0 turns -0.0, whose bits are those of a negative number, into 0.0.
    return tf.cast(_turned(tf.bitcast(value + 0.0, tf.int32)), tf.int64)


def _float_of(rank):
    return tf.bitcast(_turned(tf.cast(rank, tf.int32)), tf.float32)


def _turned(bits):
    return tf.where(bits < 0, tf.bitwise.bitwise_xor(bits, tf.int32.max), bits)


def count_true(condition):
    """Returns how many entries are True."""
    return tf.reduce_sum(tf.cast(condition, tf.int32))
