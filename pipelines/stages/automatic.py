"""The stages that a recommendation names, for --stages=auto: asked for once, then kept."""

import json
import pathlib
import shlex

from pipelines.common import recommending, workers
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import (
    DATA_FLAGS,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
    settings_of,
    with_value,
)
from pipelines.common.folders import RunFolder, name_of_run
from pipelines.stages import STAGES, compression, prune_channels
from tfpeft.automl.advice.ranking import TOO_MUCH
from tfpeft.automl.advice.trials import OUT_OF_TIME
from tfpeft.core.arguments import BudgetError, InputError
from tfpeft.core.json_files import read_json

AUTO = "auto"
FLAGS = (recommending.GOAL, recommending.MINUTES)
_LIMIT = "max_size_bytes"
_GOALS = ("latency", "size", "download", "memory")
_FILE = "chain.json"
_FORM = {"flags": ([str], None), "text": str, "asked": {str: object}, _LIMIT: (float, None)}


def is_asked_for(settings):
    """Whether --stages is auto; raises for flags that only auto reads."""
    if list(settings.stages or ()) == [AUTO]:
        return True
    for flag in FLAGS:
        if flag.name in settings.given:
            raise unread_flag(flag.name, "--stages without auto")
    return False


def settings_with_stages(settings, script):
    """Returns the settings with the stages and flags of a recommendation, which are printed.

    It is the first one, or with --max_size_bytes the first whose file is inside. They are kept in
    the folder NAME-recommend, beside that of the run, so that a run that was stopped goes on with
    the same ones.

    Args:
        settings: Settings of the script.
        script: The `Script`, which parses the flags of the recommendation.

    Returns:
        The settings, None where there is nothing to gain; and the limit in bytes, or None.
    """
    if settings.goal not in _GOALS:
        raise invalid_flag("goal", f"one of {', '.join(_GOALS)} with --stages=auto", settings.goal)
    if len(settings.target) > 1:
        raise invalid_flag("target", "one device, or none, with --stages=auto", settings.target)
    _check_stage_flags(settings)
    limit = prune_channels.budget_of(_LIMIT, settings.max_size_bytes)
    wanted = _request(settings)
    recommending.check(wanted)
    request = {
        "target": wanted.target,
        "max_metric_loss": wanted.max_metric_loss,
        _LIMIT: settings.max_size_bytes,
    }
    with RunFolder("recommend", wanted, recommending.RUN_FLAGS) as folder:
        chain = read_json(folder / _FILE, _FORM) if folder.has(_FILE, _FORM) else None
        if chain is None or chain["asked"] != request:  # of others, whose trials raise
            found = recommending.recommend(wanted, folder)
            recommending.write_report(folder, found, wanted)
            chain = {**_chain(found, limit), "asked": request}
            # With more minutes there may be something to gain.
            if chain["flags"] is not None or OUT_OF_TIME not in found.not_tried.values():
                folder.write(_FILE, json.dumps(chain, indent=2))
    print(chain["text"], flush=True)
    if chain["flags"] is None:
        return None, None
    recommended, _ = script.parse(chain["flags"])
    values = {name: getattr(recommended, name) for name in recommended.given}
    asked = {flag.name for flag in FLAGS} | {"stages", _LIMIT}
    given = {name: getattr(settings, name) for name in settings.given - asked}
    return settings_of(script.flags, {**values, **given}), chain[_LIMIT]


def status_of(settings, limit):
    """Returns the exit status: 2 where the file has more bytes than the limit, with a line."""
    name = name_of_run("compress", settings)
    path = workers.own_path(pathlib.Path(settings.output_dir) / name) / "model.tflite"
    size = path.stat().st_size
    if limit is None or size <= limit:
        return 0
    print(
        f"{path} has {size:,} bytes, expected at most --{_LIMIT}={limit:,.0f}. The trial had no "
        "more, without the names of classes and after a short training"
    )
    return 2


def _check_stage_flags(settings):
    """Raises for flags of stages, which the recommendation chooses; before it is asked for."""
    common = {flag.name for flag in compression.RUN_FLAGS}
    for name, stage in STAGES.items():
        for flag in stage.flags:
            if flag.name in settings.given - common - {_LIMIT}:
                raise InputError(
                    f"--{flag.name} belongs to the stage {name}, and --stages=auto chooses stages "
                    "and their flags: name --stages to give it"
                )


def _request(settings):
    """Returns the settings of `recommending.recommend` that the flags are."""
    values = {flag.name: flag.default for flag in recommending.FLAGS}
    values |= {
        "goal": settings.goal,
        "minutes": settings.minutes,
        "target": settings.target[0] if settings.target else None,
        "name": f"{name_of_run('compress', settings)}-recommend",
    }
    if settings.max_metric_loss is not None:
        values["max_metric_loss"] = max(0.0, settings.max_metric_loss)
    known = {flag.name for flag in (*recommending.RUN_FLAGS, *FLAGS)}
    values["given"] = (settings.given & known) | {"name"}
    for name, value in values.items():
        settings = with_value(settings, name, value)
    return settings


def _first_inside(found, limit):
    """Returns the first `Recommendation` whose file has at most so many bytes."""
    sizes = {trial["name"]: trial.get("size_bytes") for trial in found.trials}
    allowed = [each for each in found.alternatives if each.loss_is != TOO_MUCH]
    for each in allowed:
        if sizes[each.trial] <= limit:
            return each
    smallest = min((sizes[each.trial] for each in allowed), default=found.model["size_bytes"])
    raise BudgetError(
        f"Expected a recommendation whose file has at most --{_LIMIT}={limit:,.0f}, without losing "
        "too much: with more --minutes there may be one, and pipelines.search trains students for "
        f"a budget. Received: {len(allowed)} trials, of which the smallest file has {smallest:,} "
        "bytes"
    )


def _chain(found, limit):
    """Returns what is kept of `Recommendations`: the flags of the first one, its text, the limit.

    Args:
        found: The `Recommendations`.
        limit: Bytes of its file at most, up to 1 a fraction of the model's; None for any number.
    """
    size = found.model.get("size_bytes")
    limit = float(limit * size) if limit is not None and limit <= 1 else limit
    if found.nothing_to_gain and (limit is None or size <= limit):
        return {"flags": None, "text": str(found), _LIMIT: None}
    first = found.recommendations[0] if limit is None else _first_inside(found, limit)
    known = {flag.name for flag in (*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS)} | {"target"}
    tokens = [token for token in shlex.split(first.command) if token.startswith("--")]
    flags = [token for token in tokens if token[2:].partition("=")[0] not in known]
    return {
        _LIMIT: limit,
        "flags": flags,
        "text": f"Recommended: {first.title}. {first.gain}; {first.metric_text}\n{first.command}",
    }
