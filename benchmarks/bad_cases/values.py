"""Bad values, by what an argument expects."""

import keras
import numpy as np
import tensorflow as tf

from bad_cases import models
from bad_cases.case import Made

NAN, INF = float("nan"), float("inf")

NOT_A_NUMBER = ("1", [1.0], {}, 1j, NAN)
POSITIVE = (*NOT_A_NUMBER, INF, -1.0, 0.0, True, None)
"""Not a positive, finite number."""
FRACTION = (*NOT_A_NUMBER, INF, -0.1, 1.0, True, None)
"""Not a number in [0, 1)."""
RATE = (*NOT_A_NUMBER, INF, -0.1, 0.0, 1.5, True, None)
"""Not a number in (0, 1]."""
COUNT = (*NOT_A_NUMBER, INF, 0, -1, 1.5, True, None)
"""Not an integer of at least 1."""
SEED = ("0", 1.5, NAN, True, None, [0], 2**32, -(2**70))
FLAG = ("no", 2, NAN)
"""Not a bool; None may be "not given"."""
CHOICE = ("nonsense", "", 3, True, b"layer", ["layer"], {})
NAMES = (3, [3], [None], ["no_such_layer"], [""], True, [["hidden"]])
"""Not names of layers that the tiny models have."""
TARGET = (3, [3], [None], "no_such_layer", ["hidden", "no_such_layer"], "", [], True, {"hidden": 1})
IN_FILE = Made("'given_file/inside'", lambda: f"{models.text_file('given_file')}/inside")
PATH = (
    *("", None, 3, 2.5, [], True, {}),
    *("a\0b", "/proc/no/such"),
    Made("'x' * 260", lambda: "x" * 260),
    IN_FILE,
)
"""Not a path at which something can be written."""
DIRECTORY = Made("'a_folder'", lambda: models.folder("a_folder"))
FILE = Made("'given_file'", lambda: models.text_file("given_file"))

MODEL = (
    *(None, 3, "model", "", [], {}, print),
    Made("np.ones((2, 2))", lambda: np.ones((2, 2))),
    Made("a layer", lambda: keras.layers.Dense(2)),
    Made("a class", lambda: keras.Sequential),
    Made("a tf_keras model", models.tf_keras_model),
    Made("a tf.Module", tf.Module),
)
"""Not a keras.Model."""
UNBUILT = (
    Made("an unbuilt Sequential", lambda: keras.Sequential([keras.layers.Dense(2)])),
    Made("an unbuilt subclassed model", lambda: models.Subclassed()),
)
OPTIMIZER = (
    *(None, 3, [], "nonsense"),
    Made("a class", lambda: keras.optimizers.Adam),
    Made("a tf_keras optimizer", models.tf_keras_optimizer),
    Made("a model", models.dense),
)
SCHEDULE = (
    *(None, 0.5, "poly", []),
    Made("lambda: 0.5", lambda: lambda: 0.5),
    Made("lambda step: None", lambda: lambda step: None),
    Made("lambda step: 0.5", lambda: lambda step: 0.5),
    Made("lambda step: (True, nan)", lambda: lambda step: (True, NAN)),
    Made("lambda step: (True, 2.0)", lambda: lambda step: (True, 2.0)),
)


def x(samples=16):
    return np.random.default_rng(0).normal(size=(samples, 6)).astype("float32")


def y(samples=16):
    return np.arange(samples) % 3


def with_entry(array, entry):
    """Returns a copy whose first entry is another one."""
    array = array.astype("float32")
    array.flat[0] = entry
    return array


def endless():
    return tf.data.Dataset.from_tensor_slices((x(), y())).batch(8).repeat()


INPUTS = (
    *(3, "data", True, {}, [], (), print),
    Made("np.float32(3.0)", lambda: np.float32(3.0)),
    Made("x[:0]", lambda: x()[:0]),
    Made("x with NaN", lambda: with_entry(x(), NAN)),
    Made("x with inf", lambda: with_entry(x(), INF)),
    Made("x of text", lambda: x().astype(str)),
    Made("x of objects", lambda: np.full((16, 6), None)),
    Made("ragged lists", lambda: [[1.0, 2.0], [3.0]]),
    Made("complex x", lambda: x().astype("complex64")),
    Made("x of another width", lambda: np.ones((16, 5), "float32")),
    Made("an endless dataset", lambda: tf.data.Dataset.from_tensor_slices(x()).batch(8).repeat()),
    Made("an endless generator", lambda: (x(8) for _ in iter(int, 1))),
    Made("an empty dataset", lambda: tf.data.Dataset.from_tensor_slices(x()[:0]).batch(8)),
)
"""Not inputs of the tiny models."""
LABELLED = (
    *(None, 3, "data", True, {}, [], (), print),
    Made("x", x),
    Made("(x,)", lambda: (x(),)),
    Made("(x, None)", lambda: (x(), None)),
    Made("(None, y)", lambda: (None, y())),
    Made("(x, y, None, None)", lambda: (x(), y(), None, None)),
    Made("(x[:0], y[:0])", lambda: (x()[:0], y()[:0])),
    Made("(x, y[:-1])", lambda: (x(), y()[:-1])),
    Made("(x, 3)", lambda: (x(), 3)),
    Made("(x, text)", lambda: (x(), y().astype(str))),
    Made("(x, complex)", lambda: (x(), y().astype("complex64"))),
    Made("(x, y with NaN)", lambda: (x(), with_entry(y(), NAN))),
    Made("(x, y with inf)", lambda: (x(), with_entry(y(), INF))),
    Made("(x with NaN, y)", lambda: (with_entry(x(), NAN), y())),
    Made("(x with inf, y)", lambda: (with_entry(x(), INF), y())),
    Made("(x of text, y)", lambda: (x().astype(str), y())),
    Made("(complex x, y)", lambda: (x().astype("complex64"), y())),
    Made("(x of another width, y)", lambda: (np.ones((16, 5), "float32"), y())),
    Made("an endless dataset", endless),
    Made("an endless generator", lambda: ((x(8), y(8)) for _ in iter(int, 1))),
    Made("an empty dataset", lambda: endless().take(0)),
    Made("a dataset without labels", lambda: tf.data.Dataset.from_tensor_slices(x()).batch(8)),
)
"""Not labelled data of the tiny models."""
CLASSES = (
    Made("(x, class 0.5)", lambda: (x(), with_entry(y(), 0.5))),
    Made("(x, class 7 of 3)", lambda: (x(), with_entry(y(), 7).astype(int))),
    Made("(x, class -2)", lambda: (x(), with_entry(y(), -2).astype(int))),
)
"""Not labels of three classes."""
