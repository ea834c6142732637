"""Budget: limits that a model has to keep, in bytes, milliseconds, MACs and quality."""

import dataclasses
import math
import numbers
import typing

from tfpeft.core.arguments import InputError, check_positive, invalid, is_real, unexpected

COUNTS = ("size_bytes", "gzip_bytes", "macs", "arena_bytes")
FIGURES = (*COUNTS, "latency_ms")
"""What a limit can be about, beside the metric: `max_` and one of these."""
UNITS = {
    "size_bytes": "bytes of the file",
    "gzip_bytes": "bytes of the file, compressed",
    "latency_ms": "ms of a sample, one thread",
    "macs": "multiply-accumulates of a sample",
    "arena_bytes": "bytes of the arena of TFLM",
}
"""{figure: what an axis or a column of it shows}."""


@dataclasses.dataclass(frozen=True)
class Budget:
    """Limits of a .tflite file that hold together; at least one.

    A model is inside the budget if `figure <= max_figure` for each limit, and its metric is at
    least `min_metric`, or at most where lower values are better, as of an error.

    Args:
        max_size_bytes: Bytes of the file, an integer of at least 1.
        max_gzip_bytes: Bytes of the file, compressed by gzip.
        max_latency_ms: Median milliseconds of one sample on one thread of this machine, above 0.
        max_macs: Multiply-accumulates of one sample.
        max_arena_bytes: Bytes of memory that TensorFlow Lite for Microcontrollers takes for
            tensors; needs `pip install tfpeft[devices]`.
        min_metric: The worst value of the metric that decides, in its unit: an accuracy in [0, 1].

    Raises:
        InputError: for a limit that is not of its kind, and without any.

    What it does not give: limits of another machine's latency, of energy, or of memory but TFLM's.

    Example:

    ```python
    import tfpeft

    budget = tfpeft.Budget(max_size_bytes=30_000, max_macs=2_000_000)
    print(budget)  # max_size_bytes=30,000, max_macs=2,000,000
    print(budget.violations({"size_bytes": 31_204, "macs": 900_000}))
    # ['size_bytes is 31,204, above max_size_bytes=30,000']
    ```
    """

    max_size_bytes: int | None = None
    max_gzip_bytes: int | None = None
    max_latency_ms: float | None = None
    max_macs: int | None = None
    max_arena_bytes: int | None = None
    min_metric: float | None = None

    def __post_init__(self):
        for name in COUNTS:
            _check_count(f"max_{name}", getattr(self, f"max_{name}"))
        if self.max_latency_ms is not None:
            check_positive("max_latency_ms", self.max_latency_ms)
        if self.min_metric is not None and not (
            is_real(self.min_metric) and math.isfinite(self.min_metric)
        ):
            raise invalid("min_metric", "a finite number, or None", self.min_metric)
        if not self.as_dict():
            names = ", ".join(each.name for each in dataclasses.fields(self))
            raise unexpected(f"at least one limit of {names}", "Budget()")

    @property
    def figures(self) -> tuple[str, ...]:
        """The figures that have a limit, without the metric: ("size_bytes", "macs")."""
        return tuple(name for name in FIGURES if getattr(self, f"max_{name}") is not None)

    def as_dict(self) -> dict[str, float]:
        """Returns {name of a limit: its value}, of those that are given."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        return {name: value for name, value in found.items() if value is not None}

    def violations(
        self,
        figures: dict[str, typing.Any],
        *,
        metric: float | None = None,
        higher_is_better: bool = True,
    ) -> list[str]:
        """Returns a text for each limit that is not kept; [] inside the budget.

        Args:
            figures: {figure: number}. A figure that has a limit and is None is not kept; one that
                is not there is not checked.
            metric: The value of the metric; None if it is not known yet.
            higher_is_better: Whether higher values of the metric are better.
        """
        if not isinstance(figures, dict):
            raise invalid("figures", "a dict {figure: number}", figures)
        found = []
        for name in self.figures:
            if name not in figures:
                continue
            value, limit = figures[name], getattr(self, f"max_{name}")
            if value is None:
                found.append(f"{name} is not known, with max_{name}={_text(limit)}")
            elif not value <= limit:  # so that NaN is not inside
                found.append(f"{name} is {_text(value)}, above max_{name}={_text(limit)}")
        if self.min_metric is not None and metric is not None:
            is_kept = metric >= self.min_metric if higher_is_better else metric <= self.min_metric
            if not is_kept:
                where = "below" if higher_is_better else "above"
                found.append(f"the metric is {metric:.5g}, {where} min_metric={self.min_metric:g}")
        return found

    def __str__(self):
        return ", ".join(f"{name}={_text(value)}" for name, value in self.as_dict().items())


def check_budget(budget):
    """Raises unless `budget` is a `Budget`."""
    if not isinstance(budget, Budget):
        raise invalid("budget", "a tfpeft.Budget, such as Budget(max_size_bytes=30_000)", budget)


def _check_count(name, value):
    if value is None:
        return
    is_count = isinstance(value, numbers.Integral) and not isinstance(value, bool)
    if not is_count or value < 1:
        raise invalid(name, "an integer of at least 1, or None", value, error=InputError)


def _text(value):
    return f"{value:,}" if isinstance(value, numbers.Integral) else f"{value:.5g}"
