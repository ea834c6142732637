"""Bad inputs of distillation: `Distiller`, its losses, and precomputed outputs."""

import functools

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import NAN, x, y

OUTPUT_LOSSES = ("SoftLabels", "BinarySoftLabels", "DecoupledKD", "DIST", "SquaredError")
FEATURE_LOSSES = (
    *("FeatureMatching", "AttentionTransfer", "SimilarityPreserving"),
    *("RelationalDistance", "RelationalAngle"),
)
LOSS = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def fitted(**options):
    """Distils one batch: what a loss or a schedule says of outputs is known then."""
    model = tfpeft.Distiller(**{"teacher": models.dense(), "student": models.dense(), **options})
    model.compile(keras.optimizers.SGD(0.01), LOSS)
    model.fit(x(), y(), batch_size=16, verbose=0)
    return model


def of_losses():
    def used(name, **good):
        make = getattr(tfpeft, name)
        return lambda **bad: fitted(distillation_losses=[make(**{**good, **bad})])

    layers = {"teacher_layer": "hidden", "student_layer": "hidden"}
    optional = tuple(value for value in values.POSITIVE if value is not None)
    output = {"output": ("no_such_output", 3, -2, [], NAN)}
    cases = bad_arguments(
        "DistillationLoss",
        tfpeft.DistillationLoss,
        dict,
        {
            "weight": values.POSITIVE,
            "teacher_layer": (3, [], True),
            "student_layer": (3, [], True),
            "output": ([], NAN, {}),
        },
    )
    for name in OUTPUT_LOSSES:
        bad = {"weight": values.POSITIVE, **output}
        if name != "SquaredError":
            bad["temperature"] = optional
        if name == "DecoupledKD":
            bad |= {"target": ("a", NAN, None, [1.0], -1.0), "other": ("a", NAN, None, -1.0)}
        if name == "DIST":
            bad |= {"inter": ("a", NAN, None, -1.0), "intra": ("a", NAN, None, -1.0)}
        if name == "BinarySoftLabels":
            bad = {"temperature": (NAN, 0.0)}
        cases += bad_arguments(name, used(name), dict, bad)
    for name in FEATURE_LOSSES:
        bad = {
            "weight": (NAN, 0.0, "1", True),
            "teacher_layer": ("no_such_layer", 3, [], ""),
            "student_layer": ("no_such_layer", 3, [], ""),
        }
        cases += bad_arguments(name, used(name, **layers), lambda: {}, bad)
    return cases


def of_distillers():
    teachers = (3, "", "no_such.tflite", [], [None], {}, values.DIRECTORY, values.FILE)
    others = (
        Made("np.ones((2, 2))", lambda: np.ones((2, 2))),
        Made("a class", lambda: keras.Sequential),
        Made("a model of another width", lambda: models.dense(width=5)),
        Made("a model of other classes", lambda: models.dense(5)),
        Made("lambda: 0", lambda: lambda: 0),
        Made("lambda x: None", lambda: lambda x: None),
        Made("lambda x: 'a'", lambda: lambda x: "a"),
    )
    losses = (
        *(3, "soft_labels", [3], [None], ["soft_labels"], {}),
        Made("a loss without a list", tfpeft.SoftLabels),
        Made("[a class]", lambda: [tfpeft.SoftLabels]),
        *(
            Made(f"[(a loss, {weight!r})]", functools.partial(_weighted, weight))
            for weight in (NAN, 0.0, -1.0, "1", None, True, values.INF)
        ),
    )
    numbers = ("0.5", NAN, values.INF, -0.1, [0.5], True, 1j, None)
    cases = bad_arguments(
        "Distiller",
        fitted,
        dict,
        {
            "teacher": (*teachers, *others),
            "alpha": (*numbers, 1.5, *_schedules(2.0)),
            "temperature": (*numbers, 0.0, *_schedules(-1.0)),
            "distillation_losses": losses,
            "teacher_weights": ([1.0, 1.0], [NAN], ["1"], [-1.0], [0.0], 1.0, [], [True], [None]),
            "teacher_from_logits": ("no", 2, NAN, [True, True], ["no"]),
            "student_from_logits": ("no", 2, NAN, [True]),
        },
    )
    cases += bad_arguments(
        "Distiller",
        lambda student: tfpeft.Distiller(models.dense(), student),
        dict,
        {"student": values.MODEL},
    )

    def with_same():
        model = models.dense()
        return tfpeft.Distiller(model, model)

    return [
        *cases,
        *bad_arguments(
            "PrecomputedInputs",
            _with_precomputed,
            dict,
            {
                "teacher": (
                    Made("{}", dict),
                    Made("an array", x),
                    Made("{'outputs': ()}", lambda: {"outputs": ()}),
                    Made("{'outputs': (of 5 classes,)}", lambda: {"outputs": (np.ones((16, 5)),)}),
                )
            },
        ),
        Case("Distiller(model, the same model)", with_same, ("student",)),
        Case(
            "Distiller(None, student) and fit without precomputed outputs",
            _without_teacher,
            ("teacher", "precompute"),
        ),
    ]


def _with_precomputed(teacher):
    """Trains on outputs that `join` did not make."""
    model = tfpeft.Distiller(None, models.dense(), teacher_from_logits=True)
    model.compile("sgd", LOSS)
    model.fit(tfpeft.PrecomputedInputs(x(), teacher), y(), verbose=0)


def _without_teacher():
    model = tfpeft.Distiller(None, models.dense(), teacher_from_logits=True)
    model.compile("sgd", LOSS)
    model.fit(x(), y(), verbose=0)


def _weighted(weight):
    return [(tfpeft.SoftLabels(), weight)]


def _schedules(out_of_range):
    return (
        Made("lambda: 0.5", lambda: lambda: 0.5),
        Made("lambda step: None", lambda: lambda step: None),
        Made("lambda step: nan", lambda: lambda step: NAN),
        Made(f"lambda step: {out_of_range}", lambda: lambda step: out_of_range),
    )


def of_precompute():
    data = {"model": models.dense, "data": lambda: (x(), y())}
    shuffled = Made(
        "a dataset that is shuffled anew",
        lambda: values.endless().take(2).unbatch().shuffle(16).batch(8),
    )
    cases = bad_arguments(
        "precompute",
        tfpeft.precompute,
        lambda: {name: make() for name, make in data.items()},
        {
            "model": (
                *(None, 3, "", "no_such.tflite", [], [None], {}, values.FILE, values.DIRECTORY),
                Made("np.ones((2, 2))", lambda: np.ones((2, 2))),
                Made("a class", lambda: keras.Sequential),
                Made("a model of NaN", models.not_finite),
            ),
            "data": (*_inputs(), shuffled),
            "path": (3, 2.5, [], "", "a\0b", True, values.FILE, values.IN_FILE),
            "features": (None, 3, "hidden", [3], [None], ["no_such_layer"], [""]),
            "float16": values.FLAG,
            "batch_size": values.COUNT,
        },
    )

    cases += [
        Case(f"precompute({text})", functools.partial(tfpeft.precompute, model, (x(), y())), names)
        for text, model, names in (
            ("a model of another width", models.dense(width=5), ("data",)),
            ("lambda: 0", lambda: 0, ("function",)),
            ("lambda x: None", lambda x: None, ("function",)),
        )
    ]

    def joined(data):
        return tfpeft.precompute(models.dense(), (x(), y())).join(data)

    return [
        *cases,
        *bad_arguments(
            "Precomputed.join",
            joined,
            dict,
            {
                "data": (
                    *(None, 3, "data", (), []),
                    Made("fewer samples", lambda: (x(8), y(8))),
                    Made("more samples", lambda: (x(32), y(32))),
                    Made("other samples", lambda: (x() + 1, y())),
                    Made("(x, y[:-1])", lambda: (x(), y()[:-1])),
                )
            },
        ),
        *bad_arguments("Precomputed", tfpeft.Precomputed, dict, {"store": (None, 3, "store")}),
    ]


def _inputs():
    """Data that `precompute` cannot take; it does not read labels."""
    return [
        value
        for value in values.INPUTS
        if not isinstance(value, Made) or "generator" not in value.text
    ]


def cases():
    return [*of_losses(), *of_distillers(), *of_precompute()]
