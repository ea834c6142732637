"""Files of Keras 1 and 2: an .h5 file, or the .keras file of Keras 2.12 to 2.15."""

import contextlib
import json
import zipfile

import h5py

from tfpeft.core.arguments import InputError
from tfpeft.loading import old_weights
from tfpeft.loading.compiled import compile_as_saved
from tfpeft.loading.old_archive_weights import assign_keras
from tfpeft.loading.old_json import decode
from tfpeft.loading.old_models import OldModels

WEIGHTS_ONLY = (
    "it holds weights and no model; build the model, `load_weights`, then save it as a .keras file"
)


class OldFile:
    """An open .h5 or .keras file: its version, configurations and weights.

    Attributes:
        keras_version: Such as "2.3.1"; "1" where the file says none.
        model_config: {"class_name", "config"}.
        training_config: What the model was compiled with, or None.
        weights: A group of an `h5py.File`.
        is_h5: Whether the weights are listed by layer, as in .h5 files.
    """

    def __init__(self, keras_version, model_config, training_config, weights, is_h5):
        self.keras_version = keras_version
        self.model_config = model_config
        self.training_config = training_config
        self.weights = weights
        self.is_h5 = is_h5

    @property
    def is_old(self):
        """Whether Keras 1 or 2 wrote the file."""
        return not self.keras_version.startswith("3")


@contextlib.contextmanager
def opened(path):
    """A context with the `OldFile` at a path, whose damage was checked before."""
    with contextlib.ExitStack() as stack:
        if h5py.is_hdf5(path):
            yield _of_h5(stack.enter_context(h5py.File(path, "r")))
        else:
            yield _of_keras(stack.enter_context(zipfile.ZipFile(path)), stack)


def model_of(file, custom_objects, safe_mode, compiled):
    """Returns the model of an `OldFile`.

    Raises:
        InputError: naming each layer that Keras 3 does not have, or has no weights for.
    """
    models = OldModels(file.keras_version, custom_objects, safe_mode)
    made = models.made(file.model_config)
    if models.problems:
        listed = "; ".join(f"{name} ({why})" for name, why in models.problems.items())
        raise InputError(f"layers that Keras 3 does not have as Keras 2 saved them: {listed}")
    if file.is_h5:
        old_weights.assign_h5(made, file.weights, file.keras_version)
    else:
        assign_keras(made, file.weights)
    made.freeze()
    if compiled:
        compile_as_saved(made.layer, file.training_config, custom_objects)
    return made.layer


def _of_h5(file):
    config = file.attrs.get("model_config")
    if config is None:
        raise InputError(WEIGHTS_ONLY)
    version = file.attrs.get("keras_version") or file["model_weights"].attrs.get("keras_version")
    training = file.attrs.get("training_config")
    return OldFile(
        _text(version or "1"),
        decode(config),
        decode(training) if training is not None else None,
        file["model_weights"],
        is_h5=True,
    )


def _of_keras(archive, stack):
    config = decode(archive.read("config.json"))
    version = "3"
    if "metadata.json" in archive.namelist():
        version = json.loads(archive.read("metadata.json")).get("keras_version", version)
    weights = None
    if not version.startswith("3"):
        weights = h5py.File(stack.enter_context(archive.open("model.weights.h5")), "r")
        stack.enter_context(weights)
    return OldFile(version, config, config.get("compile_config"), weights, is_h5=False)


def _text(value):
    return value.decode() if isinstance(value, bytes) else str(value)
