"""The targets of `describe_tflite`: names, the packages that they need, and who describes them."""

import functools
import typing

from tfpeft.core.arguments import check_choice
from tfpeft.export.targets.ethos_u import describe_ethos_u
from tfpeft.export.targets.programs import check_installed
from tfpeft.export.targets.tflm import describe_tflm
from tfpeft.export.targets.xnnpack import describe_xnnpack


class Target(typing.NamedTuple):
    """A target.

    Attributes:
        describe: A function of a `TFLiteFile` that returns a report to print.
        module: The module that it needs; None for none.
        package: What pip calls it.
    """

    describe: typing.Callable
    module: str | None = None
    package: str | None = None


_MACS = {55: (32, 64, 128, 256), 65: (256, 512), 85: (128, 256, 512, 1024, 2048)}
"""Arm's NPUs: series -> multiply-accumulates per clock that it is built with."""
_ETHOS_U = [f"ethos-u{series}-{macs}" for series, sizes in _MACS.items() for macs in sizes]

TARGETS = {
    "tflm": Target(describe_tflm, "tflite_micro", "tflite-micro"),
    "xnnpack": Target(describe_xnnpack),
    **{
        name: Target(
            functools.partial(describe_ethos_u, accelerator=name), "ethosu", "ethos-u-vela"
        )
        for name in _ETHOS_U
    },
}


def check_target(name):
    """Raises unless `name` is None, or a target whose package is installed."""
    check_choice("target", name, (None, *TARGETS))
    if name is not None and TARGETS[name].module is not None:
        check_installed(name, TARGETS[name].module, TARGETS[name].package)


def describe_for(name, file):
    """Returns what the target `name` makes of a `TFLiteFile`."""
    return TARGETS[name].describe(file)
