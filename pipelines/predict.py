"""Asks the .tflite file of a run of pipelines.share, as a device would.

    python -m pipelines.predict --run=saved_models/minilm-share "a charming film" "dull"
    python -m pipelines.predict --run=saved_models/minilm-share --task=sentiment "a charming film"
    python -m pipelines.predict --run=saved_models/images-share --input=images.npy --format=json

Prints a line for each sample and task: the task, the class, its probability and the sample. Texts
become tokens as the run keeps it; arrays are used as they are.
"""

import json
import pathlib
import textwrap

import numpy as np
import tensorflow as tf
from absl import flags

from pipelines import backbones, common, sharing  # noqa: F401  its --task
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.reports.tables import markdown_table, text_table

FLAGS = flags.FLAGS

flags.DEFINE_string("run", None, "Folder of a run of pipelines.share.")
flags.DEFINE_string("input", None, "Samples of a run on arrays, (samples, ...), in a .npy file.")


def main(texts):
    folder = pathlib.Path(FLAGS.run or "")
    if not FLAGS.run or not all((folder / n).is_file() for n in ("tasks.json", "model.tflite")):
        raise ValueError(
            "Expected the folder of a run of pipelines.share that has ended. "
            f"Received: --run={FLAGS.run}"
        )
    classes = json.loads((folder / "tasks.json").read_text())
    unknown = sorted(set(FLAGS.task) - set(classes))
    if unknown:
        raise ValueError(
            f"Received an invalid value for --task, expected {' or '.join(classes)}, as --run has. "
            f"Received: --task={unknown[0]}"
        )
    samples, x = inputs(folder, texts)
    file = TFLiteFile(folder / "model.tflite")
    probabilities = {
        task: tf.nn.softmax(file.predict(x, task)).numpy() for task in FLAGS.task or classes
    }
    show(
        [
            {
                "task": task,
                "class": classes[task][int(np.argmax(each[i]))],
                "probability": float(np.max(each[i])),
                "sample": sample,
            }
            for i, sample in enumerate(samples)
            for task, each in probabilities.items()
        ]
    )
    return 0


def inputs(folder, texts):
    """Returns the samples as they are printed, and as the file takes them."""
    if backbones.reads_texts(folder):
        if FLAGS.input is not None or not texts:
            got = f"--input={FLAGS.input}" if FLAGS.input is not None else "none"
            raise ValueError(f"Expected texts, which --run={FLAGS.run} reads. Received: {got}")
        return texts, backbones.tokens(backbones.load_preprocessor(folder), texts)
    if FLAGS.input is None or texts:
        got = f"texts, {texts[0]!r} first" if texts else "none"
        raise ValueError(f"Expected --input, as --run={FLAGS.run} reads arrays. Received: {got}")
    wanted = f"Expected samples in a .npy file. Received: --input={FLAGS.input}"
    try:
        x = np.load(FLAGS.input, allow_pickle=False)
    except (ValueError, OSError, EOFError) as error:
        raise ValueError(f"{wanted}: {error}") from error
    if (
        not isinstance(x, np.ndarray)
        or x.ndim < 2
        or not len(x)
        or not np.issubdtype(x.dtype, np.number)
    ):
        raise ValueError(f"{wanted}, with something else")
    if not np.all(np.isfinite(x)):
        raise ValueError(f"{wanted}, with NaN or infinity")
    return range(len(x)), x.astype("float32")


def show(rows):
    if FLAGS.format == "json":
        print(json.dumps(rows, indent=2))
        return
    lines = [
        (
            row["task"],
            row["class"],
            f"{row['probability']:.3f}",
            textwrap.shorten(str(row["sample"]), 60, placeholder="..."),
        )
        for row in rows
    ]
    if FLAGS.format == "markdown":
        header = ("task", "class", "probability", "sample")
        print(markdown_table(header, lines, align=("left", "left", "right", "left")))
    else:
        print(text_table(None, lines, align=("left",) * 4))


if __name__ == "__main__":
    common.run(main, ["run", "task", "input", "format"], takes_files=True)
