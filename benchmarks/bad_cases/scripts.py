"""What the cases of scripts share: tiny data, models and modules, and commands that work."""

import atexit
import functools
import pathlib
import shutil
import tempfile

import keras
import numpy as np

from bad_cases import models
from bad_cases.case import Case, run_script
from pipelines import (
    cluster,
    compress,
    distill,
    evaluate,
    export,
    predict,
    prune,
    prune_channels,
    quantize,
    report,
    share,
    sparse_train,
    train,
)

SCRIPTS = {
    module.__name__.rpartition(".")[2]: module
    for module in (
        *(compress, cluster, distill, evaluate, export, predict, prune, prune_channels),
        *(quantize, report, share, sparse_train, train),
    )
}
MODULE = """
import sys
import numpy as np

def raises():
    raise RuntimeError("the camera is off")

def returns_none():
    return None

def takes_arguments(path):
    return path

def leaves():
    sys.exit(0)

def leaves_with_status():
    sys.exit(3)

def interrupted_inside():
    raise AssertionError

def returns_text():
    return "train", "validation", "test"

def returns_nan():
    x, y = np.full((12, 6), np.nan), np.arange(12) % 3
    return (x, y), (x, y), (x, y)

def returns_empty():
    x, y = np.ones((0, 6)), np.ones(0, int)
    return (x, y), (x, y), (x, y)

def returns_generators():
    def batches():
        while True:
            yield np.ones((4, 6)), np.arange(4) % 3
    return batches(), batches(), batches()

def returns_shuffled():
    import tensorflow as tf
    return tf.data.Dataset.from_tensor_slices((np.ones((48, 6)), np.arange(48) % 3)).shuffle(9)

def returns_any_shape():
    import tensorflow as tf
    pairs = returns_shuffled().map(lambda x, y: (tf.py_function(lambda x: x, [x], "float64"), y))
    return pairs

not_a_function = 3
"""


@functools.cache
def prepared():
    """Returns a folder of good and bad files, the same for all cases of a process."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="bad_inputs."))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    rng = np.random.default_rng(0)
    y = np.arange(48) % 3
    x = (np.eye(3, 6)[y] * 4 + rng.normal(size=(48, 6))).astype("float32")
    pairs = {"x_train": x, "y_train": y, "x_test": x, "y_test": y, "x_val": x, "y_val": y}
    np.savez(folder / "data.npz", **pairs)
    np.savez(folder / "no_labels.npz", x_train=x, x_test=x)
    np.savez(folder / "no_y_test.npz", **{k: v for k, v in pairs.items() if k != "y_test"})
    np.savez(folder / "mixture.npz", **pairs, **{"x_train/left": x})
    np.savez(folder / "weights.npz", **pairs, weight_train=-np.ones(48))
    np.savez(folder / "no_y_val.npz", **{k: v for k, v in pairs.items() if k != "y_val"})
    np.savez(folder / "no_x_val.npz", **{k: v for k, v in pairs.items() if k != "x_val"})
    changes = {
        "nan": {"x_train": np.full_like(x, np.nan)},
        "nan_labels": {"y_train": np.full(48, np.nan)},
        "infinite_labels": {"y_train": np.full(48, np.inf)},
        "complex_labels": {"y_train": y.astype("complex64")},
        "complex": {"x_train": x.astype("complex64")},
        "text": {"x_train": x.astype(str)},
        "empty": {"x_train": x[:0], "y_train": y[:0]},
        "shorter": {"y_train": y[:-1]},
        "width": {"x_test": x[:, :5]},
        "negative": {"y_train": y - 1},
        "one_class": {"y_train": y * 0, "y_test": y * 0, "y_val": y * 0},
        "more_classes": {"y_test": y + 7},
        "scalar": {"x_train": np.float32(3.0)},
    }
    for name, change in changes.items():
        np.savez(folder / f"{name}.npz", **{**pairs, **change})
    np.savez(folder / "objects.npz", **{**pairs, "x_train": np.full((48, 6), None)})
    content = (folder / "data.npz").read_bytes()
    for name, bad in models.damaged(content).items():
        (folder / f"{name.replace(' ', '_')}_file.npz").write_bytes(bad)
    models.dense(width=5).save(folder / "width.keras")
    models.dense(5).save(folder / "classes.keras")
    models.two_outputs().save(folder / "outputs.keras")
    for kind, good in (("keras", models.keras_bytes()), ("tflite", models.tflite_bytes())):
        for name, bad in models.damaged(good).items():
            (folder / f"{name.replace(' ', '_')}.{kind}").write_bytes(bad)
    trained = models.compiled(optimizer=keras.optimizers.Adam(0.05))
    trained.fit(x, y, batch_size=8, epochs=10, verbose=0)
    trained.save(folder / "model.keras")  # better than chance, which scripts look for
    (folder / "damaged.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (folder / "user_code.py").write_text(MODULE)
    (folder / "raises.py").write_text("raise RuntimeError('the camera is off')\n")
    (folder / "leaves.py").write_text("import sys\nsys.exit(0)\n")
    (folder / "syntax.py").write_text("def\n")
    (folder / "no_images" / "a").mkdir(parents=True)
    (folder / "no_images" / "b").mkdir()
    (folder / "bad_images" / "a").mkdir(parents=True)
    (folder / "bad_images" / "b").mkdir()
    for name in ("a/1.png", "b/2.png"):
        (folder / "bad_images" / name).write_bytes(b"no image")
    for kind in ("images", "masks"):
        (folder / "alone" / kind).mkdir(parents=True)
    (folder / "alone" / "images" / "1.png").write_bytes(b"no image")
    (folder / "table.csv").write_text("a,b,kind\n" + "1,x,cat\n2,y,dog\n" * 12)
    (folder / "cells.csv").write_text("a,kind\n1,cat\n2\n")
    (folder / "rows.csv").write_text("a,kind\n")
    (folder / "label.csv").write_text("a,kind\n1,cat\n2,\n")
    (folder / "nothing").mkdir()
    np.save(folder / "samples.npy", x)
    np.save(folder / "nan.npy", np.full_like(x, np.nan))
    np.save(folder / "width.npy", x[:, :5])
    np.save(folder / "objects.npy", np.full((4, 6), None), allow_pickle=True)
    (folder / "cut_off.npy").write_bytes((folder / "samples.npy").read_bytes()[:200])
    return folder


def good_command(script):
    """Returns arguments with which a script ends well, within seconds."""
    folder = prepared()
    data, model = f"--dataset={folder / 'data.npz'}", f"--model={folder / 'model.keras'}"
    task = f"--task=a={folder / 'data.npz'}"
    brief = ["--epochs=5", "--batch_size=8", "--learning_rate=0.02"]
    if script == "predict":
        return [f"--run={finished_run()}", f"--input={folder / 'samples.npy'}"]
    if script == "report":
        return [f"--run={finished_run()}"]
    return {
        "compress": [data, model, *brief],
        "cluster": [data, model, *brief],
        "distill": [data, model, *brief],
        "evaluate": [data, str(folder / "model.keras")],
        "export": [data, model],
        "prune": [data, model, *brief],
        "prune_channels": [data, model, *brief],
        "quantize": [data, model, *brief],
        "share": [f"--backbone={folder / 'model.keras'}", task, *brief],
        "sparse_train": [data, model, *brief],
        "train": [data, *brief],
    }[script]


@functools.cache
def finished_run():
    """Returns the folder of a run of `share` that has ended."""
    folder = prepared() / "runs"
    arguments = [*good_command("share"), f"--output_dir={folder}", "--name=ended"]
    status, errors, _ = run_script(share, *arguments)
    if status:
        raise RuntimeError(errors)
    return folder / "ended"


def command(script, *changes):
    """Returns the good command of a script with other flags."""
    names = {change.partition("=")[0] for change in changes if "=" in change}
    kept = [each for each in good_command(script) if each.partition("=")[0] not in names]
    return [*kept, *changes]


def script_case(script, *changes, named=None, prepare=None):
    """Returns the case of a script with some bad flags; a folder is written as `{folder}`."""

    def call():
        if prepare is not None:
            prepare()
        filled = [change.replace("{folder}", str(prepared())) for change in changes]
        return run_script(SCRIPTS[script], *command(script, *filled))

    if named is None:
        named = [change.partition("=")[0].lstrip("-") for change in changes]
    name = f"{script} {' '.join(changes)}".replace("{folder}/", "").replace("\n", " ")
    return Case(name, call, tuple(named), is_script=True)
