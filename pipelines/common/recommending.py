"""Recommendations for a --model and what the flags name: for the script, and for --stages=auto."""

import dataclasses
import shlex
import types

import keras

import tfpeft
from pipelines.common import (
    backbones,
    datasets,
    models,
    report_facts,
    reports,
    samples,
    tasks,
    training,
)
from pipelines.common.compilation import compilation_of
from pipelines.common.errors import unread_flag
from pipelines.common.flags import (
    BATCH_SIZE,
    DATA_FLAGS,
    LEARNING_RATE,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
    READ_FLAGS,
    Flag,
)
from pipelines.common.request import request_of
from tfpeft.automl.advice.goals import GOALS, TECHNIQUES, TRAINED_LESS
from tfpeft.automl.advice.words import DATA, MODEL
from tfpeft.core.arguments import unexpected
from tfpeft.export.targets.table import TARGETS

GOAL = Flag(
    "goal",
    str,
    None,
    "What hurts: latency, size of the file, its size when it is downloaded (compressed), memory on "
    "a device, the cost of training, or that several tasks need a model each.",
    choices=GOALS,
)
MINUTES = Flag("minutes", float, 10.0, "After so many no further trial begins.", above=0)
DEVICE = Flag(
    "target",
    str,
    None,
    "The device: tflm is TensorFlow Lite for Microcontrollers, xnnpack a phone. By default this "
    "machine. All but xnnpack need pip install 'tfpeft[devices]'.",
    choices=tuple(TARGETS),
)
ALLOWED = Flag(
    "max_metric_loss",
    float,
    1.0,
    "Per cent of the model's metric that may be lost: 1 allows an accuracy of 89.1% for 90%, an "
    "error of 10.1 for 10.",
    at_least=0,
    at_most=1000,
)
TRIED = Flag(
    "techniques",
    list,
    None,
    "Techniques that are tried; by default all that can help the goal on the device.",
    choices=(*TECHNIQUES, *TRAINED_LESS, "heads"),
)
TRIAL_STEPS = Flag(
    "trial_steps",
    int,
    None,
    "Updates of a trial that trains; by default as many as --minutes allow, from 20 on.",
    at_least=1,
)
SHARED = Flag(
    "tasks",
    str,
    (),
    "A task, of --goal=tasks once for each: NAME=FILE.npz, or NAME=FILE.csv:TEXT_COLUMN:"
    "LABEL_COLUMN for a --model that is a preset of KerasHub.",
    repeated=True,
)
FLAGS = (GOAL, DEVICE, MINUTES, ALLOWED, TRIED, TRIAL_STEPS, SHARED)
RUN_FLAGS = (
    *(*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS, BATCH_SIZE, LEARNING_RATE),
    # With more time, or other techniques, a run of the same model goes on.
    *(flag for flag in FLAGS if flag not in (MINUTES, TRIED)),
)
"""The flags that the folder of recommendations belongs to."""
_MOST = 10_000  # samples of a split; they are held in memory


def check(settings):
    """Raises for flags that do not go together."""
    if settings.goal is None:
        raise unexpected(f"a --goal, one of {', '.join(GOALS)}", "none")
    if settings.model is None:
        raise unexpected("a --model, which the recommendations are for", "none")
    if settings.tasks and settings.goal != "tasks":
        raise unread_flag("tasks", f"--goal={settings.goal}")
    if settings.goal == "tasks" and "dataset" in settings.given:
        raise unread_flag("dataset", "--goal=tasks, which reads --tasks")


def recommend(settings, folder):
    """Returns the `Recommendations` for the flags; finished trials are in `folder` / "trials".

    Args:
        settings: Has the settings of `FLAGS`, and of data, model, task and training.
        folder: The `RunFolder`.
    """
    training.seed_everything(settings.seed)
    of_goal = _of_tasks if settings.goal == "tasks" else _of_data
    model, data, arguments = of_goal(settings, folder)
    found = tfpeft.recommend(
        model,
        data,
        goal=settings.goal,
        target=settings.target,
        minutes=settings.minutes,
        folder=folder / "trials",
        max_metric_loss=settings.max_metric_loss / 100,
        techniques=settings.techniques,
        steps=settings.trial_steps,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate,
        seed=settings.seed,
        **arguments,
    )
    lists = {
        name: [_with_files(each, settings) for each in getattr(found, name)]
        for name in ("recommendations", "alternatives")
    }
    return dataclasses.replace(found, **lists)


def write_report(folder, found, settings):
    """Writes the files of the report of `Recommendations`."""
    note = f"Latency is of this machine ({reports.machine()}): one sample, one thread."
    result = {
        **found.as_dict(),
        "made": report_facts.made(settings, folder, repeated=("tasks",)),
        "flags": folder.flags,
        "versions": reports.versions(),
    }
    reports.write(folder, result, [found.to_markdown(), note])


def _of_data(settings, folder):
    """Returns --model, compiled for its data, some samples, and what else `recommend` is given."""
    custom_objects = models.import_custom_objects(settings.custom_objects)
    model = models.load_model(
        settings.model, "model", custom_objects, trust_code=settings.trust_code
    )
    request = request_of(settings, compilation_of(settings.model, custom_objects))
    data = datasets.load_given(settings, model, request)
    print(data, flush=True)
    texts = samples.text_inputs(data.train)
    if texts:
        expected = "a model of numbers, as a .tflite file reads no texts"
        raise unexpected(expected, f"--model={settings.model} with texts in {', '.join(texts)}")
    data, objective = data.for_model(model)
    received = f"--model={settings.model}"
    objective.chance_of(model, data.train).check(received, settings.allow_chance)
    if not isinstance(model, tfpeft.QuantizeAwareModel):
        objective.compile(model, keras.optimizers.Adam(settings.learning_rate))
    outputs = objective.outputs
    return (
        model,
        _pair(data.train),
        {
            "validation_data": _pair(data.validation),
            "task": "binary" if outputs and outputs.units == 1 else objective.task,
            "from_logits": objective.from_logits,
        },
    )


def _pair(split):
    """Returns some samples as arrays (x, y) or (x, y, sample_weight)."""
    return samples.some(split, _MOST).element()


def _of_tasks(settings, folder):
    """Returns the backbone that --model names, None, and the data of --tasks."""
    named = types.SimpleNamespace(
        **{
            **vars(settings),
            "task": settings.tasks,
            "backbone": settings.model,
            "sequence_length": backbones.SEQUENCE_LENGTH.default,
        }
    )
    parsed = tasks.parse(named)
    is_text = tasks.check(named, parsed)
    data = tasks.read(parsed)
    backbone, preprocessor = backbones.open_backbone(named, folder, is_text=is_text)
    data = tasks.as_inputs(data, parsed, backbone, preprocessor)
    return (
        backbone,
        None,
        {
            "tasks": {name: _pair(each.train) for name, each in data.items()},
            "validation_data": {name: _pair(each.validation) for name, each in data.items()},
        },
    )


def _with_files(found, settings):
    """Returns a recommendation whose command and code name the files of the flags."""
    command = found.command
    if command is not None:
        command = _command_with_files(command, settings)
    code = found.code.replace(f'"{MODEL}"', repr(settings.model))
    return dataclasses.replace(found, command=command, code=code)


def _command_with_files(command, settings):
    """Returns a command with the files and the other flags of the settings."""
    given = [flag for flag in (*READ_FLAGS, *OBJECTIVE_FLAGS) if flag.name in settings.given]
    flags = [
        f"--{flag.name}={_text(getattr(settings, flag.name))}"
        for flag in given
        if flag.name != "dataset"
    ]
    of_model = []
    if settings.custom_objects is not None:
        of_model.append(f"--custom_objects={_text(settings.custom_objects)}")
    of_model += ["--trust_code"] if settings.trust_code else []
    command = command.replace(f"={MODEL}", f"={_text(settings.model)}")
    for name, path in _files_of_tasks(settings).items():
        command = command.replace(f"--task={name}={name}.npz", f"--task={_text(f'{name}={path}')}")
    if f"--dataset={DATA}" not in command:
        return " ".join([command, *of_model])
    of_model += ["--allow_chance"] if settings.allow_chance else []
    data = [f"--dataset={_text(settings.dataset)}", *flags, *of_model]
    return command.replace(f"--dataset={DATA}", " ".join(data))


def _files_of_tasks(settings):
    """Returns {name of a task: what is behind it in --tasks}."""
    return {name: path for name, _, path in (given.partition("=") for given in settings.tasks)}


def _text(value):
    """Returns a value as a shell takes it."""
    text = ",".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return shlex.quote(text)
