"""Datasets that are streamed: their labels, splits and checks, and random changes of images."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from pipelines.common import datasets, samples, streams
from pipelines.common.request import Request
from pipelines.common.samples import Stream
from tfpeft.core.arguments import InputError
from tfpeft.core.checks import input_errors
from tfpeft.core.data import read

CODE = """
import keras, numpy as np, tensorflow as tf

rng = np.random.default_rng(0)
y = rng.integers(0, 3, 100)
x = np.arange(300, dtype="uint16").reshape(100, 3)


def dataset(*parts, batch=None):
    made = tf.data.Dataset.from_tensor_slices(parts)
    return made.batch(batch) if batch else made


class Tens(keras.utils.PyDataset):
    def __len__(self):
        return 10

    def __getitem__(self, i):
        return x[10 * i : 10 * i + 10], y[10 * i : 10 * i + 10]


def numbers():
    return dataset(x, y)


def batches():
    return dataset(x, y, batch=32)


def one_hot():
    return dataset(x, np.eye(3, dtype="float32")[y], batch=10)


def names():
    return dataset(x, np.array(["cat", "dog", "eel"])[y])


def given():
    return dataset(x, y), (x[:10], y[:10])


def py_dataset():
    return Tens()


def weighted():
    return dataset(x, y, x[:, 0] + 1.0)


def several():
    return dataset({"a": x, "b": x[:, 0]}, {"p": y / 2, "q": x[:, :2]})


def inputs():
    return dataset(x.astype("float32"))


def targets():
    return dataset(x, x[:, 0] / 7)


def sorted_by_class():
    return dataset(np.zeros((1200, 2)), np.repeat([0, 1, 2], 400))


def shuffled():
    return dataset(x, y).shuffle(10)


def with_nan():
    return dataset(np.where(np.arange(100)[:, None] == 70, np.nan, x), y)


def ragged():
    return dataset(x, y).map(lambda x, y: (tf.py_function(lambda x: x, [x], tf.uint16), y))


def texts():
    return dataset(np.array(["a b", "c"])[y % 2], y)
"""


@pytest.fixture
def code(tmp_path, monkeypatch):
    """The functions of a user, in the module `my_streams`."""
    (tmp_path / "my_streams.py").write_text(CODE)
    monkeypatch.syspath_prepend(tmp_path)


def load(name, **arguments):
    return datasets.load(f"my_streams:{name}", cache="none", **arguments)


def arrays(split):
    assert isinstance(split, Stream)
    return read(split.batches()).arrays()


SPLITS = ("train", "validation", "test")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("numbers", "class numbers"),
        ("batches", "class numbers"),
        ("one_hot", "one-hot rows"),
        ("names", "names"),
        ("py_dataset", "class numbers"),
    ],
)
def test_a_stream_is_divided_by_position(code, name, kind):
    data = load(name)
    assert (data.classes, data.kind) == (3, kind)
    assert "of shape (3,), values 6 to 299 (streamed); one class per sample" in str(data)
    assert data.names == (("cat", "dog", "eel") if kind == "names" else ("0", "1", "2"))
    parts = [arrays(getattr(data, split)) for split in SPLITS]
    rows = [(part.x[:, 0] / 3).astype(int) for part in parts]
    position = np.arange(100)
    rest = position[position % 5 != 0]
    np.testing.assert_array_equal(rows[2], position[::5])
    np.testing.assert_array_equal(rows[1], rest[::10])
    np.testing.assert_array_equal(rows[0], np.setdiff1d(rest, rest[::10]))
    y = np.random.default_rng(0).integers(0, 3, 100)
    for part, numbers in zip(parts, rows, strict=True):
        np.testing.assert_array_equal(part.y, y[numbers])
        assert (part.x.dtype, part.y.dtype) == ("float32", "int64")
    assert [samples.count(getattr(data, split)) for split in SPLITS] == [72, 8, 20]


def test_given_splits_stay_and_training_data_is_shuffled_in_batches(code):
    data = load("given")
    np.testing.assert_array_equal(arrays(data.test).x[:, 0], np.arange(0, 30, 3))
    batches = samples.fit_arguments(data.train, 32, seed=1)["x"]
    first, again = ([batch[0].numpy() for batch in batches] for _ in range(2))
    assert [len(batch) for batch in first] == [32, 32, 26]
    assert int(batches.cardinality()) == 3
    assert not np.array_equal(first[0], again[0])
    np.testing.assert_array_equal(
        np.sort(np.concatenate(first)[:, 0]), np.sort(arrays(data.train).x[:, 0])
    )


def test_precomputed_outputs_are_shuffled_with_their_samples(code):
    data = load("given").train
    batches = samples.as_data(data, 32)
    joined = tfpeft.precompute(lambda x: 2 * x, batches).join(batches)
    arguments = samples.fit_arguments(joined, 32, seed=1)
    first = next(iter(arguments["x"]))[0]
    assert (int(arguments["x"].cardinality()), arguments["shuffle"]) == (3, False)
    np.testing.assert_array_equal(2 * first.inputs, first.teacher["outputs"][0])
    assert not np.array_equal(first.inputs, next(iter(batches))[0])


def test_weights_several_inputs_and_data_without_labels(code):
    weighted = arrays(load("weighted").test)
    np.testing.assert_array_equal(weighted.sample_weight, weighted.x[:, 0] + 1)
    inputs = {"a": keras.Input((3,), name="a"), "b": keras.Input((1,), name="b", dtype="int32")}
    hidden = keras.layers.Concatenate()(list(inputs.values()))
    outputs = {"p": keras.layers.Dense(1)(hidden), "q": keras.layers.Dense(2)(hidden)}
    model = keras.Model(inputs, outputs)
    data = load("several", model=model, request=Request(task="regression"))
    assert data.task == {"p": "regression", "q": "regression"}
    batch = arrays(data.train)
    assert {k: (v.shape[1:], v.dtype.name) for k, v in batch.x.items()} == {
        "a": ((3,), "float32"),
        "b": ((1,), "int32"),
    }
    np.testing.assert_array_equal(batch.y["q"], batch.x["a"][:, :2])
    data = load("inputs")
    batch = arrays(data.validation)
    assert data.task == "reconstruction"
    np.testing.assert_array_equal(batch.x, batch.y)
    data = load("targets")
    assert (data.task, arrays(data.test).y.dtype) == ("regression", "float32")


def test_labels_of_a_model_are_checked_while_they_are_read(code, monkeypatch):
    def never(*_):
        raise AssertionError("the stream was read")

    monkeypatch.setattr(streams, "_values", never)
    two = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    data = load("numbers", model=two)
    with (
        pytest.raises(InputError, match="labels among the classes.*train data with 2$"),
        input_errors(),
    ):
        arrays(data.train)
    three = load("names", classes=["dog", "eel", "cat"])
    y = np.random.default_rng(0).integers(0, 3, 100)
    np.testing.assert_array_equal(arrays(three.test).y, (y[::5] + 2) % 3)
    with (
        pytest.raises(InputError, match="finite numbers.*with_nan, train data with NaN"),
        input_errors(),
    ):
        arrays(load("with_nan", classes=["3"]).test)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("sorted_by_class", "first samples are of several classes.*sorted by label"),
        ("shuffled", "not shuffled.*again in every epoch.*my_streams:shuffled, train data"),
        ("ragged", "samples of one known shape.*my_streams:ragged, train data"),
        ("texts", "numbers as inputs.*my_streams:texts, train data of type string"),
    ],
)
def test_streams_that_cannot_be_used(code, name, message):
    with pytest.raises(InputError, match=message):
        load(name)


def test_datasets_of_few_bytes_are_held(code, monkeypatch):
    assert isinstance(datasets.load("my_streams:numbers").train, tuple)
    monkeypatch.setattr("pipelines.common.returned.HELD_BYTES", 100 * (3 * 2 + 8) - 1)
    assert isinstance(datasets.load("my_streams:numbers").train, Stream)
    assert isinstance(datasets.load("my_streams:numbers", cache="memory").train, tuple)
    with pytest.raises(InputError, match="--cache, which --dataset=digits does not read"):
        datasets.load("digits", cache="none")


def test_batches_and_buffers_have_a_limit_in_bytes(monkeypatch):
    source = tf.data.Dataset.range(64).map(lambda i: (tf.zeros((256, 1024)), i))
    stream = Stream(source, 64)
    assert next(iter(stream.batches()))[0].shape[0] == 31  # of 1 MB each
    assert samples.shuffled(source.element_spec) == 127
    monkeypatch.setattr(samples, "_SHUFFLED_BYTES", 2**22)
    assert len(samples.some(stream, 1000).y) == 3


def test_training_images_change_and_others_stay(tmp_path):
    x = np.zeros((40, 8, 8, 3), "uint8")
    x[:, :, :2] = np.arange(40)[:, None, None, None] + 100  # the left quarter is bright
    y = np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    dataset = str(tmp_path / "a.npz")
    data = datasets.load(dataset, augment=["flip"], pixel_range=["0", "1"])
    plain = arrays(data.train)
    batches = samples.fit_arguments(data.train, 36, seed=3)["x"]
    epochs = [next(iter(batches)) for _ in range(2)]
    assert (data.train.varies, type(data.test)) == (True, tuple)
    assert plain.x[:, :, 5:].max() == 0
    for images, labels in epochs:
        is_left, is_right = (images.numpy()[:, 0, side, 0] > 0.3 for side in (0, -1))
        assert 5 < is_left.sum() < 31
        assert np.all(is_left != is_right)
        numbers = np.round(images.numpy().max(axis=(1, 2, 3)) * 255) - 100
        np.testing.assert_array_equal(labels, numbers % 2)
    flat = data.with_inputs(lambda images: tf.reshape(images, (-1, 192)))
    assert next(iter(samples.fit_arguments(flat.train, 4, seed=0)["x"]))[0].shape == (4, 192)
    changed = datasets.load(dataset, augment=["crop", "color"])
    images, _ = next(iter(samples.fit_arguments(changed.train, 36, seed=3)["x"]))
    assert images.numpy().min() >= 0
    assert images.numpy().max() <= 255
    assert len(np.unique(np.round(images.numpy().max(axis=(1, 2, 3))))) > 20
    again, _ = next(iter(samples.fit_arguments(changed.train, 36, seed=3)["x"]))
    np.testing.assert_array_equal(images, again)


def test_what_cannot_be_augmented(tmp_path):
    x, y = np.ones((40, 6, 6, 1)), np.arange(40) % 2
    np.savez(tmp_path / "a.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    with pytest.raises(InputError, match="--augment, expected flip or crop.*=flip,color"):
        datasets.load(str(tmp_path / "a.npz"), augment=["flip", "color"])
    np.savez(tmp_path / "b.npz", x_train=x[:, 0], y_train=y, x_test=x[:, 0], y_test=y)
    with pytest.raises(InputError, match=r"images \(height.*for --augment=flip.*b.npz of \(6, 1\)"):
        datasets.load(str(tmp_path / "b.npz"), augment=["flip"])
