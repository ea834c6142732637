"""Data of several tasks as one dataset: proportions, order, epochs, and bad input."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft


def numbered(count, start=0):
    """Samples that carry their number, and labels that follow from it."""
    numbers = np.arange(start, start + count)
    return np.stack([numbers, -numbers], axis=1).astype("float32"), numbers % 7


def rows_of(mixed, kind=1):
    """Returns {task: an array of all rows} of an epoch; kind 0 are inputs, 1 labels."""
    batches = list(mixed.as_numpy_iterator())
    parts = [batch[0].by_task if kind == 0 else batch[kind] for batch in batches]
    return {task: np.concatenate([part[task] for part in parts]) for task in parts[0]}


@pytest.mark.parametrize(
    ("sizes", "options", "rows"),
    [
        ((90, 30), {}, (6, 2)),
        ((8530, 11293), {"batch_size": 32}, (14, 18)),  # 13.77 and 18.23
        ((50, 30, 20), {"batch_size": 11}, (6, 3, 2)),  # 5.5, 3.3 and 2.2
        ((90, 30), {"sampling": "uniform"}, (4, 4)),
        ((81, 9), {"sampling": "temperature"}, (6, 2)),  # 9 to 3 by square roots
        ((64, 1), {"sampling": "temperature", "temperature": 3.0, "batch_size": 10}, (8, 2)),
        ((81, 9), {"sampling": "temperature", "temperature": 1.0, "batch_size": 10}, (9, 1)),
        ((1000, 1), {}, (7, 1)),  # one at least
        ((1000, 1, 1, 1), {"batch_size": 4}, (1, 1, 1, 1)),
    ],
)
def test_rows_of_each_task_in_a_batch(sizes, options, rows):
    data = {f"task{i}": numbered(size) for i, size in enumerate(sizes)}
    mixed = tfpeft.mix_tasks(data, **{"batch_size": 8, **options})
    inputs, labels = mixed.element_spec
    assert tuple(spec.shape[0] for spec in inputs.by_task.values()) == rows
    assert tuple(spec.shape[0] for spec in labels.values()) == rows
    assert len(mixed) == -(-sum(sizes) // options.get("batch_size", 8))


def test_proportional_sampling_shows_each_sample_about_once_an_epoch():
    mixed = tfpeft.mix_tasks({"large": numbered(90), "small": numbered(30, 1000)}, batch_size=8)
    seen = rows_of(mixed, kind=0)
    assert sorted(seen["large"][:, 0]) == list(range(90))
    assert sorted(seen["small"][:, 0]) == list(range(1000, 1030))


def test_uniform_sampling_repeats_small_data_and_splits_large():
    data = {"large": numbered(90), "small": numbered(10)}
    mixed = tfpeft.mix_tasks(data, sampling="uniform", batch_size=10)
    first, second = (rows_of(mixed, kind=0) for _ in range(2))
    _, counts = np.unique(first["small"][:, 0], return_counts=True)
    assert counts.tolist() == [5] * 10
    assert len(np.unique(first["large"][:, 0])) == 50
    assert set(first["large"][:, 0]) != set(second["large"][:, 0])


def test_labels_and_weights_stay_with_their_samples():
    x, y = numbered(40)
    data = {"weighted": (x, y, y / 10), "plain": ({"a": x, "b": 2 * x}, y)}
    for inputs, labels, weights in tfpeft.mix_tasks(data, batch_size=10).as_numpy_iterator():
        assert np.all(inputs.by_task["weighted"][:, 0] % 7 == labels["weighted"])
        np.testing.assert_allclose(weights["weighted"], labels["weighted"] / 10)
        plain = inputs.by_task["plain"]
        assert np.all(plain["a"][:, 0] % 7 == labels["plain"])
        np.testing.assert_array_equal(plain["b"], 2 * plain["a"])
        assert np.all(weights["plain"] == 1.0)


@pytest.mark.parametrize("global_seed", [0, 1])
@pytest.mark.parametrize("kind", ["arrays", "dataset"])
@pytest.mark.parametrize("sampling", ["proportional", "uniform", "temperature"])
def test_a_seed_sets_the_order_of_every_epoch(sampling, kind, global_seed):
    def epochs(seed):
        tf.random.set_seed(global_seed)
        data = {"a": numbered(50), "b": numbered(20)}
        if kind == "dataset":
            data["a"] = tf.data.Dataset.from_tensor_slices(data["a"]).batch(8)
        mixed = tfpeft.mix_tasks(data, sampling=sampling, batch_size=7, seed=seed)
        return [rows_of(mixed, kind=0)["a"] for _ in range(2)]

    (first, second), again = epochs(3), epochs(3)
    np.testing.assert_array_equal([first, second], again)
    assert np.any(first != second)
    assert np.any(first != epochs(4)[0])


def test_for_evaluation_every_sample_comes_once_and_in_order():
    data = {"a": numbered(50), "b": numbered(5, 100), "c": (numbered(9)[0], np.ones((9, 2)))}
    mixed = tfpeft.mix_tasks(data, sampling=None, batch_size=8)
    labels, inputs = rows_of(mixed), rows_of(mixed, kind=0)
    for task, (x, y) in data.items():
        present = ~np.isnan(labels[task].reshape(len(labels[task]), -1)).any(axis=1)
        np.testing.assert_array_equal(labels[task][present], y)
        np.testing.assert_array_equal(inputs[task][present], x)
    assert len(labels["a"]) > 50 - 8
    assert np.isnan(labels["b"]).any()


def test_datasets_of_batches_are_batched_again():
    x, y = numbered(33)
    dataset = tf.data.Dataset.from_tensor_slices((x, y)).batch(5)
    mixed = tfpeft.mix_tasks({"a": dataset, "b": numbered(11)}, batch_size=8)
    assert len(mixed) == 6  # 44 samples
    assert mixed.element_spec[0].by_task["a"].shape == (6, 2)
    once = rows_of(tfpeft.mix_tasks({"a": dataset}, sampling=None, batch_size=8), kind=0)
    np.testing.assert_array_equal(once["a"], x)


class Batches(keras.utils.PyDataset):
    """The samples of arrays, four at a time."""

    def __init__(self, x, y):
        super().__init__()
        self.x, self.y = x, y

    def __len__(self):
        return -(-len(self.y) // 4)

    def __getitem__(self, i):
        rows = slice(4 * i, 4 * i + 4)
        return {"a": [self.x[rows], {"b": 2 * self.x[rows]}]}, self.y[rows]


def test_a_pydataset_and_a_dataset_of_its_batches_are_mixed_alike():
    x, y = numbered(33)
    nested = {"a": [x, {"b": 2 * x}]}
    dataset = tf.data.Dataset.from_tensor_slices(({"a": (x, {"b": 2 * x})}, y)).batch(4)
    first, second = (
        list(tfpeft.mix_tasks({"a": data, "b": numbered(11)}, batch_size=8).as_numpy_iterator())
        for data in (Batches(x, y), dataset)
    )
    for batch, other in zip(first, second, strict=True):
        tf.nest.map_structure(np.testing.assert_array_equal, batch, other)
    once = tfpeft.mix_tasks({"a": (nested, y)}, sampling=None, batch_size=8)
    for inputs, labels in once.as_numpy_iterator():
        plain, doubled = inputs.by_task["a"]["a"][0], inputs.by_task["a"]["a"][1]["b"]
        np.testing.assert_array_equal(2 * plain, doubled)
        assert np.all((plain[:, 0] % 7 == labels["a"]) | np.isnan(labels["a"]))


def test_a_list_of_inputs_stays_several_inputs():
    x, y = numbered(9)
    mixed = tfpeft.mix_tasks({"a": ([x, x[:, :1]], y)}, batch_size=3)
    assert [spec.shape for spec in mixed.element_spec[0].by_task["a"]] == [(3, 2), (3, 1)]


def test_every_part_of_a_large_dataset_is_sampled():
    x = np.arange(30_000)
    large = tf.data.Dataset.from_tensor_slices((x, x)).batch(1000)
    data = {"large": large, "small": numbered(100)}
    mixed = tfpeft.mix_tasks(data, sampling="uniform", batch_size=1000)
    seen = np.concatenate([rows_of(mixed)["large"] for _ in range(6)])
    assert (np.bincount(seen // 3000, minlength=10) > 0).all()


def test_texts_of_unknown_length_are_padded_with_zeros():
    def batches():
        for length in (3, 5):
            yield np.full((2, length), length, "int32"), np.full(2, length, "int64")

    spec = (tf.TensorSpec((None, None), tf.int32), tf.TensorSpec((None,), tf.int64))
    dataset = tf.data.Dataset.from_generator(batches, output_signature=spec)
    mixed = tfpeft.mix_tasks({"a": dataset}, sampling=None, batch_size=4)
    ((inputs, labels),) = mixed.as_numpy_iterator()
    assert labels["a"].tolist() == [3, 3, 5, 5]
    assert inputs.by_task["a"].tolist() == [[3, 3, 3, 0, 0]] * 2 + [[5] * 5] * 2


@pytest.mark.parametrize(
    ("data", "options", "message"),
    [
        ({}, {}, "`data`, expected {task: data}"),
        ([numbered(3)], {}, "`data`, expected {task: data}"),
        (
            {"a": numbered(0)},
            {},
            r"data\['a'\]`, expected data with samples, one or more",
        ),
        (
            {"a": (numbered(3)[0], [1, 2])},
            {},
            r"data\['a'\].*expected as many samples as labels. Received: a tuple, of 3 and 2",
        ),
        ({"a": numbered(3)[0]}, {}, r"data\['a'\]`, expected arrays \(x, y\)"),
        ({"a": (numbered(3)[0],)}, {}, r"data\['a'\]`, expected arrays \(x, y\)"),
        ({"a": numbered(3)}, {"sampling": "size"}, "`sampling`, expected one of 'proportional'"),
        ({"a": numbered(3)}, {"temperature": 2.0}, "`temperature`, expected None unless sampling="),
        (
            {"a": numbered(3)},
            {"sampling": "temperature", "temperature": 0.5},
            "`temperature`, expected a number of at least 1",
        ),
        ({"a": numbered(3)}, {"batch_size": 0}, "`batch_size`, expected an integer of at least 1"),
        ({"a": numbered(3), "b": numbered(3)}, {"batch_size": 1}, "`batch_size`.*at least 2"),
        ({"a": numbered(3)}, {"seed": "x"}, "`seed`"),
        (
            {"a": tf.data.Dataset.from_tensor_slices(numbered(3)).batch(2).repeat()},
            {},
            r"data\['a'\]`, expected a finite dataset",
        ),
        (
            {"a": tf.data.Dataset.from_tensor_slices(numbered(3)[0]).batch(2)},
            {},
            r"data\['a'\]`, expected arrays \(x, y\) or .*, or batches of these",
        ),
        (
            {"a": tf.data.Dataset.from_tensor_slices(numbered(3)).take(0).batch(2)},
            {},
            r"data\['a'\]`, expected data with samples, one or more",
        ),
        (
            {
                "a": tf.data.Dataset.from_tensor_slices(numbered(3))
                .batch(2)
                .filter(lambda x, y: False)
            },
            {},
            r"data\['a'\]`, expected data with samples, one or more",
        ),
        (
            {"a": tf.data.Dataset.from_tensor_slices(numbered(3))},
            {},
            r"data\['a'\]`, expected batches, as of",
        ),
        ({"a": lambda: iter([numbered(3)])}, {}, r"data\['a'\]`, expected data whose end is known"),
        ({"a": (numbered(3)[0], {"b": numbered(3)[1]})}, {}, r"data\['a'\]`.*with y an array"),
        ({"a": (numbered(3)[0], ["x", "y", "z"])}, {}, r"data\['a'\]`.*real numbers.*texts"),
        (
            {"a": tf.data.Dataset.from_tensors((numbered(3)[0], [b"x", b"y", b"z"]))},
            {},
            r"data\['a'\]`.*real numbers.*texts",
        ),
        (
            {"a": (numbered(3)[0], np.zeros(3, "datetime64[s]"))},
            {},
            r"data\['a'\]`.*real numbers.*datetime",
        ),
        ({"a": (numbered(3)[0] + 1j, numbered(3)[1])}, {}, r"data\['a'\]`.*complex numbers"),
    ],
)
def test_bad_input(data, options, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.mix_tasks(data, **options)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_not_finite(bad):
    x, y = numbered(3)
    name = r"`data\['a'\]`, expected finite"
    with pytest.raises(ValueError, match=f"{name} inputs"):
        tfpeft.mix_tasks({"a": ({"p": x, "q": np.full(3, bad)}, y)})
    labels = np.array([0.0, 1.0, bad])
    if np.isnan(bad):  # a missing label
        assert len(list(tfpeft.mix_tasks({"a": (x, labels)})))
        return
    with pytest.raises(ValueError, match=f"{name} labels.*infinity"):
        tfpeft.mix_tasks({"a": (x, labels)})


def test_weights_that_are_not_finite():
    x, y = numbered(4)
    with pytest.raises(ValueError, match=r"`data\['a'\]`, expected finite sample weights"):
        tfpeft.mix_tasks({"a": (x, y, np.array([1.0, np.nan, 1.0, 1.0]))})
