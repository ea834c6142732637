"""What `--dataset` can name, and how it becomes train, validation and test data."""

import keras
import numpy as np
import pytest

from pipelines.common import datasets
from tfpeft.core.arguments import InputError


def test_digits_and_their_splits():
    splits = datasets.load("digits")
    sizes = [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")]
    assert sizes == [1293, 144, 360]
    assert splits.classes == 10
    assert splits.train[0].shape[1:] == (8, 8, 1)
    assert splits.train[0].max() == 1.0
    again = datasets.load("digits")
    np.testing.assert_array_equal(splits.test[0], again.test[0])


def test_named_images_are_scaled_and_get_a_channel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 5)).astype("uint8")
    y = np.arange(40) % 2
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    splits = datasets.load("mnist", data_dir=tmp_path)
    np.testing.assert_allclose(splits.test[0], x[..., None] / 255.0, rtol=1e-6)
    raw = datasets.load(str(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(raw.test[0], x)


def test_own_validation_data_is_used(tmp_path):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    arrays = {f"{a}_{s}": v for s in ("train", "test", "val") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "a.npz", **{**arrays, "x_val": x[:4], "y_val": np.eye(2)[y[:4]]})
    splits = datasets.load(str(tmp_path / "a.npz"))
    assert [len(splits.train[1]), len(splits.validation[1])] == [20, 4]
    np.testing.assert_array_equal(splits.validation[1], y[:4])


def test_training_data_sorted_by_class_is_mixed(tmp_path):
    x, y = np.arange(400.0).reshape(200, 2), np.repeat([0, 1], 100)
    arrays = {f"{a}_{s}": v for s in ("train", "test", "val") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "a.npz", **arrays)
    x_train, y_train = datasets.load(str(tmp_path / "a.npz")).train
    assert 0.3 < y_train[:50].mean() < 0.7
    np.testing.assert_array_equal(np.sort(x_train[:, 0]), x[:, 0])
    np.testing.assert_array_equal(y_train, x_train[:, 0] >= 200)  # each with its own label


def test_a_folder_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for name, brightness in (("dark", 20), ("light", 220)):
        (tmp_path / name).mkdir()
        for i in range(20):
            pixels = np.clip(rng.normal(brightness, 5, (12, 10, 3)), 0, 255)
            keras.utils.save_img(tmp_path / name / f"{i}.png", pixels, scale=False)
    splits = datasets.load(str(tmp_path), image_size=8)
    assert splits.test[0].shape == (8, 8, 8, 3)
    means = splits.train[0].mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(means > 0.5, splits.train[1] == 1)


FUNCTIONS = """
import keras, numpy as np, tensorflow as tf

x, y = np.arange(24.0).reshape(8, 3), np.arange(8) % 2
batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)


class Halves(keras.utils.PyDataset):
    def __len__(self):
        return 2

    def __getitem__(self, i):
        return x[4 * i : 4 * i + 4], y[4 * i : 4 * i + 4]


def load():
    return batches, (x[:2], y[:2]), [x[:4], y[:4]]


def halves():
    return Halves(), Halves(), Halves()


def two():
    return (x, y), (x, y)


def endless():
    return batches.repeat(), (x, y), (x, y)


def weighted():
    return (x, y, y), (x, y), (x, y)


def unlabelled():
    return batches.map(lambda x, y: x), (x, y), (x, y)


def named():
    return ({"a": x}, y), (x, y), (x, y)
"""


@pytest.fixture
def functions(tmp_path, monkeypatch):
    """Functions of a user, in the module `my_data`."""
    (tmp_path / "my_data.py").write_text(FUNCTIONS)
    monkeypatch.syspath_prepend(tmp_path)


@pytest.mark.parametrize(("name", "counts"), [("load", [8, 2, 4]), ("halves", [8, 8, 8])])
def test_a_function_may_return_datasets(functions, name, counts):
    splits = datasets.load(f"my_data:{name}")
    assert [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")] == counts
    x, y = splits.train
    np.testing.assert_array_equal(np.sort(x[:, 0]), np.arange(0.0, 24.0, 3.0))
    np.testing.assert_array_equal(y, (x[:, 0] / 3) % 2)  # each with its own label


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("two", "train, validation and test data.*=my_data:two, which returns a tuple of 2"),
        ("endless", r"repeats without an end.*=my_data:endless, train data"),
        ("weighted", r"samples \(x, y\).*=my_data:weighted, train data"),
        ("unlabelled", r"samples \(x, y\).*=my_data:unlabelled, train data"),
        ("named", r"samples \(x, y\).*=my_data:named, train data"),
        ("none", "module:function.*my_data:none"),
    ],
)
def test_what_a_function_may_not_return(functions, name, message):
    with pytest.raises(InputError, match=message):
        datasets.load(f"my_data:{name}")


def test_data_takes_the_shape_of_the_model():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    assert datasets.load("digits").for_model(model).test[0].shape == (360, 64)
    swapped = keras.Sequential(
        [keras.Input((4, 16)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(InputError, match=r"\(4, 16\).*\(8, 8, 1\)"):
        datasets.load("digits").for_model(swapped)


class TwoOutputs(keras.Model):
    def call(self, x):
        return [x, x]


class Flat(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(10)
        self.dense.build((None, 64))

    def call(self, x):
        return self.dense(x)


def test_models_that_do_not_take_the_data():
    data = datasets.load("digits")
    with pytest.raises(InputError, match="one output.*outputs in a list"):
        data.for_model(TwoOutputs())
    with pytest.raises(InputError, match=r"does not take inputs of shape \(8, 8, 1\)"):
        data.for_model(Flat())
