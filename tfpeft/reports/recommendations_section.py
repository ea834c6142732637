"""What `recommend` found for a model, in a page: ranked techniques, with what each brings."""

from tfpeft.reports import parts
from tfpeft.reports.figures import change, cost_name, is_number, name_of, quality, with_unit

_GOALS = {
    "latency": "less latency",
    "size": "a smaller file",
    "download": "a smaller download",
    "memory": "less memory",
    "training_cost": "cheaper training",
    "tasks": "several tasks on one model",
}


_LOSSES = {
    "unclear": "The loss may be more than is allowed: more validation samples would make it clear.",
    "too much": "The loss is more than is allowed.",
}
_SHOWN_TILES = ("size_bytes", "gzip_bytes", "latency_ms", "macs", "arena_bytes", "parameters")


def recommendation_tiles(run):
    """Returns what the model is and costs now."""
    model = run.get("model") or {}
    metrics = run.get("metric")
    if isinstance(metrics, str):
        metrics = {metrics: model.get(metrics)}
    found = [
        parts.tile(name_of(name), quality(name, value))
        for name, value in (metrics or {}).items()
        if is_number(value)
    ]
    return found[:3] + [
        parts.tile(cost_name(name).capitalize(), with_unit(name, model[name]))
        for name in _SHOWN_TILES
        if is_number(model.get(name))
    ]


def recommendation_sections(run):
    """Returns the sections of a `recommend` run: the ranked list, and the layers."""
    target = f" on {run['target']}" if run.get("target") else ""
    goal = _GOALS.get(run.get("goal"), run.get("goal"))
    found = [parts.text(f"Goal: {goal}{target}.")]
    if run.get("nothing_to_gain"):
        found.append(
            parts.callout(
                "Nothing to gain: no trial had a gain that counts without losing too much."
            )
        )
    found += [parts.text(reason) for reason in run.get("reasons") or ()]
    found.append(parts.steps([_step(each, run) for each in run.get("recommendations") or ()]))
    not_tried = [f"{name}: {why}" for name, why in (run.get("not_tried") or {}).items()]
    if not_tried:
        found += [parts.heading("Not tried"), parts.items(not_tried)]
    return [
        parts.section("recommendations", "Recommendations", found),
        parts.section("layers", "Layers", [_layers(run.get("layers") or ())]),
    ]


def _step(each, run):
    gain, texts, short = each.get("gain") or {}, [], ""
    if gain.get("factor"):
        short = f"{gain['factor']:.3g} times less {cost_name(gain['figure'])}"
        low, high = gain.get("interval") or (0, 0)
        # Of what is counted there is no interval.
        texts.append(f"Gain: {short}{f' (95%: {low:.3g} to {high:.3g})' if low < high else ''}.")
    if gain.get("metric_change") is not None:
        texts.append(_metric_text(gain, gain.get("metric") or run["metric"]))
    if each.get("loss_is") in _LOSSES:
        texts.append(_LOSSES[each["loss_is"]])
    if each.get("trial"):
        texts.append(f"From the trial: {each['trial']}.")
    limits = each.get("limits")
    limits = [limits] if isinstance(limits, str) else limits or []
    texts += [f"Limits: {text}" for text in limits if text]
    codes = [each[name] for name in ("command", "code") if each.get(name)]
    name = each.get("title") or each["technique"]
    return parts.step(name, time=short, texts=texts, codes=codes)


def _metric_text(gain, metric):
    within = ""
    if gain.get("metric_interval"):
        low, high = (change(value, metric, unit="") for value in gain["metric_interval"])
        within = f" (95%: {low} to {high})"
    return f"{name_of(metric)}: {change(gain['metric_change'], metric)}{within}."


def _layers(layers):
    """Returns a table of the layers, a column per key that one of them has a value for."""
    layers = [each for each in layers if isinstance(each, dict)]
    names = list(dict.fromkeys(key for each in layers for key in each))
    names = [name for name in names if any(each.get(name) is not None for each in layers)]
    rows = [[_shown(name, each.get(name)) for name in names] for each in layers]
    return parts.table([cost_name(name) for name in names], rows)


def _shown(name, value):
    if is_number(value) and name.startswith(("zeros", "share", "loss")):
        return f"{100 * value:.1f} %"
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if is_number(value) else "-" if value is None else str(value)
