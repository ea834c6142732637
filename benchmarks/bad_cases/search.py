"""Bad inputs of search: budgets, spaces, techniques, and what they are searched with."""

import tfpeft
from bad_cases import models, values
from bad_cases.case import Case, Made, bad_arguments
from bad_cases.values import NAN, x, y

RANGE = (None, 3, "8", (), (0,), (-1, 4), (1.5,), (NAN,), ("4",), (True,))
"""Not a sequence of integers of at least 1."""
WORDS = (None, 3, "plain", (), ("nonsense",), (3,), ("",))
NUMBERS = (3, "0.5", (), (NAN,), ("1",), (-1.0,), (True,))
"""Not a sequence of positive numbers; None is "by the budget"."""
LIMIT = ("1", 0, -1, 1.5, NAN, [1], True)
SPACES = (tfpeft.SmallCNN, tfpeft.MobileBlocks, tfpeft.Small1D)


def of_spaces():
    cases = []
    for space in SPACES:
        bad = dict.fromkeys(("stages", "depth", "width", "kernel"), RANGE)
        bad |= {"growth": (None, *NUMBERS, (0.5,)), "block": WORDS}
        cases += bad_arguments(space.__name__, space, dict, bad)
    bad = dict.fromkeys(("depth", "width", "heads", "expansion"), RANGE)
    return [*cases, *bad_arguments("TinyTransformer", tfpeft.TinyTransformer, dict, bad)]


def good():
    return {
        "model_or_space": tfpeft.Small1D(stages=(1,), width=(4,)),
        "data": (x(64), y(64)),
        "budget": tfpeft.Budget(max_size_bytes=20_000),
        "minutes": 0.1,
    }


def of_search():
    bad = {
        "model_or_space": (*(v for v in values.MODEL if v is not print), ()),
        "budget": (None, 3, {"max_size_bytes": 1000}, []),
        "minutes": values.POSITIVE,
        "oracle": (*values.CHOICE, None, "grid"),
        "epochs": tuple(v for v in values.COUNT if v is not None),
        "max_trials": tuple(v for v in values.COUNT if v is not None),
        "batch_size": tuple(v for v in values.COUNT if v is not None),
        "techniques": (3, {}, "int8"),
        "task": ("nonsense", 3, []),
        "monitor": (3, []),
        "mode": ("nonsense", 3, []),
        "seed": values.SEED,
        "folder": (*(v for v in values.PATH if v is not None), values.FILE),
        "data": (None, 3, Made("x alone", x), Made("x of 3, y of 4", lambda: (x(3), y(4)))),
        "verbose": values.FLAG,
    }
    impossible = {"max_size_bytes": 100, "max_macs": 1, "max_latency_ms": 1e-9}
    return [
        *bad_arguments("search", tfpeft.search, good, bad),
        *(
            Case(
                f"search(budget=Budget({name}={limit}))",
                lambda name=name, limit=limit: tfpeft.search(
                    **{**good(), "budget": tfpeft.Budget(**{name: limit})}
                ),
                ("budget",),
            )
            for name, limit in impossible.items()
        ),
        Case(
            "search(an accuracy of 92)",
            lambda: tfpeft.search(**{**good(), "budget": tfpeft.Budget(min_metric=92)}),
            ("min_metric",),
        ),
        Case(
            "search(a figure that no file has)",
            lambda: tfpeft.search(**good(), monitor="sharpness", mode="max"),
            ("monitor",),
        ),
        Case(
            "search(a function that fails)",
            lambda: tfpeft.search(**{**good(), "model_or_space": lambda hp: 1 / 0}),
            ("space",),
        ),
        Case(
            "search(a space of images for rows of numbers)",
            lambda: tfpeft.search(**{**good(), "model_or_space": tfpeft.SmallCNN()}),
            ("model_or_space", "space"),
        ),
        Case(
            "search(netadapt of a space)",
            lambda: tfpeft.search(**good(), oracle="netadapt"),
            ("netadapt",),
        ),
        Case(
            "search(an unbuilt model)",
            lambda: tfpeft.search(**{**good(), "model_or_space": models.Subclassed()}),
            ("model",),
        ),
    ]


def cases():
    limits = (
        *("max_size_bytes", "max_gzip_bytes", "max_latency_ms", "max_macs", "max_arena_bytes"),
        "min_metric",
    )
    positive = {name: LIMIT for name in limits if name not in ("max_latency_ms", "min_metric")}
    number = ("1", NAN, float("inf"), [1], True)
    return [
        *bad_arguments(
            "Budget",
            tfpeft.Budget,
            dict,
            {**positive, "max_latency_ms": (*number, 0, -1.0), "min_metric": number},
        ),
        Case("Budget()", tfpeft.Budget, ("max_size_bytes",)),
        *bad_arguments(
            "Techniques",
            tfpeft.Techniques,
            dict,
            {
                "quantization": (3, "int8", (), ("int3",)),
                **dict.fromkeys(
                    ("alpha", "temperature", "learning_rate", "sparsity", "channel_ratio"), NUMBERS
                ),
                "clusters": (3, (), (1,), (-2,), (1.5,), ("8",)),
                "order": (3, "steps", (), ("nonsense",)),
            },
        ),
        *of_spaces(),
        *of_search(),
    ]
