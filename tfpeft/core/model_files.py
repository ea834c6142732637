"""Model files, .keras and .h5: what is checked before Keras reads them."""

import zipfile

import h5py
import numpy as np

from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.hdf5 import check_hdf5, float_like

SUFFIXES = (".keras", ".h5")
_EXPANSION = 100  # how many times its bytes a compressed part may have


def not_finite(model):
    """Returns the path of the first weight with NaN or infinity, or None."""
    for weight in model.weights:
        if float_like(weight.dtype) and not np.all(np.isfinite(weight.numpy())):
            return weight.path
    return None


def damage_of(path, *, whole=False):
    """Returns what is wrong with a .keras or .h5 file, in words; None if nothing is seen.

    A .keras file may be one in HDF5, as Keras 2 wrote it before version 2.12.

    Args:
        path: The file.
        whole: Whether all of a .keras file is read, to compare its checksums.
    """
    try:
        if not h5py.is_hdf5(path) and (path.suffix == ".keras" or zipfile.is_zipfile(path)):
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
