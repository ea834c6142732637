"""A Keras model as a SavedModel, which TensorFlow Serving runs, checked before it is kept."""

import os
import typing

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import last_cause, unexpected
from tfpeft.core.paths import folder_to_write, invalid_path
from tfpeft.export.conversion import initial_states, signatures, write_saved_model
from tfpeft.export.serving import ServingReport, check_model, write_checked

_FILES = {"saved_model.pb", "fingerprint.pb", "variables", "assets"}
"""What a folder has that TensorFlow saved a model to."""


def export_saved_model(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    representative_data: typing.Any = None,
) -> ServingReport:
    """Writes `model` as a SavedModel for servers, and returns a report of what it holds.

    The folder is written beside `path`, loaded by `tf.saved_model.load`, run, compared with
    `model(sample, training=False)`, and then renamed; if anything fails, a SavedModel that was
    there before stays. It needs no Python code of the model, has a free batch size, and the inputs
    and outputs have the types of the model's, texts among them. Its inputs have the names of the
    model's. The signature `serving_default` returns `output_0`, `output_1`, ... or the names of a
    dict of outputs. A `SharedModel` gets a signature per task, with the outputs of that task; the
    backbone's weights are in the folder once. `model` stays as it is.

    TensorFlow Serving reads the folder below the name of the model that has the largest number:
    `path` is then "models/text/1".

    Args:
        model: A built `keras.Model`.
        path: The folder; missing parents are made. One that exists must be empty, or hold a
            SavedModel, which is replaced.
        representative_data: Typical inputs of the model, as `export_tflite` takes them; up to 200
            samples are compared. Without data, folder and model are compared on random inputs.

    Returns:
        A `ServingReport`.

    Raises:
        InputError: for a folder of other files, and data that is empty, not finite, or not of the
            model's inputs.
        ExportError: for a model that cannot be traced, and a folder whose outputs are not finite,
            or off by more than 1e-3 of the largest value of a column (and of 1). In mixed
            precision: off by a `relative_error` above 0.3.

    What it does not give: a smaller or faster model; weights are not quantized.

    Example:

    ```python
    import keras, numpy as np, tensorflow as tf, tfpeft

    model = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(4)])
    print(tfpeft.export_saved_model(model, "models/small/1"))
    serve = tf.saved_model.load("models/small/1").signatures["serving_default"]
    print(serve(x=np.zeros((5, 8), "float32"))["output_0"].shape)  # (5, 4)
    ```
    """
    check_model(model)
    path = _folder(path)
    models = signatures(model)

    def write(inputs, specs, partial):
        with initial_states(model):
            write_saved_model(model, models, inputs, specs, str(partial))

    return write_checked(
        model, path, representative_data, models=models, write=write, open_file=_SavedModel
    )


def _folder(path):
    """Returns the path of a folder that may be replaced."""
    expected = "a new or empty folder, or one of a SavedModel"
    path = folder_to_write(path, expected=expected)
    others = {file.name for file in path.iterdir()} - _FILES if path.exists() else ()
    if others:
        raise invalid_path("`path`", expected, path, f", which holds {min(others)}")
    return path


class _SavedModel:
    """A loaded SavedModel, as `write_checked` runs it."""

    def __init__(self, path, input_names):
        self._loaded = tf.saved_model.load(str(path))
        self._input_names = input_names

    def signature(self, name):
        return _Signature(self._loaded.signatures[name], self._input_names)


class _Signature:
    def __init__(self, function, input_names):
        self._function = function
        self._specs = {name: function.structured_input_signature[1][name] for name in input_names}
        # A loaded function has them in any order.
        names = sorted(function.structured_outputs)
        self.outputs = tuple(sorted(names, key=len))  # output_2 before output_10

    def run(self, arrays):
        """Returns {name: output} in float32 for arrays in the order of the inputs."""
        try:
            found = self._function(
                **{
                    name: tf.convert_to_tensor(array, spec.dtype)
                    for array, (name, spec) in zip(arrays, self._specs.items(), strict=True)
                }
            )
        except tf.errors.OpError as error:
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise unexpected(
                f"inputs of shape {shapes} that the SavedModel runs on", last_cause(error)
            ) from error
        return {name: np.asarray(tf.cast(value, tf.float32)) for name, value in found.items()}
