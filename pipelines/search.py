"""Searches the best small model under a budget: techniques, their settings, and students.

    python -m pipelines.search --max_size_bytes=20000 --minutes=5          # the embedded digits
    python -m pipelines.search --dataset=fashion_mnist --data_dir=data --max_size_bytes=30000
    python -m pipelines.search --model=mine.keras --dataset=mine.npz --max_latency_ms=0.5
    python -m pipelines.search --model=mine.keras --dataset=mine.npz --max_macs=1000000 \\
        --oracle=netadapt

A model that is given loses channels, is trained further, distilled from itself, and quantized;
with --space it teaches students of other architectures. Without --model a teacher is trained
first. Trials are chosen on validation data; the report is of test data.

Everything goes to saved_models/NAME/: teacher.keras, model.tflite, best.keras, report.md,
report.json, pareto.png, and the trials in search/. Stopped at any moment and started again with
the same flags, it goes on. KerasTuner's variables spread the trials over processes: see the page
on search.

Exit status: 0; 1 for bad input, and for a budget that no model keeps.
"""

import pathlib

import keras

import tfpeft
from pipelines.common import (
    classifiers,
    datasets,
    models,
    report_facts,
    reports,
    samples,
    training,
)
from pipelines.common.compilation import compilation_of
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import (
    BATCH_SIZE,
    DATA_FLAGS,
    LEARNING_RATE,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
    Flag,
    with_value,
)
from pipelines.common.folders import RunFolder, name_of_run
from pipelines.common.request import request_of
from pipelines.common.script import Script
from pipelines.stages import teacher as teacher_stage
from pipelines.stages.stage import Inputs
from tfpeft.automl import search
from tfpeft.automl.trials import workers
from tfpeft.core.arguments import unexpected
from tfpeft.core.json_files import read_json
from tfpeft.evaluation.tables import evaluations_markdown
from tfpeft.export.tflite_file import TFLiteFile

SPACES = {
    "small_cnn": tfpeft.SmallCNN,
    "mobile_blocks": tfpeft.MobileBlocks,
    "small_1d": tfpeft.Small1D,
    "tiny_transformer": tfpeft.TinyTransformer,
}
_COUNT = {"at_least": 1}
LIMIT_FLAGS = (
    Flag("max_size_bytes", int, None, "Bytes of the .tflite file.", **_COUNT),
    Flag("max_gzip_bytes", int, None, "Bytes of the file, compressed by gzip.", **_COUNT),
    Flag(
        "max_latency_ms",
        float,
        None,
        "Median milliseconds of a sample on one thread of this machine.",
        above=0,
    ),
    Flag("max_macs", int, None, "Multiply-accumulates of a sample.", **_COUNT),
    Flag(
        "max_arena_bytes",
        int,
        None,
        "Bytes that TensorFlow Lite for Microcontrollers takes for tensors.",
        **_COUNT,
    ),
    Flag(
        "min_metric",
        float,
        None,
        "The worst metric of the file on validation data, in its unit: an accuracy in [0, 1], or "
        "the largest error. Alone, the smallest file with it is searched.",
    ),
)
SEARCH_FLAGS = (
    Flag("minutes", float, 30.0, "How long the search takes, the teacher aside.", above=0),
    Flag(
        "space",
        list,
        None,
        f"Where students come from: any of {', '.join(SPACES)}; model for cuts of --model; or "
        "package.module:function, which makes a Keras model of KerasTuner's hyperparameters. By "
        "default model with --model, and else what fits the inputs.",
    ),
    Flag("oracle", str, "hyperband", "What proposes the next trial.", choices=search.ORACLES),
    Flag(
        "epochs", int, None, "Of a whole training of a trial; by default by the minutes.", **_COUNT
    ),
    Flag("max_trials", int, None, "Trials at most; by default as the minutes allow.", **_COUNT),
    Flag(
        "batch_size",
        int,
        None,
        "Samples of a step of a trial; by default by how many there are.",
        **_COUNT,
    ),
)
TEACHER_FLAGS = (
    Flag(
        "teacher",
        str,
        None,
        "A model that teaches: .keras, .h5 or .tflite; by default --model, or one that is trained.",
    ),
    Flag("teacher_epochs", int, 15, "Of the teacher that is trained.", at_least=1),
    LEARNING_RATE,
)
FLAGS = (
    *(*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS),
    *(*LIMIT_FLAGS, *SEARCH_FLAGS, *TEACHER_FLAGS),
)
_REPORT = {"rows": reports.ROWS, "best": str, "trials": [dict], "metric": str}
_TEACHER = "teacher.keras"


def main(settings):
    limits = {flag.name: getattr(settings, flag.name) for flag in LIMIT_FLAGS}
    if all(value is None for value in limits.values()):
        names = ", ".join(f"--{name}" for name in limits)
        raise unexpected(f"a limit or more of {names}", "none")
    budget = tfpeft.Budget(**limits)
    _check(settings)
    if workers.role() == workers.WORKER:
        _run_worker(settings, budget)
        return 0
    with RunFolder("search", settings, FLAGS, files={"minutes": ()}) as folder:
        if not _is_done(settings, folder):
            run(settings, folder, budget)
        reports.show(folder, headline, _REPORT)
    return 0


def _is_done(settings, folder):
    """Whether the folder has the report of a search of as many minutes."""
    if not folder.has("report.json", _REPORT) or not folder.has("model.tflite"):
        return False
    found = read_json(folder / "report.json", {**_REPORT, "flags": {"minutes": float}})
    return settings.minutes <= found["flags"]["minutes"]


def _check(settings):
    """Raises for flags that do not go together."""
    space = settings.space or ()
    if "model" in space and (settings.model is None or len(space) > 1):
        raise invalid_flag("space", "model alone, with --model", space)
    unknown = [name for name in space if name not in (*SPACES, "model") and ":" not in name]
    if unknown or (len(space) > 1 and any(":" in name for name in space)):
        expected = f"some of {', '.join(SPACES)}, or model, or one module:function"
        raise invalid_flag("space", expected, space)
    trains = settings.model is None and settings.teacher is None
    for name in ("teacher_epochs", "learning_rate"):
        if name in settings.given and not trains:
            raise unread_flag(name, "a --model or --teacher that is given")
    if settings.oracle == "netadapt" and not _is_of_model(settings):
        raise invalid_flag("oracle", "another one without --model", "netadapt")


def _is_of_model(settings):
    """Whether the search cuts --model, and does not draw students."""
    return settings.model is not None and list(settings.space or ["model"]) == ["model"]


def run(settings, folder, budget):
    """Trains the teacher, searches, and writes the report."""
    data, model, teacher = _prepare(settings, folder, budget)
    training.seed_everything(settings.seed)
    data, objective = data.for_model(teacher if model is None else model)
    subject = model if _is_of_model(settings) else _spaces(settings, data)
    names = f"{settings.minutes:g} minutes, {settings.oracle}, {budget}"
    print(f"[2/2] search: {names}", flush=True)
    result = _search(settings, folder / "search", subject, data, objective, teacher, budget)
    for name in ("model.tflite", "best.keras", "pareto.png"):
        content = (folder / "search" / name).read_bytes()
        folder.write(name, lambda path, content=content: path.write_bytes(content))
    folder.write("labels.txt", "".join(f"{name}\n" for name in data.names))
    data, objective = data.for_model(result.model)
    chance = objective.chance_of(result.model, data.test)
    if not chance.is_better:
        print(f"What was found is no better than chance, with more --minutes it may be: {chance}")
    before = teacher if model is None else model
    kept, arrays = {"data": str(data), "classes": report_facts.class_names(data)}, {}
    if isinstance(before, keras.Model):
        kept, arrays = report_facts.of_models(before, result.model, result.path, data, objective)
    kept |= {"task": objective.task, "test_samples": samples.count(data.test)}
    write_report(folder, result, settings, kept, arrays)


def _prepare(settings, folder, budget):
    """Returns the data, --model or None, and the teacher, which is trained where none is given."""
    custom_objects = models.import_custom_objects(settings.custom_objects)
    trust = {"trust_code": settings.trust_code}
    model = compilation = None
    if settings.model is not None:
        model = models.load_model(settings.model, "model", custom_objects, **trust)
        compilation = compilation_of(settings.model, custom_objects)
    data = datasets.load_given(settings, model, request_of(settings, compilation))
    print(data, flush=True)
    if isinstance(data.task, dict):
        raise unexpected("data of one output", f"--dataset={settings.dataset} of {data}")
    if model is not None:
        data, objective = data.for_model(model)
        received = f"--model={settings.model}"
        if objective.outputs is not None and settings.loss is None:
            classifiers.check_loss(settings.model, objective.outputs, received)
        objective.chance_of(model, data.train).check(received, settings.allow_chance)
    if settings.teacher is not None:
        print(f"[1/2] teacher {settings.teacher}", flush=True)
        return data, model, models.load_teacher(settings.teacher, custom_objects, **trust)
    if model is not None:
        print(f"[1/2] teacher {settings.model}", flush=True)
        return data, model, model
    print("[1/2] teacher", flush=True)
    if not folder.has(_TEACHER):
        _check_reachable(settings, data, budget)
        training.seed_everything(settings.seed + 1)
        trained = with_value(settings, "epochs", settings.teacher_epochs)
        trained = with_value(trained, "augment", ())
        if settings.batch_size is None:
            trained = with_value(trained, "batch_size", BATCH_SIZE.default)
        folder.write(_TEACHER, teacher_stage.run(trained, Inputs(data=data, folder=folder)))
    return data, None, models.load_model(folder / _TEACHER, custom_objects=custom_objects)


def _check_reachable(settings, data, budget):
    """Raises for a budget that no student keeps, before the teacher is trained."""
    search.check_reachable(
        _spaces(settings, data),
        samples.as_data(data.train),
        budget,
        validation_data=samples.as_data(data.validation),
        task=data.task,
        monitor=settings.monitor,
        seed=settings.seed,
    )


def _run_worker(settings, budget):
    """Runs trials for the chief, whose folder has the teacher."""
    folder = _Joined(settings)
    if settings.model is None and settings.teacher is None:
        workers.wait_for(folder / _TEACHER)
    data, model, teacher = _prepare(settings, folder, budget)
    training.seed_everything(settings.seed)  # as the chief: names of metrics are numbered
    data, objective = data.for_model(teacher if model is None else model)
    subject = model if _is_of_model(settings) else _spaces(settings, data)
    _search(settings, folder / "search", subject, data, objective, teacher, budget)
    print("The chief has ended the search, and has its report", flush=True)


class _Joined:
    """The folder of a run that another process, the chief, writes."""

    def __init__(self, settings):
        self._path = pathlib.Path(settings.output_dir) / name_of_run("search", settings)

    def has(self, name):
        """Returns whether a file is there."""
        return (self / name).is_file()

    def __truediv__(self, name):
        return self._path / name


def _spaces(settings, data):
    """Returns the spaces that --space names, or those that fit the inputs of the data."""
    names = settings.space
    if names and ":" in names[0]:
        return models.import_function(names[0], "space")
    if names:
        return [SPACES[name]() for name in names]
    x = samples.first_inputs(data.train, 1)
    if not hasattr(x, "shape"):
        raise unexpected("--space=package.module:function for several inputs", str(data))
    rank, is_tokens = len(x.shape), x.dtype.kind in "iu"
    if rank == 4 or (rank == 3 and min(x.shape[1:]) >= 8 and x.shape[1] == x.shape[2]):
        return [tfpeft.SmallCNN(), tfpeft.MobileBlocks()]
    if rank in (2, 3):
        return [tfpeft.TinyTransformer() if is_tokens and rank == 2 else tfpeft.Small1D()]
    raise unexpected("--space=package.module:function for such inputs", str(data))


def _search(settings, folder, subject, data, objective, teacher, budget):
    """Runs `tfpeft.search` with the flags."""
    outputs = objective.outputs
    is_binary = outputs is not None and outputs.units == 1
    monitor = None
    if settings.monitor is not None:
        monitor = settings.monitor.removeprefix("val_")
    return tfpeft.search(
        subject,
        samples.as_data(data.train),
        budget,
        minutes=settings.minutes,
        validation_data=samples.as_data(data.validation),
        test_data=samples.as_data(data.test),
        teacher=_as_teacher(teacher),
        oracle=settings.oracle,
        epochs=settings.epochs,
        max_trials=settings.max_trials,
        batch_size=settings.batch_size,
        task="binary" if is_binary else objective.task,
        # Students may have logits where the teacher has probabilities.
        loss=objective.loss() if settings.loss or _is_of_model(settings) else None,
        metrics=objective.extra,
        monitor=monitor,
        folder=folder,
        seed=settings.seed,
    )


def _as_teacher(teacher):
    """Returns a teacher as `Distiller` takes it: a file by its path."""
    return str(teacher.path) if isinstance(teacher, TFLiteFile) else teacher


def write_report(folder, result, settings, kept, arrays):
    """Writes report.md and report.json.

    Args:
        folder: The `RunFolder`.
        result: The `SearchResult`.
        settings: The settings.
        kept: What the report has beside these, with the number of "test_samples".
        arrays: {name: array} of samples.
    """
    found = {
        **result.as_dict(),
        **kept,
        "made": report_facts.made(settings, folder),
        "flags": folder.flags,
        "versions": reports.versions(),
    }
    rows = {name: row.as_dict() for name, row in result.rows.items()}
    note = (
        f"The first table is of the {kept['test_samples']} test samples; trials were chosen on "
        "validation data, of which the second table is. The file's latency is the one that the "
        f"budget was checked with, of this machine ({reports.machine()}): one sample, one thread."
    )
    tables = [evaluations_markdown(rows), note, result.to_markdown(), "![trials](pareto.png)"]
    reports.write(folder, found, [headline(found), *tables], arrays)


def headline(result):
    """Returns a line on the best file."""
    row = result["rows"]["model.tflite"]
    metric = row["metrics"].get(result["metric"])
    counts = {}
    for trial in result["trials"]:
        counts[trial["status"]] = counts.get(trial["status"], 0) + 1
    trials = ", ".join(f"{count} {name.replace('_', ' ')}" for name, count in counts.items())
    return (
        f"model.tflite: {row['size_bytes']:,} bytes, {result['metric']} {metric:.4f} on "
        f"{result['test_samples']} test samples, trial {result['best']} of {trials}."
    )


SCRIPT = Script(
    main,
    __doc__,
    groups={
        "data": DATA_FLAGS,
        "task": OBJECTIVE_FLAGS,
        "model": MODEL_FLAGS,
        "budget": LIMIT_FLAGS,
        "search": SEARCH_FLAGS,
        "teacher": TEACHER_FLAGS,
    },
    first=(
        *("dataset", "model", "max_size_bytes", "max_latency_ms", "max_macs", "min_metric"),
        *("minutes", "space", "oracle", "epochs"),
    ),
    trains=False,
)


if __name__ == "__main__":
    SCRIPT.run()
