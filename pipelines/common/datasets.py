"""The datasets that --dataset and --task name: embedded, downloaded, .npz, images, functions.

Pixels come as they are stored, 0 to 255 in images, unless --pixel_range names another range.
"""

import pathlib
import zipfile

import keras
import numpy as np

from pipelines.common import images, labels, returned, splits
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.models import input_shape
from pipelines.common.objectives import Request
from tfpeft.core.arguments import InputError, last_cause, unexpected

IMAGES = ("mnist", "fashion_mnist", "cifar10", "cifar100")
IMAGE_SIZE = 64  # of a folder, where neither --image_size nor a model says otherwise
_LARGEST_PIXELS = {"uint8": 255.0, "uint16": 65535.0}  # by the type of arrays


def load_given(settings, model=None, request=None):
    """Loads what the flags of data name, for a model, if there is one, and a `Request`."""
    return load(
        settings.dataset,
        data_dir=settings.data_dir,
        image_size=settings.image_size,
        pixel_range=settings.pixel_range,
        classes=settings.classes,
        model=model,
        request=request,
    )


def load(
    dataset,
    *,
    data_dir=None,
    image_size=None,
    pixel_range=None,
    classes=None,
    model=None,
    request=None,
):
    """Loads what --dataset names; --help of every script lists the forms.

    Splits that are not there are made of the others, the same in every run: see
    `splits.checked`. Images of a folder take height, width and channels of the `model`'s input;
    the `Request` says what labels are, where they do not.
    """
    shape = None if model is None else input_shape(model)
    path = pathlib.Path(dataset)
    is_named = dataset == "digits" or dataset in IMAGES
    if data_dir is not None and dataset not in IMAGES:
        raise unread_flag("data_dir", f"--dataset={dataset}")
    if image_size is not None and (is_named or not path.is_dir()):
        raise unread_flag("image_size", f"--dataset={dataset}")
    names = labels.parse(classes)
    largest = None  # of pixels; None: by the type of the arrays
    if dataset == "digits":
        pairs, largest = _digits(), 16.0
    elif dataset in IMAGES:
        pairs = _images(dataset, data_dir)
    elif path.suffix == ".npz":
        pairs = _npz(path)
    elif path.is_dir():
        height_width, channels = _image_shape(shape, image_size)
        pairs = images.read_folder(path, size=height_width, channels=channels)
        largest = 255.0
    elif ":" in dataset and not path.exists():
        pairs = returned.splits_of(dataset)
    else:
        expected = (
            f"digits, {', '.join(IMAGES)}, an .npz file, a folder with a folder of images per "
            "class, or module:function"
        )
        raise invalid_flag("dataset", expected, dataset)
    if pixel_range is not None:
        pairs = _scaled(pairs, pixel_range, largest, f"--dataset={dataset}")
    return splits.checked(pairs, f"--dataset={dataset}", names, model=model, request=request)


def load_arrays(path, flag, received):
    """Loads an .npz as `load` does; `flag` and `received` are what an error names."""
    request = Request(task="classification")
    return splits.checked(_npz(pathlib.Path(path), flag), received, request=request)


def _digits():
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    return {"train": (digits.images[..., None], digits.target)}


def _images(name, data_dir):
    """Returns one of keras.datasets, or NAME.npz in --data_dir."""
    if data_dir:
        pairs = _npz(pathlib.Path(data_dir) / f"{name}.npz")
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


def _npz(path, flag="dataset"):
    if not path.is_file():
        raise unexpected(f"a file for --{flag}", f"{path}, which is not there")
    expected = f"an .npz file of numbers and texts for --{flag}"
    if not zipfile.is_zipfile(path):
        raise unexpected(expected, f"{path}, which is damaged or of another kind")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, pickle and format errors alike
        raise unexpected(expected, f"{path}: {last_cause(error)}") from error
    names = {"train": "train", "validation": "val", "test": "test"}
    wanted = [f"{axis}_{name}" for name in ("train", "test") for axis in "xy"]
    if "x_val" in arrays or "y_val" in arrays:
        wanted += ["x_val", "y_val"]
    missing = sorted(set(wanted) - set(arrays))
    if missing:
        raise InputError(
            f"Received an .npz without all of {', '.join(wanted)}. "
            f"Received: {path} without {', '.join(missing)}"
        )
    return {
        split: (arrays[f"x_{name}"], arrays[f"y_{name}"])
        for split, name in names.items()
        if f"x_{name}" in arrays
    }


def _image_shape(shape, image_size):
    """Returns (height, width) and channels of images, for a model's input shape (...) or None."""
    channels, height_width = 3, (IMAGE_SIZE, IMAGE_SIZE)
    if shape is not None and len(shape) == 3 and shape[-1] in (1, 3, 4):
        channels = shape[-1]
        if None not in shape[:2]:
            height_width = shape[:2]
    return (height_width if image_size is None else (image_size, image_size)), channels


def _scaled(pairs, pixel_range, largest, received):
    """Returns the pairs with pixels moved from 0 to `largest` to --pixel_range."""
    moved = {}
    for split, (x, *labels) in pairs.items():
        x = np.asarray(x)
        scale = largest or _LARGEST_PIXELS.get(str(x.dtype))
        if scale is None:
            raise unexpected(
                "pixels of a known range for --pixel_range: images, or arrays of type uint8 or "
                "uint16",
                f"{received} of type {x.dtype}",
            )
        moved[split] = (in_range(x, pixel_range, scale), *labels)
    return moved


def in_range(x, pixel_range, largest):
    """Returns pixels moved from 0 to `largest` to --pixel_range, two texts of numbers."""
    try:
        low, high = map(float, pixel_range)
    except ValueError:
        low = high = 0.0
    if not -np.inf < low < high < np.inf:
        expected = "two numbers, the smaller one first, such as 0,1 or -1,1"
        raise invalid_flag("pixel_range", expected, pixel_range)
    return low + np.asarray(x, "float32") * np.float32((high - low) / largest)
