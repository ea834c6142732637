"""`--dataset` that names a folder of images: those of Keras, splits, and what is no image."""

import shutil

import keras
import numpy as np
import pytest

from pipelines.common import datasets
from tfpeft.core.arguments import InputError

COLOURS = {"dark": 20, "light": 220}


def save_photos(folder, count=20, ending="png"):
    """Writes a folder per class of images of noise, 12 high and 10 wide."""
    rng = np.random.default_rng(0)
    for name, brightness in COLOURS.items():
        (folder / name).mkdir(parents=True)
        for i in range(count):
            pixels = np.clip(rng.normal(brightness, 5, (12, 10, 3)), 0, 255)
            keras.utils.save_img(folder / name / f"{i}.{ending}", pixels, scale=False)


def of_keras(folder, size, color_mode="rgb"):
    dataset = keras.utils.image_dataset_from_directory(
        folder, image_size=size, color_mode=color_mode, shuffle=False, verbose=False
    )
    return [np.concatenate(parts) for parts in zip(*dataset.as_numpy_iterator(), strict=True)]


def in_order(x):
    return x.reshape(len(x), -1)[np.lexsort(x.reshape(len(x), -1)[:, :3].T)]


@pytest.mark.parametrize(
    ("shape", "color_mode"),
    [((8, 9, 3), "rgb"), ((8, 9, 1), "grayscale"), ((8, 9, 4), "rgba"), (None, "rgb")],
)
def test_a_folder_of_images_is_that_of_keras(tmp_path, shape, color_mode):
    save_photos(tmp_path)
    model = shape and keras.Sequential(
        [keras.Input(shape), keras.layers.Flatten(), keras.layers.Dense(2)]
    )
    splits = datasets.load(str(tmp_path), model=model)
    x, y = of_keras(tmp_path, (64, 64) if shape is None else shape[:2], color_mode)
    assert [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")] == [28, 4, 8]
    parts = [splits.train, splits.validation, splits.test]
    found = np.concatenate([part[0] for part in parts])
    np.testing.assert_array_equal(in_order(found), in_order(x))
    for pixels, labels in parts:
        np.testing.assert_array_equal(pixels.mean(axis=(1, 2, 3)) > 128, labels == 1)
    assert (splits.names, splits.train[0].max() > 200) == (("dark", "light"), True)
    x, y = datasets.load(str(tmp_path), image_size=8, classes=["light", "dark"]).test
    np.testing.assert_array_equal(x.mean(axis=(1, 2, 3)) < 128, y == 1)


@pytest.mark.parametrize(
    "names", ["train val test", "Training VALID Testing", "train dev", "train test"]
)
def test_folders_of_splits(tmp_path, names):
    names = names.split()
    for count, name in zip((20, 3, 4), names, strict=False):
        save_photos(tmp_path / name, count)
    splits = datasets.load(str(tmp_path), image_size=8)
    sizes = [len(getattr(splits, s)[1]) for s in ("train", "validation", "test")]
    expected = {"train dev": [32, 6, 8], "train test": [36, 4, 6]}
    assert sizes == expected.get(" ".join(names), [40, 6, 8])
    assert splits.names == ("dark", "light")


def test_what_is_no_image_is_left_out(tmp_path):
    save_photos(tmp_path)
    (tmp_path / "dark" / "day").mkdir()
    (tmp_path / "dark" / "1.png").rename(tmp_path / "dark" / "day" / "one.PNG")
    for name in (".DS_Store", "dark/._1.png", "dark/notes.txt", "light/Thumbs.db"):
        (tmp_path / name).write_bytes(b"no image")
    for name in (".git", "__MACOSX"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.png").write_bytes(b"no image")
    splits = datasets.load(str(tmp_path), image_size=8)
    assert sum(len(getattr(splits, s)[1]) for s in ("train", "validation", "test")) == 40
    assert splits.names == ("dark", "light")


def break_photos(folder, what):
    path = folder / "light" / "7.png"
    if what == "empty":
        path.write_bytes(b"")
    elif what == "cut":
        path.write_bytes(path.read_bytes()[:100])
    elif what == "text":
        path.write_text("no image")
    elif what == "loose":
        path.rename(folder / "7.png")
    elif what == "empty class":
        (folder / "grey").mkdir()
    elif what == "one class":
        shutil.rmtree(folder / "dark")
    elif what == "no image":
        shutil.rmtree(folder)
        folder.mkdir()
    elif what in ("no train", "others"):
        move_photos(folder, "validation" if what == "no train" else "train")
        (folder / "more").mkdir()


def move_photos(folder, split):
    (folder / split).mkdir()
    for name in COLOURS:
        (folder / name).rename(folder / split / name)


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("empty", "an image that can be read.*light/7.png: Input is empty"),
        ("cut", "an image that can be read.*light/7.png: "),
        ("text", "an image that can be read.*light/7.png: Unknown image file format"),
        ("loose", "a folder per class for --dataset.*photos with 1 in itself, 7.png first"),
        ("empty class", "a folder per class for --dataset.*photos/grey, which has none"),
        ("one class", "at least 2 classes.*photos with one"),
        ("no image", "a folder per class for --dataset.*photos, which has none"),
        ("no train", "for --dataset, or these.*train among them.*photos with more, validation"),
        ("others", "train among them and no others.*photos with more, train"),
    ],
)
def test_folders_that_cannot_be_read(tmp_path, what, message):
    save_photos(tmp_path / "photos", 8)
    break_photos(tmp_path / "photos", what)
    with pytest.raises(InputError, match=message) as raised:
        datasets.load(str(tmp_path / "photos"), image_size=8)
    assert "\n" not in str(raised.value)


def test_classes_may_have_the_names_of_splits(tmp_path):
    save_photos(tmp_path)
    (tmp_path / "dark").rename(tmp_path / "train")
    (tmp_path / "light").rename(tmp_path / "test")
    assert datasets.load(str(tmp_path), image_size=8).names == ("test", "train")
