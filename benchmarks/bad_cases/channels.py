"""Bad inputs of channel pruning: targets, importances, limits, rounds, sensitivity."""

import fractions

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import INF, NAN, x, y

COUNT_OR_FRACTION = (*values.NOT_A_NUMBER, INF, 0, -3, 0.0, 1, 1.0, 1.5, -0.5, True)
BUDGET = (*COUNT_OR_FRACTION, fractions.Fraction(3, 2), 2)  # two of anything cannot be reached
LATENCY = (*values.NOT_A_NUMBER, INF, 0, -3, 0.0, -0.5, True, fractions.Fraction(1), 1e-9)
TARGETS = {
    "ratio": (*values.FRACTION[:-1], 0.999, 1e-9),
    "max_macs": BUDGET,
    "max_params": BUDGET,
    "max_size_bytes": BUDGET,
    "max_latency_ms": LATENCY,
}
SCORES = {
    "importance": (
        *values.CHOICE,
        Made("a function of nothing", lambda: lambda: 0),
        Made("a function that returns None", lambda: lambda family: None),
        Made("scores of NaN", lambda: lambda family: np.full(len(family), NAN)),
        Made("a score too many", lambda: lambda family: np.ones(len(family) + 1)),
        "bn_scale",  # of a model without BatchNormalization
    ),
    "scope": values.CHOICE,
    "aggregate": values.CHOICE,
    "normalize": values.CHOICE,
    "round_to": values.COUNT,
    "min_channels": values.COUNT,
    "max_ratio_per_layer": (*values.RATE, 1.0),
    "exclude": (*values.NAMES[:6], ["hidden"]),
    "through_statistics": values.FLAG,
    "batch_size": values.COUNT,
    "seed": values.SEED,
}
FIXED = Made("a model without channels to remove", lambda: models.compiled(_one_layer()))
WITHOUT_GRAPH = Made("a subclassed model", lambda: models.compiled(_subclassed()))
UNCOMPILED = Made("a model that is not compiled", models.dense)
NOT_FINITE = Made("a model with NaN weights", lambda: models.compiled(models.not_finite()))


def _subclassed():
    model = models.Subclassed()
    model(x())
    return model


def _one_layer():
    return keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])


def of_models():
    """`prune_channels` and `remove_constant_channels`."""

    def good():
        return {"model": models.compiled(), "ratio": 0.5, "data": (x(), y())}

    def with_dead_channel():
        model = models.dense()
        model.layers[0].set_weights([np.zeros_like(w) for w in model.layers[0].get_weights()])
        return {"model": model}

    return [
        *bad_arguments(
            "prune_channels",
            tfpeft.prune_channels,
            good,
            {
                "model": (*values.MODEL, *values.UNBUILT, FIXED, WITHOUT_GRAPH, UNCOMPILED),
                "data": (*values.LABELLED, *values.CLASSES[1:]),
                **TARGETS,
                **SCORES,
                "verify": values.FLAG,
            },
        ),
        Case(
            "prune_channels(no target)",
            lambda: tfpeft.prune_channels(models.compiled(), data=(x(), y())),
            ("ratio",),
        ),
        Case(
            "prune_channels(ratio=0)",
            lambda: tfpeft.prune_channels(models.compiled(), ratio=0.0, data=(x(), y())),
            ("ratio",),
        ),
        *bad_arguments(
            "remove_constant_channels",
            tfpeft.remove_constant_channels,
            with_dead_channel,
            {
                "model": (*values.MODEL, *values.UNBUILT, WITHOUT_GRAPH, UNCOMPILED),
                "exclude": (*values.NAMES[:6], ["hidden"]),
                "verify": values.FLAG,
            },
        ),
    ]


def of_rounds():
    """`prune_channels_iteratively` and `channel_sensitivity`."""
    unknown = ("nonsense", "", 3, ["accuracy"])
    data = {"train": (x(), y()), "validation": (x(), y())}
    compiled = (*values.MODEL, UNCOMPILED, NOT_FINITE, FIXED, WITHOUT_GRAPH)

    def sensitivity():
        rows = [{"layers": "a", "channels": 4, "ratio": 0.5, "metric": 0.9}]
        return tfpeft.ChannelSensitivity(0.9, "accuracy", rows, "max")

    def report():
        return tfpeft.ChannelReport({"a": (4, 2)}, {}, (8, 4), (8, 4), {}, None)

    return [
        *bad_arguments(
            "prune_channels_iteratively",
            tfpeft.prune_channels_iteratively,
            lambda: {"model": models.compiled(), **data, "ratio": 0.5, "steps": 1},
            {
                "model": compiled,
                "train": (*values.LABELLED, *values.CLASSES[1:]),
                "validation": (*values.LABELLED, *values.CLASSES[1:]),
                **TARGETS,
                **SCORES,
                "steps": values.COUNT,
                "epochs_per_step": values.COUNT,
                "tolerance": (NAN, -0.1, "1", None, [0.1], 1j, True),
                "teacher": (3, "no_such_file.keras", [], {}, Made("a class", lambda: keras.Model)),
                "monitor": unknown,
                "mode": ("nonsense", "", 3, True),
                "directory": (*(3, 2.5, [], "a\0b", "", True, values.FILE),),
                "verbose": ("nonsense", -1, NAN),
            },
        ),
        *bad_arguments(
            "prune_channels_iteratively with a teacher",
            lambda **arguments: tfpeft.prune_channels_iteratively(
                models.compiled(), (x(), y()), (x(), y()), ratio=0.5, steps=1, **arguments
            ),
            lambda: {"teacher": models.dense()},
            {"alpha": (*values.NOT_A_NUMBER, -0.1, 1.5, None), "temperature": values.POSITIVE},
        ),
        *bad_arguments(
            "channel_sensitivity",
            tfpeft.channel_sensitivity,
            lambda: {"model": models.compiled(), "data": (x(), y())},
            {
                "model": compiled,
                "data": (*values.LABELLED, *values.CLASSES[1:]),
                "ratios": (None, 0.5, [], "0.5", [NAN], [1.0], [-0.1], ["0.5"], [None], [True]),
                "importance": SCORES["importance"],
                "exclude": SCORES["exclude"],
                "through_statistics": values.FLAG,
                "monitor": unknown,
                "mode": ("nonsense", "", 3, True),
                "batch_size": values.COUNT,
                "seed": values.SEED,
            },
        ),
        *bad_arguments(
            "ChannelSensitivity.plot",
            lambda path: sensitivity().plot(path),
            dict,
            {"path": (*values.PATH, values.DIRECTORY)},
        ),
        *bad_arguments(
            "ChannelReport.plot",
            lambda path: report().plot(path),
            dict,
            {"path": (*values.PATH, values.DIRECTORY)},
        ),
    ]


def cases():
    return [*of_models(), *of_rounds()]
