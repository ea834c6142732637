"""How a `tf.data.Dataset` was made: whether it repeats without an end, or is shuffled again."""

import tensorflow as tf


def is_endless(dataset):
    """Whether a dataset repeats without an end, also where a filter hides it.

    What it does not give: generators of Python, and data of several inputs, such as
    `sample_from_datasets`, of which some end: their end is not known.
    """
    cardinality, name = int(dataset.cardinality()), type(dataset).__name__
    if cardinality != tf.data.UNKNOWN_CARDINALITY:
        return cardinality == tf.data.INFINITE_CARDINALITY
    endless = list(map(is_endless, _inputs(dataset)))
    if "Take" in name:  # `take` and `take_while`
        return False
    # Zipped data ends with its shortest input. Of other operations it is not known which input
    # ends them: a choice among datasets has an endless one of random numbers.
    return bool(endless) and (any if "Concatenate" in name else all)(endless)


def is_reshuffled(dataset):
    """Whether a dataset shuffles its samples in another order whenever it is read.

    What is cached is read again in the same order.
    """
    name = type(dataset).__name__
    if "Cache" in name:
        return False
    if "Shuffle" in name and getattr(dataset, "_reshuffle_each_iteration", False) is not False:
        return True
    return any(map(is_reshuffled, _inputs(dataset)))


def _inputs(dataset):
    # TensorFlow has no public name for it; without this one nothing is known.
    return getattr(dataset, "_inputs", tuple)()
