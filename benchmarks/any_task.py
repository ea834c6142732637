"""One example a task through pipelines.compress: bytes, and the metric that was lost.

    python benchmarks/any_task.py

Each model is trained by a plain Keras script, compiled, saved and given to pipelines.compress with
its data, and nothing else: the task is recognised. Wanted: a file of a quarter of the bytes or
less, that loses 2% of the metric or less.

- regression: scikit-learn's diabetes, the progress of 442 patients in a year.
- multi-label: scikit-learn's digits, whose labels say whether a digit is even, above 4, prime and
  drawn with a loop.
- segmentation: a class a pixel; squares and circles in noise.
- tagging: a class a position; where words end in text without spaces, of the licences of Python
  and of this project.
- reconstruction: an auto-encoder of the digits.
- several inputs and outputs: the two halves of a digit, its number, and its ink.

Cost: about 10 minutes on 2 cores. The table is in README.md.
"""

import contextlib
import json
import os
import pathlib
import re
import site
import sys

import keras
import machine
import numpy as np
from absl import app, flags
from sklearn.datasets import load_diabetes, load_digits

from pipelines import compress

FLAGS = flags.FLAGS
flags.DEFINE_string("output", "any_task", "Folder of the models and runs.")
flags.DEFINE_list("tasks", None, "Examples that run; default: all.")
flags.DEFINE_integer("epochs", 20, "Epochs of each stage.", lower_bound=1)

DIGITS = load_digits()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
LENGTH = 64


def regression():
    x, y = load_diabetes(return_X_y=True)
    model = keras.Sequential(
        [
            keras.Input((10,)),
            keras.layers.Normalization(mean=x.mean(0), variance=x.var(0)),
            keras.layers.Dense(256, "relu", kernel_regularizer=keras.regularizers.L2(1e-3)),
            keras.layers.Dropout(0.3),
            keras.layers.Dense(128, "relu", kernel_regularizer=keras.regularizers.L2(1e-3)),
            keras.layers.Dense(1),
            keras.layers.Rescaling(float(y.std()), float(y.mean())),
        ]
    )
    return model, keras.losses.MeanSquaredError(), x, y


def multi_label():
    digits = DIGITS.target
    y = np.stack(
        [digits % 2 == 0, digits > 4, np.isin(digits, (2, 3, 5, 7)), np.isin(digits, (0, 6, 8, 9))],
        axis=1,
    )
    model = keras.Sequential(
        [
            keras.Input((64,)),
            keras.layers.Rescaling(1 / 16),
            keras.layers.Dense(256, "relu"),
            keras.layers.Dense(128, "relu"),
            keras.layers.Dense(4, "sigmoid"),
        ]
    )
    return model, "binary_crossentropy", DIGITS.data, y.astype("int32")


def segmentation():
    rng = np.random.default_rng(0)
    rows, columns = np.mgrid[:24, :24]
    x, y = np.zeros((2000, 24, 24, 1)), np.zeros((2000, 24, 24), "int32")
    for i in range(len(x)):
        for kind in rng.integers(1, 3, rng.integers(1, 4)):
            row, column = rng.uniform(4, 20, 2)
            size = rng.uniform(3, 6)
            away = np.abs(rows - row), np.abs(columns - column)
            inside = np.maximum(*away) < size if kind == 1 else np.hypot(*away) < size
            y[i][inside] = kind
            x[i, ..., 0][inside] = rng.uniform(0.5, 1)
    x += rng.normal(0, 0.15, x.shape)
    inputs = keras.Input((24, 24, 1))
    skips, hidden = [], inputs
    for filters in (16, 32):
        hidden = convolution(keras.layers.Conv2D, hidden, filters)
        skips.append(hidden)
        hidden = keras.layers.MaxPooling2D()(hidden)
    hidden = convolution(keras.layers.Conv2D, hidden, 64)
    for filters, skip in zip((32, 16), reversed(skips), strict=True):
        hidden = keras.layers.UpSampling2D()(hidden)
        hidden = keras.layers.Concatenate()([hidden, skip])
        hidden = convolution(keras.layers.Conv2D, hidden, filters)
    model = keras.Model(inputs, keras.layers.Conv2D(3, 1)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, x, y


def tagging():
    words = re.findall(r"[a-z]+", text().lower())
    letters = np.array([LETTERS.index(letter) for word in words for letter in word])
    ends = np.concatenate([[0] * (len(word) - 1) + [1] for word in words])
    count = len(letters) // LENGTH
    x, y = (each[: count * LENGTH].reshape(count, LENGTH) for each in (letters, ends))
    order = np.random.default_rng(0).permutation(count)
    inputs = keras.Input((LENGTH,), dtype="int32")
    hidden = keras.layers.Embedding(len(LETTERS), 32)(inputs)
    for _ in range(3):
        hidden = convolution(keras.layers.Conv1D, hidden, 96, size=5)
    model = keras.Model(inputs, keras.layers.Conv1D(2, 1)(hidden))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    return model, loss, x[order], y[order].astype("int32")


def text():
    """Returns English text that every installation has: licences and notes of Python packages."""
    files = []
    for folder in site.getsitepackages():
        for pattern in ("*.dist-info/METADATA", "*.dist-info/licenses/*"):
            files += sorted(pathlib.Path(folder).glob(pattern))
    read = [file.read_text(errors="replace") for file in files if file.is_file()]
    return "\n".join(read)[:600_000]


def reconstruction():
    model = keras.Sequential([keras.Input((64,)), keras.layers.Rescaling(1 / 16)])
    for units in (256, 24, 256):
        model.add(keras.layers.Dense(units, "relu"))
    model.add(keras.layers.Dense(64))
    model.add(keras.layers.Rescaling(16))
    return model, "mse", DIGITS.data, DIGITS.data


def several():
    x = {"upper": DIGITS.data[:, :32], "lower": DIGITS.data[:, 32:]}
    y = {"digit": DIGITS.target, "ink": DIGITS.data.mean(1)}
    inputs = {name: keras.Input((32,), name=name) for name in x}
    hidden = keras.layers.Concatenate()(
        [keras.layers.Rescaling(1 / 16)(tensor) for tensor in inputs.values()]
    )
    for units in (256, 128):
        hidden = keras.layers.Dense(units, "relu")(hidden)
    outputs = {
        "digit": keras.layers.Dense(10, "softmax", name="digit")(hidden),
        "ink": keras.layers.Dense(1, name="ink")(hidden),
    }
    loss = {"digit": "sparse_categorical_crossentropy", "ink": "mse"}
    return keras.Model(inputs, outputs), loss, x, y


def convolution(kind, hidden, filters, size=3):
    hidden = kind(filters, size, padding="same", use_bias=False)(hidden)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))


EXAMPLES = {
    "regression": regression,
    "multi-label": multi_label,
    "segmentation": segmentation,
    "tagging": tagging,
    "reconstruction": reconstruction,
    "several inputs and outputs": several,
}
FURTHER = {"tagging": ["--exclude=embedding*"]}


def write(name, folder):
    """Trains a model as its user does, and writes it and its data."""
    keras.utils.set_random_seed(0)
    model, loss, x, y = EXAMPLES[name]()
    x, y = (keras.tree.map_structure(as_stored, each) for each in (x, y))
    order = np.random.default_rng(0).permutation(len(keras.tree.flatten(x)[0]))
    count = len(order) // 5
    parts = {"train": order[count:], "test": order[:count]}
    arrays = {}
    for split, rows in parts.items():
        for axis, value in (("x", x), ("y", y)):
            named = value.items() if isinstance(value, dict) else [("", value)]
            for key, array in named:
                arrays[f"{axis}_{split}{'/' + key if key else ''}"] = array[rows]
    np.savez(folder / "data.npz", **arrays)
    model.compile(keras.optimizers.Adam(1e-3), loss)
    train = (keras.tree.map_structure(lambda array: array[parts["train"]], each) for each in (x, y))
    model.fit(*train, epochs=FLAGS.epochs, batch_size=32, verbose=0)
    model.save(folder / "model.keras")


def as_stored(array):
    array = np.asarray(array)
    return array.astype("float32") if array.dtype.kind == "f" else array.astype("int32")


def compressed(name, folder):
    """Returns the report of a run of pipelines.compress."""
    report = folder / "run" / "report.json"
    if not report.exists():
        folder.mkdir(parents=True, exist_ok=True)
        write(name, folder)
        arguments = [f"--model={folder}/model.keras", f"--dataset={folder}/data.npz"]
        arguments += [f"--output_dir={folder}", "--name=run", f"--epochs={FLAGS.epochs}"]
        with open(folder / "log.txt", "w") as log, contextlib.redirect_stdout(log):
            compress.SCRIPT.call([*arguments, *FURTHER.get(name, [])])
    return json.loads(report.read_text())


def main(_):
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    lines = ["| example | metric | model | file | lost, % | bytes | of the model's |"]
    lines += ["|---|---|---:|---:|---:|---:|---:|"]
    for name in FLAGS.tasks or EXAMPLES:
        folder = pathlib.Path(FLAGS.output) / name.replace(" ", "_")
        report = compressed(name, folder)
        size = report["rows"]["model.tflite"]["size_bytes"]
        for metric, each in report["metrics"].items():
            cells = [name, metric, f"{each['teacher']:.4g}", f"{each['file']:.4g}"]
            cells += [f"{each['loss']:.2f}", f"{size:,}", f"1/{report['size_ratio']:.1f}"]
            lines.append(f"| {' | '.join(cells)} |")
        print(lines[-1], file=sys.stderr, flush=True)
    print(machine.describe())
    print("\n".join(lines))


if __name__ == "__main__":
    app.run(main)
