"""Files of named arrays and metadata: .weights.h5 and .safetensors."""

import json
import zlib

import h5py
import keras
import numpy as np

from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.core.files import replacing
from tfpeft.core.hdf5 import check_hdf5, float_like
from tfpeft.core.paths import file_to_read, file_to_write, invalid_path

_ABOUT = "tfpeft"
"""Key of the metadata in a file."""
_CHECKSUM = "tfpeft_checksum"
"""Key of the checksum of all arrays, which files of 0.1.0 do not have."""
_EXPECTED = "a file of `save_adapter` or `save_task`"


def write(path, arrays, about):
    """Writes {name: array} and `about`, a dict that JSON can hold, to a file.

    Raises:
        InputError: for numbers that are not finite, and a path that is no such file.
    """
    path = file_to_write(path)
    is_safetensors, text = _is_safetensors(path), json.dumps(about)
    name = _not_finite(arrays)
    if name:
        raise unexpected("finite weights", f"NaN or infinity in {name}")
    if not is_safetensors:  # HDF5 has no bfloat16; float32 holds the same numbers
        arrays = {
            name: array.astype("float32") if array.dtype.kind == "V" else array
            for name, array in arrays.items()
        }
    metadata = {_ABOUT: text, _CHECKSUM: _checksum(arrays)}
    with replacing(path) as partial:
        if is_safetensors:
            from safetensors.numpy import save_file

            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(arrays, partial, metadata=metadata)
            return
        with h5py.File(partial, "w") as file:
            file.attrs.update(metadata)
            for name, array in arrays.items():
                file[name] = array


def read(path):
    """Returns the arrays and the metadata of a file that `write` wrote.

    No more is read than the file holds: nothing of other files, and nothing that grows.

    Raises:
        InputError: if there is no such file, or its content is another one.
    """
    path = file_to_read(path, expected=_EXPECTED)
    try:
        if _is_safetensors(path):
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                metadata = file.metadata()
                arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        else:
            with h5py.File(path, "r") as file:
                metadata = dict(file.attrs)
                datasets = check_hdf5(file, path.stat().st_size, expansion=1)
                arrays = {dataset.name[1:]: dataset[()] for dataset in datasets}
        about = json.loads(metadata[_ABOUT])
        if not isinstance(about, dict):
            raise TypeError("metadata of another form")
        if metadata.get(_CHECKSUM, _checksum(arrays)) != _checksum(arrays):
            raise ValueError("its arrays have another checksum")
    except (ImportError, InputError):
        raise
    except Exception as error:  # h5py, safetensors and JSON raise classes of their own
        why = f", which is damaged ({type(error).__name__}: {' '.join(str(error).split())})"
        raise invalid_path("`path`", _EXPECTED, path, why) from error
    name = _not_finite(arrays)
    if name:
        raise invalid_path("`path`", "finite weights", path, f", with NaN or infinity in {name}")
    return arrays, about


def rebuild(config, kind, path):
    """Returns the object that a configuration in the metadata of the file `path` describes.

    Args:
        config: What `keras.saving.serialize_keras_object` returned.
        kind: Its class.
        path: The file, for errors.
    """
    try:
        found = keras.saving.deserialize_keras_object(config)
    except Exception as error:  # whatever a configuration that is damaged leads to
        why = (
            f", which is damaged, or needs a class to be registered with Keras: {last_cause(error)}"
        )
        raise invalid_path("`path`", _EXPECTED, path, why) from error
    if not isinstance(found, kind):
        why = f", which is damaged: it has a {type(found).__name__} for a {kind.__name__}"
        raise invalid_path("`path`", _EXPECTED, path, why)
    return found


def assign(variables, arrays, path, writer):
    """Assigns {name: array} of a file to {name: variable}.

    Raises:
        InputError: if names, shapes or kinds of numbers differ; no variable is then changed. The
            message names the `path`, and the method `writer` that writes such files.
    """
    for name in sorted({*variables, *arrays}):
        if name not in arrays or name not in variables:
            why = f", {'without' if name in variables else 'with another array,'} {name}"
            raise invalid_path("`path`", f"a whole file of `{writer}`", path, why)
        variable, array = variables[name], arrays[name]
        types = variable.dtype, array.dtype
        same_kind = all(map(float_like, types)) or len({np.dtype(t).kind for t in types}) == 1
        if tuple(variable.shape) != array.shape or not same_kind:
            expected = f"a whole file of `{writer}` with {name} of shape {tuple(variable.shape)}"
            why = f", where it has shape {array.shape} and type {array.dtype}"
            raise invalid_path("`path`", expected, path, why)
    for name, variable in variables.items():
        variable.assign(arrays[name])


def fingerprint(model):
    """Returns a checksum of a model's weights, in order: other weights have another one."""
    checksum = 0
    for weight in model.weights:
        checksum = zlib.crc32(np.ascontiguousarray(weight.numpy()), checksum)
    return f"{checksum:08x}"


def _checksum(arrays):
    """Returns a checksum of the names and the values of arrays."""
    checksum = 0
    for name in sorted(arrays):
        checksum = zlib.crc32(name.encode(), checksum)
        checksum = zlib.crc32(np.ascontiguousarray(arrays[name]), checksum)
    return f"{checksum:08x}"


def _not_finite(arrays):
    """Returns the name of an array with NaN or infinity; None if there is none."""
    for name, array in arrays.items():
        if float_like(array.dtype) and not np.all(np.isfinite(array)):
            return name
    return None


def _is_safetensors(path):
    if path.name.endswith(".safetensors"):
        return True
    if path.name.endswith(".weights.h5"):
        return False
    raise invalid_path("`path`", "a name that ends in .weights.h5 or .safetensors", path)
