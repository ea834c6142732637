"""A folder of images: a folder per class, or train, validation and test folders of these."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import last_cause, unexpected

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_EXPECTED = f"images ({', '.join(_ENDINGS)}) in a folder per class for --dataset"
# What users call the folders of splits, in lower case.
SPLIT_NAMES = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}


def read_folder(path, *, size, channels):
    """Returns {split: (pixels, names of classes)}; of one split if the folders are classes.

    Pixels are float32, 0 to 255, (samples, height, width, channels), as
    `keras.utils.image_dataset_from_directory` reads and resizes them: no rotation by EXIF, and of
    an animation the first image. Hidden files and folders are left out.

    Args:
        path: The folder.
        size: (height, width).
        channels: 1, 3 or 4.
    """
    folders = _split_folders(path)
    pairs = {}
    for split, folder in folders.items():
        files, labels = _files(folder, may_be_empty=split != "train")
        pairs[split] = (read_images(files, size=size, channels=channels), np.array(labels))
    return pairs


def _split_folders(path):
    """Returns {split: folder} of train, validation and test folders; else the folder as "train"."""
    inner = _visible_folders(path)
    splits = {}
    for folder in inner:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in splits:
            received = f"{splits[split]} and {folder}"
            raise unexpected(f"one folder of {split} data", received)
        if split:
            splits[split] = folder
    if not any(_visible_folders(folder) for folder in splits.values()):
        return {"train": path}  # classes of such names
    others = [folder.name for folder in inner if folder not in splits.values()]
    if others or "train" not in splits:
        received = f"{path} with {', '.join(folder.name for folder in inner)}"
        raise unexpected(
            f"{_EXPECTED}, or these in folders train, validation and test, train among them "
            "and no others",
            received,
        )
    return splits


def _files(folder, may_be_empty):
    """Returns the paths of the images in folders of classes, and the names of the classes."""
    loose = [file.name for file in _visible(folder) if _is_image(file)]
    if loose:
        received = f"{folder} with {len(loose)} in itself, {loose[0]} first"
        raise unexpected(_EXPECTED, received)
    files, labels = [], []
    for kind in _visible_folders(folder):
        found = sorted(_images_below(kind))
        if not found and not may_be_empty:
            raise unexpected(_EXPECTED, f"{kind}, which has none")
        files += found
        labels += [kind.name] * len(found)
    if not files:
        raise unexpected(_EXPECTED, f"{folder}, which has none")
    return files, labels


def _images_below(folder):
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            file = pathlib.Path(root, name)
            if _is_image(file):
                yield str(file)


def _visible(folder):
    """Returns what is in a folder, in order; archives of macOS bring __MACOSX and ._ files."""
    found = sorted(folder.iterdir(), key=lambda file: file.name)
    return [file for file in found if not file.name.startswith(".") and file.name != "__MACOSX"]


def _visible_folders(folder):
    return [inner for inner in _visible(folder) if inner.is_dir()]


def _is_image(file):
    return file.suffix.lower() in _ENDINGS and not file.name.startswith(".") and not file.is_dir()


def read_images(files, *, size, channels):
    """Returns the pixels of image files, as `read_folder` does."""

    def load(file):
        image = tf.io.decode_image(tf.io.read_file(file), channels, expand_animations=False)
        return tf.image.resize(image, size)

    images = tf.data.Dataset.from_tensor_slices(files).map(load, tf.data.AUTOTUNE).batch(256)
    try:
        return np.concatenate([batch.numpy() for batch in images])
    except tf.errors.OpError as error:
        raise _unreadable(files, load, error) from error


def _unreadable(files, load, error):
    """Returns the error of the first image that cannot be read."""
    for file in files:
        try:
            load(file)
        except tf.errors.OpError as cause:
            return unexpected("an image that can be read", f"{file}: {last_cause(cause)}")
    return unexpected("images that can be read", last_cause(error))
