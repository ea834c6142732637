"""What the file predicts: a confusion matrix, and samples where it differs from the teacher."""

from tfpeft.reports import parts
from tfpeft.reports.charts import heat
from tfpeft.reports.figures import name_of_file, title
from tfpeft.reports.samples import sample_html

_CELLS, _SQUARES, _PAIRS = 20, 200, 10  # the most classes of a table and of squares; rows of pairs


def predictions_section(run, samples):
    """Returns the section of predictions.

    Args:
        run: The figures of the run.
        samples: {name: array} of the samples that it keeps.
    """
    found = []
    for name, row in _last_rows(run).items():
        matrices = row.get("confusion_matrix")
        matrices = matrices if isinstance(matrices, dict) else {"": matrices}
        for output, matrix in matrices.items():
            if not matrix:
                continue
            of = name or output
            labels = _labels(run, of, len(matrix))
            found.append(parts.heading(f"Which classes it confuses{': ' + of if of else ''}"))
            found += _confusion(matrix, labels)
            found.append(_per_class(row, output, labels))
    for group in run.get("disagreements") or ():
        found += _disagreements(group, samples)
    return parts.section("predictions", "Predictions", found)


def _last_rows(run):
    """Returns {task, or "": the row of the file}."""
    rows = run.get("rows") or {}
    if run.get("tasks"):
        names = {task: [n for n in rows if n.split(", ")[0] == task] for task in run["tasks"]}
        return {task: rows[of_task[-1]] for task, of_task in names.items() if of_task}
    return {"": rows[name_of_file(rows)]} if rows else {}


def _labels(run, name, count):
    """Returns names of the classes; numbers where none are known."""
    known = run.get("classes") or []
    names = known.get(name, []) if isinstance(known, dict) else known
    return list(names) if len(names) == count else [str(i) for i in range(count)]


def _confusion(matrix, labels):
    """Returns the matrix, as a table or as squares, and the pairs that are confused most."""
    totals = [sum(row) or 1 for row in matrix]
    found = []
    if len(matrix) <= _CELLS:
        rows = [
            (label, [_square(i == j, v, total) for j, v in enumerate(row)])
            for i, (label, row, total) in enumerate(zip(labels, matrix, totals, strict=True))
        ]
        caption = "A row per label, a column per predicted class of the file, on test data."
        found.append({"kind": "matrix", "labels": labels, "rows": rows, "caption": caption})
    elif len(matrix) <= _SQUARES:
        shares = [[v / t for v in row] for row, t in zip(matrix, totals, strict=True)]
        caption = (
            f"{len(matrix)} classes: a row per label, a column per predicted class of the file, "
            "darker where more samples are."
        )
        found.append(parts.chart(heat(shares, caption), caption))
    pairs = [
        (value, labels[i], labels[j], value / totals[i])
        for i, row in enumerate(matrix)
        for j, value in enumerate(row)
        if i != j and value
    ]
    pairs.sort(key=lambda pair: -pair[0])
    if pairs and len(matrix) > 2:
        rows = [[a, b, f"{v:g}", f"{100 * s:.1f} %"] for v, a, b, s in pairs[:_PAIRS]]
        header = ["label", "predicted", "samples", "of the label"]
        table = parts.table(header, rows)
        found.append(parts.details("Classes that are confused most", [table]))
    return found


def _square(is_right, value, total):
    kind = "none" if not value else "right" if is_right else "wrong"
    part = 0 if not value else round(12 + 58 * value / total)
    return {"text": f"{value:g}", "kind": kind, "part": part}


def _per_class(row, output, labels):
    """Returns a table of figures per class that opens with a click; None without any."""
    prefix = f"{output}/" if output else ""
    figures = {
        name.removeprefix(prefix): values
        for name, values in (row.get("per_class") or {}).items()
        if name.startswith(prefix) and len(values) == len(labels)
    }
    rows = [
        [label, *("-" if v[i] is None else f"{v[i]:.4g}" for v in figures.values())]
        for i, label in enumerate(labels)
    ]
    table = parts.table(["class", *map(title, figures)], rows if figures else [])
    return table and parts.details("Figures per class", [table])


def _disagreements(group, samples):
    """Returns how often teacher and file differ, and the samples that are kept."""
    name = f": {group['output']}" if group["output"] else ""
    found = [
        parts.heading(f"Where teacher and file disagree{name}"),
        parts.text(group["summary"]),
    ]
    shown = []
    for item in group["shown"]:
        pictures = [
            (each["name"], sample_html(each["kind"], samples[each["array"]], each["alt"]))
            for each in item["inputs"]
            if each["array"] in samples
        ]
        shown.append(parts.card(pictures=pictures, facts=item["facts"]))
    return [*found, parts.cards(shown)]
