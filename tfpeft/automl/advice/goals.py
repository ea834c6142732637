"""What helps a goal on a device, as a table: figures, techniques to try, and why not the others."""

import dataclasses

from tfpeft.core.arguments import check_choice, invalid, unexpected
from tfpeft.export.targets.table import check_target

GOALS = ("latency", "size", "download", "memory", "training_cost", "tasks")
TECHNIQUES = ("quantize", "prune_channels", "distill", "prune", "cluster", "quantize_aware")
"""Techniques that make a file smaller or faster, by the names of the stages of the scripts."""
TRAINED_LESS = ("lora", "dora", "bottleneck", "ia3", "bitfit", "norm_tuning")
"""Techniques that train few parameters; the names are those of the scripts."""
SHARED = ("heads", "lora")
"""Ways in which tasks share a backbone: with a head per task, or an adapter as well."""

MILLISECONDS, MACS = "latency_ms", "macs"
_DENSE = (
    "kernels run dense on {device}: a zero is multiplied as any other weight; zeros are for "
    "downloads, Ethos-U, and XNNPACK's sparse kernels on ARM"
)
_LOOKED_UP = "{device} computes with the values themselves: few distinct values save no time"
_PLAIN = "bytes of a plain file do not depend on the values in it; compressed ones do (download)"
_ARENA = "the arena holds activations; zeros and clusters are in constants, which stay in flash"
_TABLES = "tables of values shrink a constant of few distinct values; zero is one value of many"
_NO_CLOCK = (
    "its time is not known without the device; integer kernels are faster than float ones on "
    "most ARM processors: measure there"
)


@dataclasses.dataclass(frozen=True)
class Device:
    """A device as trials see it.

    Attributes:
        target: The target of `describe_tflite`; None for this machine.
        kind: "this machine", "xnnpack", "tflm" or "ethos-u".
        is_integer: Whether it takes int8 files only.
        batch_size: Of its files; None for a free one.
        takes_sparse: Whether it reads constants in sparse form.
    """

    target: str | None
    kind: str
    is_integer: bool = False
    batch_size: int | None = None
    takes_sparse: bool = False


def device_of(target):
    """Returns the `Device` of a target; raises for one that is unknown, or not installed."""
    check_target(target)
    if target is None:
        return Device(None, "this machine", takes_sparse=True)
    if target == "xnnpack":
        return Device(target, "xnnpack", takes_sparse=True)
    if target == "tflm":
        return Device(target, "tflm", batch_size=1)
    return Device(target, "ethos-u", is_integer=True, batch_size=1)


@dataclasses.dataclass(frozen=True)
class Goal:
    """What is measured for a goal on a kind of device, and what can help it.

    Attributes:
        figure: The figure, of which less is better.
        quantizations: Quantizations of a file that are tried alone.
        techniques: Stages that are tried, the most promising ones first.
        reasons: {technique: why it is not tried}.
    """

    figure: str
    quantizations: tuple = ()
    techniques: tuple = ()
    reasons: dict = dataclasses.field(default_factory=dict)


_ZEROS_AND_CLUSTERS = ("prune", "cluster", "prune_channels", "distill")
_SMALLER = ("prune_channels", "distill")
TABLE = {
    ("latency", "this machine"): Goal(
        MILLISECONDS,
        ("int8", "dynamic_range"),
        _SMALLER,
        {"prune": _DENSE, "cluster": _LOOKED_UP},
    ),
    ("latency", "xnnpack"): Goal(
        MACS,
        (),
        (*_SMALLER, "prune"),
        {"quantize": _NO_CLOCK, "cluster": _LOOKED_UP},
    ),
    ("latency", "tflm"): Goal(
        MACS,
        (),
        _SMALLER,
        {"quantize": _NO_CLOCK, "prune": _DENSE, "cluster": _LOOKED_UP},
    ),
    ("latency", "ethos-u"): Goal("inference_ms", ("int8",), _ZEROS_AND_CLUSTERS),
    ("size", "this machine"): Goal(
        "size_bytes",
        ("int8", "dynamic_range", "float16"),
        (*_SMALLER, "prune"),
        {"cluster": _PLAIN},
    ),
    ("size", "tflm"): Goal(
        "flash_bytes", ("int8",), ("cluster", "prune_channels", "distill"), {"prune": _TABLES}
    ),
    ("size", "ethos-u"): Goal("flash_bytes", ("int8",), _ZEROS_AND_CLUSTERS),
    ("download", "this machine"): Goal(
        "gzip_bytes", ("int8", "dynamic_range", "float16"), _ZEROS_AND_CLUSTERS
    ),
    ("download", "tflm"): Goal("gzip_bytes", ("int8",), _ZEROS_AND_CLUSTERS),
    ("memory", "tflm"): Goal(
        "arena_bytes", ("int8",), _SMALLER, {"prune": _ARENA, "cluster": _ARENA}
    ),
    ("memory", "ethos-u"): Goal(
        "sram_bytes", ("int8",), _SMALLER, {"prune": _ARENA, "cluster": _ARENA}
    ),
    ("training_cost", "this machine"): Goal("step_ms"),
    ("tasks", "this machine"): Goal("size_bytes"),
}
TABLE |= {
    ("size", "xnnpack"): TABLE["size", "this machine"],
    ("download", "xnnpack"): TABLE["download", "this machine"],
    ("download", "ethos-u"): TABLE["download", "tflm"],
}
"""{(goal, kind of device): `Goal`}."""


def goal_on(goal, device):
    """Returns the `Goal` of a goal on a `Device`, its reasons naming the device.

    Raises:
        InputError: for an unknown goal, and a target on which it has no figure.
    """
    check_choice("goal", goal, GOALS)
    found = TABLE.get((goal, device.kind))
    if found is None:
        kinds = [kind for name, kind in TABLE if name == goal]
        some = {"this machine": "None", "ethos-u": "an Ethos-U such as 'ethos-u55-128'"}
        names = [some.get(kind, repr(kind)) for kind in kinds]
        raise invalid("target", f"{' or '.join(names)} for goal={goal!r}", device.target)
    name = device.target or "this machine"
    reasons = {technique: why.format(device=name) for technique, why in found.reasons.items()}
    return dataclasses.replace(found, reasons=reasons)


def check_tasks(goal, tasks):
    """Raises unless tasks are given for the goal "tasks", and for no other."""
    if goal != "tasks":
        if tasks is not None:
            raise unexpected('`tasks` with goal="tasks" alone', f"goal={goal!r}")
        return
    if not isinstance(tasks, dict) or len(tasks) < 2:
        received = f"{len(tasks)} task" if isinstance(tasks, dict) else f"a {type(tasks).__name__}"
        raise unexpected(
            '`tasks`, {name: (x, y)} of two tasks or more, with goal="tasks"', received
        )


def choices_of(goal):
    """Returns the names of the techniques that a goal knows."""
    return {"training_cost": TRAINED_LESS, "tasks": SHARED}.get(goal, TECHNIQUES)
