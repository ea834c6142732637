"""The tasks that share a backbone: what --task names, and their data."""

import os
import re
import typing

import keras

from pipelines.common import backbones, datasets, texts
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import Flag
from pipelines.common.models import input_shape, is_model_of_arrays
from tfpeft.core.arguments import InputError, unexpected

TASK = Flag(
    "task",
    str,
    (),
    "A task, given once for each: NAME=FILE.csv:TEXT_COLUMN:LABEL_COLUMN, a CSV with a header row, "
    "or NAME=FILE.npz of x_train, y_train, x_test, y_test and perhaps x_val, y_val.",
    repeated=True,
)


CLASSES = {str: [str]}
"""The form of tasks.json: the names of the classes of each task."""


class Task(typing.NamedTuple):
    """What a --task names; `columns` are those of texts and labels, none for arrays."""

    given: str
    path: str
    columns: tuple


def parse(settings):
    """Returns {name: Task} of all --task, checked as far as it can be without their files."""
    tasks = {}
    for given in settings.task:
        name, _, source = given.partition("=")
        path, *columns = [source] if source.endswith(".npz") else source.rsplit(":", 2)
        is_whole = source.endswith(".npz") or len(columns) == 2
        named = re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name)
        if not is_whole or not named or not all([path, *columns]):
            expected = (
                "NAME=FILE.csv:TEXT_COLUMN:LABEL_COLUMN or NAME=FILE.npz, with a name of letters, "
                'digits, "_", "-" and "."'
            )
            raise invalid_flag("task", expected, given)
        if name in tasks:
            raise unexpected("tasks of several names", f"{name!r} in two --task")
        tasks[name] = Task(f"--task={given}", os.path.expanduser(path), tuple(columns))
    return tasks


def check(settings, tasks):
    """Raises for flags that do not go together; returns whether the tasks are on texts."""
    if settings.backbone is None or not tasks:
        missing = "no --backbone" if settings.backbone is None else "no --task"
        raise unexpected("a --backbone, and a --task once or more", missing)
    kinds = {bool(task.columns) for task in tasks.values()}
    if len(kinds) > 1:
        raise unexpected(
            "tasks that are all texts (.csv) or all arrays (.npz), as they share a --backbone",
            " ".join(task.given for task in tasks.values()),
        )
    is_text = kinds.pop()
    is_file = is_model_of_arrays(settings.backbone)
    if is_text and is_file:
        raise unexpected(
            "a --backbone with a tokenizer for texts: a preset, a handle or a folder",
            f"--backbone={settings.backbone}",
        )
    if "sequence_length" in settings.given and not is_text:
        raise unread_flag("sequence_length", "a run on arrays (.npz)")
    for name in ("custom_objects", "trust_code"):
        if name in settings.given and not is_file:
            raise InputError(
                f"Received --{name}, which only a .keras or .h5 file reads. "
                f"Received: --backbone={settings.backbone}"
            )
    return is_text


def read(tasks):
    """Returns {name: data}, texts as they are."""
    return {
        name: texts.load_texts(task.path, *task.columns, task.given)
        if task.columns
        else datasets.load_arrays(task.path, "task", task.given)
        for name, task in tasks.items()
    }


def as_inputs(data, tasks, backbone, preprocessor):
    """Returns {name: data} whose x are what the backbone reads."""
    if preprocessor is not None:
        return {
            name: texts_.with_inputs(lambda x: backbones.tokens(preprocessor, x))
            for name, texts_ in data.items()
        }
    return {
        name: arrays.for_inputs(input_shape(backbone), "--backbone", tasks[name].given)
        for name, arrays in data.items()
    }


def first_samples(x, count):
    """Returns the first `count` samples of each input."""
    return keras.tree.map_structure(lambda array: array[:count], x)
