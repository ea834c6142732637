"""Samples drawn from all of the data, whatever its form."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.core.data import read
from tfpeft.export.samples import spread, stacked

X = np.arange(1000, dtype="float32")[:, None]


class Batches(keras.utils.PyDataset):
    num_batches = 10

    def __getitem__(self, index):
        return X[100 * index : 100 * index + 100], np.zeros(100)


def generated():
    for start in range(0, 1000, 8):
        yield [X[start : start + 8]]


FORMS = {
    "array": X,
    "pair": (X, np.zeros(1000)),
    "dataset": tf.data.Dataset.from_tensor_slices(X).batch(64),
    "unknown length": tf.data.Dataset.from_tensor_slices(X).batch(64).filter(lambda x: True),
    "PyDataset": Batches(),
    "generator function": generated,
}


def drawn(data, count, **options):
    samples, _ = spread(read(data, "representative_data"), count, **options)
    assert all(array.shape == (1, 1) for (array,) in samples)
    return [float(array[0, 0]) for (array,) in samples]


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_sorted_data_gives_the_same_samples_of_all(form):
    values = drawn(FORMS[form], 100)
    assert values == drawn(X, 100)
    assert len(set(values)) == 100
    assert np.bincount(np.array(values, int) // 250).min() > 12  # all quarters
    assert values != sorted(values)
    assert values != drawn(FORMS[form], 100, seed=1)


def test_samples_do_not_keep_their_batches():
    samples, _ = spread(read(FORMS["dataset"], "data"), 3)
    assert [array.base for (array,) in samples] == [None] * 3


def test_columns_that_a_model_leaves_out_may_be_texts():
    data = {"id": np.array([f"row {i}" for i in range(1000)], object), "x": X}
    for given in (data, tf.data.Dataset.from_tensor_slices(data).batch(64)):
        assert drawn(given, 100, arranged=lambda x: x["x"]) == drawn(X, 100)


def test_fewer_samples_than_wanted_are_all():
    assert sorted(drawn(X[:7], 100)) == list(range(7))


def test_reading_ends_where_data_does_not():
    def endless():
        for i in itertools.count():
            yield np.full((10, 1), i, "float32")

    assert max(drawn(endless, 20, most_read=300)) < 30
    assert len(drawn(tf.data.Dataset.from_tensors(X[:10]).repeat(), 20, most_read=500)) == 20


def test_how_much_is_read(monkeypatch):
    dataset = read(FORMS["dataset"], "data")
    assert spread(read(X, "data"), 9, most_read=100)[1] == 1000  # of arrays only what is drawn
    assert spread(dataset, 9)[1] == 1000
    assert spread(dataset, 9, most_read=100)[1] == 128
    # Few large samples will do.
    monkeypatch.setattr("tfpeft.export.samples._FEWEST_READ", 300)
    monkeypatch.setattr("tfpeft.export.samples._BYTES_READ", 4 * 350)
    assert spread(dataset, 9)[1] == 384
    monkeypatch.setattr("tfpeft.export.samples._BYTES_READ", 8)
    assert spread(dataset, 9)[1] == 320


def test_batches_with_an_index_are_read_from_first_to_last():
    samples, count = spread(read(Batches(), "data"), 300, most_read=300)
    assert count == len(samples) == 300
    assert {int(array[0, 0]) // 100 for (array,) in samples} == {0, 4, 9}


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (lambda: iter([]), "data with samples"),
        (tf.data.Dataset.from_tensors(X).take(0), "data with samples"),
        (np.where(X == 900, np.nan, X), "finite numbers"),
        (tf.data.Dataset.from_tensors(np.where(X == 900, np.inf, X)), "finite numbers"),
    ],
)
def test_bad_data_raises(data, message):
    with pytest.raises(tfpeft.InputError, match=f"`representative_data`, expected {message}"):
        drawn(data, 10)


def test_samples_of_other_lengths_are_stacked_apart():
    data = [np.zeros((2, n, 3), "float32") for n in (4, 7, 4)]
    samples, _ = spread(read(lambda: iter(data), "data"), 10)
    shapes = {array.shape[1:] for (array,) in stacked(samples)}
    assert shapes == {(4, 3), (7, 3)}
    assert sum(len(array) for (array,) in stacked(samples)) == 6
