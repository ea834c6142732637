"""Parts of batches: none is empty, none is lost, and the order is that of the data."""

import numpy as np
import pytest
import tensorflow as tf

from tfpeft.distribution import batches


def parts(dataset, replicas, first=0, count=1):
    return [part.numpy().tolist() for part in batches.parts_of(dataset, replicas, first, count)]


@pytest.mark.parametrize(
    ("samples", "batch_size", "expected"),
    [
        (6, 4, [[[0, 1], [4]], [[2, 3], [5]]]),
        (7, 3, [[[0, 1], [3], [5]], [[2], [4], [6]]]),  # 3 + 3 + 1 become 3 + 2 + 2
        (5, 5, [[[0, 1, 2]], [[3, 4]]]),
        (1, 3, [[[0]], [[]]]),  # nothing to move
    ],
)
def test_parts_by_hand(samples, batch_size, expected):
    dataset = tf.data.Dataset.range(samples).batch(batch_size)
    assert [parts(dataset, 2, replica) for replica in range(2)] == expected


@pytest.mark.parametrize("samples", [13, 14, 15])
def test_no_part_is_empty_and_no_sample_is_lost(samples):
    dataset = tf.data.Dataset.range(samples).batch(6)
    of_replicas = parts(dataset, 3, first=0, count=3)
    steps = [of_replicas[i : i + 3] for i in range(0, len(of_replicas), 3)]
    assert len(steps) == dataset.cardinality()
    assert np.concatenate(of_replicas).tolist() == list(range(samples))
    sizes = [[len(part) for part in step] for step in steps]
    assert all(min(step) > 0 and max(step) - min(step) <= 1 for step in sizes)


def test_a_worker_of_several_replicas_gets_their_parts_in_turn():
    dataset = tf.data.Dataset.range(8).batch(8).repeat(2)
    assert parts(dataset, 4, first=2, count=2) == [[4, 5], [6, 7], [4, 5], [6, 7]]


def test_structures_stay_and_sizes_that_are_known():
    """A tuple of one is not its element: Keras takes the second of two tensors for the labels."""
    tensors = ({"text": tf.constant(["a", "b", "c", "d"])}, (tf.range(4), tf.ones((4, 2, 3))))
    dataset = tf.data.Dataset.from_tensor_slices((tensors,)).batch(4, drop_remainder=True)
    own = batches.parts_of(dataset, 2, 1, 1)
    ((inputs, (numbers, ones)),) = next(iter(own))
    assert inputs["text"].numpy().tolist() == [b"c", b"d"]
    assert numbers.numpy().tolist() == [2, 3]
    assert ones.shape == (2, 2, 3)
    assert own.element_spec[0][1][1].shape == (2, 2, 3)


def test_which_data_can_be_cut():
    ragged = tf.data.Dataset.from_tensor_slices(tf.ragged.constant([[1], [2, 3]])).batch(2)
    assert not batches.can_be_cut(ragged)
    assert not batches.can_be_cut(tf.data.Dataset.range(3))
    assert batches.can_be_cut(tf.data.Dataset.range(3).batch(2))
