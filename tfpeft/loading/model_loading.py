"""`load_model`: a Keras 3 model from a file, a folder, or a name."""

import os
import pathlib
import tempfile

import keras

from tfpeft.core.arguments import InputError, check_boolean, invalid, last_cause
from tfpeft.core.model_files import damage_of, not_finite
from tfpeft.core.paths import as_path, file_to_read, invalid_path
from tfpeft.loading import lambdas, named_models, old_files
from tfpeft.loading.compiled import compile_as_saved, warn_uncompiled
from tfpeft.loading.file_kinds import other_kind
from tfpeft.loading.saved_models import is_saved_model, saved_model

EXPECTED = (
    "a .keras or .h5 model, a SavedModel folder, a KerasHub preset or folder, or applications:Name"
)


def load_model(path, custom_objects=None, *, safe_mode=True):
    """Loads a model of Keras 1, 2 or 3, a SavedModel folder, a KerasHub preset or an application.

    - **.keras and .h5 files** of all versions. The configuration of Keras 1 and 2 is translated:
      renamed classes and arguments, Sequential models as lists, `TFOpLambda` and `SlicingOpLambda`
      layers as `keras.ops`, type policies, cuDNN layers, the `hard_sigmoid` of Keras 2. Weights are
      matched by the names of layers. The outputs are those of the model that was saved.
    - **SavedModel folders**, of Keras or of TensorFlow. Where Keras 2 wrote its configuration
      beside the graph, and the model that is rebuilt has the outputs of that graph, it is a usual
      model. Else it is a frozen one: inputs and outputs with names, weights that do not train. It
      can be a teacher, and can be evaluated and exported; it has no layers to prune or quantize.
    - **KerasHub**: the folder of a preset, "hf://user/model", "kaggle://...", or a name such as
      "bert_tiny_en_uncased". The result is the backbone. Install `tfpeft[text]`.
    - **keras.applications**: "applications:MobileNetV2" has the weights of ImageNet, which Keras
      downloads to `~/.keras`; "applications:MobileNetV2:untrained" has random ones.

    The model is compiled with the loss and the metrics of the file. The optimizer of a .keras file
    of Keras 3 has its states; that of another file is a new one of the same class and learning
    rate, or Adam where Keras 3 lacks the class. Where a loss cannot be made, the model is not
    compiled, and a warning says why.

    Args:
        path: The file, the folder or the name.
        custom_objects: {name: class or function} of what the file names and Keras does not have.
        safe_mode: Whether code that a file holds, in Lambda layers, is an error. Pass False only
            for files that you trust.

    Returns:
        A `keras.Model`.

    Raises:
        InputError: for other files and damaged ones; naming each layer that cannot be translated;
            for code in safe mode; for weights that are not finite.

    Example:

    ```python
    import os, tempfile
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    path = os.path.join(tempfile.mkdtemp(), "model.h5")
    model.save(path)
    loaded = tfpeft.load_model(path)
    print(loaded.output_shape)  # (None, 3)
    ```

    What it does not give: layers that Keras 3 has no equal for, such as `LocallyConnected2D`;
    models of classes written by hand without a configuration; states of old optimizers.
    """
    check_boolean("safe_mode", safe_mode)
    if custom_objects is not None and not isinstance(custom_objects, dict):
        raise invalid("custom_objects", "a dict of classes and functions by name", custom_objects)
    return open_model(path, "`path`", custom_objects, safe_mode=safe_mode, compiled=True)


def open_model(path, argument="`model`", custom_objects=None, *, safe_mode=True, compiled=False):
    """Returns what `load_model` does, not compiled by default.

    Args:
        path: See `load_model`.
        argument: What names the path in the user's call, for errors.
        custom_objects: See `load_model`.
        safe_mode: See `load_model`.
        compiled: Whether the model is compiled as the file says.
    """
    if isinstance(path, str) and named_models.is_name(path):
        return named_models.named_model(path, argument, EXPECTED)
    given = as_path(path, argument, EXPECTED)
    if os.path.isdir(given):  # False for a name that is too long, too
        model = _of_folder(given, argument, custom_objects, safe_mode, compiled)
    else:
        model = _of_file(
            file_to_read(path, argument, EXPECTED), argument, custom_objects, safe_mode, compiled
        )
    damaged = not_finite(model)
    if damaged:
        why = f", with NaN or infinity in {damaged}"
        raise invalid_path(argument, "a model with finite weights", path, why)
    return model


def _of_folder(folder, argument, custom_objects, safe_mode, compiled):
    if is_saved_model(folder):
        try:
            return saved_model(folder, custom_objects, safe_mode=safe_mode, compiled=compiled)
        except InputError as error:
            raise invalid_path(
                argument, EXPECTED, folder, f", which cannot be used: {error}"
            ) from error
    if named_models.is_preset(folder):
        return named_models.named_model(str(folder), argument, EXPECTED)
    why = ", which is a folder without saved_model.pb or config.json"
    raise invalid_path(argument, EXPECTED, folder, why)


def _of_file(path, argument, custom_objects, safe_mode, compiled):
    other = other_kind(path)
    if other:
        raise invalid_path(argument, EXPECTED, path, f", which is {other}")
    damage = damage_of(path)
    if damage:
        raise invalid_path(argument, EXPECTED, path, f", which is damaged: {damage}")
    config = None
    try:
        with old_files.opened(path) as file:
            config = file.model_config
            if file.is_old:
                return old_files.model_of(file, custom_objects, safe_mode, compiled)
            if file.is_h5:
                model = _of_keras_3(path, ".h5", custom_objects, safe_mode, False)
                if compiled:  # not by Keras, which does not find losses such as "mse" there
                    compile_as_saved(model, file.training_config, custom_objects)
                return model
        return _of_keras_3(path, ".keras", custom_objects, safe_mode, compiled)
    except Exception as error:  # zip, h5py, JSON and Keras each have their own
        reason = last_cause(error)
        if "enable_unsafe_deserialization" in str(error):
            names = ", ".join(map(repr, lambdas.layers_with_code(config)))
            reason = f"it has a Lambda layer, code that is not run ({names}): {lambdas.WAY_OUT}"
        why = f", which cannot be read: {reason}"
        raise invalid_path(argument, EXPECTED, path, why) from error


def _of_keras_3(path, suffix, custom_objects, safe_mode, compiled):
    """Returns the model of a file of Keras 3, which Keras itself loads."""
    with tempfile.TemporaryDirectory() as folder:
        if path.suffix != suffix:  # Keras decides by the name
            link = pathlib.Path(folder) / f"model{suffix}"
            link.symlink_to(path.resolve())
            path = link
        options = {"custom_objects": custom_objects, "safe_mode": safe_mode}
        try:
            return keras.models.load_model(path, compile=compiled, **options)
        except Exception as error:  # of the model, or of what it was compiled with
            if not compiled:
                raise
            model = keras.models.load_model(path, compile=False, **options)
            warn_uncompiled(last_cause(error))
            return model
