"""Whether a dataset ends and keeps its order, told by how it was made."""

import pytest
import tensorflow as tf

from tfpeft.core.dataset_graph import is_endless, is_reshuffled

TEN = tf.data.Dataset.range(10)


def any_sample(_):
    return True


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (TEN, False),
        (TEN.repeat(), True),
        (TEN.repeat(3).filter(any_sample), False),
        (TEN.repeat().filter(any_sample).batch(2).prefetch(1), True),
        (TEN.repeat().filter(any_sample).take(4).batch(2), False),
        (TEN.repeat().take_while(any_sample), False),
        (tf.data.Dataset.zip((TEN, TEN.repeat().filter(any_sample))), False),
        (TEN.concatenate(TEN.repeat().filter(any_sample)).batch(2), True),
        (tf.data.Dataset.sample_from_datasets([TEN, TEN.filter(any_sample)], seed=1), False),
        (
            tf.data.Dataset.sample_from_datasets(
                [TEN, TEN.filter(any_sample)], [0.3, 0.7], stop_on_empty_dataset=True
            )
            .batch(2)
            .prefetch(1),
            False,
        ),
        (
            tf.data.Dataset.choose_from_datasets([TEN, TEN], tf.data.Dataset.range(2).repeat()),
            False,
        ),
        (
            tf.data.Dataset.choose_from_datasets(
                [TEN.repeat().filter(any_sample), TEN], tf.data.Dataset.range(2).repeat(4)
            ),
            False,
        ),
        (tf.data.Dataset.sample_from_datasets([TEN.repeat(), TEN.repeat()]).batch(2), True),
    ],
)
def test_endless(dataset, expected):
    assert is_endless(dataset) is expected


@pytest.mark.parametrize(
    ("dataset", "expected"),
    [
        (TEN.batch(2), False),
        (TEN.shuffle(10).batch(2).prefetch(1), True),
        (TEN.shuffle(10, seed=1), True),
        (TEN.shuffle(10, reshuffle_each_iteration=False).batch(2), False),
        (TEN.concatenate(TEN.shuffle(10)).batch(2), True),
        (tf.data.Dataset.zip((TEN, TEN.shuffle(10))), True),
        (TEN.shuffle(10).cache().batch(2), False),
    ],
)
def test_reshuffled(dataset, expected):
    assert is_reshuffled(dataset) is expected
