"""The trials of a search in a page: the best one, the Pareto fronts, and a table of all."""

from tfpeft.reports import parts
from tfpeft.reports.charts import Point, scatter
from tfpeft.reports.figures import (
    AXES,
    cell,
    cost_name,
    is_fraction,
    is_lower_better,
    is_number,
    name_of,
    quality,
    title,
)
from tfpeft.reports.figures import with_unit as cost

_SHOWN_ROWS, _MOST_ROWS = 30, 300  # of the table of trials: open, and with a click
_STATUSES = {
    "completed": "completed",
    "over_budget": "over the budget",
    "stopped": "stopped early",
    "failed": "failed",
}
_WITH_FILES = ("completed", "over_budget")
_LABELLED = 6  # points of a front that have their names beside them


def best_trial(run):
    """Returns the best trial of a search; None without one."""
    if run["job"] != "search":
        return None
    return next((t for t in run.get("trials") or () if t["id"] == run.get("best")), None)


def search_tiles(run):
    """Returns what the best trial reached."""
    best, metric = best_trial(run), run.get("metric") or ""
    if best is None:
        return []
    tiles = [_metric_tile(run, best, metric)]
    limits = run.get("budget") or {}
    for figure, value in (best.get("figures") or {}).items():
        limit = limits.get(f"max_{figure}")
        if is_number(value) and (limit is not None or not limits):
            detail = f"at most {cost(figure, limit)} allowed" if limit is not None else ""
            tiles.append(parts.tile(cost_name(figure).capitalize(), cost(figure, value), detail))
    tiles.append(parts.tile("Trials", str(len(run["trials"])), _counts(run["trials"])))
    return tiles


def _metric_tile(run, best, metric):
    """Returns the metric of the file on test data; of a run without them that of the trial."""
    row = (run.get("rows") or {}).get("model.tflite") or {}
    value = (row.get("metrics") or {}).get(metric)
    if not is_number(value):
        detail = ", ".join(filter(None, [_range(best, metric), "validation data"]))
        return parts.tile(name_of(metric), quality(metric, best["metric"]), detail)
    interval = {"interval": (row.get("intervals") or {}).get(metric)}
    return parts.tile(name_of(metric), quality(metric, value), _range(interval, metric))


def search_sections(run):
    """Returns the sections of a search: the best trial, the fronts, and all trials."""
    trials = run.get("trials") or []
    if not trials:
        return []
    return [
        parts.section("best", "The best trial", _best(run)),
        parts.section("fronts", "Pareto fronts", _fronts(run)),
        parts.section("trials", "Trials", _tables(run)),
    ]


def _best(run):
    best, budget = best_trial(run), run.get("budget") or {}
    limits = ", ".join(_limit(name, value, run) for name, value in budget.items())
    found = [parts.text(f"Budget: {limits}.")] if limits else []
    if best is None:
        return [*found, parts.callout("No trial is inside the budget.")]
    time = parts.duration(best.get("seconds"))
    found.append(parts.text(f"Trial {best['id']}{f', {time}' if time else ''}:"))
    settings = [f"{name} = {_shown(value)}" for name, value in best["settings"].items()]
    return [*found, parts.settings(settings)]


def _shown(value):
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _limit(name, value, run):
    """Returns a limit in words."""
    if name == "min_metric":
        side = "most" if _is_lower(run) else "least"
        return f"{name_of(run['metric'])} of at {side} {quality(run['metric'], value)}"
    figure = name.removeprefix("max_")
    return f"{cost_name(figure)} of at most {cost(figure, value)}"


def _fronts(run):
    """Returns a chart for each figure that trials have: points, and the front among them."""
    metric, found = run["metric"], []
    scale = 100 if is_fraction(metric) else 1
    fronts, budget = run.get("front") or {}, run.get("budget") or {}
    for figure, (label, divisor) in AXES.items():
        measured = [
            t
            for t in run["trials"]
            if t["status"] in _WITH_FILES
            and is_number((t.get("figures") or {}).get(figure))
            and is_number(t.get("metric"))
        ]
        if len(measured) < 2:
            continue
        front = set(fronts.get(figure) or ())
        named = sorted(front, key=str)[:_LABELLED] if len(front) > _LABELLED else front
        named = {*named, run.get("best")}
        points = [
            Point(
                str(t["id"]),
                t["figures"][figure] / divisor,
                scale * t["metric"],
                _scaled(t.get("interval"), scale) if t["id"] in front else None,
                _kind(t, run, front),
                t["id"] in named,
            )
            for t in sorted(measured, key=lambda t: (t["id"] in front, t["id"] == run.get("best")))
        ]
        line = sorted(
            (t["figures"][figure] / divisor, scale * t["metric"])
            for t in measured
            if t["id"] in front
        )
        limit = budget.get(f"max_{figure}")
        better = "lower" if _is_lower(run) else "higher"
        svg = scatter(
            points,
            x_label=label,
            y_label=f"{title(metric)} on validation data, {better} is better",
            description=f"{title(metric)} against {label} of {len(points)} trials, "
            f"{len(line)} of them on the Pareto front",
            lines=[line] if len(line) > 1 else [],
            limit=limit / divisor if is_number(limit) else None,
        )
        found.append(parts.chart(svg))
    explained = (
        "The line joins the Pareto front: no other trial is both better and cheaper. Orange is the "
        "best trial inside the budget; hollow are trials over it; a dashed line is the budget."
    )
    return [parts.charts(found), parts.note(explained)] if found else []


def _is_lower(run):
    known = run.get("higher_is_better")
    return is_lower_better(run["metric"]) if known is None else not known


def _kind(trial, run, front):
    if trial["id"] == run.get("best"):
        return "best"
    if trial["status"] == "over_budget":
        return "over"
    return "row" if trial["id"] in front else "trial"


def _scaled(interval, scale):
    return interval and tuple(scale * each for each in interval)


def _tables(run):
    metric, trials = run["metric"], run["trials"]
    ranked = sorted(trials, key=lambda trial: _rank(trial, run))
    figures = [f for f in AXES if any(is_number((t.get("figures") or {}).get(f)) for t in trials)]
    header = ["trial", title(metric), *(_short(f) for f in figures), "epochs", "time"]
    header += [parts.cell("status", words=True), parts.cell("settings", line=True)]
    varied = [name for name in _settings(trials) if len(set(map(str, _values(name, trials)))) > 1]
    rows = [_row(trial, metric, figures, varied) for trial in ranked]
    best = [i for i, trial in enumerate(ranked) if trial["id"] == run.get("best")]
    caption = (
        "Trials inside the budget first, with metrics on validation data; settings are those that "
        "differ between trials."
    )
    shown = parts.table(header, rows[:_SHOWN_ROWS], caption=caption, marked=best)
    rest = parts.table(header, rows[_SHOWN_ROWS:_MOST_ROWS])
    more = len(rows) - _MOST_ROWS
    left = parts.note(f"{more:,} more are in report.json.") if more > 0 else None
    return [shown, rest and parts.details(f"{len(rows) - _SHOWN_ROWS:,} more trials", [rest, left])]


def _short(figure):
    return "MACs" if figure == "macs" else cost_name(figure)


def _settings(trials):
    return dict.fromkeys(name for trial in trials for name in trial["settings"])


def _values(name, trials):
    return [trial["settings"].get(name) for trial in trials]


def _rank(trial, run):
    """Returns the key by which trials are sorted: completed ones first, the best metric first."""
    metric = trial.get("metric")
    if not is_number(metric):
        return (2, 0.0)
    return (trial["status"] != "completed", metric if _is_lower(run) else -metric)


def _row(trial, metric, figures, varied):
    values, reason = trial.get("figures") or {}, trial.get("reason")
    status = _STATUSES.get(trial["status"], trial["status"])
    settings = ", ".join(
        f"{name}={_shown(value)}" for name, value in trial["settings"].items() if name in varied
    )
    epochs = trial.get("epochs")
    return [
        str(trial["id"]),
        parts.cell(cell(metric, trial.get("metric")), small=_range(trial, metric)),
        *(cost(figure, values.get(figure)) for figure in figures),
        "-" if epochs is None else f"{epochs:.3g}",
        parts.duration(trial.get("seconds")),
        parts.cell(f"{status}: {reason}" if reason else status, words=True),
        parts.cell(settings, line=True),
    ]


def _range(trial, metric):
    interval, scale = trial.get("interval"), 100 if is_fraction(metric) else 1
    return "95%: {:.4g} to {:.4g}".format(*_scaled(interval, scale)) if interval else ""


def _counts(trials):
    found = {}
    for trial in trials:
        found[trial["status"]] = found.get(trial["status"], 0) + 1
    return ", ".join(f"{n} {_STATUSES.get(status, status)}" for status, n in found.items())
