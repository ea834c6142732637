"""The rows of a run in a page: the figures that sum it up, a table, and charts with intervals."""

from tfpeft.reports import parts
from tfpeft.reports.charts import Point, scatter
from tfpeft.reports.figures import (
    AXES,
    COSTS,
    OF_CLASSES,
    cell,
    change,
    is_fraction,
    is_lower_better,
    is_number,
    metrics_of,
    name_of,
    name_of_file,
    quality,
    title,
    with_unit,
)

_CHARTS = ("size_bytes", "latency_ms")
_TILES = (  # key, title, what a smaller value is
    ("size_bytes", "Size of the file", "smaller"),
    ("gzip_bytes", "Compressed by gzip", "smaller"),
    ("latency_ms", "Latency, one thread", "faster"),
    ("macs", "Multiply-accumulates", "fewer"),
)


def headlines(run):
    """Returns the figures that decide, one per output: the keys of "metrics", or "accuracy".

    Of a search it is its "metric".
    """
    if run["job"] == "search":
        return [run["metric"]]
    if run.get("metrics"):
        return list(run["metrics"])
    found = (metrics_of(row) for row in (run.get("rows") or {}).values())
    return ["accuracy"] if any(is_number(row.get("accuracy")) for row in found) else []


def comparison_tiles(run):
    """Returns what became of the teacher, the first row, in the file, the last one."""
    rows = list((run.get("rows") or {}).values())
    if len(rows) < 2 or run.get("tasks"):
        return []
    first, last, tiles = rows[0], rows[-1], []
    for key in headlines(run)[:2]:
        before, after = metrics_of(first).get(key), metrics_of(last).get(key)
        if is_number(before) and is_number(after):
            detail = f"{change(after - before, key)} against the teacher's {quality(key, before)}"
            tiles.append(parts.tile(name_of(key), quality(key, after), detail))
    for key, name, word in _TILES:
        before, after = first.get(key), last.get(key)
        if is_number(before) and is_number(after) and after:
            factor = before / after
            detail = f"{with_unit(key, before)} before"
            if factor > 1.05:
                detail = f"{factor:.1f} times {word}: {detail}"
            tiles.append(parts.tile(name, with_unit(key, after), detail))
    return tiles


def comparison_section(run):
    """Returns the section of the rows: by task where the run has several."""
    rows = run.get("rows") or {}
    if not rows:
        return None
    found = []
    if run.get("tasks"):
        for task in run["tasks"]:
            of_task = {n: row for n, row in rows.items() if n.split(", ")[0] == task}
            found += [parts.heading(task), _table(of_task, "Figures on test data.", OF_CLASSES)]
        found.append(_tasks_table(run["tasks"]))
    else:
        found.append(_table(rows, _caption(run), headlines(run)))
        for key in headlines(run):
            found += _charts(run, key)
    found.append(parts.items(run.get("differences") or ()))
    notes = [f"{name}: {note}" for name, row in rows.items() for note in row.get("notes") or ()]
    found += [parts.note(line) for line in notes]
    found.append(
        parts.note(
            "Bytes and latency of a Keras model are those of its float32 .tflite file, of a "
            "quantise-aware model those of its integer file. Latency is of the machine below: one "
            "sample, one thread, all files in turn."
        )
    )
    return parts.section("figures", "Figures", found)


def _caption(run):
    samples = run.get("test_samples")
    count = f" of {samples:,} samples" if isinstance(samples, int) else ""
    return (
        f"All rows on the same test data{count}; small: 95% intervals (bootstrap over samples), "
        "and the latency that 90% of the runs stay below."
    )


def _table(rows, caption, shown):
    """Returns a table of rows; figures in `shown` have their intervals."""
    columns = (key for row in rows.values() for key in row.get("columns", OF_CLASSES))
    shown_figures = list(dict.fromkeys(columns))
    costs = [
        each
        for each in COSTS
        if each[1] != "latency_p90_ms" and any(is_number(row.get(each[1])) for row in rows.values())
    ]
    header = ["", *map(title, shown_figures), *(name for name, _, _ in costs)]
    lines = []
    for name, row in rows.items():
        metrics, intervals = metrics_of(row), row.get("intervals") or {}
        cells = [
            parts.cell(
                cell(key, metrics.get(key)),
                small=_interval(key, intervals.get(key)) if key in shown else "",
            )
            for key in shown_figures
        ]
        for _, key, form in costs:
            p90 = row.get("latency_p90_ms") if key == "latency_ms" else None
            small = f"p90 {p90:.3f}" if is_number(p90) else ""
            text = form(row[key]) if is_number(row.get(key)) else "-"
            cells.append(parts.cell(text, small=small))
        lines.append([name, *cells])
    return parts.table(
        header, lines, caption=caption, marked=(list(rows).index(name_of_file(rows)),)
    )


def _interval(key, interval):
    if not interval:
        return ""
    low, high = interval
    if is_fraction(key):
        return f"{100 * low:.1f} to {100 * high:.1f}"
    return f"{low:.3g} to {high:.3g}"


def _charts(run, key):
    """Returns charts of a figure of quality against costs, and what they show."""
    rows, is_in_stages = run["rows"], run["job"] != "search"
    charts = parts.charts([_chart(rows, key, cost, is_in_stages) for cost in _CHARTS])
    has_intervals = any(key in (row.get("intervals") or {}) for row in rows.values())
    explained = ["Bars are 95% intervals."] if has_intervals else []
    explained += ["The line follows the stages of the run."] if is_in_stages else []
    return [charts, parts.note(" ".join(explained))] if charts else []


def _chart(rows, key, cost, is_in_stages):
    """Returns a chart of a figure of quality against a cost; None without two points."""
    found, scale = [], 100 if is_fraction(key) else 1
    label, divisor = AXES[cost]
    file = name_of_file(rows)
    for name, row in rows.items():
        value, interval = metrics_of(row).get(key), (row.get("intervals") or {}).get(key)
        if not is_number(value) or not is_number(row.get(cost)):
            continue
        kind = "last" if name == file else "first" if name == "teacher" else "row"
        interval = interval and tuple(scale * each for each in interval)
        found.append(Point(name, row[cost] / divisor, scale * value, interval, kind))
    if len(found) < 2:
        return None
    better = "lower" if is_lower_better(key) else "higher"
    svg = scatter(
        found,
        x_label=label,
        y_label=f"{title(key)} on test data, {better} is better",
        description=f"{title(key)} against {label}: "
        + "; ".join(f"{p.name} {p.y:.4g} at {p.x:,.4g}" for p in found),
        lines=[[(p.x, p.y) for p in found]] if is_in_stages else [],
    )
    return parts.chart(svg)


def _tasks_table(tasks):
    """Returns the table of what each task of several brings, and what it costs apart."""
    names = ("classes", "trained_parameters", "size_bytes", "separate_size_bytes")
    rows = [
        [name, *(with_unit(key, task.get(key)) for key in names), _samples(task.get("samples"))]
        for name, task in tasks.items()
    ]
    header = ["task", "classes", "parameters trained", "its weights", "file of its own", "samples"]
    return parts.table(header, rows, caption="Tasks: what each adds to the shared file.")


def _samples(counts):
    return ", ".join(f"{count:,} {split}" for split, count in (counts or {}).items())
