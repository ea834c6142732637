"""The stages that a recommendation names, for --stages=auto: asked for once, then kept."""

import json
import shlex

from pipelines.common import recommending
from pipelines.common.errors import invalid_flag, unread_flag
from pipelines.common.flags import (
    BATCH_SIZE,
    DATA_FLAGS,
    LEARNING_RATE,
    MODEL_FLAGS,
    OBJECTIVE_FLAGS,
    settings_of,
    with_value,
)
from pipelines.common.folders import RunFolder
from tfpeft.automl.advice.trials import OUT_OF_TIME
from tfpeft.core.json_files import read_json

AUTO = "auto"
FLAGS = (recommending.GOAL, recommending.MINUTES)
_GOALS = ("latency", "size", "download", "memory")
_FILE = "chain.json"
_FORM = {"flags": ([str], None), "text": str, "asked": {str: object}}


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

    They are kept in the folder NAME-recommend, beside that of the run, so that a run that was
    stopped goes on with the same ones. None where there is nothing to gain.

    Args:
        settings: Settings of the script.
        script: The `Script`, which parses the flags of the recommendation.
    """
    if settings.goal not in _GOALS:
        raise invalid_flag("goal", f"one of {', '.join(_GOALS)} with --stages=auto", settings.goal)
    if len(settings.target) > 1:
        raise invalid_flag("target", "one device, or none, with --stages=auto", settings.target)
    wanted = _request(settings)
    recommending.check(wanted)
    flags = [*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS, BATCH_SIZE, LEARNING_RATE]
    request = {"target": wanted.target, "max_metric_loss": wanted.max_metric_loss}
    with RunFolder("recommend", wanted, [*flags, recommending.GOAL]) as folder:
        chain = read_json(folder / _FILE, _FORM) if folder.has(_FILE, _FORM) else None
        if chain is None or chain["asked"] != request:  # of others, whose trials raise
            found = recommending.recommend(wanted, folder)
            recommending.write_report(folder, found)
            chain = {**_chain(found), "asked": request}
            # With more minutes there may be something to gain.
            if chain["flags"] is not None or OUT_OF_TIME not in found.not_tried.values():
                folder.write(_FILE, json.dumps(chain, indent=2))
    print(chain["text"], flush=True)
    if chain["flags"] is None:
        return None
    recommended, _ = script.parse(chain["flags"])
    values = {name: getattr(recommended, name) for name in recommended.given}
    asked = {flag.name for flag in FLAGS} | {"stages"}
    given = {name: getattr(settings, name) for name in settings.given - asked}
    return settings_of(script.flags, {**values, **given})


def _request(settings):
    """Returns the settings of `recommending.recommend` that the flags are."""
    values = {flag.name: flag.default for flag in recommending.FLAGS}
    values |= {
        "goal": settings.goal,
        "minutes": settings.minutes,
        "target": settings.target[0] if settings.target else None,
        "name": f"{settings.name}-recommend" if settings.name else None,
    }
    if settings.max_metric_loss is not None:
        values["max_metric_loss"] = max(0.0, settings.max_metric_loss)
    for name, value in values.items():
        settings = with_value(settings, name, value)
    return settings


def _chain(found):
    """Returns what is kept of `Recommendations`: the flags of the first one, and its text."""
    if found.nothing_to_gain:
        return {"flags": None, "text": str(found)}
    first = found.recommendations[0]
    known = {flag.name for flag in (*DATA_FLAGS, *OBJECTIVE_FLAGS, *MODEL_FLAGS)} | {"target"}
    tokens = [token for token in shlex.split(first.command) if token.startswith("--")]
    flags = [token for token in tokens if token[2:].partition("=")[0] not in known]
    return {
        "flags": flags,
        "text": f"Recommended: {first.title}. {first.gain}; {first.metric_text}\n{first.command}",
    }
