"""Tables and a plot of evaluations; rows are {name: `Evaluation.as_dict()`}."""

from tfpeft.reports.plots import path_plot
from tfpeft.reports.tables import markdown_table, text_table

_COLUMNS = (  # title, key, format
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
_HEADER = ["", *(title for title, _, _ in _COLUMNS)]


def evaluations_text(rows):
    """Returns the rows as aligned text; "-" where a figure is missing, with the reason below."""
    return "\n".join([text_table(_HEADER, _cells(rows)), *_notes(rows)])


def evaluations_markdown(rows):
    """Returns the rows as a Markdown table."""
    return "\n\n".join([markdown_table(_HEADER, _cells(rows)), *_notes(rows)])


def plot_accuracy_size(rows, path):
    """Writes a PNG: accuracy against the size of the file, a point per row."""
    points = {
        name: (row["size_bytes"] / 1e3, 100 * row["accuracy"])
        for name, row in rows.items()
        if row["size_bytes"] is not None
    }
    path_plot(
        path,
        points,
        x_label="size of the .tflite file, kB",
        y_label="accuracy on test data, %",
    )


def _cells(rows):
    return [
        [name, *("-" if row[key] is None else form(row[key]) for _, key, form in _COLUMNS)]
        for name, row in rows.items()
    ]


def _notes(rows):
    return [f"{name}: {note}" for name, row in rows.items() for note in row["notes"]]
