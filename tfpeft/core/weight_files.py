"""Files of named arrays and metadata: .weights.h5 and .safetensors."""

import json
import pathlib
import zlib

import h5py
import numpy as np

from tfpeft.core.arguments import invalid
from tfpeft.core.files import replacing

_ABOUT = "tfpeft"
"""Key of the metadata in a file."""


def write(path, arrays, about):
    """Writes {name: array} and `about`, a dict that JSON can hold, to a file."""
    path = pathlib.Path(path)
    is_safetensors, text = _is_safetensors(path), json.dumps(about)
    with replacing(path) as partial:
        if is_safetensors:
            from safetensors.numpy import save_file

            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(arrays, partial, metadata={_ABOUT: text})
            return
        with h5py.File(partial, "w") as file:
            file.attrs[_ABOUT] = text
            for name, array in arrays.items():
                file[name] = array


def read(path):
    """Returns the arrays and the metadata of a file that `write` wrote.

    Raises:
        InputError: if there is no such file, or its content is another one.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise invalid("path", "a file of `save_adapter` or `save_task`", str(path))
    try:
        if _is_safetensors(path):
            from safetensors import safe_open

            with safe_open(path, "numpy") as file:
                about = json.loads(file.metadata()[_ABOUT])
                return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
        arrays = {}
        with h5py.File(path, "r") as file:
            about = json.loads(file.attrs[_ABOUT])
            file.visititems(
                lambda name, item: (
                    arrays.update({name: item[()]}) if isinstance(item, h5py.Dataset) else None
                )
            )
        return arrays, about
    except ImportError:
        raise
    except Exception as error:  # h5py, safetensors and JSON raise classes of their own
        expected = "a file of `save_adapter` or `save_task`"
        raise invalid("path", f"{expected} ({type(error).__name__})", str(path)) from error


def assign(variables, arrays, path, writer):
    """Assigns {name: array} of a file to {name: variable}.

    Raises:
        InputError: if names or shapes differ; no variable is then changed. The message names the
            `path`, and the method `writer` that writes such files.
    """
    shapes = {name: tuple(variable.shape) for name, variable in variables.items()}
    if shapes != {name: array.shape for name, array in arrays.items()}:
        raise invalid("path", f"a whole file of `{writer}`", str(path))
    for name, variable in variables.items():
        variable.assign(arrays[name])


def fingerprint(model):
    """Returns a checksum of a model's weights, in order: other weights have another one."""
    checksum = 0
    for weight in model.weights:
        checksum = zlib.crc32(np.ascontiguousarray(weight.numpy()), checksum)
    return f"{checksum:08x}"


def _is_safetensors(path):
    if path.name.endswith(".safetensors"):
        return True
    if path.name.endswith(".weights.h5"):
        return False
    raise invalid("path", "a name that ends in .weights.h5 or .safetensors", str(path))
