r"""Trains several tasks on one pretrained backbone, and puts them into one .tflite file.

    python -m pipelines.share --backbone=bert_tiny_en_uncased \
        --task=sentiment=reviews.csv:text:label --task=topic=news.csv:body:section
    python -m pipelines.share --backbone=minilm --adapter=none --epochs=20 --learning_rate=1e-2 \
        --task=sentiment=reviews.csv:text:label
    python -m pipelines.share --backbone=images.keras --task=age=age.npz --task=hat=hat.npz

The backbone stays as it is; a task trains its head, and the adapter that --adapter names.
saved_models/NAME/ gets backbone.keras, tokenizer/ (for texts), TASK.weights.h5 for each task,
tasks.json, model.tflite with a signature for each task, report.html (one page for a browser),
report.md, report.json and model_card.md. Stopped at any moment and started again with the same
flags, it resumes with the step that was not finished. The epoch that is kept is chosen on
validation data; the report is of test data.

pipelines.predict runs the file.

Its numbers are --quantization=dynamic_range by default: of two tasks on all-MiniLM-L6-v2 that makes
24.4 MB, where float32 makes 91.2 MB and float16 45.8 MB, with the same accuracy of all three; int8
fails there, as the outputs of such a file are too far from the model's.
"""

import json
import math
import pathlib
import tempfile

import keras
import numpy as np

import tfpeft
from pipelines.common import (
    backbones,
    disagreements,
    exporting,
    report_facts,
    reports,
    tasks,
    training,
)
from pipelines.common.flags import BATCH_SIZE, EPOCHS, LEARNING_RATE, NAME, OUTPUT_DIR, SEED
from pipelines.common.folders import RunFolder
from pipelines.common.script import Script
from pipelines.stages import share
from tfpeft.evaluation.outputs import Outputs
from tfpeft.evaluation.tables import evaluations_markdown
from tfpeft.export.tflite_file import TFLiteFile

GROUPS = {
    "run": (OUTPUT_DIR, NAME, SEED),
    "backbone": backbones.BACKBONE_FLAGS,
    "tasks": (tasks.TASK, *share.FLAGS),
    "training": (EPOCHS.with_default(3), BATCH_SIZE, LEARNING_RATE.with_default(2e-3)),
    "export": (exporting.QUANTIZATION.with_default("dynamic_range"), *exporting.FLAGS[1:]),
}
REPORT = {
    **dict.fromkeys(("size_bytes", "separate_size_bytes"), int),
    **dict.fromkeys(("parameters", "separate_parameters"), int),
    "tasks": {
        str: {
            **dict.fromkeys(("classes", "size_bytes", "trained_parameters"), int),
            "samples": {str: int},
        }
    },
    "rows": reports.ROWS,
}
"""The form of report.json."""
FLAGS = tuple(flag for flags in GROUPS.values() for flag in flags)


def main(settings):
    named = tasks.parse(settings)
    is_text = tasks.check(settings, named)
    share.check(settings)
    exporting.check(settings)
    exported = {flag.name: ["model.tflite"] for flag in exporting.FLAGS}
    with RunFolder("share", settings, FLAGS, named_after="backbone", files=exported) as folder:
        forms = {"tasks.json": tasks.CLASSES, "report.json": REPORT}
        files = [*map(weights_file, named), "tasks.json", "model.tflite", "report.json"]
        if not all([folder.has(name, forms.get(name, object)) for name in files]):
            run_steps(settings, folder, named, is_text)
        reports.show(folder, headline, REPORT)
    return 0


def weights_file(task):
    return f"{task}.weights.h5"


def run_steps(settings, folder, named, is_text):
    begin(settings, 1, f"backbone {settings.backbone}")
    data = tasks.read(named)
    texts = {name: samples.test[0] for name, samples in data.items()} if is_text else {}
    for name, samples in data.items():
        print(f"{name}: {samples}", flush=True)
    backbone, preprocessor = backbones.open_backbone(settings, folder, is_text=is_text)
    data = tasks.as_inputs(data, named, backbone, preprocessor)
    begin(settings, 2, f"training of {', '.join(named)}, adapter {settings.adapter}")
    shared = share.shared_model(settings, backbone, data)
    files = {task: weights_file(task) for task in named}
    if not all((folder / name).exists() for name in [*files.values(), "tasks.json"]):
        for name in ("model.tflite", "report.json"):  # of weights that will be no more
            (folder / name).unlink(missing_ok=True)
        with folder.timed("training"):
            share.train(settings, shared, data)
        for task, file in files.items():
            folder.write(file, lambda path, task=task: shared.save_task(task, path))
        classes = {task: samples.names for task, samples in data.items()}
        folder.write("tasks.json", json.dumps(classes, indent=2))
    for file in files.values():
        shared.load_task(folder / file)
    begin(settings, 3, f"export, quantization {settings.quantization}")
    if not (folder / "model.tflite").exists():
        with folder.timed("export"):
            folder.write("model.tflite", lambda path: export(settings, shared, path, data))
    begin(settings, 4, "report")
    write_report(settings, folder, shared, data, texts)


def begin(settings, step, title):
    print(f"[{step}/4] {title}", flush=True)
    training.seed_everything(settings.seed + step)


def export(settings, model, path, data):
    """Writes a file; inputs from all of the data, of all tasks alike, calibrate int8."""
    rng, parts = np.random.default_rng(settings.seed), []
    for samples in data.values():
        drawn = rng.permutation(len(samples.train[1]))[: 600 // len(data)]
        parts.append(keras.tree.map_structure(lambda array, i=drawn: array[i], samples.train[0]))
    inputs = keras.tree.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
    labels = {task: exporting.labels(each.names, each.classes) for task, each in data.items()}
    labels = {task: names for task, names in labels.items() if names is not None}
    return tfpeft.export_tflite(
        model,
        path,
        representative_data=inputs,
        labels=(labels if len(data) > 1 else next(iter(labels.values()), None)) or None,
        **exporting.arguments(settings),
    )


def write_report(settings, folder, shared, data, texts):
    file = folder / "model.tflite"
    rows, figures = {}, {}
    for task, samples in data.items():
        model = shared.task(task)
        measured = {task: model, f"{task}, {file.name}": file}
        compared = tfpeft.compare(measured, samples.test, signature=task)
        rows |= {name: row.as_dict() for name, row in compared.rows.items()}
        with tempfile.TemporaryDirectory() as alone:
            exported = export(settings, model, pathlib.Path(alone) / file.name, {task: samples})
        figures[task] = {
            "classes": samples.classes,
            "samples": {s: len(getattr(samples, s)[1]) for s in ("train", "validation", "test")},
            "trained_parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
            "size_bytes": (folder / weights_file(task)).stat().st_size,
            "separate_parameters": model.count_params(),
            "separate_size_bytes": exported.size_bytes,
        }
    kept, arrays = facts(settings, folder, shared, data, texts)
    result = {
        "size_bytes": file.stat().st_size,
        "separate_size_bytes": sum(task["separate_size_bytes"] for task in figures.values()),
        "parameters": shared.count_params(),
        "separate_parameters": sum(task["separate_parameters"] for task in figures.values()),
        "tasks": figures,
        "rows": rows,
        **kept,
        "flags": folder.flags,
        "versions": reports.versions(),
    }
    result["headline"] = headline(result).partition("\n")[0]
    note = (
        "A row is of test data: a task as a Keras model, whose bytes and latency are those of a "
        "separate float32 .tflite file, and as a signature of model.tflite, whose bytes and "
        "parameters are those of the whole. Latency is of this machine "
        f"({reports.machine()}): one sample, one thread, both in turn."
    )
    paragraphs = [headline(result), evaluations_markdown(rows), note]
    reports.write(folder, result, paragraphs, arrays)


def facts(settings, folder, shared, data, texts):
    """Returns what the report has beside figures, and {name: array} of samples."""
    title = f"training of {', '.join(data)}, adapter {settings.adapter}"
    trained = [flag for name in ("backbone", "tasks", "training") for flag in GROUPS[name]]
    exported = f"export, quantization {settings.quantization}"
    stages = [("training", title, trained), ("export", exported, GROUPS["export"])]
    kept = {
        "made": report_facts.made(settings, folder, repeated=("task",)),
        "classes": {task: report_facts.class_names(each) for task, each in data.items()},
        "stages": [
            {"name": name, "title": title, "settings": report_facts.changed(flags, folder)}
            for name, title, flags in stages
        ],
        "disagreements": [],
    }
    arrays, file = {}, TFLiteFile(folder / "model.tflite")
    with reports.optional("samples"):
        for task, each in data.items():
            groups, found = disagreements.find(
                shared.task(task),
                file,
                each.test,
                "classification",
                {None: Outputs("logits", each.classes)},
                each.names,
                signature=task,
                title=task,
                texts=texts.get(task),
            )
            kept["disagreements"] += groups
            arrays |= found
    return kept, arrays


def headline(result):
    ratio = result["separate_size_bytes"] / result["size_bytes"]
    lines = [
        f"model.tflite: {len(result['tasks'])} tasks in {result['size_bytes'] / 1e3:,.1f} kB, "
        f"{ratio:.2f}x smaller than a file per task ({result['separate_size_bytes'] / 1e3:,.1f} "
        f"kB); {result['parameters']:,} parameters in place of {result['separate_parameters']:,}."
    ]
    for name, task in result["tasks"].items():
        lines.append(
            f"- {name}: {task['trained_parameters']:,} parameters trained, {weights_file(name)} of "
            f"{task['size_bytes'] / 1e3:,.1f} kB; {task['classes']} classes, "
            + ", ".join(f"{count} {split}" for split, count in task["samples"].items())
            + " samples"
        )
    return "\n".join(lines)


SCRIPT = Script(
    main,
    __doc__,
    groups=GROUPS,
    first=(
        *("backbone", "task", "adapter", "rank", "pooling", "epochs", "learning_rate"),
        *("quantization", "name", "seed"),
    ),
)


if __name__ == "__main__":
    SCRIPT.run()
