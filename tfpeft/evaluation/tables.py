"""Tables of evaluations; rows are {name: `Evaluation.as_dict()`}."""

from tfpeft.reports.tables import markdown_table, text_table

_QUALITY = {  # figure -> title and factor of those that are fractions
    "accuracy": "accuracy %",
    "precision": "precision %",
    "recall": "recall %",
    "f1": "F1 %",
    "mean_iou": "mean IoU %",
}
_TITLES = {"rmse": "RMSE", "mae": "MAE", "r2": "R2", "mse": "MSE", "psnr": "PSNR dB"}
_OF_CLASSES = ("accuracy", "precision", "recall", "f1", "loss")
_COST = (  # title, key, format
    ("parameters", "parameters", lambda v: f"{v:,}"),
    ("non-zero", "nonzero_parameters", lambda v: f"{v:,}"),
    ("M MACs", "macs", lambda v: f"{v / 1e6:.3f}"),
    ("kB", "size_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("gzip kB", "gzip_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("ms", "latency_ms", lambda v: f"{v:.3f}"),
    ("p90 ms", "latency_p90_ms", lambda v: f"{v:.3f}"),
)


def evaluations_text(rows, lines=()):
    """Returns the rows as aligned text; "-" where a figure is missing, with the reason below.

    Args:
        rows: {name: `Evaluation.as_dict()`}.
        lines: Further lines, below the table.
    """
    return "\n".join([text_table(*_table(rows)), *lines, *_notes(rows)])


def evaluations_markdown(rows, lines=()):
    """Returns the rows as a Markdown table; see `evaluations_text`."""
    return "\n\n".join([markdown_table(*_table(rows)), *lines, *_notes(rows)])


def difference_lines(first, differences):
    """Returns a line per difference from the row `first`, which says whether it is clear.

    Args:
        first: The name of a row.
        differences: {(figure, name of a row): `Difference`}.
    """
    lines = []
    for (metric, name), found in differences.items():
        figure = metric.rpartition("/")[2]
        factor, unit = (100, " points") if figure in _QUALITY else (1, "")
        digits = ".2f" if unit else ".3g"
        value, low, high = (factor * each for each in (found.value, *found.interval))
        verdict = "" if found.is_clear else ": no clear difference"
        lines.append(
            f"{name}: {metric} {value:+{digits}}{unit} against {first} "
            f"(95%: {low:+{digits}} to {high:+{digits}}){verdict}"
        )
    return lines


def _table(rows):
    """Returns the header and the lines of cells."""
    columns = (key for row in rows.values() for key in row.get("columns", _OF_CLASSES))
    quality = list(dict.fromkeys(columns))
    header = ["", *map(_title, quality), *(title for title, _, _ in _COST)]
    lines = []
    for name, row in rows.items():
        metrics = _metrics(row)
        cells = [_quality_cell(key, metrics.get(key)) for key in quality]
        cells += ["-" if row[key] is None else form(row[key]) for _, key, form in _COST]
        lines.append([name, *cells])
    return header, lines


def _metrics(row):
    """Returns {figure: number} of a row, also of a report that has classes only."""
    if "metrics" in row:
        return row["metrics"]
    return {name: row[name] for name in _OF_CLASSES}


def _title(key):
    output, slash, figure = key.rpartition("/")
    return f"{output}{slash}{_QUALITY.get(figure) or _TITLES.get(figure, figure)}"


def _quality_cell(key, value):
    if value is None:
        return "-"
    figure = key.rpartition("/")[2]
    return f"{100 * value:.2f}" if figure in _QUALITY else f"{value:.4f}"


def _notes(rows):
    return [f"{name}: {note}" for name, row in rows.items() for note in row["notes"]]
