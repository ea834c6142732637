"""The bootstrap: intervals against known errors, weights, and streams of any batches."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.evaluation import ranks
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.quality import measure_quality
from tfpeft.evaluation.resampling import GROUPS, Groups, Sums, interval
from tfpeft.evaluation.subjects import KerasSubject
from tfpeft.evaluation.tasks import TASKS

rng = np.random.default_rng(0)


def two_classes(samples, right):
    """Returns labels of 0 and 1, and logits of which a share is right, in the order of labels."""
    y = np.sort(rng.integers(0, 2, samples))
    hit = rng.random(samples) < right
    return y, np.where(hit == (y == 1), 1.0, -1.0)[:, None] * rng.random((samples, 1))


@pytest.mark.parametrize("samples", [400, 20_000])
def test_an_interval_is_two_standard_errors_wide(samples):
    """Below and above the number of groups; sorted labels do not make it narrower."""
    y, z = two_classes(samples, 0.8)
    found = TASKS["binary"].figures(y, z, Outputs("logits", 1))
    low, high = interval(found.replicates["accuracy"])
    accuracy = np.mean((z[:, 0] > 0) == y)
    error = np.sqrt(accuracy * (1 - accuracy) / samples)
    assert (high - low) / (2 * 1.96 * error) == pytest.approx(1, abs=0.1)
    assert (high + low) / 2 == pytest.approx(accuracy, abs=error / 4)
    # Hanley and McNeil's error of the area, for scores of two exponential distributions, is close.
    low, high = interval(found.replicates["auc"])
    assert low < found.values["auc"] < high
    assert 0.5 * error < (high - low) / 4 < 2 * error


def test_the_interval_of_an_area_is_that_of_delong():
    y = rng.integers(0, 2, 500)
    z = rng.normal(size=(500, 1)) + y[:, None]
    found = TASKS["binary"].figures(y, z, Outputs("logits", 1))
    a, b = z[y == 1], z[y == 0, 0]
    shares = (a > b).astype(float)
    error = np.sqrt(shares.mean(1).var(ddof=1) / len(a) + shares.mean(0).var(ddof=1) / len(b))
    assert np.std(found.replicates["auc"]) == pytest.approx(error, rel=0.1)


def test_a_weight_of_two_is_a_sample_twice():
    y, z = rng.integers(0, 3, 50), rng.normal(size=(50, 3))
    weight = rng.integers(0, 3, 50)
    outputs = Outputs("logits", 3)
    weighted = TASKS["classification"].figures(y, z, outputs, weight)
    repeated = TASKS["classification"].figures(y.repeat(weight), z.repeat(weight, 0), outputs)
    assert weighted.values == pytest.approx(repeated.values)
    np.testing.assert_allclose(weighted.confusion_matrix, repeated.confusion_matrix)


def test_samples_beyond_the_groups_join_one_at_random():
    groups = Groups()
    first = np.concatenate([groups.take(1500), groups.take(1500)])
    np.testing.assert_array_equal(first[:GROUPS], np.arange(GROUPS))
    assert 500 < len(np.unique(first[GROUPS:])) < 900  # some twice
    sums = Sums(2)
    values = rng.normal(size=(3000, 2))
    sums.add_rows(0, first, values)
    np.testing.assert_allclose(sums.total(), values.sum(0))
    expected = [values[first == group].sum(0) for group in range(GROUPS)]
    np.testing.assert_allclose(sums.rows, expected, atol=1e-12)


def test_the_area_of_a_part_of_the_samples(monkeypatch):
    monkeypatch.setattr(ranks, "MOST_SCORES", 3000)
    y, z = two_classes(20_000, 0.8)
    found = TASKS["binary"].figures(y, z, Outputs("logits", 1))
    monkeypatch.undo()
    all_of_it = TASKS["binary"].figures(y, z, Outputs("logits", 1))
    assert found.values["auc"] == pytest.approx(all_of_it.values["auc"], abs=0.03)
    assert found.notes == ("auc of 3,000 random samples of 20,000",)
    assert all_of_it.notes == ()


def test_many_classes_have_totals():
    y, z = rng.integers(0, 1200, 100), rng.normal(size=(100, 1200))
    found = TASKS["classification"].figures(y, z, Outputs("logits", 1200))
    assert found.confusion_matrix is None
    assert "f1" in found.values
    assert "f1" not in found.replicates
    assert "accuracy" in found.replicates
    assert any("1,000" in note for note in found.notes)


X = rng.normal(size=(300, 4)).astype("float32")
Y = np.argmax(X[:, :3] + 0.5 * rng.normal(size=(300, 3)), axis=1)


def net(noise=0.0):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
    kernel = np.eye(4, 3) + noise * np.random.default_rng(1).normal(size=(4, 3))
    model.set_weights([kernel, np.zeros(3)])
    return model


class Batches(keras.utils.PyDataset):
    """Batches of 50 samples, in another order at every pass."""

    passes = 0

    def __len__(self):
        return 6

    def __getitem__(self, index):
        Batches.passes += index == 0
        order = np.random.default_rng(Batches.passes).permutation(300)
        rows = order[50 * index : 50 * index + 50]
        return X[rows], Y[rows]


def test_data_of_any_batches_has_equal_figures_and_is_read_once():
    subjects = {name: KerasSubject(net()) for name in ("a", "b")}
    expected = measure_quality(subjects, (X, Y))[0]["a"][None]
    shuffled = tf.data.Dataset.from_tensor_slices((X, Y)).shuffle(300).batch(7)
    for data in (Batches(), shuffled):
        a, b = (found[None] for found in measure_quality(subjects, data)[0].values())
        assert a.values == pytest.approx(expected.values, rel=1e-5)
        # Of each sample both have the same.
        np.testing.assert_array_equal(a.replicates["accuracy"], b.replicates["accuracy"])
    assert Batches.passes == 1


def test_the_difference_of_two_rows_is_paired():
    compared = tfpeft.compare({"good": net(), "like it": net(0.05), "bad": net(3.0)}, (X, Y))
    hits = {
        name: (net(noise).predict(X, verbose=0).argmax(1) == Y).astype(float)
        for name, noise in (("good", 0.0), ("like it", 0.05), ("bad", 3.0))
    }
    for name in ("like it", "bad"):
        found = compared.difference(name, "good")
        each = hits[name] - hits["good"]
        assert found.metric == "accuracy"
        assert found.value == pytest.approx(each.mean())
        error = each.std() / np.sqrt(300)
        assert np.diff(found.interval)[0] == pytest.approx(2 * 1.96 * error, rel=0.15)
    assert not compared.difference("like it", "good").is_clear
    assert compared.difference("bad", "good").is_clear
    lines = str(compared).splitlines()
    assert any(line.startswith("like it: accuracy ") and "no clear" in line for line in lines)
    assert any(line.startswith("bad: accuracy -") and "no clear" not in line for line in lines)
    assert compared.difference("bad", "good", "loss").value > 0
    for arguments, message in [
        (("none", "good"), "`a`, expected one of good, like it, bad"),
        (("bad", "none"), "`b`, expected one of"),
        (("bad", "good", "rmse"), "`metric`, expected one of accuracy, .*have an interval"),
    ]:
        with pytest.raises(tfpeft.InputError, match=message):
            compared.difference(*arguments)
    row = json.loads(compared.to_json())["good"]
    assert row["intervals"]["accuracy"] == list(compared["good"].intervals["accuracy"])
    assert row["confusion_matrix"] == compared["good"].confusion_matrix.astype(int).tolist()
