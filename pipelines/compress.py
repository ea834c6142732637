"""Turns a model and its data into a small .tflite file, with a report of what that cost.

    python -m pipelines.compress                              # the embedded digits
    python -m pipelines.compress --dataset=fashion_mnist --data_dir=data --student=0.4
    python -m pipelines.compress --model=mine.keras --dataset=mine.npz --stages=prune,quantize

Everything goes to saved_models/NAME/: a .keras file a stage, model.tflite, report.md,
report.json and accuracy_size.png. Stopped at any moment and started again with the same flags,
it goes on with the stage that was not finished. Epochs are chosen on validation data; the
report is of test data.

Exit status: 0; 1 for bad input; 2 where the file is worse than --max_accuracy_drop allows.
"""

import importlib.metadata
import json
import platform

from absl import flags

import tfpeft
from pipelines import common, sparsify, stages, teaching
from tfpeft.evaluation.tables import evaluations_text, plot_accuracy_size

FLAGS = flags.FLAGS
STAGES = {  # and the flags that each of them alone reads
    "distill": teaching.DISTILL_FLAGS,
    "sparse_train": sparsify.SPARSE_TRAIN_FLAGS,
    "prune": sparsify.PRUNE_FLAGS,
    "quantize": common.EXPORT_FLAGS,
}

flags.DEFINE_list(
    "stages",
    ["distill", "prune", "quantize"],
    f"Any of {', '.join(STAGES)}, in the order in which they are done.",
)
flags.DEFINE_float(
    "max_accuracy_drop",
    None,
    "Percentage points of test accuracy that the file may be below the teacher; else status 2.",
)
RUN_FLAGS = [*common.DATA_FLAGS, *common.MODEL_FLAGS, *common.TRAIN_FLAGS, "max_accuracy_drop"]


def main():
    return compress("compress", FLAGS.stages, ["stages"])


def compress(job, names, own_flags=()):
    """Runs the stages `names` in the folder of `job`; returns the exit status."""
    check_stages(names)
    stage_flags = dict.fromkeys(flag for name in names for flag in STAGES[name])
    folder = common.RunFolder(job, [*RUN_FLAGS, *own_flags, *stage_flags])
    if not (folder / "report.json").exists():
        run_stages(folder, names)
    result = json.loads((folder / "report.json").read_text())
    print(f"\n{headline(result)}\n\n{evaluations_text(result['rows'])}\n")
    print(f"Report: {folder / 'report.md'}")
    drop = result["accuracy_drop"]
    if FLAGS.max_accuracy_drop is not None and drop > FLAGS.max_accuracy_drop:
        print(
            f"{folder / 'model.tflite'} is {drop:.2f} points of accuracy below the teacher, "
            f"expected at most --max_accuracy_drop={FLAGS.max_accuracy_drop}"
        )
        return 2
    return 0


def check_stages(names):
    wanted = f"expected some of {', '.join(STAGES)}, each once, quantize last"
    if set(names) - set(STAGES) or len(set(names)) < len(names) or "quantize" in names[:-1]:
        raise ValueError(
            f"Received an invalid value for --stages, {wanted}. "
            f"Received: --stages={','.join(names)}"
        )
    for flag in dict.fromkeys(sum(STAGES.values(), [])):
        owners = [stage for stage, stage_flags in STAGES.items() if flag in stage_flags]
        if FLAGS[flag].present and not set(owners) & set(names):
            raise ValueError(
                f"--{flag} belongs to the stage {' or '.join(owners)}, which is not among --stages"
            )
    sparsify.check_flags(names)
    if "distill" in names:
        teaching.check_flags()


def run_stages(folder, names):
    custom_objects = common.import_custom_objects(FLAGS.custom_objects)
    data = common.load_data()
    total = len(names) + 1 + ("quantize" not in names)
    done = 0

    def begin(what):
        nonlocal done
        done += 1
        print(f"[{done}/{total}] {what}", flush=True)
        common.seed_everything(FLAGS.seed + done)

    def load(name):
        return common.load_model(folder / f"{name}.keras", custom_objects=custom_objects)

    begin("teacher")
    if not (folder / "teacher.keras").exists():
        if FLAGS.model:
            folder.write("teacher.keras", common.load_model(FLAGS.model, "model", custom_objects))
        else:
            folder.write("teacher.keras", stages.teacher(data))
    data = data.for_model(load("teacher"))
    models = ["teacher"]
    for name in [n for n in names if n != "quantize"]:
        begin(name)
        if not (folder / f"{name}.keras").exists():
            if name == "distill":
                student = teaching.student(load(models[-1]), custom_objects)
                result = teaching.distill(student, load(models[-1]), data, folder)
            else:
                # A model that learned from a teacher goes on learning from it.
                taught = models.index("distill") - 1 if "distill" in models else None
                teacher = None if taught is None else load(models[taught])
                stage = {"prune": sparsify.prune, "sparse_train": sparsify.sparse_train}[name]
                result = stage(load(models[-1]), teacher, data, folder)
            folder.write(f"{name}.keras", result)
        models.append(name)

    quantization = FLAGS.quantization if "quantize" in names else "none"
    begin(f"export, quantization {quantization}")
    if not (folder / "model.tflite").exists():
        folder.write(
            "model.tflite",
            lambda path: tfpeft.export_tflite(
                load(models[-1]),
                path,
                quantization=quantization,
                representative_data=data.train[0][:200],
            ),
        )
    measured = {name: load(name) for name in models}
    measured["model.tflite"] = folder / "model.tflite"
    write_report(folder, tfpeft.compare(measured, data.test), len(data.test[1]))


def write_report(folder, comparison, samples):
    rows = {name: row.as_dict() for name, row in comparison.rows.items()}
    first, last = rows["teacher"], rows["model.tflite"]
    packages = ("tensorflow", "keras", "ai-edge-litert")
    result = {
        "size_ratio": first["size_bytes"] and first["size_bytes"] / last["size_bytes"],
        "accuracy_drop": 100 * (first["accuracy"] - last["accuracy"]),
        "test_samples": samples,
        "rows": rows,
        "flags": folder.flags,
        "versions": {name: importlib.metadata.version(name) for name in packages},
    }
    machine = f"{platform.machine()}, Python {platform.python_version()}"
    text = "\n".join(
        [
            f"# {folder.path.name}",
            "",
            headline(result),
            "",
            comparison.to_markdown(),
            "",
            "Bytes and latency of a Keras model are those of its float32 .tflite file. Latency is "
            f"of this machine ({machine}): one sample, one thread, all files in turn.",
            "",
            "![accuracy against size](accuracy_size.png)",
        ]
    )
    folder.write("accuracy_size.png", lambda path: plot_accuracy_size(rows, path))
    folder.write("report.md", text)
    # The last file, and so the sign that all of it is there.
    folder.write("report.json", json.dumps(result, indent=2))


def headline(result):
    size = "of a teacher that has no .tflite file of its own"
    if result["size_ratio"]:
        size = f"{result['size_ratio']:.1f}x smaller than the teacher's float32 file"
    return (
        f"model.tflite: {size}, accuracy {-result['accuracy_drop']:+.2f} points, "
        f"on {result['test_samples']} test samples."
    )


if __name__ == "__main__":
    common.run(main, [*RUN_FLAGS, "stages", *dict.fromkeys(sum(STAGES.values(), []))])
