"""What the model of a file was compiled with: its loss and its metrics."""

import dataclasses
import json
import pathlib
import typing
import zipfile

import h5py
import keras

from tfpeft.core.arguments import last_cause, unexpected
from tfpeft.core.json_files import read_json
from tfpeft.loading.compiled import loss_of, metrics_of
from tfpeft.loading.saved_metadata import keras_config

KEPT = "compilation.json"
"""The file in the folder of a run that holds what its model was compiled with."""
_FORM = {str: object}


@dataclasses.dataclass(frozen=True)
class Compilation:
    """A loss and metrics, in the form of a file, of which new objects are made at each call."""

    config: dict
    custom_objects: dict = dataclasses.field(default_factory=dict)

    def loss(self) -> typing.Any:
        """Returns the loss, as `compile` takes it; None if there is none."""
        return self._made("loss", loss_of)

    def metrics(self) -> typing.Any:
        """Returns the metrics, weighted ones among them, as `compile` takes them, or None."""
        found = [self._made(name, metrics_of) for name in ("metrics", "weighted_metrics")]
        return _joined(*found)

    @property
    def loss_name(self):
        """The name of the loss in the file; None without one, or with several."""
        loss = self.config.get("loss")
        if isinstance(loss, list) and len(loss) == 1:
            loss = loss[0]
        if isinstance(loss, dict) and "class_name" not in loss and len(loss) == 1:
            loss = next(iter(loss.values()))
        if isinstance(loss, dict):
            is_function = loss.get("class_name") == "function"
            loss = loss.get("config" if is_function else "class_name")
        return loss if isinstance(loss, str) else None

    def _made(self, name, make):
        config = self.config.get(name)
        if config is None:
            return None
        try:
            with keras.saving.custom_object_scope(self.custom_objects):
                return make(config)
        except Exception as error:  # of Keras, and of custom classes
            flag = "--loss" if name == "loss" else "--metrics"
            expected = f"a {name} of Keras or of --custom_objects; {flag} names another one"
            raise unexpected(
                expected, f"a model compiled with another: {last_cause(error)}"
            ) from error


def _joined(metrics, others):
    """Returns the metrics of two arguments of `compile`, each a list, or a structure of lists."""
    if not metrics or not others:
        return metrics or others
    if isinstance(metrics, dict) and isinstance(others, dict):
        names = dict.fromkeys([*metrics, *others])
        return {name: _joined(metrics.get(name), others.get(name)) for name in names}
    metrics, others = (each if isinstance(each, list) else [each] for each in (metrics, others))
    if any(isinstance(each, list) for each in metrics + others):  # a list per output
        return [_joined(*pair) for pair in zip(metrics, others, strict=True)]
    return [*metrics, *others]


def compilation_of(path, custom_objects=None):
    """Returns the `Compilation` of the model of a file or folder; None if it has none.

    It is read as text: a loss of the user's code need not be known. What has the form of a list for
    several outputs becomes a dict by their names.
    """
    try:
        if pathlib.Path(path).is_dir():
            model = keras_config(pathlib.Path(path)) or {}
            config = model.get("training_config")
        elif zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as file:
                model = json.loads(file.read("config.json"))
            config = model.get("compile_config")
        else:
            with h5py.File(path, "r") as file:
                model = json.loads(file.attrs.get("model_config", "{}"))
                config = json.loads(file.attrs.get("training_config", "{}"))
    except (OSError, ValueError, KeyError):
        return None
    if not isinstance(config, dict) or config.get("loss") is None:
        return None
    return Compilation(_by_output(config, _output_names(model)), custom_objects or {})


def keep(folder, compilation):
    """Writes a `Compilation` to the folder of a run, or removes what is there for None."""
    folder.discard([KEPT])
    if compilation is not None:
        folder.write(KEPT, json.dumps(compilation.config))


def compilation_of_run(folder, path, custom_objects):
    """Returns the `Compilation` that the folder of a run keeps, else that of the file of --model.

    So a run resumes with its loss where the file has been moved or replaced since.
    """
    if folder.has("teacher.keras") and folder.has(KEPT, _FORM):
        return Compilation(read_json(folder / KEPT, _FORM), custom_objects or {})
    return compilation_of(path, custom_objects)


def _output_names(model):
    """Returns the names of the layers that make outputs in a list, as `graph.output_names` does."""
    config = model.get("config")
    outputs = config.get("output_layers") if isinstance(config, dict) else None
    are_listed = isinstance(outputs, list) and all(isinstance(each, list) for each in outputs)
    return [name for name, *_ in outputs] if are_listed and len(outputs) > 1 else []


def _by_output(config, names):
    """Returns a configuration whose lists of one item per output are dicts by their names."""
    found = dict(config)
    for key in ("loss", "loss_weights", "metrics", "weighted_metrics"):
        items = config.get(key)
        if names and isinstance(items, list) and len(items) == len(names):
            is_flat = "metrics" in key and not all(isinstance(each, list) for each in items)
            found[key] = items if is_flat else dict(zip(names, items, strict=True))
    return found
