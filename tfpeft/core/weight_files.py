"""Files of named arrays and of what they are for: .weights.h5 and .safetensors."""

import json
import os
import pathlib
import zlib

import h5py
import numpy as np

from tfpeft.core.arguments import invalid

_ABOUT = "tfpeft"


def write(path, arrays, about):
    """Writes {name: array} and a dict that JSON can hold; beside first, then in place."""
    path = pathlib.Path(path)
    partial = path.with_name(f"tfpeft-partial.{path.name}")
    text = json.dumps(about)
    try:
        if _is_safetensors(path):
            from safetensors.numpy import save_file

            arrays = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
            save_file(arrays, partial, metadata={_ABOUT: text})
        else:
            with h5py.File(partial, "w") as file:
                file.attrs[_ABOUT] = text
                for name, array in arrays.items():
                    file[name] = array
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def read(path):
    """Returns the arrays and the dict of a file.

    Raises:
        ValueError: if there is no such file, or it is not one that `write` made.
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
    except Exception as error:  # h5py, safetensors and JSON each have their own
        expected = "a file of `save_adapter` or `save_task`"
        raise invalid("path", f"{expected} ({type(error).__name__})", str(path)) from error


def fingerprint(model):
    """Returns a text that differs between models: of their weights, in order."""
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
