"""Bad inputs of `evaluate` and `compare`: models, files, and labelled data."""

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import NAN, x, y


def tflite(name="given.tflite"):
    return models.file(name, models.tflite_bytes())


def of_evaluate():
    files = (
        *("no_such.keras", "no_such.tflite", "model.onnx", "a\0b"),
        values.DIRECTORY,
        values.FILE,
    )
    others = (
        Made("a model with NaN weights", models.not_finite),
        Made("a model of two outputs", models.two_outputs),
        Made("a model of another width", lambda: models.dense(width=5)),
    )
    good = {"model": models.dense, "data": lambda: (x(), y())}
    cases = bad_arguments(
        "evaluate",
        tfpeft.evaluate,
        lambda: {name: make() for name, make in good.items()},
        {
            "model": (*values.MODEL, *files, *others),
            "data": (*values.LABELLED, *values.CLASSES, *DATA),
            "from_logits": values.FLAG,
            "signature": (3, [], True),
            "metrics": METRICS,
            "task": (*values.CHOICE, *TASKS),
        },
    )
    cases += bad_arguments(
        "evaluate(a file)",
        lambda **arguments: tfpeft.evaluate(tflite(), **arguments),
        lambda: {"data": (x(), y())},
        {
            "data": (
                *(None, 3, "data", (), Made("x", x)),
                Made("(x, y[:-1])", lambda: (x(), y()[:-1])),
                Made("(x with NaN, y)", lambda: (values.with_entry(x(), NAN), y())),
                Made("(x of another width, y)", lambda: (np.ones((16, 5), "float32"), y())),
                Made("an endless dataset", values.endless),
                *values.CLASSES,
            ),
            "from_logits": values.FLAG,
            "metrics": METRICS,
            "task": (*values.CHOICE, *TASKS),
        },
    )
    return cases


METRICS = (
    *(3, "nonsense", [None], [3], {3: "mse"}, ["mse", "mse"]),
    Made("[a class]", lambda: [keras.metrics.Accuracy]),
    Made("[F1Score() of other labels]", lambda: [keras.metrics.F1Score()]),
    Made("[a function that raises]", lambda: [lambda y, outputs: outputs / "a"]),
    Made("[a function of a matrix]", lambda: [lambda y, outputs: outputs[:2]]),
    Made("[a function of text]", lambda: [lambda y, outputs: "good"]),
)
TASKS = (
    *("binary", "regression", "multi_label", "reconstruction", "segmentation"),
    {"output": "colours"},
)
"""Not the task of labels of three classes."""
DATA = (
    Made("(x, y of rank 3)", lambda: (x(), np.zeros((16, 2, 2), int))),
    Made("(x, one-hot rows of 5 classes)", lambda: (x(), np.eye(5)[y()])),
    Made("(x, one-hot rows of two ones)", lambda: (x(), np.ones((16, 3)))),
    Made("(x, y, weights[:-1])", lambda: (x(), y(), np.ones(15))),
    Made("(x, y, weights of NaN)", lambda: (x(), y(), np.full(16, NAN))),
    Made("(x, y, negative weights)", lambda: (x(), y(), -np.ones(16))),
    Made("(x, y, weights of zeros)", lambda: (x(), y(), np.zeros(16))),
    Made("(x, y, weights per position)", lambda: (x(), y(), np.ones((16, 3)))),
    Made("(x, y, weights of text)", lambda: (x(), y(), np.array(["a"] * 16))),
    Made("(x, {'a': y, 'b': y})", lambda: (x(), {"a": y(), "b": y()})),
    Made("(x, y of objects)", lambda: (x(), np.array([None] * 16))),
)


def of_compare():
    def damaged(name, content):
        return lambda: tfpeft.compare({"a": models.file(name, content)}, (x(), y()))

    cases = bad_arguments(
        "compare",
        tfpeft.compare,
        lambda: {"models": {"a": models.dense()}, "data": (x(), y())},
        {
            "models": (
                *(None, 3, "model", {}, [], ()),
                Made("a model", models.dense),
                Made("[a model]", lambda: [models.dense()]),
                *({"a": value} for value in (None, 3, "no_such.keras", "no_such.tflite", print)),
                Made("{3: a model}", lambda: {3: models.dense()}),
                Made("{'a': a tf_keras model}", lambda: {"a": models.tf_keras_model()}),
            ),
            "data": (*values.LABELLED[:12], values.CLASSES[0]),
            "from_logits": values.FLAG,
            "reference": ("b", 3, ["a"], True),
        },
    )
    cases += bad_arguments(
        "Comparison.difference",
        lambda **arguments: comparison().difference(**arguments),
        lambda: {"a": "a", "b": "b"},
        {"a": (None, 3, "c"), "b": (None, 3, "c"), "metric": ("rmse", 3, ["accuracy"])},
    )
    for kind, content in {
        "keras": models.keras_bytes(),
        "tflite": models.tflite_bytes(),
        "h5": b"\x89HDF\r\n\x1a\n" + bytes(100),
    }.items():
        for words, bad in models.damaged(content).items():
            name = f"given.{kind}"
            cases.append(Case(f"compare(a .{kind} file: {words})", damaged(name, bad), (name,)))
    return cases


def comparison():
    model = models.dense()
    return tfpeft.compare({"a": model, "b": model}, (x(), y()))


def cases():
    return [*of_evaluate(), *of_compare()]
