"""Runs stages one after the other in the folder of a run, exports the model, and reports."""

import dataclasses

import tfpeft
from pipelines.common import (
    classifiers,
    datasets,
    devices,
    exporting,
    models,
    objectives,
    report_facts,
    reports,
    samples,
    training,
)
from pipelines.common.compilation import compilation_of_run
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import (
    DATA_FLAGS,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
    TRAIN_FLAGS,
    Flag,
    with_defaults,
    with_value,
)
from pipelines.common.folders import RunFolder
from pipelines.common.recognition import CLASSES
from pipelines.common.request import request_of
from pipelines.stages import (
    STAGES,
    compression_report,
    distill,
    prune_channels,
    quantize,
    quantize_aware,
    teacher,
)
from pipelines.stages.stage import Inputs
from tfpeft.core.arguments import InputError, unexpected

STAGES_FLAG = Flag(
    "stages",
    list,
    None,
    f"Any of {', '.join(STAGES)}, in the order in which they run; quantize last, and before it "
    "cluster and quantize_aware. By default "
    "distill,prune,quantize; of a --model, tune,prune_channels,prune,quantize, or with flags of "
    "distill alone tune,distill,prune,quantize. With `auto`, what pipelines.recommend puts first; "
    "with --max_size_bytes, then of the .tflite file, the first that is inside.",
)
MAX_ACCURACY_DROP = Flag(
    "max_accuracy_drop",
    float,
    None,
    "Percentage points of test accuracy that the file may be below the teacher; else status 2.",
    at_least=-100,
    at_most=100,
)
MAX_METRIC_LOSS = Flag(
    "max_metric_loss",
    float,
    None,
    "Per cent of the teacher's metric on test data that the file may lose, in any task: 2 allows "
    "an accuracy of 88.2% for 90%, an error of 10.2 for 10; else status 2.",
    at_least=-100,
    at_most=1000,
)
RESULT_FLAGS = (MAX_ACCURACY_DROP, MAX_METRIC_LOSS, devices.TARGET)
RUN_FLAGS = (*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS, *TRAIN_FLAGS, *RESULT_FLAGS)
# The stages after which none may train as it likes: in this order, and after all others.
_LAST = ("cluster", "quantize_aware", "quantize")


def groups(*names):
    """Returns the groups of flags of a script that runs the stages `names`."""
    return {
        "data": DATA_FLAGS,
        "task": OBJECTIVE_FLAGS,
        "model": MODEL_FLAGS,
        "training": TRAIN_FLAGS,
        "result": RESULT_FLAGS,
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
    settings = with_quantization(settings, names)
    check(settings, names)
    stage_flags = [flag for name in names for flag in STAGES[name].flags]
    settings = with_defaults(settings, [*RUN_FLAGS, *ALL_FLAGS])
    flags = [*RUN_FLAGS, *own_flags, *stage_flags]
    with RunFolder(job, settings, flags, files=files_of_flags(names)) as folder:
        files = [stage.file for stage in with_teacher(names)]
        whole = [folder.has(file) for file in files]
        whole.append(folder.has("report.json", compression_report.FORM))
        if not all(whole) or not devices.are_described(
            folder / "report.json", devices.targets_of(settings)
        ):
            run_stages(settings, folder, names)
        result = reports.show(folder, compression_report.headline, compression_report.FORM)
    return status_of(result, settings, folder / "model.tflite")


def status_of(result, settings, path):
    """Returns the exit status: 2 where the file lost more than the flags allow, with a line."""
    drop, losses = result["accuracy_drop"], result["metrics"]
    most = settings.max_accuracy_drop
    if None not in (most, drop) and drop > most:
        print(
            f"{path} is {drop:.2f} points of accuracy below the teacher, "
            f"expected at most --max_accuracy_drop={most}"
        )
        return 2
    for name, each in losses.items():
        if settings.max_metric_loss is not None and each["loss"] > settings.max_metric_loss:
            print(
                f"{path} lost {each['loss']:.2f}% of the teacher's {name}, "
                f"expected at most --max_metric_loss={settings.max_metric_loss}"
            )
            return 2
    return 0


def default_stages(settings):
    """Returns names of stages: a given model keeps its weights, is tuned, and loses channels.

    A model that the script trains teaches a student of half its width, as does a given one where a
    flag of `distill` asks for a student.
    """
    own = {flag.name for flag in distill.FLAGS if flag not in prune_channels.FLAGS}
    tune = () if settings.model is None else ("tune",)
    first = "distill" if settings.model is None or own & settings.given else "prune_channels"
    return (*tune, first, "prune", "quantize")


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
    last = [name for name in _LAST if name in names]
    is_ordered = not last or list(names[-len(last) :]) == last
    if set(names) - set(STAGES) or len(set(names)) < len(names) or not is_ordered:
        raise invalid_flag(
            "stages",
            f"some of {', '.join(STAGES)}, each once, quantize last, and before it cluster and "
            "quantize_aware, in this order",
            names,
        )
    if names and names[-1] == "quantize_aware":
        raise invalid_flag("stages", "quantize after quantize_aware", names)
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
    devices.check(settings)


def with_quantization(settings, names):
    """Returns the settings with the quantization of the file that the stages `names` write.

    Raises for a --quantization, and for flags of it, that a quantise-aware model does not take.
    """
    if "quantize" not in names:
        return with_value(settings, "quantization", "none")
    if "quantize_aware" not in names:
        return settings
    for flag in exporting.INT8_FLAGS:
        if flag.name in settings.given:
            raise unread_flag(flag.name, "a quantise-aware model")
    wanted = quantize_aware.quantization(settings)
    if "quantization" in settings.given and settings.quantization != wanted:
        expected = f"{wanted} with --activation_bits={settings.activation_bits}"
        raise invalid_flag("quantization", expected, settings.quantization)
    return with_value(settings, "quantization", wanted)


def run_stages(settings, folder, names):
    """Runs the stages whose files are not there, and writes the report."""
    custom_objects = models.import_custom_objects(settings.custom_objects)

    def load_file(path):
        trust = settings.trust_code
        return models.load_model(path, "model", custom_objects, trust_code=trust)

    def load(name):
        return load_file(folder / f"{name}.keras")

    model = None
    if folder.has(teacher.STAGE.file):
        model = load(teacher.STAGE.name)
    elif settings.model is not None:
        model = load_file(settings.model)
    compilation = None
    if settings.model is not None:
        compilation = compilation_of_run(folder, settings.model, custom_objects)
    request = request_of(settings, compilation)
    data = datasets.load_given(settings, model, request)
    print(data, flush=True)
    if settings.max_accuracy_drop is not None and data.task not in CLASSES:
        raise unexpected("--max_metric_loss for tasks without accuracy", "--max_accuracy_drop")
    if model is not None and settings.model is not None:
        data = check_model(settings, model, data, names)
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
            with folder.timed(stage.name, inputs.facts):
                folder.write(stage.file, stage.run(settings, inputs))
        if stage is teacher.STAGE:
            model = load(stage.name)
            data, objective = data.for_model(model)
            if settings.model is None:
                chance = objective.chance_of(model, data.train)
                if not chance.is_better:
                    print(f"The trained teacher is no better than chance: {chance}", flush=True)
            folder.write("labels.txt", "".join(f"{name}\n" for name in data.names))
            for name, write in (data.table.files() if data.table else {}).items():
                folder.write(name, write)
        done.append(stage.name)
    measured = {name: load(name) for name in done[:-1]}
    last = objectives.of(data, measured[done[-2]])
    measured[quantize.STAGE.file] = folder / quantize.STAGE.file
    comparison = objectives.compare(measured, data.test, [last])
    kept, arrays = report_facts.of_run(settings, folder, stages, RUN_FLAGS, data, last, measured)
    facts = {
        "teacher_file": "integer" if _is_quantise_aware(measured["teacher"]) else "float32",
        "test_samples": samples.count(data.test),
        "task": last.task,
        "outputs": None if last.outputs is None else dataclasses.asdict(last.outputs),
        "kinds": {name or "": kind.kind for name, kind in last.kinds.items()},
        "devices": devices.describe(folder, quantize.STAGE.file, devices.targets_of(settings)),
        **kept,
    }
    compression_report.write(folder, comparison, facts, arrays)


def check_model(settings, model, data, names):
    """Returns the data in the shape of --model.

    Raises for a model that does no better than chance, unless the first stage may start from it.
    """
    received = f"--model={settings.model}"
    if _is_quantise_aware(model) and list(names) != ["quantize"]:
        raise unexpected(
            "a plain model, of which `strip_quantization` makes one, or the stage quantize alone",
            f"{received}, which is quantise-aware",
        )
    texts = samples.text_inputs(data.train)
    if texts:
        expected = (
            "a model of numbers, as a .tflite file reads no texts; `tfpeft.export_saved_model` "
            "writes a model of texts"
        )
        raise unexpected(expected, f"{received} with texts in {', '.join(texts)}")
    data, objective = data.for_model(model)
    if objective.outputs is not None and settings.loss is None:
        classifiers.check_loss(settings.model, objective.outputs, received)
    chance = objective.chance_of(model, data.train)
    from_scratch = bool(names) and STAGES[names[0]].from_scratch
    chance.check(received, settings.allow_chance or from_scratch)
    print(f"Model: {objective}, {chance}", flush=True)
    if from_scratch and not chance.is_better:
        print(f"It does no better than chance: {names[0]} trains it from scratch", flush=True)
    return data


def _is_quantise_aware(model):
    return isinstance(model, tfpeft.QuantizeAwareModel)
