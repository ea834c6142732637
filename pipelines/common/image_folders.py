"""Folders of images as splits: a folder per class, or images with masks; held or streamed.

Images of up to 1 GiB of float32 pixels are held in memory. Of more, the paths are held, and the
images are read in every epoch, several at a time.
"""

import pathlib
import typing

import numpy as np
import tensorflow as tf

from pipelines.common import images, masks, splits
from pipelines.common.labels import class_numbers
from pipelines.common.samples import HELD_BYTES, Stream


class Reading(typing.NamedTuple):
    """How images are read.

    Attributes:
        size: (height, width) of images.
        channels: 1, 3 or 4.
        mask_size: (height, width) of masks.
        cache: "memory" holds all samples, "none" no image, "auto" those of up to 1 GiB.
        skip_broken: Whether images that cannot be read are left out; else they raise.
    """

    size: tuple
    channels: int
    mask_size: tuple | None = None
    cache: str = "auto"
    skip_broken: bool = False

    def is_held(self, samples):
        """Whether so many images are held in memory."""
        size = 4 * samples * self.size[0] * self.size[1] * self.channels
        return self.cache == "memory" or (self.cache == "auto" and size <= HELD_BYTES)


def read_folder(path, reading, names, received):
    """Returns {split: arrays (x, y) or a `Stream`} of a folder, and the names of its classes.

    Args:
        path: A folder with a folder of images per class, or with `images` and `masks`, or with
            train, validation and test folders of these.
        reading: The `Reading`.
        names: Names of the classes in their order, or None.
        received: What an error names.

    Returns:
        The splits, as `splits.checked` takes them; names, None where arrays say them; and whether
        the labels are masks.
    """
    path = pathlib.Path(path)
    if masks.are_in(path):
        return *_with_masks(path, reading, names, received), True
    listed = images.list_folder(path)
    load = images.reader(reading.size, reading.channels)
    if reading.is_held(sum(len(files) for files, _ in listed.values())):
        parts = {}
        for split, (files, labels) in listed.items():
            pixels, is_whole = images.read_all(load, files)
            images.check_readable(load, [files], is_whole, skip_broken=reading.skip_broken)
            parts[split] = (pixels[0], labels[is_whole])
        return parts, names, False
    listed = _whole(load, listed, [0], reading)
    labels = {split: y for split, (_, y) in listed.items()}
    numbers, names, _ = class_numbers(labels, received, names)
    rows = {split: (files, numbers[split], y) for split, (files, y) in listed.items()}
    parts = splits.divided(rows, is_class=True, received=received)
    return _streams(parts, lambda file, _, label: (load(file), label)), names, False


def _with_masks(path, reading, names, received):
    """Returns {split: arrays (pixels, masks) or a `Stream`}, and the names of the classes."""
    listed = masks.list_folder(path)
    read_image = images.reader(reading.size, reading.channels)
    coding = masks.coding_of([files for _, files in listed.values()], names, received)
    read_mask = masks.reader(reading.mask_size or reading.size, coding)

    def load(image, mask):
        return (read_image(image), *read_mask(mask))

    names = names or tuple(map(str, range(coding.classes)))
    if reading.is_held(sum(len(files) for files, _ in listed.values())):
        parts = {}
        for split, files in listed.items():
            arrays, is_whole = images.read_all(load, *files)
            images.check_readable(load, files, is_whole, skip_broken=reading.skip_broken)
            parts[split] = tuple(arrays)
        return parts, names
    listed = _whole(load, listed, [0, 1], reading)
    return _streams(splits.divided(listed, is_class=False, received=received), load), names


def _whole(load, listed, columns, reading):
    """Returns the rows of {split: columns} whose files can be read."""
    count = sum(len(rows[0]) for rows in listed.values())
    print(f"Checking {count:,} images once, as they are read anew in every epoch", flush=True)
    whole = {}
    for split, rows in listed.items():
        files = [rows[column] for column in columns]
        is_whole = images.readable(load, *files)
        images.check_readable(load, files, is_whole, skip_broken=reading.skip_broken)
        whole[split] = tuple(column[is_whole] for column in rows)
    return whole


def _streams(parts, load):
    """Returns {split: Stream} of {split: columns}, each in a fixed random order."""
    streams = {}
    for split, columns in parts.items():
        order = np.random.default_rng(0).permutation(len(columns[0]))
        source = tf.data.Dataset.from_tensor_slices(tuple(column[order] for column in columns))
        streams[split] = Stream(source, len(order), load)
    return streams
