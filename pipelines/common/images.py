"""Files of images: those in folders, of classes and splits, and their pixels."""

import os
import pathlib

import numpy as np
import tensorflow as tf

from pipelines.common.samples import PARALLEL
from tfpeft.core.arguments import last_cause, unexpected

_ENDINGS = (".png", ".jpg", ".jpeg", ".bmp", ".gif")
_EXPECTED = f"images ({', '.join(_ENDINGS)}) in a folder per class for --dataset"
_NAMED = 3  # broken images that a line names
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


def list_folder(path):
    """Returns {split: (paths of images, names of their classes)}; of one split, it is "train".

    Hidden files and folders are left out.
    """
    listed = {}
    for split, folder in split_folders(path).items():
        files, labels = _files(folder, may_be_empty=split != "train")
        listed[split] = (np.array(files), np.array(labels))
    return listed


def split_folders(path, expected=_EXPECTED):
    """Returns {split: folder} of train, validation and test folders; else the folder as "train"."""
    inner = visible_folders(path)
    splits = {}
    for folder in inner:
        split = SPLIT_NAMES.get(folder.name.lower())
        if split in splits:
            received = f"{splits[split]} and {folder}"
            raise unexpected(f"one folder of {split} data", received)
        if split:
            splits[split] = folder
    if not any(visible_folders(folder) for folder in splits.values()):
        return {"train": path}  # classes of such names
    others = [folder.name for folder in inner if folder not in splits.values()]
    if others or "train" not in splits:
        received = f"{path} with {', '.join(folder.name for folder in inner)}"
        raise unexpected(
            f"{expected}, or these in folders train, validation and test, train among them "
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
    for kind in visible_folders(folder):
        found = images_below(kind)
        if not found and not may_be_empty:
            raise unexpected(_EXPECTED, f"{kind}, which has none")
        files += found
        labels += [kind.name] * len(found)
    if not files:
        raise unexpected(_EXPECTED, f"{folder}, which has none")
    return files, labels


def images_below(folder):
    """Returns the paths of the images in a folder and the folders in it, in order."""
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        files = (pathlib.Path(root, name) for name in names)
        found += [str(file) for file in files if _is_image(file)]
    return sorted(found)


def _visible(folder):
    """Returns what is in a folder, in order; archives of macOS bring __MACOSX and ._ files."""
    found = sorted(folder.iterdir(), key=lambda file: file.name)
    return [file for file in found if not file.name.startswith(".") and file.name != "__MACOSX"]


def visible_folders(folder):
    """Returns the folders in a folder but for hidden ones, in order."""
    return [inner for inner in _visible(folder) if inner.is_dir()]


def _is_image(file):
    return file.suffix.lower() in _ENDINGS and not file.name.startswith(".") and not file.is_dir()


def reader(size, channels):
    """Returns a function that reads an image file as pixels, float32, 0 to 255.

    They have the shape (height, width, channels), as `keras.utils.image_dataset_from_directory`
    reads and resizes them: no rotation by EXIF, and of an animation the first image.

    Args:
        size: (height, width).
        channels: 1, 3 or 4.
    """

    def load(file):
        image = tf.io.decode_image(tf.io.read_file(file), channels, expand_animations=False)
        pixels = tf.image.resize(image, size)
        pixels.set_shape([*size, channels])
        return pixels

    return load


def read_all(load, *files):
    """Returns what a function reads of files, as arrays, and which files it reads: (files,).

    Args:
        load: A function of a path, or of a path of each list, that returns a tensor or several.
        *files: Lists of paths of one length.
    """
    count = len(files[0])
    is_whole, arrays = np.zeros(count, bool), None
    for numbers, tensors in _read(load, files).batch(64):
        leaves = [leaf.numpy() for leaf in tf.nest.flatten(tensors)]
        if arrays is None:
            arrays = [np.empty((count, *leaf.shape[1:]), leaf.dtype) for leaf in leaves]
        for array, leaf in zip(arrays, leaves, strict=True):
            array[numbers] = leaf
        is_whole[numbers] = True
    if arrays is not None and not is_whole.all():
        arrays = [array[is_whole] for array in arrays]
    return arrays, is_whole


def readable(load, *files):
    """Returns which files a function reads, (files,), and reads all of them for it."""
    is_whole = np.zeros(len(files[0]), bool)
    for numbers in _read(load, files).map(lambda number, _: number).batch(1024):
        is_whole[numbers] = True
    return is_whole


def _read(load, files):
    """Returns a dataset of the numbers of files, and what a function reads, without broken ones."""
    paths = tf.data.Dataset.from_tensor_slices(tuple(files)).enumerate()
    read = paths.map(lambda number, paths: (number, load(*paths)), num_parallel_calls=PARALLEL)
    return read.ignore_errors()


def check_readable(load, files, is_whole, *, skip_broken):
    """Raises for broken files, or prints how many are left out where `skip_broken` is True.

    Args:
        load: The function that read them.
        files: Lists of paths of one length.
        is_whole: Which of them it read.
        skip_broken: The value of --skip_broken_images.
    """
    broken = np.flatnonzero(~is_whole)
    if not len(broken):
        return
    if not skip_broken:
        paths = [str(paths[broken[0]]) for paths in files]
        remedy = f"; {len(broken)} are broken, and --skip_broken_images leaves them out"
        if len(broken) == len(is_whole):
            remedy = ""
        raise unexpected(
            "an image that can be read",
            f"{' with '.join(paths)}: {_cause(load, paths)}{remedy}",
        )
    if len(broken) == len(is_whole):
        raise unexpected("images that can be read", f"{files[0][0]} and others, all broken")
    names = [str(files[0][number]) for number in broken[:_NAMED]]
    more = ", ..." if len(broken) > _NAMED else ""
    print(f"Left out {len(broken)} images that are broken: {', '.join(names)}{more}", flush=True)


def _cause(load, paths):
    try:
        load(*paths)
    except Exception as error:  # of TensorFlow's decoder, or of PIL's
        return last_cause(error)
    return "its shape or type is not that of others"


def read_images(files, *, size, channels):
    """Returns the pixels of image files, as `reader` reads them; broken ones raise."""
    load = reader(size, channels)
    arrays, is_whole = read_all(load, list(map(str, files)))
    check_readable(load, [files], is_whole, skip_broken=False)
    return arrays[0]
