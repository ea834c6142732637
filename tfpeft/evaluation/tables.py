"""Tables and plots of evaluations: rows are name -> `Evaluation.as_dict()`."""

import os
import pathlib

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

_COLUMNS = (  # of a row: title, key, format
    ("accuracy %", "accuracy", lambda v: f"{100 * v:.2f}"),
    ("precision %", "precision", lambda v: f"{100 * v:.2f}"),
    ("recall %", "recall", lambda v: f"{100 * v:.2f}"),
    ("F1 %", "f1", lambda v: f"{100 * v:.2f}"),
    ("loss", "loss", lambda v: f"{v:.4f}"),
    ("parameters", "parameters", lambda v: f"{v:,}"),
    ("non-zero", "nonzero_parameters", lambda v: f"{v:,}"),
    ("M MACs", "macs", lambda v: f"{v / 1e6:.3f}"),
    ("kB", "size_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("gzip kB", "gzip_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("ms", "latency_ms", lambda v: f"{v:.3f}"),
    ("p90 ms", "latency_p90_ms", lambda v: f"{v:.3f}"),
)


def table(rows):
    """Returns the rows as aligned text; "-" where a figure is missing, and why below."""
    cells = _cells(rows)
    widths = [max(len(line[i]) for line in cells) for i in range(len(cells[0]))]
    lines = [
        "  ".join(
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in cells
    ]
    lines.insert(1, "-" * len(lines[0]))
    return "\n".join([*lines, *_notes(rows)])


def markdown_table(rows):
    """Returns the rows as a Markdown table."""
    cells = _cells(rows)
    lines = [f"| {' | '.join(line)} |" for line in cells]
    lines.insert(1, "|---" + "|---:" * (len(cells[0]) - 1) + "|")
    return "\n".join([*lines, *("\n" + note for note in _notes(rows))])


def plot_accuracy_size(rows, path):
    """Writes a PNG: accuracy against the size of the file, a point a row, joined in their order."""
    points = {name: row for name, row in rows.items() if row["size_bytes"] is not None}
    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    sizes = [row["size_bytes"] / 1e3 for row in points.values()]
    accuracies = [100 * row["accuracy"] for row in points.values()]
    axes.plot(sizes, accuracies, marker="o", color="tab:blue")
    for i, (name, size, accuracy) in enumerate(zip(points, sizes, accuracies, strict=True)):
        # Above and below in turn: two stages often have the same size.
        offset = (0, 9) if i % 2 == 0 else (0, -16)
        axes.annotate(
            name, (size, accuracy), xytext=offset, textcoords="offset points", ha="center"
        )
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.set_xlabel("size of the .tflite file, kB")
    axes.set_ylabel("accuracy on test data, %")
    axes.grid(visible=True, which="both", alpha=0.3)
    path = pathlib.Path(path)
    partial = path.with_name(f"{path.name}.partial")
    figure.savefig(partial, format="png", dpi=120)
    os.replace(partial, path)


def _cells(rows):
    lines = [["", *(title for title, _, _ in _COLUMNS)]]
    for name, row in rows.items():
        figures = ["-" if row[key] is None else form(row[key]) for _, key, form in _COLUMNS]
        lines.append([name, *figures])
    return lines


def _notes(rows):
    return [f"{name}: {note}" for name, row in rows.items() for note in row["notes"]]
