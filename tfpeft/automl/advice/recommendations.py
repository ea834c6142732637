"""What `recommend` returns: ranked techniques in plain words, with gains and their evidence."""

import dataclasses

from tfpeft.reports.tables import markdown_table, text_table

_TITLES = {
    "latency_ms": "latency",
    "inference_ms": "estimated time on the NPU",
    "macs": "multiply-accumulates that are computed",
    "size_bytes": "size of the file",
    "gzip_bytes": "size of the compressed file",
    "flash_bytes": "flash",
    "arena_bytes": "arena (RAM)",
    "sram_bytes": "SRAM",
    "step_ms": "time of a training step",
}
_WARNINGS = {
    "unclear": " That may be more than is allowed: more validation samples would make it clear.",
    "too much": " That is more than is allowed.",
}
_HEADER = ("", "technique", "gain", "metric", "trial")


@dataclasses.dataclass(frozen=True)
class Recommendation:
    """A technique of `recommend`, or several together, with what a trial on this model showed.

    Attributes:
        technique: Stages joined by "+": "prune_channels+quantize".
        title: What it is, in words.
        figure: The figure of the goal.
        factor: How many times less of it there is: 2 is half.
        interval: (low, high) of 95% of the factor; of a figure that is counted, the factor twice.
        metric: The metric that changes most for the worse.
        metric_change: What it changes by, in its unit.
        metric_interval: (low, high) of 95% of the change, on the same samples.
        loss: What is lost of the metric, as a fraction; below 0 it is better.
        loss_is: "allowed", at most `max_metric_loss`, of which half counts after short training;
            "unclear", more, but its interval begins below: more validation samples, or training
            in full, show it; or "too much".
        trial: Name of the trial that it comes from.
        limits: What it does not give.
        command: The command of the scripts that does it in full; None where they do not.
        code: The lines of Python that do it.
    """

    technique: str
    title: str
    figure: str
    factor: float
    interval: tuple[float, float]
    metric: str
    metric_change: float
    metric_interval: tuple[float, float]
    loss: float
    loss_is: str
    trial: str
    limits: str
    command: str | None
    code: str

    @property
    def gain(self) -> str:
        """The gain in words."""
        low, high = self.interval
        spread = "" if low == high else f" (95%: {low:.2f} to {high:.2f})"
        return f"{self.factor:.2f}x less {_TITLES.get(self.figure, self.figure)}{spread}"

    @property
    def metric_text(self) -> str:
        """The change of the metric in words."""
        low, high = self.metric_interval
        return f"{self.metric} {self.metric_change:+.4g} (95%: {low:+.3g} to {high:+.3g})"

    def as_dict(self) -> dict:
        """Returns it as plain JSON values."""
        return {
            "technique": self.technique,
            "title": self.title,
            "gain": {
                "figure": self.figure,
                "factor": self.factor,
                "interval": list(self.interval),
                "metric": self.metric,
                "metric_change": self.metric_change,
                "metric_interval": list(self.metric_interval),
                "loss": self.loss,
            },
            "loss_is": self.loss_is,
            "trial": self.trial,
            "limits": self.limits,
            "command": self.command,
            "code": self.code,
        }


@dataclasses.dataclass(frozen=True)
class Recommendations:
    """What `recommend` returns, the best first: print it.

    Attributes:
        goal, target: The arguments.
        figure: The figure of the goal on the target.
        metric: The metrics that decide, {figure: value of the model}.
        model: Figures of the model: those of a file, its gap between training and validation, and
            what it is made of.
        layers: A dict for each layer with weights: "layer", "kind", "parameters", "zeros" as a
            fraction, "macs", "share_of_macs" and "share_of_bytes", and from trials
            "loss_of_half_zeros" and "loss_of_half_channels", what is lost of the metric when this
            layer alone loses half of them; None where it is not known.
        recommendations: `Recommendation`s: first those whose loss of the metric is allowed, by
            their gain, then those of which it is unclear, then those that lose too much.
        alternatives: All trials that gain as `Recommendation`s, in the same order: of
            `recommendations` each combination of techniques has the first of them.
        nothing_to_gain: Whether no trial had a gain without losing too much.
        reasons: Why, in words, where there is nothing to gain; and what to know besides.
        not_tried: {technique: why it was not tried}.
        trials: A dict for each trial, as its JSON file holds it.
    """

    goal: str
    target: str | None
    figure: str
    metric: dict[str, float]
    model: dict
    layers: list[dict]
    recommendations: list[Recommendation]
    nothing_to_gain: bool
    reasons: list[str]
    not_tried: dict[str, str]
    trials: list[dict]
    alternatives: list[Recommendation] = dataclasses.field(default_factory=list, repr=False)

    def as_dict(self) -> dict:
        """Returns all of it but `alternatives` as plain JSON values."""
        return {
            "job": "recommend",
            **{
                name: getattr(self, name)
                for name in ("goal", "target", "figure", "metric", "model", "layers")
            },
            "recommendations": [each.as_dict() for each in self.recommendations],
            "nothing_to_gain": self.nothing_to_gain,
            "reasons": list(self.reasons),
            "not_tried": dict(self.not_tried),
            "trials": list(self.trials),
        }

    def to_markdown(self) -> str:
        """Returns it in Markdown, each recommendation with its command and its code."""
        parts = [f"## {self._headline()}", *self.reasons]
        if self.recommendations:
            parts.append(markdown_table(_HEADER, self._rows(), align=["right", *["left"] * 4]))
        for number, each in enumerate(self.recommendations, 1):
            parts += [
                f"### {number}. {each.title}",
                f"{self._sentence(each)} {each.limits}",
                *([f"```bash\n{each.command}\n```"] if each.command else []),
                f"```python\n{each.code}\n```",
            ]
        if self.not_tried:
            parts += ["### Not tried", *(f"- {k}: {why}" for k, why in self.not_tried.items())]
        return "\n\n".join(parts)

    def __str__(self):
        lines = [self._headline(), *self.reasons]
        if self.recommendations:
            lines.append(text_table(_HEADER, self._rows(), align=["right", *["left"] * 4]))
        for number, each in enumerate(self.recommendations, 1):
            lines += ["", f"{number}. {each.title}", f"   {self._sentence(each)}"]
            lines += [f"   {text}" for text in (each.limits, each.command) if text]
        if self.not_tried:
            lines += ["", "Not tried:"]
            lines += [f"- {technique}: {why}" for technique, why in self.not_tried.items()]
        return "\n".join(lines)

    def _headline(self):
        device = "this machine" if self.target is None else self.target
        what = f"{_TITLES.get(self.figure, self.figure)} on {device}"
        if not any(each.get("gain") for each in self.trials):
            return f"No trial for {self.goal} ended: nothing is known of {what}"
        if self.nothing_to_gain:
            return (
                f"Nothing to gain for {self.goal}: no trial had less {what} without losing too much"
            )
        return f"For {self.goal} ({what}): {self.recommendations[0].title}"

    def _rows(self):
        return [
            [
                str(number),
                each.technique,
                each.gain,
                each.metric_text + ("" if each.loss_is == "allowed" else f", {each.loss_is}"),
                each.trial,
            ]
            for number, each in enumerate(self.recommendations, 1)
        ]

    def _sentence(self, each):
        lost = f"{100 * abs(each.loss):.2f}% {'lost' if each.loss > 0 else 'won'}"
        lost = "nothing lost" if lost.startswith("0.00%") else lost
        low, high = each.metric_interval
        lost += ", which may be chance" if low < 0 < high else ""
        warning = _WARNINGS.get(each.loss_is, "")
        return f"{each.gain}; {each.metric_text}, {lost}; from the trial {each.trial}.{warning}"
