"""What channel pruning did: widths, costs, and what stayed as it was."""

import dataclasses
import os

from tfpeft.reports.plots import bar_plot
from tfpeft.reports.tables import markdown_table


@dataclasses.dataclass(frozen=True)
class ChannelReport:
    """The attribute `channel_report` of a model that `prune_channels` returns: print it.

    Attributes:
        widths: {path of a layer: (channels before, channels after)}, of layers that make channels.
        fixed: {path of a layer: reason}, of layers of which no channel could be removed.
        macs: Multiply-accumulates for one sample, before and after.
        params: Parameters, before and after.
        measured: {"size_bytes" or "latency_ms": (before, after)}, where there was a budget for it.
        difference: The largest difference of the proof, relative to the largest value of a tensor;
            None if there was none.
    """

    widths: dict[str, tuple[int, int]]
    fixed: dict[str, str]
    macs: tuple[int, int]
    params: tuple[int, int]
    measured: dict[str, tuple[float, float]]
    difference: float | None

    def to_markdown(self) -> str:
        """Returns a table in Markdown: a row for each layer, then the costs, then what is fixed."""
        rows = [
            [name, f"{before:,}", f"{after:,}", f"{after / before:.2f}"]
            for name, (before, after) in self.widths.items()
        ]
        for name, (before, after) in self._costs().items():
            rows.append([name, _number(before), _number(after), f"{after / before:.2f}"])
        header = ["layer", "channels before", "after", "ratio"]
        lines = [markdown_table(header, rows, align=["left", "right", "right", "right"])]
        lines += [f"{name} keeps its channels: {why}" for name, why in self.fixed.items()]
        if self.difference is not None:
            lines.append(f"largest difference from the model with zeros: {self.difference:.1e}")
        return "\n".join(lines)

    def _costs(self):
        named = {"multiply-accumulates": self.macs, "parameters": self.params}
        names = {"size_bytes": "bytes of the .tflite file", "latency_ms": "latency, ms"}
        return named | {names[name]: pair for name, pair in self.measured.items()}

    def __str__(self):
        return self.to_markdown()

    def plot(self, path: str | os.PathLike) -> None:
        """Writes a PNG: the channels of each layer, before and after."""
        bar_plot(
            path,
            list(self.widths),
            {
                "before": [before for before, _ in self.widths.values()],
                "after": [after for _, after in self.widths.values()],
            },
            x_label="channels",
        )


def _number(value):
    return f"{value:,.3f}" if isinstance(value, float) else f"{value:,}"
