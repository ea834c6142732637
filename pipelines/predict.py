"""Runs the .tflite file of a run, as a device would.

    python -m pipelines.predict --run=saved_models/minilm-share "a charming film" "dull"
    python -m pipelines.predict --run=saved_models/minilm-share --task=sentiment "a charming film"
    python -m pipelines.predict --run=saved_models/images-share --input=images.npy --format=json
    python -m pipelines.predict --run=saved_models/photos-compress one.jpg two.jpg

Prints a line for each sample and task: the task, the class, its probability and the sample. Texts
become tokens as the run keeps it, and images pixels, in the --pixel_range of the run; arrays are
used as they are.
"""

import json
import pathlib
import textwrap

import numpy as np
import tensorflow as tf

from pipelines.common import backbones
from pipelines.common.classifiers import Outputs
from pipelines.common.datasets import in_range
from pipelines.common.errors import invalid_flag
from pipelines.common.flags import FORMAT, Flag
from pipelines.common.images import read_images
from pipelines.common.models import input_shape
from pipelines.common.script import Script
from pipelines.common.tasks import CLASSES
from tfpeft.core.arguments import unexpected
from tfpeft.core.json_files import read_json
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.reports.tables import markdown_table, text_table

RUN = Flag("run", str, None, "Folder of a run of pipelines.share, or of any other script.")
TASK = Flag(
    "task", str, (), "A task of the run, given once for each; by default all.", repeated=True
)
INPUT = Flag("input", str, None, "Samples of a run on arrays, (samples, ...), in a .npy file.")

# What a run of a script other than pipelines.share leaves.
_OF_CLASSES = {"model.tflite", "labels.txt", "report.json"}
_REPORT = {"outputs": {"kind": str, "units": int}, "flags": {str: object}}


def main(settings, texts):
    folder = pathlib.Path(settings.run or "")
    files = {path.name for path in folder.glob("*")} if settings.run else set()
    if not files >= {"model.tflite", "tasks.json"} and not files >= _OF_CLASSES:
        raise unexpected(
            "the folder of a run of pipelines.share that has ended, or of another script",
            f"--run={settings.run}",
        )
    if "tasks.json" not in files:
        show(predict_classes(settings, folder, texts), settings.format)
        return 0
    classes = read_json(folder / "tasks.json", CLASSES)
    if not classes:
        raise unexpected("a task or more", f"none in {folder / 'tasks.json'}")
    unknown = sorted(set(settings.task) - set(classes))
    if unknown:
        raise invalid_flag("task", f"{' or '.join(classes)}, as --run has", unknown[0])
    samples, x = read_inputs(settings, folder, texts)
    probabilities = {
        task: tf.nn.softmax(logits).numpy()
        for task, logits in run_file(folder / "model.tflite", x, settings.task or classes).items()
    }
    for task, values in probabilities.items():
        if values.shape[1:] != (len(classes[task]),):
            expected = f"the name of every class of {task}, as {folder / 'model.tflite'} has them"
            raise unexpected(expected, f"{len(classes[task])} in {folder / 'tasks.json'}")
    rows = [
        {
            "task": task,
            "class": classes[task][int(np.argmax(values[i]))],
            "probability": float(np.max(values[i])),
            "sample": sample,
        }
        for i, sample in enumerate(samples)
        for task, values in probabilities.items()
    ]
    show(rows, settings.format)
    return 0


def predict_classes(settings, folder, files):
    """Returns the rows of a run without tasks: of images, or of --input."""
    if settings.task:
        raise unexpected("no --task, as --run has none", f"--task={settings.task[0]}")
    file = TFLiteFile(folder / "model.tflite")
    report = read_json(folder / "report.json", _REPORT)
    names = (folder / "labels.txt").read_text().splitlines()
    outputs = Outputs(**report["outputs"])
    if files and settings.input is None:
        shape = input_shape(file)
        if shape is None or len(shape) != 3:
            expected = f"--input, as --run={settings.run} reads no images"
            raise unexpected(expected, f"{files[0]} with inputs of shape {shape}")
        samples, x = files, read_images(files, size=shape[:2], channels=shape[2])
        if report["flags"].get("pixel_range"):
            x = in_range(x, report["flags"]["pixel_range"], 255.0)
    else:
        samples, x = read_array(settings, files)
    probabilities = outputs.probabilities(file.predict(x))
    if probabilities.shape[1:] != (len(names),):
        expected = f"the names of {probabilities.shape[1]} classes in {folder / 'labels.txt'}"
        raise unexpected(expected, f"{len(names)}")
    return [
        {
            "class": names[int(np.argmax(values))],
            "probability": float(np.max(values)),
            "sample": sample,
        }
        for sample, values in zip(samples, probabilities, strict=True)
    ]


def run_file(path, x, tasks):
    """Returns {task: logits} of the signatures of a file."""
    file = TFLiteFile(path)
    others = sorted(set(tasks) - set(file.signatures))  # a file of one signature takes any name
    if others:
        expected = f"one of {list(file.signatures)}, the tasks of {path}"
        raise unexpected(expected, f"{others[0]} in {path.with_name('tasks.json')}")
    return {task: file.predict(x, task) for task in tasks}


def read_inputs(settings, folder, texts):
    """Returns the samples as they are printed, and as the file takes them."""
    if backbones.reads_texts(folder):
        if settings.input is not None or not texts:
            received = f"--input={settings.input}" if settings.input is not None else "none"
            raise unexpected(f"texts, which --run={settings.run} reads", received)
        return texts, backbones.tokens(backbones.load_preprocessor(folder), texts)
    return read_array(settings, texts)


def read_array(settings, texts):
    """Returns the numbers of the samples of --input, and the samples."""
    if settings.input is None or texts:
        received = f"texts, {texts[0]!r} first" if texts else "none"
        raise unexpected(f"--input, as --run={settings.run} reads arrays", received)
    expected, received = "samples in a .npy file", f"--input={settings.input}"
    try:
        x = np.load(settings.input, allow_pickle=False)
    except (ValueError, OSError, EOFError, MemoryError) as error:
        raise unexpected(expected, f"{received}: {error}") from error
    is_array = isinstance(x, np.ndarray) and x.dtype.kind in "iuf"
    if not is_array or x.ndim < 2 or not len(x):
        raise unexpected(expected, f"{received}, with something else")
    if not np.all(np.isfinite(x)):
        raise unexpected(expected, f"{received}, with NaN or infinity")
    return range(len(x)), x.astype("float32")


def show(rows, form):
    """Prints the rows as aligned text, Markdown or JSON."""
    if form == "json":
        print(json.dumps(rows, indent=2))
        return
    lines = [tuple(map(_cell, row, row.values())) for row in rows]
    header = tuple(rows[0])
    if form == "markdown":
        align = ["right" if name == "probability" else "left" for name in header]
        print(markdown_table(header, lines, align=align))
    else:
        print(text_table(None, lines, align=("left",) * len(header)))


def _cell(name, value):
    if name == "probability":
        return f"{value:.3f}"
    return textwrap.shorten(str(value), 60, placeholder="...") if name == "sample" else value


SCRIPT = Script(
    main,
    __doc__,
    trains=False,
    groups={"run": (RUN, TASK, INPUT), "output": (FORMAT,)},
    first=("run", "task", "input", "format"),
    takes_files=True,
)


if __name__ == "__main__":
    SCRIPT.run()
