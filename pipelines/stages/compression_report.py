"""The report of a run that compressed a model: its figures, their losses, and a line on them."""

import math
import numbers

from pipelines.common import devices, reports
from pipelines.common.recognition import CLASSES
from tfpeft.evaluation.tasks import TASKS

FORM = {
    "rows": reports.ROWS,
    "size_ratio": (float, None),
    "accuracy_drop": (float, None),
    "metrics": {str: {"teacher": float, "file": float, "loss": numbers.Real}},  # or infinite
    "test_samples": int,
    "teacher_file": str,
}
"""The form of report.json, for `mismatch`."""


def write(folder, comparison, facts, arrays=None):
    """Writes the files of a report; `facts` and `arrays` are those of the run."""
    rows = {name: row.as_dict() for name, row in comparison.rows.items()}
    first, last = rows["teacher"], rows["model.tflite"]
    result = {
        "size_ratio": first["size_bytes"] and first["size_bytes"] / last["size_bytes"],
        "accuracy_drop": _accuracy_drop(first, last, facts["task"]),
        "metrics": _lost(first, last, facts["task"]),
        "rows": rows,
        **facts,
        "differences": comparison.difference_lines(),
        "flags": folder.flags,
        "versions": reports.versions(),
    }
    result["headline"] = headline(result)
    note = (
        "Bytes and latency of a Keras model are those of its float32 .tflite file, of a "
        "quantise-aware model those of its integer file. Latency is of this machine "
        f"({reports.machine()}): one sample, one thread, all files in turn."
    )
    is_class = facts["task"] in CLASSES if isinstance(facts["task"], str) else False
    metric = "accuracy" if is_class else next(iter(result["metrics"]), None)
    image = "accuracy_size.png" if is_class else "metric_size.png"
    plot = f"![{metric} against size]({image})"
    folder.write(image, lambda path: reports.plot_against_size(rows, metric, path))
    tables = [comparison.to_markdown(), note]
    tables += [devices.markdown(facts["devices"])] if facts["devices"] else []
    reports.write(folder, result, [result["headline"], *tables, plot], arrays)


def _accuracy_drop(first, last, task):
    """Returns the points of accuracy that the file lost; None of tasks without accuracy."""
    if task not in CLASSES:
        return None
    return 100 * (first["accuracy"] - last["accuracy"])


def _lost(first, last, task):
    """Returns {metric: figures of the teacher and the file, and what is lost in per cent}."""
    tasks = (
        {f"{name}/": each for name, each in task.items()} if isinstance(task, dict) else {"": task}
    )
    found = {}
    for prefix, name in tasks.items():
        of_task = TASKS[name]
        key = f"{prefix}{of_task.headline}"
        teacher, file = (row["metrics"].get(key) for row in (first, last))
        if None in (teacher, file):
            continue
        change = (teacher - file) if of_task.higher_is_better else (file - teacher)
        if teacher:
            loss = 100 * change / abs(teacher)
        else:
            loss = math.copysign(math.inf, change) if change else 0.0
        found[key] = {"teacher": teacher, "file": file, "loss": loss}
    return found


def headline(result):
    """Returns a line on the size and the quality of the file."""
    size = "of a teacher that has no .tflite file of its own"
    if result["size_ratio"]:
        kind = result["teacher_file"]
        size = f"{result['size_ratio']:.1f}x smaller than the teacher's {kind} file"
    if result["accuracy_drop"] is not None:
        change = round(-result["accuracy_drop"], 2) + 0.0  # no "-0.00"
        quality = f"accuracy {change:+.2f} points"
    else:
        quality = ", ".join(
            f"{name} {each['teacher']:.4g} -> {each['file']:.4g} ({-each['loss']:+.2f}%)"
            for name, each in result["metrics"].items()
        )
    return f"model.tflite: {size}, {quality}, on {result['test_samples']} test samples."
