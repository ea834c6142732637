"""Bad inputs of several tasks together: mixed data, compilation, training, and task files."""

import functools

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments, made
from bad_cases.values import NAN, x, y

LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
LABELS = {"a": y(), "b": y() % 2}


def shared(**options):
    return tfpeft.SharedModel(models.dense(), {"a": 3, "b": 2}, **options)


def compiled(**options):
    model = shared(learn_task_weights=options.pop("learn_task_weights", False))
    model.compile(**{"optimizer": keras.optimizers.SGD(0.01), "loss": LOSS, **options})
    return model


def fitted(inputs=None, labels=None, *, fit=None, **options):
    model = compiled(**options)
    labels = LABELS if labels is None else labels
    model.fit(x() if inputs is None else inputs, labels, verbose=0, **(fit or {}))
    return model


def of_mix_tasks():
    def mixed(**arguments):
        return next(iter(tfpeft.mix_tasks(**arguments)))

    # NaN is a missing label; of inputs it knows neither their types nor their widths.
    left_out = ("y with NaN", "of text, y", "complex x", "width")
    labelled = [v for v in values.LABELLED if not any(words in repr(v) for words in left_out)]

    def one(value):
        return Made(f"{{'a': {value!r}}}", lambda: {"a": made(value), "b": (x(), y())})

    return bad_arguments(
        "mix_tasks",
        mixed,
        lambda: {"data": {"a": (x(), y()), "b": (x(), y())}, "batch_size": 8},
        {
            "data": (
                *(None, 3, "data", {}, [], ()),
                Made("(x, y)", lambda: (x(), y())),
                *map(one, labelled),
            ),
            "sampling": (*values.CHOICE, "random"),
            "temperature": ("2", NAN, values.INF, -1.0, 0.0, 0.5, [2.0], True),
            "batch_size": (*values.COUNT, 1),
            "seed": values.SEED,
        },
    )


def of_compile():
    weights = (
        *([1.0, 0.0], "a", {"a": 1.0}, {"a": 1.0, "c": 1.0}, {}),
        *({"a": weight, "b": 1.0} for weight in (NAN, values.INF, -1.0, "1", None, True, [1.0])),
    )
    cases = bad_arguments(
        "SharedModel.compile",
        lambda **arguments: fitted(**arguments),
        dict,
        {
            "loss": (
                *(3, {}, [], {"a": LOSS}, {"a": LOSS, "b": LOSS, "c": LOSS}),
                Made("[loss, loss]", lambda: [LOSS, LOSS]),
                Made("{'a': 3, 'b': loss}", lambda: {"a": 3, "b": LOSS}),
                Made("None", lambda: None),
            ),
            "loss_weights": weights,
            "metrics": ({"c": ["accuracy"]}, {"a": ["accuracy"], "c": ["accuracy"]}),
            "weighted_metrics": (3, {"c": ["accuracy"]}, [3], {"a": 3}),
        },
    )
    cases.append(
        Case(
            "SharedModel(learn_task_weights=True).compile(loss_weights=...)",
            lambda: compiled(learn_task_weights=True, loss_weights={"a": 1.0, "b": 1.0}),
            ("loss_weights",),
        )
    )
    return cases


def of_fit():
    class_weights = (
        *([1.0, 2.0], 3, "a", {0: 2.0}, {"c": {0: 1.0}}, {"a": [1.0]}, {"a": 2.0}, {"a": {7: 1.0}}),
        *({"a": {0: weight}} for weight in (NAN, values.INF, -1.0, "1", None, True)),
        *({"a": {number: 1.0}} for number in (-1, 0.5, "0", NAN)),
    )
    cases = bad_arguments(
        "SharedModel.fit",
        lambda class_weight: fitted(fit={"class_weight": class_weight}),
        dict,
        {"class_weight": class_weights},
    )
    labels = {
        "of one task": {"a": y()},
        "of a task that is not there": {**LABELS, "c": y()},
        "in a list": [y(), y() % 2],
        "out of range": {**LABELS, "a": y() + 5},
        "below -1": {**LABELS, "a": y() - 3},
        "that are infinite": {**LABELS, "a": np.full(16, values.INF, "float32")},
        "that are no whole numbers": {**LABELS, "a": np.full(16, 0.5, "float32")},
    }
    names = ("labels", "task")
    cases += [
        Case(f"SharedModel.fit(x, labels {words})", functools.partial(fitted, labels=given), names)
        for words, given in labels.items()
    ]
    cases += [
        Case(
            "SharedModel.evaluate(x, labels of one task)",
            lambda: compiled().evaluate(x(), {"a": y()}, verbose=0),
            names,
        ),
        Case(
            "SharedModel(TaskInputs of one task)",
            lambda: shared()(tfpeft.TaskInputs({"a": x()})),
            ("inputs", "task"),
        ),
        Case(
            "SharedModel(TaskInputs of None)",
            lambda: shared()(tfpeft.TaskInputs(None)),
            ("inputs", "task"),
        ),
    ]
    return cases


def of_tasks():
    unknown = ("no_such_task", "", 3, None, [], True)
    heads = (0, -1, 1.5, NAN, None, "3", [], True, print)
    cases = bad_arguments(
        "SharedModel.add_task",
        lambda **arguments: shared().add_task(**arguments),
        lambda: {"task": "c", "head": 3},
        {
            "task": ("a", "", 3, None, [], "a b", "a/b"),
            "head": heads,
            "adapter": (3, "lora", [], Made("a class", lambda: tfpeft.LoRA)),
        },
    )
    for method in ("task", "save_task"):
        good = {"path": "a.weights.h5"} if method == "save_task" else {}
        cases += bad_arguments(
            f"SharedModel.{method}", _method(method), lambda good=good: good, {"task": unknown}
        )
    cases += bad_arguments(
        "SharedModel.save_task",
        _method("save_task"),
        lambda: {"task": "a"},
        {"path": (*values.PATH, values.DIRECTORY, "a", "a.h5", "a.txt")},
    )
    cases += bad_arguments(
        "SharedModel.load_task",
        _method("load_task"),
        dict,
        {"path": (*values.PATH, values.DIRECTORY, "no_such.weights.h5", values.FILE)},
    )
    cases += bad_arguments(
        "TaskModel",
        tfpeft.TaskModel,
        lambda: {"encoder": shared().encoder, "part": shared().parts["a"]},
        {"encoder": (None, 3, "encoder"), "part": (None, 3, "part")},
    )
    return cases


def _method(method):
    return lambda **arguments: getattr(shared(), method)(**arguments)


def cases():
    return [*of_mix_tasks(), *of_compile(), *of_fit(), *of_tasks()]
