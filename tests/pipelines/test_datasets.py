"""What `--dataset` can name, and how it becomes train, validation and test data."""

import keras
import numpy as np
import pytest

from pipelines import data


def test_digits_and_their_splits():
    splits = data.load("digits")
    sizes = [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")]
    assert sizes == [1293, 144, 360]
    assert splits.classes == 10
    assert splits.train[0].shape[1:] == (8, 8, 1)
    assert splits.train[0].max() == 1.0
    again = data.load("digits")
    np.testing.assert_array_equal(splits.test[0], again.test[0])


def test_named_images_are_scaled_and_get_a_channel(tmp_path):
    x = np.random.default_rng(0).integers(0, 256, (40, 5, 5)).astype("uint8")
    y = np.arange(40) % 2
    np.savez(tmp_path / "mnist.npz", x_train=x, y_train=y, x_test=x, y_test=y)
    splits = data.load("mnist", data_dir=tmp_path)
    np.testing.assert_allclose(splits.test[0], x[..., None] / 255.0, rtol=1e-6)
    raw = data.load(str(tmp_path / "mnist.npz"))
    np.testing.assert_array_equal(raw.test[0], x)


def test_own_validation_data_is_used(tmp_path):
    x, y = np.arange(40.0).reshape(20, 2), np.arange(20) % 2
    arrays = {f"{a}_{s}": v for s in ("train", "test", "val") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "a.npz", **{**arrays, "x_val": x[:4], "y_val": np.eye(2)[y[:4]]})
    splits = data.load(str(tmp_path / "a.npz"))
    assert [len(splits.train[1]), len(splits.validation[1])] == [20, 4]
    np.testing.assert_array_equal(splits.validation[1], y[:4])


def test_training_data_sorted_by_class_is_mixed(tmp_path):
    x, y = np.arange(400.0).reshape(200, 2), np.repeat([0, 1], 100)
    arrays = {f"{a}_{s}": v for s in ("train", "test", "val") for a, v in (("x", x), ("y", y))}
    np.savez(tmp_path / "a.npz", **arrays)
    x_train, y_train = data.load(str(tmp_path / "a.npz")).train
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
    splits = data.load(str(tmp_path), image_size=8)
    assert splits.test[0].shape == (8, 8, 8, 3)
    means = splits.train[0].mean(axis=(1, 2, 3))
    np.testing.assert_array_equal(means > 0.5, splits.train[1] == 1)


def test_a_function_may_return_datasets(tmp_path, monkeypatch):
    (tmp_path / "my_data.py").write_text(
        "import numpy as np, tensorflow as tf\n"
        "x, y = np.zeros((8, 3)), np.arange(8) % 2\n"
        "def load():\n"
        "    batches = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)\n"
        "    return batches, (x[:2], y[:2]), [x[:4], y[:4]]\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    splits = data.load("my_data:load")
    sizes = [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")]
    assert sizes == [8, 2, 4]


def test_data_takes_the_shape_of_the_model():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(10)])
    assert data.load("digits").for_model(model).test[0].shape == (360, 64)
    swapped = keras.Sequential(
        [keras.Input((4, 16)), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    with pytest.raises(ValueError, match=r"\(4, 16\).*\(8, 8, 1\)"):
        data.load("digits").for_model(swapped)
