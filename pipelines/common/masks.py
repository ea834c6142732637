"""Masks: images that hold the number of a class per pixel, beside the images that they label."""

import concurrent.futures
import pathlib
import typing

import numpy as np
import PIL.Image
import tensorflow as tf

from pipelines.common import images
from pipelines.common.labels import shortened
from pipelines.common.samples import PARALLEL
from tfpeft.core.arguments import last_cause, unexpected

FOLDERS = ("images", "masks")
VOID = 255
"""The value of pixels without a class, in masks that have other values than 0 and 255."""
_EXPECTED = (
    "a mask per image for --dataset: folders images and masks, files of equal names but for endings"
)
_EXPECTED_VALUES = (
    "masks of one number per pixel: a grey or palette image of 8 bits, whose values are class "
    "numbers from 0 (255 has no class), or 0 and 255 for two classes"
)


class Coding(typing.NamedTuple):
    """What the values of masks mean.

    Attributes:
        classes: How many classes there are.
        is_two: Whether 255 is the second of two classes.
        has_void: Whether there are pixels of no class, which weigh nothing.
    """

    classes: int
    is_two: bool
    has_void: bool


def are_in(path):
    """Whether a folder, or one for each split in it, has the folders `images` and `masks`."""
    folders = images.split_folders(path, _EXPECTED) if _has_splits(path) else {"train": path}
    return any(_has_both(folder) for folder in folders.values())


def _has_splits(path):
    inner = images.visible_folders(path)
    return any(_has_both(folder) for folder in inner)


def _has_both(folder):
    return {inner.name.lower() for inner in images.visible_folders(folder)} >= set(FOLDERS)


def list_folder(path):
    """Returns {split: (paths of images, paths of their masks)}; of one split, it is "train"."""
    folders = {"train": path} if _has_both(path) else images.split_folders(path, _EXPECTED)
    return {split: _pairs(folder) for split, folder in folders.items()}


def _pairs(folder):
    """Returns the paths of the images and of the masks in a folder, in one order."""
    by_stem = []
    inner = {each.name.lower(): each for each in images.visible_folders(folder)}
    if set(inner) != set(FOLDERS):
        raise unexpected(_EXPECTED, f"{folder} with {', '.join(inner) or 'none'}")
    for name in FOLDERS:
        root = inner[name]
        found = {}
        for file in images.images_below(root):
            stem = str(pathlib.Path(file).relative_to(root).with_suffix(""))
            if stem in found:
                raise unexpected(_EXPECTED, f"{found[stem]} and {file}")
            found[stem] = file
        by_stem.append(found)
    files, of_masks = by_stem
    others = sorted(set(files) ^ set(of_masks))
    if others or not files:
        other = files.get(others[0]) or of_masks[others[0]] if others else f"{folder}, with none"
        more = f"; {len(others)} are alone" if len(others) > 1 else ""
        raise unexpected(_EXPECTED, f"{other} without {'the other' if others else 'images'}{more}")
    stems = sorted(files)
    return np.array([files[stem] for stem in stems]), np.array([of_masks[s] for s in stems])


def coding_of(files, names, received):
    """Returns the `Coding` of masks, all of which are read for it.

    Args:
        files: Lists of their paths.
        names: Names of the classes, or None.
        received: What an error names.
    """
    paths = [str(path) for group in files for path in group]
    values = np.zeros(256, bool)
    with concurrent.futures.ThreadPoolExecutor(PARALLEL) as pool:
        for path, found in zip(paths, pool.map(_values_or_none, paths), strict=True):
            if found is None:
                continue  # a broken file, of which the reader of all files makes an error
            unknown = [value for value in found if names and len(names) <= value < VOID]
            if unknown:
                expected = f"class numbers of {shortened(names)}, 0 to {len(names) - 1}"
                raise unexpected(expected, f"{path} with the value {unknown[0]}")
            values[found] = True
    numbers = np.flatnonzero(values[:VOID])
    if not values.any():
        raise unexpected(_EXPECTED_VALUES, f"{received} with masks that cannot be read")
    is_two = bool(values[VOID]) and set(numbers.tolist()) <= {0} and len(names or "01") == 2
    classes = 2 if is_two else max(2, int(numbers.max(initial=0)) + 1)
    return Coding(len(names or ()) or classes, is_two, bool(values[VOID]) and not is_two)


def _values_or_none(path):
    try:
        return np.unique(read(path))
    except (OSError, SyntaxError):  # of PIL, for what is no image
        return None


def read(path):
    """Returns the values of a mask, uint8 (height, width); of a palette image its indices."""
    with PIL.Image.open(path) as image:
        if image.mode not in ("1", "L", "P"):
            raise unexpected(_EXPECTED_VALUES, f"{path} of the mode {image.mode}")
        return np.asarray(image).astype("uint8")


def reader(size, coding):
    """Returns a function that reads a mask as (class numbers,), or with a weight per pixel.

    They have the shape (height, width), of the nearest pixels of the mask.

    Args:
        size: (height, width).
        coding: The `Coding`.
    """

    def values(path):
        try:
            return read(path.decode() if isinstance(path, bytes) else path)
        except (OSError, SyntaxError) as error:
            raise ValueError(last_cause(error)) from error

    def load(path):
        mask = tf.numpy_function(values, [path], tf.uint8, stateful=False)
        mask.set_shape([None, None])
        mask = tf.image.resize(mask[..., None], size, method="nearest")[..., 0]
        mask.set_shape(size)
        if coding.is_two:
            return (tf.cast(mask > 0, tf.uint8),)
        if not coding.has_void:
            return (mask,)
        is_void = mask == VOID
        return tf.where(is_void, tf.zeros_like(mask), mask), tf.cast(~is_void, tf.float32)

    return load
