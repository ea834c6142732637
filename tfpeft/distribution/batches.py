"""Global batches cut into the parts of the replicas, so that none of them is empty."""

import tensorflow as tf


def can_be_cut(dataset):
    """Whether the elements of a dataset are batches of plain tensors."""
    specs = tf.nest.flatten(dataset.element_spec)
    return bool(specs) and all(
        isinstance(spec, tf.TensorSpec) and spec.shape.rank and spec.dtype != tf.variant
        for spec in specs
    )


def parts_of(dataset, replicas, first, count):
    """Returns the dataset of the parts of replicas `first`, ..., `first + count - 1`.

    A batch of B samples is cut into `replicas` parts in order, of B // replicas samples or one
    more. Parts that are empty would have NaN as their mean, and a BatchNormalization spreads it
    over all weights. So samples are moved into a last batch that has fewer than `replicas`, from
    the one before, which has enough of them if batches have two or more for each replica.

    Args:
        dataset: A `tf.data.Dataset` of global batches, for which `can_be_cut` is True.
        replicas: The number of replicas over all workers.
        first: The index of this worker's first replica.
        count: The number of this worker's replicas.
    """
    dataset = _with_batches_of_at_least(dataset, replicas)
    static, is_tuple = _static_size(dataset), isinstance(dataset.element_spec, tuple)
    own = range(first, first + count)

    def cut(*batch):
        batch = batch if is_tuple else batch[0]
        size = _size(batch) if static is None else static
        parts = tuple(_rows(batch, *_ends(replica, size, replicas)) for replica in own)
        return parts if count > 1 else parts[0]

    parts = dataset.map(cut, num_parallel_calls=tf.data.AUTOTUNE)
    if count > 1:
        each = tf.data.Dataset.from_tensors
        parts = parts.flat_map(lambda *parts: _joined([each(part) for part in parts]))
    return parts.prefetch(tf.data.AUTOTUNE)


def _ends(replica, size, replicas):
    """Returns where the part of a replica begins and ends: the first parts have a sample more."""
    smaller = min if isinstance(size, int) else tf.minimum
    return [i * (size // replicas) + smaller(i, size % replicas) for i in (replica, replica + 1)]


def _joined(datasets):
    first, *others = datasets
    for other in others:
        first = first.concatenate(other)
    return first


def _with_batches_of_at_least(dataset, size):
    """Returns a dataset of as many batches, which the one before fills up where they are small."""
    if _static_size(dataset) is not None:
        return dataset
    empty = tf.nest.map_structure(
        lambda spec: tf.zeros([0, *(length or 0 for length in spec.shape[1:])], spec.dtype),
        dataset.element_spec,
    )

    def pass_on(pending, batch):
        """Returns the batch to hold back, and the one before it, which is complete now."""
        rows, held = _size(batch), _size(pending)
        missing = tf.where(tf.logical_and(rows > 0, rows < size), size - rows, 0)
        moved = tf.clip_by_value(missing, 0, tf.maximum(held - size, 0))
        kept = held - moved

        def filled():
            tail = _rows(pending, kept, held)
            return tf.nest.map_structure(lambda a, b: tf.concat([a, b], 0), tail, batch)

        return tf.cond(moved > 0, filled, lambda: batch), _rows(pending, 0, kept)

    end = tf.data.Dataset.from_tensors(empty)
    return dataset.concatenate(end).scan(empty, pass_on).skip(1)


def _static_size(dataset):
    """Returns the number of samples of all batches, if it is known before they are read."""
    sizes = {spec.shape[0] for spec in tf.nest.flatten(dataset.element_spec)}
    return sizes.pop() if len(sizes) == 1 else None


def _size(batch):
    return tf.shape(tf.nest.flatten(batch)[0])[0]


def _rows(batch, begin, end):
    return tf.nest.map_structure(lambda tensor: tensor[begin:end], batch)
