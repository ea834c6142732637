"""Runs the .tflite file of a run, as a device would.

    python -m pipelines.predict --run=saved_models/minilm-share "a charming film" "dull"
    python -m pipelines.predict --run=saved_models/minilm-share --task=sentiment "a charming film"
    python -m pipelines.predict --run=saved_models/images-share --input=images.npy --format=json
    python -m pipelines.predict --run=saved_models/photos-compress one.jpg two.jpg

Prints a line for each sample and task: the task, the class, its probability and the sample; of
other tasks the numbers, or what they mean. --save keeps all outputs. Texts
become tokens as the run keeps it, and images pixels, in the --pixel_range of the run; arrays are
used as they are.
"""

import json
import pathlib
import textwrap

import numpy as np
import tensorflow as tf

from pipelines.common import backbones, tables
from pipelines.common.datasets import in_range
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import FORMAT, Flag
from pipelines.common.images import read_images
from pipelines.common.models import input_shape
from pipelines.common.script import Script
from pipelines.common.tasks import CLASSES
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.files import replacing
from tfpeft.core.json_files import read_json
from tfpeft.core.paths import file_to_write
from tfpeft.evaluation.outputs import Outputs
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.reports.tables import markdown_table, text_table

RUN = Flag("run", str, None, "Folder of a run of pipelines.share, or of any other script.")
TASK = Flag(
    "task", str, (), "A task of the run, given once for each; by default all.", repeated=True
)
SAVE = Flag(
    "save", str, None, "An .npy file for all outputs as they are, or an .npz for several outputs."
)
INPUT = Flag(
    "input",
    str,
    None,
    "Samples of a run on arrays, (samples, ...), in a .npy file, or an .npz of "
    "several inputs by name; of a run on a table, a .csv file with its columns.",
)

_SHOWN = 8  # numbers of an output
# What a run of a script other than pipelines.share leaves.
_OF_CLASSES = {"model.tflite", "labels.txt", "report.json"}
_REPORT = {
    "outputs": ({"kind": str, "units": int}, None),
    "flags": {str: object},
}


def main(settings, texts):
    folder = pathlib.Path(settings.run or "")
    files = {path.name for path in folder.glob("*")} if settings.run else set()
    if not files >= {"model.tflite", "tasks.json"} and not files >= _OF_CLASSES:
        raise unexpected(
            "the folder of a run of pipelines.share that has ended, or of another script",
            f"--run={settings.run}",
        )
    if "tasks.json" in files and settings.save is not None:
        raise unread_flag("save", f"a run of pipelines.share, --run={settings.run}")
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
    if files and settings.input is None:
        shape = input_shape(file)
        if shape is None or len(shape) != 3:
            expected = f"--input, as --run={settings.run} reads no images"
            raise unexpected(expected, f"{files[0]} with inputs of shape {shape}")
        samples, x = files, read_images(files, size=shape[:2], channels=shape[2])
        if report["flags"].get("pixel_range"):
            x = in_range(x, report["flags"]["pixel_range"], 255.0)
    elif (settings.input or "").endswith(".csv") and not files:
        samples, x = read_table(settings, folder)
    else:
        samples, x = read_array(settings, files)
    found = file.predict(x)
    if settings.save is not None:
        save(settings.save, found)
    if report["outputs"] is None:
        return numbers_of(samples, found, names, report)
    probabilities = np.exp(Outputs(**report["outputs"]).log_probabilities(found))
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


def numbers_of(samples, outputs, names, report):
    """Returns the rows of outputs that are no probabilities of classes: a column for each output.

    Of labels, the names of those above one half; of positions, how many have each class; numbers as
    they are, the first ones of many.

    Args:
        samples: What is printed for each sample.
        outputs: An array, or {name: array}.
        names: Names of labels or classes.
        report: The report of the run, of which `task` and `kinds` say what outputs are.
    """
    task, kinds = report.get("task", ""), report.get("kinds", {})
    is_one = isinstance(task, str)
    named = outputs if isinstance(outputs, dict) else {task if is_one else "": outputs}
    rows = []
    for number, sample in enumerate(samples):
        row = {}
        for name, values in named.items():
            of_output = task if is_one else task.get(name)
            half = 0.0 if kinds.get("" if is_one else name) == "logits" else 0.5
            row[name] = _text(np.asarray(values)[number], names, of_output, half)
        rows.append({**row, "sample": sample})
    return rows


def _text(values, names, task, half):
    """Returns the outputs of a sample for a task, in words; `half` is that of a probability."""
    if task == "multi_label":
        found = np.flatnonzero(values > half)
        return ", ".join(names[i] if i < len(names) else str(i) for i in found) or "none"
    if task in ("classification", "binary"):
        return str(int(values.argmax()) if values.size > 1 else int(values.item() > half))
    if task == "segmentation":
        classes = values.argmax(-1) if values.shape[-1] > 1 else (values[..., 0] > half).astype(int)
        numbers, counts = np.unique(classes, return_counts=True)
        pairs = zip(numbers.tolist(), counts.tolist(), strict=True)
        return ", ".join(f"{names[i] if i < len(names) else i}: {count}" for i, count in pairs)
    flat = values.ravel()
    more = ", ..." if flat.size > _SHOWN else ""
    return ", ".join(f"{value:.4g}" for value in flat[:_SHOWN]) + more


def save(path, outputs):
    """Writes outputs to an .npy file, or those of several names to an .npz."""
    path = file_to_write(path, "--save", "an .npy file, or .npz for several outputs")
    is_dict = isinstance(outputs, dict)
    if path.suffix != (".npz" if is_dict else ".npy"):
        expected = "an .npz file for several outputs" if is_dict else "an .npy file"
        raise unexpected(expected, f"--save={path}")
    with replacing(path) as temporary, open(temporary, "wb") as file:
        np.savez(file, **outputs) if is_dict else np.save(file, outputs)


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


def read_table(settings, folder):
    """Returns the numbers of the rows of a CSV file, and what the run makes of its columns."""
    received, table = f"--input={settings.input}", tables.load(folder)
    if table is None:
        raise unexpected("an array, as --run is not of a table", received)
    x = table.read(settings.input, received)
    return range(len(next(iter(x.values())) if isinstance(x, dict) else x)), x


def read_array(settings, texts):
    """Returns the numbers of the samples of --input, and the samples: {name: array} of an .npz."""
    if settings.input is None or texts:
        received = f"texts, {texts[0]!r} first" if texts else "none"
        raise unexpected(f"--input, as --run={settings.run} reads arrays", received)
    expected, received = "samples in a .npy file", f"--input={settings.input}"
    try:
        x = np.load(settings.input, allow_pickle=False)
        if isinstance(x, np.lib.npyio.NpzFile):
            with x as file:
                x = {name: _checked(file[name], expected, f"{received}, {name}") for name in file}
            counts = {name: len(array) for name, array in x.items()}
            if not x or len(set(counts.values())) > 1:
                raise unexpected("as many samples of each input", f"{received} with {counts}")
            return range(next(iter(counts.values()))), x
    except (ValueError, OSError, EOFError, MemoryError) as error:
        if isinstance(error, InputError):
            raise
        raise unexpected(expected, f"{received}: {error}") from error
    x = _checked(x, expected, received)
    return range(len(x)), x


def _checked(x, expected, received):
    """Returns samples as float32; raises for arrays of something else."""
    is_array = isinstance(x, np.ndarray) and x.dtype.kind in "biuf"
    if not is_array or x.ndim < 2 or not len(x):
        raise unexpected(expected, f"{received}, with something else")
    if not np.all(np.isfinite(x)):
        raise unexpected(expected, f"{received}, with NaN or infinity")
    return x.astype("float32")


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
    groups={"run": (RUN, TASK, INPUT), "output": (FORMAT, SAVE)},
    first=("run", "task", "input", "format", "save"),
    takes_files=True,
)


if __name__ == "__main__":
    SCRIPT.run()
