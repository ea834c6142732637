"""What a metric is without parts of a model, each part alone: a table and a plot."""

from tfpeft.reports.plots import line_plot
from tfpeft.reports.tables import markdown_table


def sensitivity_table(result, part, size, fraction):
    """Returns a table in Markdown: a row for each part, a column for each fraction.

    Args:
        result: What has `monitor`, `baseline` and `rows`, dicts with "metric" and the keys below.
        part: Key of the name of a part.
        size: Key of how large it is; also the title of its column.
        fraction: Key of the fraction that was taken out.
    """
    fractions = sorted({row[fraction] for row in result.rows})
    return markdown_table(
        [f"{result.monitor} {result.baseline:.4f}", size, *(f"{100 * f:g}%" for f in fractions)],
        [
            [name, f"{rows[0][size]:,}", *(f"{row['metric']:.4f}" for row in rows)]
            for name, rows in _by_part(result.rows, part).items()
        ],
    )


def sensitivity_plot(path, result, part, fraction, *, x_label):
    """Writes a PNG: the metric against the fraction, a line for each part."""
    lines = {
        name: ([100 * row[fraction] for row in rows], [row["metric"] for row in rows])
        for name, rows in _by_part(result.rows, part).items()
    }
    baseline = "unpruned", result.baseline
    line_plot(path, lines, x_label=x_label, y_label=result.monitor, baseline=baseline)


def _by_part(rows, part):
    parts = {}
    for row in rows:
        parts.setdefault(row[part], []).append(row)
    return parts
