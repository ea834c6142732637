"""What a run keeps for its report beside its figures: commands, stages, layers, samples."""

import datetime
import os
import platform
import shlex

import keras
import numpy as np

from pipelines.common import disagreements, objectives
from pipelines.common.reports import optional
from tfpeft.core.kernel_axes import is_kernel, kernel_axes
from tfpeft.core.layers import layers_by_path
from tfpeft.export.tflite_file import TFLiteFile

_KERNELS = ("kernel", "depthwise_kernel", "pointwise_kernel", "recurrent_kernel", "embeddings")
_MOST_NAMES = 1000  # of classes that are kept


def of_run(settings, folder, stages, flags, data, objective, measured):
    """Returns what a run of stages keeps for its report, and {name: array} of samples.

    Args:
        settings: The settings of the run.
        folder: Its `RunFolder`.
        stages: Its `Stage`s.
        flags: The flags that all of them have.
        data: The `Data`.
        objective: The `Objective` of the last model.
        measured: {name: model}, the teacher first; the file, a path, last.
    """
    *models, file = measured.values()
    compared, arrays = of_models(models[0], models[-1], file, data, objective)
    kept = {
        "made": made(settings, folder),
        **compared,
        "settings": changed(flags, folder),
        "stages": [
            {
                "name": stage.name,
                "title": stage.heading(settings),
                "settings": changed([flag for flag in stage.flags if flag not in flags], folder),
            }
            for stage in stages
        ],
    }
    if "layer_snr_db" in folder.kept.get(stages[-1].name, {}):
        kept["layer_snr_db"] = folder.kept[stages[-1].name]["layer_snr_db"]
    return kept, arrays


def of_models(before, after, file, data, objective):
    """Returns what a report has of a model and what became of it, and {name: array} of samples.

    Args:
        before: The Keras model.
        after: The Keras model that was exported.
        file: The path of its file.
        data: The `Data`.
        objective: The `Objective` of the latter.
    """
    kept, arrays = {"data": str(data), "classes": class_names(data)}, {}
    with optional("layers"):
        kept["layers"] = of_layers(before, after)
    with optional("samples"):
        # Logits and probabilities are not compared.
        if objectives.of(data, before).kinds == objective.kinds:
            kept["disagreements"], arrays = disagreements.find(
                before,
                TFLiteFile(file),
                data.test,
                objective.task,
                objective.kinds,
                data.names,
            )
    return kept, arrays


def made(settings, folder, *, repeated=()):
    """Returns how a run came about: date, machine, commands, and the seconds of its stages.

    Args:
        settings: Settings of its script, with the names that were given.
        folder: The `RunFolder`.
        repeated: Names of flags that are given once for each value.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "machine": _machine(),
        "commands": [
            command(folder.settings["job"], settings, repeated),
            f"python -m pipelines.report --run={shlex.quote(str(folder.path))}",
        ],
        "seconds": {
            stage: facts["seconds"] for stage, facts in folder.kept.items() if "seconds" in facts
        },
    }


def command(job, settings, repeated=()):
    """Returns the command of a run: its script, and the flags that were given."""
    parts = ["python", "-m", f"pipelines.{job}"]
    for name in (name for name in vars(settings) if name in settings.given and name != "debug"):
        value = getattr(settings, name)
        if isinstance(value, bool):
            parts.append(f"--{'' if value else 'no'}{name}")
        elif name in repeated:
            parts += [f"--{name}={each}" for each in value]
        else:
            is_list = isinstance(value, (list, tuple))
            parts.append(f"--{name}={','.join(map(str, value)) if is_list else value}")
    return " ".join(map(shlex.quote, parts))


def _machine():
    """Returns the processor, its cores, the system and Python."""
    name = platform.processor() or platform.machine()
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            models = [line.partition(":")[2].strip() for line in file if "model name" in line]
        name = models[0] if models else name
    except OSError:  # another system than Linux
        pass
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    plural = "" if cores == 1 else "s"
    system = f"{platform.system()} {platform.machine()}"
    return f"{name}, {cores} core{plural}, {system}, Python {platform.python_version()}"


def changed(flags, folder):
    """Returns {name: value} of those flags of a `RunFolder` that differ from their defaults."""
    return {
        flag.name: folder.flags[flag.name]
        for flag in flags
        if folder.flags.get(flag.name, flag.default) != flag.default
    }


def class_names(data):
    """Returns the names of the classes; none where there are very many."""
    return list(data.names) if len(data.names) <= _MOST_NAMES else []


def of_layers(teacher, final):
    """Returns the kernels of a model and of what became of it, in the order of the latter.

    Each is a dict of "layer", its "type", the shape of its "kernel", and "teacher" and "final":
    its width, parameters and sparsity in both, None where it is in one of them only.
    """
    before, after = _kernels(teacher), _kernels(final)
    last_names = {}
    for path in before:
        last_names.setdefault(path.rpartition("/")[2], []).append(path)
    found, left = [], dict(before)
    for path, (kind, shape, figures) in after.items():
        same = [path] if path in before else last_names.get(path.rpartition("/")[2], [])
        pair = left.pop(same[0], None) if len(same) == 1 else None
        found.append(
            {
                "layer": path,
                "type": kind,
                "kernel": shape,
                "teacher": pair and pair[2],
                "final": figures,
            }
        )
    # Where no name is shared, the models have other architectures, and no layer was removed.
    for path, (kind, shape, figures) in left.items() if len(left) < len(before) else ():
        row = {"layer": path, "type": kind, "kernel": shape, "teacher": figures, "final": None}
        found.append(row)
    return found


def _kernels(model):
    """Returns {path: (class of the layer, shape, figures)} of the kernels of a model."""
    found = {}
    for path, layer in layers_by_path(model).items():
        for name in _KERNELS:
            is_table = name == "embeddings" and isinstance(layer, keras.layers.Embedding)
            if not is_table and not is_kernel(layer, name):
                continue
            variable = getattr(layer, name, None)
            if variable is None or len(variable.shape) < 2:
                continue
            values = np.asarray(variable)
            figures = {
                "width": _width(layer, variable),
                "parameters": int(values.size),
                "sparsity": float(1 - np.count_nonzero(values) / values.size),
            }
            suffix = "" if name in ("kernel", "embeddings") else f" ({name})"
            found[f"{path}{suffix}"] = type(layer).__name__, list(variable.shape), figures
    return found


def _width(layer, variable):
    """Returns how many channels a kernel makes."""
    axes = kernel_axes(layer, variable)
    if axes is None:
        return int(variable.shape[-1])
    # The channels of a depthwise kernel are its inputs, and each makes several.
    is_depthwise = "Depthwise" in type(layer).__name__
    sides = (*axes.inputs, *axes.outputs) if is_depthwise else axes.outputs
    return int(np.prod([variable.shape[axis] for axis in sides]))
