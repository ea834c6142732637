"""Tables of evaluations; rows are {name: `Evaluation.as_dict()`}."""

from tfpeft.reports.figures import COSTS, FRACTIONS, OF_CLASSES, cell, metrics_of, title
from tfpeft.reports.tables import markdown_table, text_table


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
        factor, unit = (100, " points") if figure in FRACTIONS else (1, "")
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
    columns = (key for row in rows.values() for key in row.get("columns", OF_CLASSES))
    quality = list(dict.fromkeys(columns))
    header = ["", *map(title, quality), *(name for name, _, _ in COSTS)]
    lines = []
    for name, row in rows.items():
        metrics = metrics_of(row)
        cells = [cell(key, metrics.get(key)) for key in quality]
        cells += ["-" if row[key] is None else form(row[key]) for _, key, form in COSTS]
        lines.append([name, *cells])
    return header, lines


def _notes(rows):
    return [f"{name}: {note}" for name, row in rows.items() for note in row["notes"]]
