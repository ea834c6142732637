"""Bad inputs of pruning and sparse training: optimizers, schedules, rounds, callbacks."""

import functools

import keras
import numpy as np

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import NAN, x, y

COUNT_OR_NONE = tuple(value for value in values.COUNT if value is not None)
SPARSE = {"exclude": values.NAMES}
BLOCKS = ((0, 4), (-1, 1), (2,), 4, "4x4", (1.5, 2), (NAN, 1), (True, 2), ())
PRUNING = {
    "scope": values.CHOICE,
    "block_size": (*BLOCKS, (3, 5)),  # which does not divide the kernels of the model
    "n_m": ((4, 2), (0, 4), (2,), 2, "2:4", (1.5, 4), (NAN, 4), (2, 5), (2, 2), ()),
    "straight_through": values.FLAG,
}
REWIRED = {
    "sparsity": values.FRACTION,
    "distribution": values.CHOICE,
    "seed": values.SEED,
}
NO_CRITERION = Made("lambda: 0", lambda: lambda: 0)
NAN_CRITERION = Made("a criterion of NaN", lambda: lambda v: np.full(v.shape, NAN))


def schedule(**changes):
    given = {"final_sparsity": 0.5, "begin": 0.0, "end": 0.5, "total_steps": 8, **changes}
    return tfpeft.polynomial_decay(**given)


def trained(wrap, model=None, **options):
    """Compiles and trains a model with a sparse optimizer, and strips it."""
    model = models.compiled(model or models.dense(), wrap(keras.optimizers.SGD(0.01)))
    model.fit(x(), y(), batch_size=4, verbose=0, **options)
    return tfpeft.strip_pruning(model)


def of_optimizers():
    sgd = functools.partial(keras.optimizers.SGD, 0.01)

    def built(make):
        """Makes an optimizer of arguments, and trains with it: names are matched then."""

        def call(optimizer, **arguments):
            keras_optimizer = optimizer
            return trained(lambda inner: make(keras_optimizer or inner, **arguments))

        return call

    def optimizers(name, **good):
        make = getattr(tfpeft, name)
        wrong = bad_arguments(
            name, make, lambda: {"optimizer": sgd(), **good}, {"optimizer": values.OPTIMIZER}
        )
        return wrong, lambda bad: bad_arguments(
            name, built(make), lambda: {"optimizer": sgd(), **good}, bad
        )

    bad = {"optimizer": values.OPTIMIZER, "exclude": (3, [3], [None], True)}
    cases = bad_arguments(
        "SparseOptimizer", tfpeft.SparseOptimizer, lambda: {"optimizer": sgd()}, bad
    )
    cases += bad_arguments(
        "Pruning",
        tfpeft.Pruning,
        lambda: {"optimizer": sgd(), "schedule": schedule()},
        {**bad, **PRUNING, "block_size": BLOCKS, "schedule": values.SCHEDULE},
    )
    for name in ("MagnitudePruning", "GradientPruning", "MovementPruning", "RandomPruning"):
        wrong, arguments = optimizers(name, schedule=schedule())
        bad = {**SPARSE, **PRUNING} if name == "MagnitudePruning" else {"scope": ("no", 3)}
        if name == "MagnitudePruning":
            bad["schedule"] = values.SCHEDULE
        if name == "RandomPruning":
            bad["seed"] = values.SEED
        cases += wrong + arguments(bad)
    for name in ("SET", "RigL"):
        wrong, arguments = optimizers(name, sparsity=0.5, end_step=4, frequency=1)
        bad = {
            **REWIRED,
            "end_step": values.COUNT,
            "frequency": COUNT_OR_NONE,
            "drop_fraction": values.RATE,
            **SPARSE,
        }
        cases += wrong + arguments(bad if name == "RigL" else {"end_step": (0, None, NAN)})
    wrong, arguments = optimizers("StaticSparse", sparsity=0.5)
    cases += wrong + arguments(REWIRED)
    for name in ("ProximalL1", "ProximalGroupL1"):
        wrong, arguments = optimizers(name, l1=0.1)
        cases += wrong + arguments({"l1": values.POSITIVE, "exclude": ("no_such_layer", 3)})
    wrong, arguments = optimizers("TargetedDropout", drop_rate=0.5, target_fraction=0.5)
    cases += wrong + arguments(
        {
            "drop_rate": values.RATE,
            "target_fraction": values.FRACTION,
            "end_step": COUNT_OR_NONE,
            "frequency": values.COUNT,
            "seed": values.SEED,
        }
    )
    wrong, arguments = optimizers("WeightClustering", number_of_clusters=4)
    cases += wrong + arguments(
        {
            "number_of_clusters": (0, 1, -4, 2**17, NAN, "4", None, 4.0, True, [4]),
            "initialization": values.CHOICE,
            "per_channel": values.FLAG,
            "preserve_sparsity": values.FLAG,
            "begin_step": (-1, 1.5, NAN, "0", True),
            "straight_through": values.FLAG,
            **SPARSE,
        }
    )
    wrong, arguments = optimizers("FixedMask")
    return cases + wrong + arguments(SPARSE)


def of_models():
    """Models that a sparse optimizer cannot train, and what `strip_pruning` cannot strip."""
    pruned = functools.partial(tfpeft.MagnitudePruning, schedule=schedule())
    never = schedule(begin=0.5, end=1.0, total_steps=1000)
    kernels = ("kernel", "layer", "weights")
    return [
        Case("fit(a frozen model) with pruning", lambda: trained(pruned, models.frozen()), kernels),
        Case(
            "fit(a model without kernels) with pruning",
            lambda: trained(pruned, models.without_kernels()),
            kernels,
        ),
        Case(
            "fit(all layers excluded)",
            lambda: trained(lambda inner: pruned(inner, exclude=["hidden", "head"])),
            kernels + ("exclude",),
        ),
        Case(
            "strip_pruning(model) before the schedule's end",
            lambda: trained(lambda inner: tfpeft.MagnitudePruning(inner, never)),
            ("sparsity", "zeros", "schedule"),
        ),
        Case(
            "SparsityLogger() without a sparse optimizer",
            lambda: models.compiled().fit(x(), y(), verbose=0, callbacks=[tfpeft.SparsityLogger()]),
            ("SparsityLogger",),
        ),
        *bad_arguments(
            "strip_pruning",
            lambda model: tfpeft.strip_pruning(model),
            dict,
            {"model": [value for value in values.MODEL if "tf_keras" not in repr(value)]},
        ),
        *bad_arguments(
            "strip_clustering",
            lambda model: tfpeft.strip_clustering(model),
            dict,
            {"model": [value for value in values.MODEL if "tf_keras" not in repr(value)]},
        ),
        *bad_arguments(
            "prune_for_xnnpack",
            lambda model: tfpeft.prune_for_xnnpack(model),
            dict,
            {"model": (*values.MODEL, *values.UNBUILT)},
        ),
        *bad_arguments(
            "l1_regularize",
            tfpeft.l1_regularize,
            lambda: {"model": models.dense(), "l1": 0.1},
            {
                "model": values.MODEL,
                "l1": values.POSITIVE,
                "exclude": values.NAMES,
            },
        ),
    ]


def of_schedules():
    return [
        *bad_arguments(
            "polynomial_decay",
            tfpeft.polynomial_decay,
            lambda: {"final_sparsity": 0.5, "begin": 0.0, "end": 0.5, "total_steps": 8},
            {
                "final_sparsity": values.FRACTION,
                "begin": (NAN, values.INF, "0", None, True, -0.1, 0.5, 0.7, [0.0]),
                "end": (NAN, values.INF, "1", None, True, 0.0, -1.0, 1.5, [0.5]),
                "total_steps": values.COUNT,
                "initial_sparsity": values.FRACTION,
                "frequency": values.COUNT,
                "power": values.POSITIVE,
                "steps_per_epoch": (8,),
            },
        ),
        *bad_arguments(
            "constant_sparsity",
            tfpeft.constant_sparsity,
            lambda: {"target_sparsity": 0.5, "begin": 0.0, "total_steps": 8},
            {
                "target_sparsity": values.FRACTION,
                "begin": (NAN, "0", None, -1.0, 1.5),
                "end": (NAN, "1", 0.0, 1.5, True),
                "total_steps": (0, None, 1.5),
                "frequency": (0, None, 1.5, NAN),
            },
        ),
    ]


def of_rounds():
    """`prune_iteratively` and `layer_sensitivity`."""
    data = {"train": (x(), y()), "validation": (x(), y())}
    uncompiled = Made("a model that is not compiled", models.dense)
    unknown = ("nonsense", "", 3, ["accuracy"])
    infinite = Made("a model with NaN weights", lambda: models.compiled(models.not_finite()))
    no_kernels = Made("a model without kernels", lambda: models.compiled(models.without_kernels()))
    rows = [
        {"kernel": "a", "weights": 2, "sparsity": 0.5, "metric": 0.9},
        {"kernel": "b", "weights": 2, "sparsity": 0.5, "metric": 0.9},
    ]

    def sensitivity():
        return tfpeft.LayerSensitivity(0.9, "accuracy", rows)

    return [
        *bad_arguments(
            "prune_iteratively",
            tfpeft.prune_iteratively,
            lambda: {"model": models.compiled(), **data, "target_sparsity": 0.5, "step": 0.5},
            {
                "model": (*values.MODEL, uncompiled, infinite, no_kernels),
                "train": (*values.LABELLED, *values.CLASSES[1:]),
                "validation": (*values.LABELLED, *values.CLASSES[1:]),
                "target_sparsity": (*values.FRACTION, 0.0),
                "step": values.RATE,
                "tolerance": (NAN, -0.1, "1", None, [0.1], 1j, True),
                "epochs_per_step": values.COUNT,
                "criterion": (*values.CHOICE[:4], NO_CRITERION, NAN_CRITERION),
                "scope": values.CHOICE,
                "densities": (
                    *(3, [], {}, "erk", {"hidden": 1.0}, {"no_such_layer": 1.0}),
                    *({"hidden": number, "head": 1.0} for number in (NAN, values.INF, -1.0, 0.0)),
                    {"hidden": "1", "head": 1.0},
                    {"hidden": None, "head": 1.0},
                ),
                "exclude": (*values.NAMES[:5], ["hidden", "head"]),
                "monitor": unknown,
                "mode": ("nonsense", "", 3, True),
                "batch_size": values.COUNT,
                "directory": (*(3, 2.5, [], "a\0b", "", True, values.FILE),),
                "verbose": ("nonsense", -1, NAN),
            },
        ),
        *bad_arguments(
            "layer_sensitivity",
            tfpeft.layer_sensitivity,
            lambda: {"model": models.compiled(), "data": (x(), y()), "sparsities": [0.5]},
            {
                "model": (*values.MODEL, uncompiled, infinite, no_kernels),
                "data": (*values.LABELLED, *values.CLASSES[1:]),
                "sparsities": (None, 0.5, [], "0.5", [NAN], [1.0], [-0.1], ["0.5"], [None], [True]),
                "exclude": (*values.NAMES[:5], ["hidden", "head"]),
                "monitor": unknown,
                "mode": ("nonsense", "", 3, True),
                "batch_size": values.COUNT,
            },
        ),
        *bad_arguments(
            "LayerSensitivity.densities",
            lambda tolerance: sensitivity().densities(tolerance),
            dict,
            {"tolerance": (NAN, -0.1, "1", None, [0.1], 1j, True)},
        ),
        *bad_arguments(
            "LayerSensitivity.plot",
            lambda path: sensitivity().plot(path),
            dict,
            {"path": (*values.PATH, values.DIRECTORY)},
        ),
        *bad_arguments(
            "KeepBest",
            lambda **arguments: trained(
                functools.partial(tfpeft.MagnitudePruning, schedule=schedule()),
                callbacks=[tfpeft.KeepBest(**arguments)],
            ),
            lambda: {"monitor": "loss"},
            {
                "monitor": (None, 3, [], "", "nonsense", ["loss", "nonsense"], ["loss", 3]),
                "mode": ("nonsense", "", 3, True),
                "first_step": ("1", -1, 1.5, NAN, True),
            },
        ),
    ]


def cases():
    return [*of_schedules(), *of_optimizers(), *of_models(), *of_rounds()]
