"""The datasets that --dataset and --task name: embedded, downloaded, .npz, images, functions."""

import pathlib

import keras
import numpy as np

from pipelines.common import splits
from pipelines.common.errors import failed, first_line, invalid_flag
from pipelines.common.models import call_function
from tfpeft.core import data as core_data
from tfpeft.core.arguments import InputError, unexpected

IMAGES = ("mnist", "fashion_mnist", "cifar10", "cifar100")


def load(dataset, *, data_dir=None, image_size=64):
    """Loads what --dataset names; --help of every script lists the forms.

    Where there is no validation split, a tenth of the training data becomes one; where there is
    no test split either, a fifth of all data. Both are the same in every run.
    """
    path = pathlib.Path(dataset)
    if dataset == "digits":
        pairs = _digits()
    elif dataset in IMAGES:
        pairs = _images(dataset, data_dir)
    elif path.suffix == ".npz":
        pairs = _npz(path)
    elif path.is_dir():
        pairs = _image_folder(path, image_size)
    elif ":" in dataset and not path.exists():
        pairs = _returned(dataset)
    else:
        expected = (
            f"digits, {', '.join(IMAGES)}, an .npz file, a folder with a folder of images per "
            "class, or module:function"
        )
        raise invalid_flag("dataset", expected, dataset)
    return splits.checked(pairs, f"--dataset={dataset}")


def load_arrays(path, flag, received):
    """Loads an .npz as `load` does; `flag` and `received` are what an error names."""
    return splits.checked(_npz(pathlib.Path(path), flag), received)


def _digits():
    import sklearn.datasets

    digits = sklearn.datasets.load_digits()
    return splits.with_test_split(digits.images[..., None] / 16.0, digits.target)


def _images(name, data_dir):
    """Returns one of keras.datasets, or NAME.npz in --data_dir; pixels become [0, 1]."""
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
    scaled = {}
    for split, (x, y) in pairs.items():
        x = np.asarray(x, "float32") / 255.0
        scaled[split] = (x[..., None] if x.ndim == 3 else x, y)
    return scaled


def _npz(path, flag="dataset"):
    if not path.is_file():
        raise unexpected(f"a file for --{flag}", f"{path}, which is not there")
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {key: file[key] for key in file.files}
    except Exception as error:  # zipfile, pickle and format errors alike
        raise InputError(f"Cannot read {path}, expected an .npz file. Received: {error}") from error
    missing = {"x_train", "y_train", "x_test", "y_test"} - set(arrays)
    if missing:
        raise InputError(
            "Received an .npz without all of x_train, y_train, x_test, y_test. "
            f"Received: {path} without {', '.join(sorted(missing))}"
        )
    names = {"train": "train", "validation": "val", "test": "test"}
    return {
        split: (arrays[f"x_{name}"], arrays[f"y_{name}"])
        for split, name in names.items()
        if f"x_{name}" in arrays
    }


def _image_folder(path, image_size):
    try:
        dataset = keras.utils.image_dataset_from_directory(
            path, image_size=(image_size, image_size), batch_size=64, shuffle=False, verbose=False
        )
        x, y, _ = core_data.read(dataset).arrays()
    except Exception as error:  # decoding errors come from TensorFlow
        raise InputError(
            "Cannot read the images, expected one folder per class with .png, .jpg, .bmp or .gif "
            f"files. Received: --dataset={path}: {first_line(error)}"
        ) from error
    return splits.with_test_split(x / 255.0, y)


def _returned(reference):
    """Returns the splits that a function returns, each in any form of data."""
    received = f"--dataset={reference}"
    returned = call_function(reference, "dataset")
    if not isinstance(returned, (tuple, list)) or len(returned) != len(splits.SPLITS):
        kind = type(returned).__name__
        count = f" of {len(returned)}" if isinstance(returned, (tuple, list)) else ""
        expected = "a function that returns train, validation and test data"
        raise unexpected(expected, f"{received}, which returns a {kind}{count}")
    pairs = zip(splits.SPLITS, returned, strict=True)
    return {split: _pair(data, f"{received}, {split} data") for split, data in pairs}


def _pair(data, received):
    """Returns the arrays (x, y) of a pair, a tf.data.Dataset or a PyDataset."""
    is_pair = isinstance(data, list) and len(data) == 2
    try:
        x, y, sample_weight = core_data.read(tuple(data) if is_pair else data).arrays()
    except InputError as error:
        raise InputError(f"{error} ({received})") from error
    except Exception as error:  # of a generator, or of a PyDataset
        raise failed(received, error) from error
    if isinstance(x, (dict, list, tuple)) or y is None or sample_weight is not None:
        raise unexpected("samples (x, y), each an array", f"{received} in another form")
    return x, y
