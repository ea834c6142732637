"""The datasets that --dataset and --task name: embedded, downloaded, files, folders, functions.

Pixels come as they are stored, 0 to 255 in images, unless --pixel_range names another range.
"""

import dataclasses
import pathlib

import keras
import numpy as np
import tensorflow as tf

from pipelines.common import (
    augmentation,
    csv_files,
    image_folders,
    labels,
    npz,
    returned,
    samples,
    splits,
    tables,
)
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.models import input_shape
from pipelines.common.request import Request
from tfpeft.core.arguments import InputError, unexpected

IMAGES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
IMAGE_SIZE = 64  # of a folder, where neither --image_size nor a model says otherwise
_LARGEST_PIXELS = {"uint8": 255.0, "uint16": 65535.0}  # by the type of arrays


def load_given(settings, model=None, request=None, model_name="--model"):
    """Loads what the flags of data name, for a model, if there is one, and a `Request`."""
    return load(
        settings.dataset,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        pixel_range=settings.pixel_range,
        classes=settings.classes,
        cache=settings.cache,
        skip_broken_images=settings.skip_broken_images,
        augment=vars(settings).get("augment", ()),  # of scripts that train
        model=model,
        request=request,
        model_name=model_name,
    )


def load(
    dataset,
    *,
    data_dir=None,
    image_size=None,
    pixel_range=None,
    classes=None,
    cache="auto",
    skip_broken_images=False,
    augment=(),
    model=None,
    request=None,
    model_name="--model",
):
    """Loads what --dataset names; --help of every script lists the forms.

    Splits that are not there are made of the others, the same in every run: see
    `splits.checked`. Images of a folder take height, width and channels of the `model`'s input;
    the `Request` says what labels are, where they do not.
    """
    path, received = pathlib.Path(dataset), f"--dataset={dataset}"
    is_folder = dataset not in ("digits", *IMAGES) and path.is_dir()
    csv = None if path.exists() else csv_files.parse(dataset)
    is_function = csv is None and ":" in dataset and not path.exists()
    if data_dir is not None and dataset not in IMAGES:
        raise unread_flag("data_dir", received)
    for name, value in (("image_size", image_size), ("skip_broken_images", skip_broken_images)):
        if value and not is_folder:
            raise unread_flag(name, received)
    if cache != "auto" and not is_folder and not is_function:
        raise unread_flag("cache", received)
    names = labels.parse(classes)
    largest, table = None, None  # the largest pixel; None: by the type of the arrays
    if dataset == "digits":
        pairs, largest = _digits(), 16.0
    elif dataset in IMAGES:
        pairs = _images(dataset, data_dir)
    elif path.suffix == ".npz":
        pairs = npz.read(path)
    elif is_folder:
        reading = _reading(model, image_size, cache, skip_broken_images)
        pairs, names, has_masks = image_folders.read_folder(path, reading, names, received)
        request = _segmentation(request) if has_masks else request
        largest = 255.0
    elif csv is not None and csv.text is not None:
        pairs = tables.read_texts(csv, received)
    elif csv is not None:
        pairs, table = tables.read(csv, received, model=model, request=request)
        print(table, flush=True)
    elif is_function:
        pairs = returned.splits_of(dataset, cache)
    else:
        expected = (
            f"digits, {', '.join(IMAGES)}, an .npz file, FILE.csv:LABEL, FILE.csv:TEXT:LABEL, a "
            "folder with a folder of images per class or with images and masks, or module:function"
        )
        raise invalid_flag("dataset", expected, dataset)
    value_range = _value_range(pairs["train"], pixel_range, largest)
    if pixel_range is not None:
        pairs = _scaled(pairs, pixel_range, largest, received)
    data = splits.checked(
        pairs, received, names, model=model, request=request, model_name=model_name
    )
    if table is not None:
        data = dataclasses.replace(data, table=table)
    if augment:
        data = augmentation.augmented(data, augment, value_range, received)
    return data


def load_arrays(path, flag, received):
    """Loads an .npz as `load` does; `flag` and `received` are what an error names."""
    request = Request(task="classification")
    return splits.checked(npz.read(pathlib.Path(path), flag), received, request=request)


def _digits():
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    return {"train": (digits.images[..., None], digits.target)}


def _images(name, data_dir):
    """Returns one of keras.datasets, or NAME.npz in --data_dir."""
    if data_dir:
        pairs = npz.read(pathlib.Path(data_dir) / f"{name}.npz")
    else:
        try:
            train, test = getattr(keras.datasets, name).load_data()
        except Exception as error:  # whatever a download can raise
            raise InputError(
                f"Cannot download --dataset={name}, expected a connection, or {name}.npz in "
                f"--data_dir. Received: {error}"
            ) from error
        pairs = {"train": train, "test": test}
    return {split: (x[..., None] if np.ndim(x) == 3 else x, y) for split, (x, y) in pairs.items()}


def _reading(model, image_size, cache, skip_broken):
    """Returns how images of a folder are read: in the height, width and channels of a model."""
    shape = None if model is None else input_shape(model)
    channels, size = 3, (IMAGE_SIZE, IMAGE_SIZE)
    if shape is not None and len(shape) == 3 and shape[-1] in (1, 3, 4):
        channels = shape[-1]
        if None not in shape[:2]:
            size = tuple(shape[:2])
    size = size if image_size is None else (image_size, image_size)
    outputs = getattr(model, "output_shape", None)  # masks have the size of the outputs
    is_image = isinstance(outputs, tuple) and len(outputs) == 4 and None not in outputs[1:3]
    mask_size = tuple(outputs[1:3]) if is_image else size
    return image_folders.Reading(size, channels, mask_size, cache, skip_broken)


def _segmentation(request):
    """Returns the request of images with masks: their task is segmentation."""
    request = request or Request()
    if request.task not in (None, "segmentation"):
        raise invalid_flag("task", "segmentation of images with masks", request.task)
    return dataclasses.replace(request, task="segmentation")


def _dtype(split):
    """Returns the type of the inputs of a split; None of several inputs."""
    x = split.spec[0] if isinstance(split, samples.Stream) else split[0]
    if isinstance(x, dict):
        return None
    return x.dtype.name if isinstance(x, tf.TensorSpec) else np.asarray(x).dtype.name


def _value_range(split, pixel_range, largest):
    """Returns (low, high) of pixels, or None if it is not known."""
    if pixel_range is not None:
        return _numbers(pixel_range)
    largest = largest or _LARGEST_PIXELS.get(_dtype(split))
    return None if largest is None else (0.0, largest)


def _scaled(pairs, pixel_range, largest, received):
    """Returns the pairs with pixels moved from 0 to `largest` to --pixel_range."""
    moved = {}
    for split, part in pairs.items():
        dtype = _dtype(part)
        scale = largest or _LARGEST_PIXELS.get(dtype)
        if scale is None:
            found = f"of type {dtype}" if dtype else "of several inputs"
            raise unexpected(
                "pixels of a known range for --pixel_range: images, or arrays of type uint8 or "
                "uint16",
                f"{received} {found}",
            )
        if isinstance(part, samples.Stream):
            moved[split] = part.mapped(
                lambda x, *others, scale=scale: (in_range(x, pixel_range, scale), *others)
            )
        else:
            moved[split] = (in_range(np.asarray(part[0]), pixel_range, scale), *part[1:])
    return moved


def in_range(x, pixel_range, largest):
    """Returns pixels moved from 0 to `largest` to --pixel_range, two texts of numbers."""
    low, high = _numbers(pixel_range)
    x = tf.cast(x, tf.float32) if tf.is_tensor(x) else np.asarray(x, "float32")
    return low + x * np.float32((high - low) / largest)


def _numbers(pixel_range):
    """Returns the numbers of --pixel_range."""
    try:
        low, high = map(float, pixel_range)
    except ValueError:
        low = high = 0.0
    if not -np.inf < low < high < np.inf:
        expected = "two numbers, the smaller one first, such as 0,1 or -1,1"
        raise invalid_flag("pixel_range", expected, pixel_range)
    return low, high
