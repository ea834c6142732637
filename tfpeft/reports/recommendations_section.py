"""What `recommend` found for a model, in a page: ranked techniques, with what each brings."""

from tfpeft.reports import parts
from tfpeft.reports.figures import change, cost_name, name_of, quality, with_unit

_GOALS = {
    "latency": "less latency",
    "size": "a smaller file",
    "download": "a smaller download",
    "memory": "less memory",
    "training_cost": "cheaper training",
    "tasks": "several tasks on one model",
}


def recommendation_tiles(run):
    """Returns what the model costs now."""
    model = run.get("model")
    model = model if isinstance(model, dict) else {}
    shown = [(name, value) for name, value in model.items() if isinstance(value, (int, float))]
    return [parts.tile(_title(run, name), _value(run, name, value)) for name, value in shown[:6]]


def _title(run, name):
    return name_of(name) if name == run.get("metric") else cost_name(name).capitalize()


def _value(run, name, value):
    return quality(name, value) if name == run.get("metric") else with_unit(name, value)


def recommendation_sections(run):
    """Returns the sections of a `recommend` run: the ranked list, and the layers."""
    metric = run.get("metric") or ""
    target = f" on {run['target']}" if run.get("target") else ""
    goal = _GOALS.get(run.get("goal"), run.get("goal"))
    found = [parts.text(f"Goal: {goal}{target}.")]
    if run.get("nothing_to_gain"):
        found.append(
            parts.callout(
                "Nothing to gain: no technique that was tried brings more than the noise of its "
                "measurement."
            )
        )
    found.append(parts.steps([_step(each, metric) for each in run.get("recommendations") or ()]))
    return [
        parts.section("recommendations", "Recommendations", found),
        parts.section("layers", "Layers", [_layers(run.get("layers") or ())]),
    ]


def _step(each, metric):
    gain, texts, short = each.get("gain") or {}, [], ""
    if gain.get("factor"):
        interval, name = gain.get("interval"), cost_name(gain["figure"])
        within = " (95%: {:.3g} to {:.3g})".format(*interval) if interval else ""
        short = f"{gain['factor']:.3g} times less {name}"
        texts.append(f"Gain: {short}{within}.")
    if gain.get("metric_change") is not None:
        interval = gain.get("metric_interval")
        within = ""
        if interval:
            low, high = (change(value, metric, unit="") for value in interval)
            within = f" (95%: {low} to {high})"
        texts.append(f"{name_of(metric)}: {change(gain['metric_change'], metric)}{within}.")
    trial = each.get("trial")
    if trial:
        texts.append(f"Measured: {_trial(trial)}")
    limits = each.get("limits")
    limits = [limits] if isinstance(limits, str) else limits or []
    texts += [f"What it does not give: {text}" for text in limits]
    codes = [each[name] for name in ("command", "code") if each.get(name)]
    name = each.get("title") or each["technique"]
    return parts.step(name, time=short, texts=texts, codes=codes)


def _trial(trial):
    if isinstance(trial, dict):
        return ", ".join(f"{name} {value}" for name, value in trial.items())
    return str(trial)


def _layers(layers):
    """Returns a table of the layers, a column per key of the first one."""
    layers = [each for each in layers if isinstance(each, dict)]
    names = list(layers[0]) if layers else []
    rows = [[_shown(each.get(name)) for name in names] for each in layers]
    return parts.table([cost_name(name) for name in names], rows)


def _shown(value):
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, int) and not isinstance(value, bool):
        return f"{value:,}"
    return "-" if value is None else str(value)
