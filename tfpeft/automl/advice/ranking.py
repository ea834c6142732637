"""The rule: what counts as a gain, what as a loss of the metric, and which trial comes first."""

LEAST_GAIN = 1.05
"""A factor of a figure below which there is no gain: 5% less."""
ALLOWED, UNCLEAR, TOO_MUCH = LOSSES = ("allowed", "unclear", "too much")
"""What a loss of the metric is, the best first."""
SHORT = 0.5
"""The part of a loss after short training that counts: training in full wins back at least half."""


def loss_is(found, most, short=SHORT):
    """Returns what the loss of a trial is: "allowed", "unclear" or "too much".

    It is allowed up to `most`, of which after short training a part counts alone; above it is
    unclear while the low end of its interval is not.

    Args:
        found: The trial.
        most: What may be lost of the metric.
        short: The part of the loss after short training that counts; 1 for training in full.
    """
    loss = found["loss"]
    # Trials of adapters are compared with as many updates, and longer ones show what is left.
    counted = short if found.get("is_short") else 1.0
    if counted * loss["relative"] <= most:
        return ALLOWED
    return UNCLEAR if loss["relative_interval"][0] <= most else TOO_MUCH


def has_gain(found):
    """Whether a trial has less of the figure, by the low end of its interval."""
    return bool(found["gain"]) and found["gain"]["interval"][0] > LEAST_GAIN


def latest(trials):
    """Returns of the trials of each chain the one that trained longest."""
    found = {}
    for each in trials:
        key = str(each.get("steps", each["name"]))
        if key not in found or found[key]["updates"] < each["updates"]:
            found[key] = each
    return list(found.values())


def ranked(trials, max_metric_loss, short=SHORT):
    """Returns the trials that gain, the best first; see `loss_is`.

    Those whose loss is allowed come first, by their factor; then those of which it is unclear, by
    theirs, and those that lost too much. Of a chain that trained twice the longer trial counts.
    Several techniques together are left out where some of them alone come within 5% of their
    factor, and lose no more.
    """
    gaining = [found for found in trials if not found["error"] and found["gain"]]
    gaining = [found for found in latest(gaining) if has_gain(found)]

    def rank(found):
        return LOSSES.index(loss_is(found, max_metric_loss, short))

    def is_over_parts(found):
        stages = set(found["technique"].split("+"))
        return not any(
            set(part["technique"].split("+")) < stages
            and part["gain"]["factor"] * LEAST_GAIN > found["gain"]["factor"]
            and rank(part) <= rank(found)
            for part in gaining
        )

    return sorted(
        filter(is_over_parts, gaining),
        key=lambda found: (rank(found), -found["gain"]["factor"]),
    )
