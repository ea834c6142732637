"""Runs stages one after the other in the folder of a run, exports the model, and reports."""

import dataclasses

import tfpeft
from pipelines.common import classifiers, datasets, models, reports, training
from pipelines.common.errors import invalid_flag
from pipelines.common.flags import (
    DATA_FLAGS,
    MODEL_FLAGS,
    TRAIN_FLAGS,
    Flag,
    with_defaults,
    with_value,
)
from pipelines.common.folders import RunFolder
from pipelines.stages import STAGES, distill, prune_channels, quantize, teacher
from pipelines.stages.stage import Inputs
from tfpeft.core.arguments import InputError
from tfpeft.evaluation.tables import plot_accuracy_size

STAGES_FLAG = Flag(
    "stages",
    list,
    None,
    f"Any of {', '.join(STAGES)}, in the order in which they run; quantize last. By default "
    "distill,prune,quantize; of a --model, without flags of distill alone, "
    "prune_channels,prune,quantize.",
)
MAX_ACCURACY_DROP = Flag(
    "max_accuracy_drop",
    float,
    None,
    "Percentage points of test accuracy that the file may be below the teacher; else status 2.",
    at_least=-100,
    at_most=100,
)
_REPORT = {
    "rows": reports.ROWS,
    "size_ratio": (float, None),
    "accuracy_drop": float,
    "test_samples": int,
}
RUN_FLAGS = (*DATA_FLAGS, *MODEL_FLAGS, *TRAIN_FLAGS, MAX_ACCURACY_DROP)


def groups(*names):
    """Returns the groups of flags of a script that runs the stages `names`."""
    return {
        "data": DATA_FLAGS,
        "model": MODEL_FLAGS,
        "training": TRAIN_FLAGS,
        "result": (MAX_ACCURACY_DROP,),
        **{f"stage {name}": STAGES[name].flags for name in names},
    }


# What the scripts of a single stage know of, and do not read.
ALL_FLAGS = tuple(flag for flags in groups(*STAGES).values() for flag in flags)


def run(job, settings, names, *, own_flags=()):
    """Runs the stages `names` in the folder of a job; returns the exit status.

    Args:
        job: Name of the script, for the folder.
        settings: Settings of the script; flags that it does not read have their defaults here.
        names: Names of stages.
        own_flags: Flags that the results depend on, beside those of every run and of the stages.
    """
    check(settings, names)
    stage_flags = [flag for name in names for flag in STAGES[name].flags]
    settings = with_defaults(settings, [*RUN_FLAGS, *ALL_FLAGS])
    flags = [*RUN_FLAGS, *own_flags, *stage_flags]
    with RunFolder(job, settings, flags, files=files_of_flags(names)) as folder:
        files = [stage.file for stage in with_teacher(names)]
        whole = [folder.has(file) for file in files]
        if not all([folder.has("report.json", _REPORT), *whole]):
            run_stages(settings, folder, names)
        drop = reports.show(folder, headline, _REPORT)["accuracy_drop"]
    if settings.max_accuracy_drop is not None and drop > settings.max_accuracy_drop:
        print(
            f"{folder / 'model.tflite'} is {drop:.2f} points of accuracy below the teacher, "
            f"expected at most --max_accuracy_drop={settings.max_accuracy_drop}"
        )
        return 2
    return 0


def default_stages(settings):
    """Returns names of stages: a given model keeps its weights, and loses channels.

    A model that the script trains teaches a student of half its width, as does a given one where a
    flag of `distill` asks for a student.
    """
    own = {flag.name for flag in distill.FLAGS if flag not in prune_channels.FLAGS}
    first = "distill" if settings.model is None or own & settings.given else "prune_channels"
    return (first, "prune", "quantize")


def files_of_flags(names):
    """Returns name of a flag -> what the stages write that read it, of those in `names`."""
    files = {}
    for stage in (STAGES[name] for name in names):
        for flag in stage.flags:
            files.setdefault(flag.name, []).extend([stage.file, *stage.folders])
    shared = {flag.name for flag in RUN_FLAGS}
    return {name: written for name, written in files.items() if name not in shared}


def with_teacher(names):
    """Returns the stages that a run of the stages `names` has: a teacher first, a file last."""
    between = (STAGES[name] for name in names if name != quantize.STAGE.name)
    return [teacher.STAGE, *between, quantize.STAGE]


def check(settings, names):
    """Raises for stages that cannot follow each other, and flags that none of them reads."""
    if set(names) - set(STAGES) or len(set(names)) < len(names) or "quantize" in names[:-1]:
        raise invalid_flag(
            "stages", f"some of {', '.join(STAGES)}, each once, quantize last", names
        )
    readers = {}
    for stage in STAGES.values():
        for flag in stage.flags:
            readers.setdefault(flag.name, []).append(stage.name)
    for name, stages in readers.items():
        if name in settings.given and not set(stages) & set(names):
            raise InputError(
                f"--{name} belongs to the stage {' or '.join(stages)}, which is not among --stages"
            )
    for name in names:
        STAGES[name].check(settings)


def run_stages(settings, folder, names):
    """Runs the stages whose files are not there, and writes the report."""
    custom_objects = models.import_custom_objects(settings.custom_objects)

    def load(name):
        return models.load_model(folder / f"{name}.keras", custom_objects=custom_objects)

    model = None
    if folder.has(teacher.STAGE.file):
        model = load(teacher.STAGE.name)
    elif settings.model is not None:
        model = models.load_model(settings.model, "model", custom_objects)
    data = datasets.load_given(settings, models.input_shape(model))
    print(data, flush=True)
    if model is not None and settings.model is not None:
        data = check_model(settings, model, data, names)
    if "quantize" not in names:
        settings = with_value(settings, "quantization", "none")
    stages = with_teacher(names)

    done = []
    for number, stage in enumerate(stages, 1):
        print(f"[{number}/{len(stages)}] {stage.heading(settings)}", flush=True)
        training.seed_everything(settings.seed + number)
        if not folder.has(stage.file):
            # What comes later is of a model that will be no more.
            folder.discard([n for later in stages[number:] for n in (later.file, *later.folders)])
            folder.discard(["report.json"])
            distilled = [i for i, each in enumerate(stages[: number - 1]) if each.distils]
            has_teacher = distilled and stage is not quantize.STAGE
            inputs = Inputs(
                data=data,
                folder=folder,
                teacher=load(done[distilled[0] - 1]) if has_teacher else None,
                model=load(done[-1]) if done else model,
                custom_objects=custom_objects,
            )
            folder.write(stage.file, stage.run(settings, inputs))
        if stage is teacher.STAGE:
            model = load(stage.name)
            data, outputs = data.for_model(model)
            if settings.model is None:
                chance = classifiers.chance_of(model, data.train, outputs)
                if not chance.is_better:
                    print(f"The trained teacher is no better than chance: {chance}", flush=True)
            folder.write("labels.txt", "".join(f"{name}\n" for name in data.names))
        done.append(stage.name)
    measured = {name: load(name) for name in done[:-1]}
    last = classifiers.outputs_of(measured[done[-2]], data.train[0])
    measured[quantize.STAGE.file] = folder / quantize.STAGE.file
    comparison = tfpeft.compare(measured, data.test, from_logits=classifiers.from_logits([last]))
    write_report(folder, comparison, len(data.test[1]), last)


def check_model(settings, model, data, names):
    """Returns the data in the shape of --model.

    Raises for a model that does no better than chance, unless the first stage may start from it.
    """
    received = f"--model={settings.model}"
    data, outputs = data.for_model(model)
    classifiers.check_loss(settings.model, outputs, received)
    chance = classifiers.chance_of(model, data.train, outputs)
    from_scratch = bool(names) and STAGES[names[0]].from_scratch
    chance.check(received, settings.allow_chance or from_scratch)
    print(f"Model: {outputs}, {chance}", flush=True)
    if from_scratch and not chance.is_better:
        print(f"It does no better than chance: {names[0]} trains it from scratch", flush=True)
    return data


def write_report(folder, comparison, samples, outputs):
    """Writes report.md, report.json and the plot; `outputs` are the `Outputs` of the file."""
    rows = {name: row.as_dict() for name, row in comparison.rows.items()}
    first, last = rows["teacher"], rows["model.tflite"]
    result = {
        "size_ratio": first["size_bytes"] and first["size_bytes"] / last["size_bytes"],
        "accuracy_drop": 100 * (first["accuracy"] - last["accuracy"]),
        "test_samples": samples,
        "outputs": dataclasses.asdict(outputs),
        "rows": rows,
        "flags": folder.flags,
        "versions": reports.versions(),
    }
    note = (
        "Bytes and latency of a Keras model are those of its float32 .tflite file. Latency is "
        f"of this machine ({reports.machine()}): one sample, one thread, all files in turn."
    )
    plot = "![accuracy against size](accuracy_size.png)"
    folder.write("accuracy_size.png", lambda path: plot_accuracy_size(rows, path))
    reports.write(folder, result, [headline(result), comparison.to_markdown(), note, plot])


def headline(result):
    """Returns a line on the size and the accuracy of the file."""
    change = round(-result["accuracy_drop"], 2) + 0.0  # no "-0.00"
    size = "of a teacher that has no .tflite file of its own"
    if result["size_ratio"]:
        size = f"{result['size_ratio']:.1f}x smaller than the teacher's float32 file"
    return (
        f"model.tflite: {size}, accuracy {change:+.2f} points, "
        f"on {result['test_samples']} test samples."
    )
