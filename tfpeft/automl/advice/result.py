"""`Recommendations` of the trials of any goal: ranked, and what was not tried with the reason."""

from tfpeft.automl.advice.chains import TUNE
from tfpeft.automl.advice.ranking import LEAST_GAIN, TOO_MUCH, loss_is, ranked
from tfpeft.automl.advice.recommendations import Recommendation, Recommendations
from tfpeft.automl.advice.trials import OF_MODEL, out_of_time

_SMALL_BYTES = 10_000
_FEW_SAMPLES = 100
_OVERFITTED = 0.05
"""A gap between training and validation, as a fraction of the metric, that is worth a sentence."""


def recommendations(request, store, metric, *, words, model, layers, skipped=(), reasons=()):
    """Returns the `Recommendations` of a `Request`.

    Args:
        request: The `Request`.
        store: The `Store` of its trials.
        metric: The `Metric`.
        words: A function of a trial that returns its "title", "limits", "command" and "code".
        model: Figures of the model.
        layers: Rows of its layers.
        skipped: {technique: why it was not tried}.
        reasons: What to know besides, in sentences.
    """
    done = [each for each in store.done.values() if each["name"] != OF_MODEL]
    gaining = ranked([each for each in done if not _is_tuned(each)], request.max_metric_loss)
    alternatives = [_recommendation(each, words, request.max_metric_loss) for each in gaining]
    found = _firsts(alternatives)
    nothing = not found or found[0].loss_is == TOO_MUCH
    tried = {stage for each in done for stage in each["technique"].split("+")}
    not_tried = {name: why for name, why in dict(skipped).items() if name not in tried}
    not_tried |= out_of_time(store.not_run)
    not_tried |= {each["name"]: each["error"] for each in done if each["error"]}
    return Recommendations(
        goal=request.name,
        target=request.device.target,
        figure=request.goal.figure,
        metric={name: value for name, (value, _) in metric.before.items()},
        model=model,
        layers=layers,
        recommendations=found,
        nothing_to_gain=nothing,
        reasons=[
            *(_why_nothing(request, store, model, done) if nothing else []),
            *_base_loses(done, request.max_metric_loss),
            *_gap(model),
            *further_training(done),
            *reasons,
        ],
        not_tried=not_tried,
        trials=done,
        alternatives=alternatives,
    )


def _recommendation(found, words, most):
    gain, loss = found["gain"], found["loss"]
    return Recommendation(
        technique=found["technique"],
        figure=gain["figure"],
        factor=gain["factor"],
        interval=tuple(gain["interval"]),
        metric=loss["metric"],
        metric_change=loss["after"] - loss["before"],
        metric_interval=tuple(loss["interval"]),
        loss=loss["relative"],
        loss_is=loss_is(found, most),
        trial=found["name"],
        **words(found),
    )


def _firsts(found):
    """Returns the first recommendation of each combination of techniques, which is its best,
    of those whose loss is allowed, unclear and too much."""
    best = {}
    for each in found:
        best.setdefault((each.technique, each.loss_is), each)
    return list(best.values())


def _why_nothing(request, store, model, done):
    """Returns why there is nothing to gain, in sentences."""
    found = []
    if model.get("is_quantise_aware"):
        found.append("The model is quantise-aware already: its file is integer.")
    if model.get("size_bytes") is not None and model["size_bytes"] < _SMALL_BYTES:
        found.append(
            f"The file has {model['size_bytes']:,} bytes for {model['parameters']:,} parameters: "
            "most of it is the format, which no technique makes smaller."
        )
    if model.get("zeros", 0.0) > 0.5:
        found.append(f"{model['zeros']:.0%} of the weights are zeros already.")
    if store.not_run:
        found.append(
            f"There was no time for {', '.join(store.not_run)}: with more `minutes` there may be "
            "something to gain."
        )
    measured = [each for each in done if each["gain"] and not each.get("is_base")]
    if measured:
        best = max(measured, key=lambda each: each["gain"]["factor"])
        allowed = f"{request.max_metric_loss:.1%}"
        found.append(
            f"Of {len(measured)} trials {best['name']} gained most, a factor of "
            f"{best['gain']['factor']:.2f}{_spread(best['gain'])}, with "
            f"{best['loss']['relative']:.1%} of the metric lost; one that is surely above "
            f"{LEAST_GAIN}, with not clearly more than {allowed} lost, would count."
        )
    return found


def _base_loses(done, most):
    """Returns a sentence on what a device's file loses before any technique, in a list."""
    return [
        f"Files of this device are int8, which alone loses {found['loss']['relative']:.1%} of "
        f"{found['loss']['metric']}: a technique's loss is not that of its file."
        for found in done
        if found.get("is_base") and not found["error"] and loss_is(found, most) == TOO_MUCH
    ]


def _spread(gain):
    low, high = gain["interval"]
    return "" if low == high else f" (95%: {low:.2f} to {high:.2f})"


def few_samples(request, validation):
    """Returns a sentence on a `Batch` of few validation samples, in a list; [] of many.

    Args:
        request: The `Request`.
        validation: The `Batch`.
    """
    if validation.size >= _FEW_SAMPLES:
        return []
    which = "" if request.validation_data is not None else ", which are a fifth of `data`"
    return [
        f"The metric is of {validation.size} validation samples{which}: so few show large losses "
        "only, and intervals of so few are too narrow."
    ]


def _gap(model):
    gap = model.get("gap", {}).get("relative")
    if gap is None or gap <= _OVERFITTED:
        return []
    return [
        f"The model overfits: from training to validation data it loses {gap:.1%} of the metric. "
        "A student has fewer weights to overfit with, and learns from the model's outputs."
    ]


def _is_tuned(found):
    """Whether a trial is training alone."""
    return found["technique"].split("+")[0] == TUNE.stage


def further_training(done):
    """Returns a sentence on what training alone changes, in a list; [] if nothing is clear."""
    for found in filter(_is_tuned, done):
        loss = found["loss"]
        if found["error"] or loss["interval"][0] <= 0 <= loss["interval"][1]:
            continue
        low, high = loss["interval"]
        return [
            f"Training alone, for {found['updates']:,} updates, changes {loss['metric']} by "
            f"{loss['after'] - loss['before']:+.4g} (95%: {low:+.4g} to {high:+.4g}): so much of a "
            "trial's change is not its technique's."
        ]
    return []
