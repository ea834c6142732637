r"""Trains several tasks on one pretrained backbone, and puts them into one .tflite file.

    python -m pipelines.share --backbone=bert_tiny_en_uncased \
        --task=sentiment=reviews.csv:text:label --task=topic=news.csv:body:section
    python -m pipelines.share --backbone=minilm --adapter=none --epochs=20 --learning_rate=1e-2 \
        --task=sentiment=reviews.csv:text:label
    python -m pipelines.share --backbone=images.keras --task=age=age.npz --task=hat=hat.npz

The backbone stays as it is; a task trains its head, and the adapter that --adapter names.
saved_models/NAME/ gets backbone.keras, tokenizer/ (for texts), TASK.weights.h5 for each task,
tasks.json, model.tflite with a signature for each task, report.md and report.json. Stopped at any
moment and started again with the same flags, it goes on with the stage that was not finished. The
epoch that is kept is chosen on validation data; the report is of test data.

pipelines.predict asks the file.

The numbers in it are --quantization=dynamic_range by default: of two tasks on all-MiniLM-L6-v2 it
makes 24.4 MB, where float32 makes 91.2 MB and float16 45.8 MB, with the same accuracy of all three;
int8 is refused there, as what such a file answers is too far from the model.
"""

import importlib.metadata
import json
import math
import pathlib
import platform
import tempfile

import keras
import numpy as np
from absl import flags

import tfpeft
from pipelines import backbones, common, sharing
from tfpeft.evaluation.tables import evaluations_markdown, evaluations_text

FLAGS = flags.FLAGS
RUN_FLAGS = ["output_dir", "name", "seed", *backbones.BACKBONE_FLAGS, *sharing.TASK_FLAGS]
RUN_FLAGS += [*common.TRAIN_FLAGS, *common.EXPORT_FLAGS]


def main():
    tasks = sharing.parse_tasks()
    is_text = sharing.check_flags(tasks)
    folder = common.RunFolder("share", RUN_FLAGS, named_after="backbone")
    files = [f"{name}.weights.h5" for name in tasks]
    files += ["tasks.json", "model.tflite", "report.json"]
    if not all((folder / name).exists() for name in files):
        run_stages(folder, tasks, is_text)
    result = json.loads((folder / "report.json").read_text())
    print(f"\n{headline(result)}\n\n{evaluations_text(result['rows'])}\n")
    print(f"Report: {folder / 'report.md'}")
    return 0


def run_stages(folder, tasks, is_text):
    begin(1, f"backbone {FLAGS.backbone}")
    data, classes = sharing.read_tasks(tasks)
    backbone, preprocessor = backbones.backbone(folder, is_text)
    data = sharing.as_inputs(data, tasks, backbone, preprocessor)
    begin(2, f"training of {', '.join(tasks)}, adapter {FLAGS.adapter}")
    shared = sharing.shared_model(backbone, data)
    files = {name: f"{name}.weights.h5" for name in tasks}
    if not all((folder / name).exists() for name in [*files.values(), "tasks.json"]):
        for name in ("model.tflite", "report.json"):  # of weights that will be no more
            (folder / name).unlink(missing_ok=True)
        sharing.train(shared, data)
        for name, file in files.items():
            folder.write(file, lambda path, name=name: shared.save_task(name, path))
        folder.write("tasks.json", json.dumps(classes, indent=2))
    for file in files.values():
        shared.load_task(folder / file)
    begin(3, f"export, quantization {FLAGS.quantization}")
    if not (folder / "model.tflite").exists():
        folder.write("model.tflite", lambda path: export(shared, path, data))
    begin(4, "report")
    write_report(folder, shared, data)


def begin(stage, what):
    print(f"[{stage}/4] {what}", flush=True)
    common.seed_everything(FLAGS.seed + stage)


def export(model, path, data):
    """Writes a file; up to 200 inputs, of all tasks alike, calibrate int8."""
    samples = [sharing.first(each.train[0], 200 // len(data)) for each in data.values()]
    return tfpeft.export_tflite(
        model,
        path,
        quantization=FLAGS.quantization,
        representative_data=keras.tree.map_structure(lambda *each: np.concatenate(each), *samples),
    )


def write_report(folder, shared, data):
    file = folder / "model.tflite"
    rows, tasks = {}, {}
    for name, each in data.items():
        model = shared.task(name)
        measured = {name: model, f"{name}, {file.name}": file}
        compared = tfpeft.compare(measured, each.test, signature=name)
        rows |= {key: row.as_dict() for key, row in compared.rows.items()}
        with tempfile.TemporaryDirectory() as alone:
            exported = export(model, pathlib.Path(alone) / file.name, {name: each})
        tasks[name] = {
            "classes": each.classes,
            "samples": {s: len(getattr(each, s)[1]) for s in ("train", "validation", "test")},
            "trained_parameters": sum(math.prod(v.shape) for v in model.trainable_variables),
            "size_bytes": (folder / f"{name}.weights.h5").stat().st_size,
            "separate_parameters": model.count_params(),
            "separate_size_bytes": exported.size_bytes,
        }
    packages = ("tensorflow", "keras", "ai-edge-litert")
    result = {
        "size_bytes": file.stat().st_size,
        "separate_size_bytes": sum(each["separate_size_bytes"] for each in tasks.values()),
        "parameters": shared.count_params(),
        "separate_parameters": sum(each["separate_parameters"] for each in tasks.values()),
        "tasks": tasks,
        "rows": rows,
        "flags": folder.flags,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    note = (
        "A row is of test data: a task as a Keras model, whose bytes and latency are those of a "
        "float32 .tflite file of its own, and as a signature of model.tflite, whose bytes and "
        "parameters are those of the whole. Latency is of this machine "
        f"({machine}): one sample, one thread, both in turn."
    )
    lines = [f"# {folder.path.name}", headline(result), evaluations_markdown(rows), note]
    folder.write("report.md", "\n\n".join(lines))
    # The last file, and so the sign that all of it is there.
    folder.write("report.json", json.dumps(result, indent=2))


def headline(result):
    ratio = result["separate_size_bytes"] / result["size_bytes"]
    lines = [
        f"model.tflite: {len(result['tasks'])} tasks in {result['size_bytes'] / 1e3:,.1f} kB, "
        f"{ratio:.2f}x smaller than a file for each ({result['separate_size_bytes'] / 1e3:,.1f} "
        f"kB); {result['parameters']:,} parameters in place of {result['separate_parameters']:,}."
    ]
    for name, task in result["tasks"].items():
        lines.append(
            f"- {name}: {task['trained_parameters']:,} parameters trained, {name}.weights.h5 of "
            f"{task['size_bytes'] / 1e3:,.1f} kB; {task['classes']} classes, "
            + ", ".join(f"{count} {split}" for split, count in task["samples"].items())
            + " samples"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    FLAGS.set_default("epochs", 3)
    FLAGS.set_default("learning_rate", 2e-3)
    FLAGS.set_default("quantization", "dynamic_range")
    common.run(main, RUN_FLAGS)
