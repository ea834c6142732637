"""Model files, .keras and .h5: checked before Keras reads them."""

import zipfile

import h5py
import keras
import numpy as np

from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.hdf5 import check_hdf5, float_like
from tfpeft.core.paths import file_to_read, invalid_path

SUFFIXES = (".keras", ".h5")
_EXPANSION = 100  # how many times its bytes a compressed part may have


def load_model(path, argument="`model`", custom_objects=None):
    """Returns the model of a .keras or .h5 file, without its optimizer.

    Args:
        path: The file.
        argument: What names the file in the user's call, for errors.
        custom_objects: Name -> class, as Keras takes it.

    Raises:
        InputError: for other files and damaged ones; for files that hold code or lead to other
            files; for weights that are not finite.
    """
    expected = "a .keras or .h5 model"
    path = file_to_read(path, argument, expected)
    if path.suffix not in SUFFIXES:
        raise invalid_path(argument, expected, path)
    damage = damage_of(path)
    if damage:
        raise invalid_path(argument, expected, path, f", which is damaged: {damage}")
    try:
        model = keras.models.load_model(path, custom_objects=custom_objects, compile=False)
    except Exception as error:  # zip, h5py, JSON and Keras each have their own
        reason = last_cause(error)
        if "deserialization of a `Lambda`" in str(error):
            reason = "it holds a Lambda layer, code that is not run; put it into a layer's class"
        why = f", which cannot be read: {reason}"
        raise invalid_path(argument, expected, path, why) from error
    damaged = not_finite(model)
    if damaged:
        why = f", with NaN or infinity in {damaged}"
        raise invalid_path(argument, "a model with finite weights", path, why)
    return model


def not_finite(model):
    """Returns the path of the first weight with NaN or infinity, or None."""
    for weight in model.weights:
        if float_like(weight.dtype) and not np.all(np.isfinite(weight.numpy())):
            return weight.path
    return None


def damage_of(path, *, whole=False):
    """Returns what is wrong with a .keras or .h5 file, in words; None if nothing is seen.

    Args:
        path: The file.
        whole: Whether all of a .keras file is read, to compare its checksums.
    """
    try:
        if path.suffix == ".keras":
            with zipfile.ZipFile(path) as archive:
                _check_archive(archive, whole)
        else:
            _check_weights(path, path.stat().st_size)
    except Exception as error:  # zipfile, zlib and h5py each have their own
        return last_cause(error)
    return None


def _check_archive(archive, whole):
    if "config.json" not in archive.namelist():
        raise InputError("it has no config.json")
    for part in archive.infolist():
        if part.file_size > _EXPANSION * max(part.compress_size, 1):
            raise InputError(f"{part.filename} is compressed too much")
        if part.filename.endswith(".h5"):
            with archive.open(part) as file:
                _check_weights(file, part.file_size)
    if whole and archive.testzip():
        raise InputError(f"{archive.testzip()} has another checksum")


def _check_weights(file, size):
    with h5py.File(file, "r") as weights:
        check_hdf5(weights, size)
