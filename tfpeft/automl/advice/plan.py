"""Which chains are tried, in which order, by what the trials before them found."""

from tfpeft.automl.advice.chains import (
    QUANTIZE_AWARE,
    TUNE,
    Chain,
    first_step,
    next_step,
    quantize,
)

LEAST_GAIN = 1.05
"""A factor of a figure below which there is no gain: 5% less."""
_PAIRS = (
    *(("prune_channels", "prune"), ("distill", "prune"), ("prune", "cluster")),
    *(("prune_channels", "cluster"), ("distill", "cluster")),
)
ALLOWED, UNCLEAR, TOO_MUCH = LOSSES = ("allowed", "unclear", "too much")
"""What a loss of the metric is, the best first."""
SHORT = 0.5
"""The part of a loss after short training that counts: training in full wins back at least half."""
_MOST_OVERFITTED = 0.05
"""The gap between training and validation, as a fraction, above which a student comes first."""


class Planner:
    """Runs trials of chains, from one technique alone to several together.

    1. Quantizations of the file, as the model is; where int8 loses too much, int8 with its options,
       and then quantise-aware training.
    2. Training alone, for as many updates, so that what it wins is not taken for a technique's.
    3. Each technique that trains, as it is first tried, alone and with the best quantization.
    4. Each technique once more: bolder if it held, milder if it did not.
    5. Pairs of techniques that held, as bold as each did, and with the best quantization.

    Args:
        trials: The `FileTrials`.
        goal: The `Goal`.
        max_metric_loss: A fraction.
        techniques: Those that may be tried.
        exclude: Layers that pruning leaves, as they cannot bear zeros.
        gap: What the model loses from training to validation data, as a fraction.
        skipped: {technique: why not}.
    """

    def __init__(self, trials, goal, max_metric_loss, techniques, *, exclude, gap, skipped):
        self._trials, self._goal, self._most = trials, goal, max_metric_loss
        self._techniques, self._exclude, self._skipped = techniques, exclude, skipped
        self._overfits = gap is not None and gap > _MOST_OVERFITTED
        self._held, self._failed = {}, set()  # {stage: the steps that held}, stages

    def run(self):
        """Runs all trials for which there is time."""
        self._quantizations()
        stages = self._stages()
        if stages:
            self._run((TUNE,))
        for stage in stages:
            self._technique(self._first(stage))
        for stage in stages:
            if stage not in self._failed:
                self._technique(next_step(self._first(stage), held=stage in self._held))
        for pair in _PAIRS:
            if all(stage in self._held for stage in pair):
                self._pair(pair)

    def _first(self, stage):
        return first_step(stage, self._exclude if stage == "prune" else ())

    def _stages(self):
        """Returns the stages that train, in the order in which they are tried."""
        stages = [s for s in self._goal.techniques if s in self._techniques]
        if self._overfits and "distill" in stages:
            stages = ["distill", *(stage for stage in stages if stage != "distill")]
        return [stage for stage in stages if stage not in self._skipped]

    def _quantizations(self):
        self._best_quantization = self._int8 = None
        if "quantize" not in self._techniques or "quantize" in self._skipped:
            return
        best = LEAST_GAIN
        for name in self._goal.quantizations:
            if (quantize(name),) == self._trials.base.steps:
                continue
            found, step = self._trials.run(Chain((quantize(name),))), quantize(name)
            if name == "int8" and found and not self._holds(found):
                found, step = self._better_int8(found, step)
            if name == "int8" and self._holds(found):
                self._int8 = step
            if self._holds(found) and found["gain"]["factor"] > best:
                best, self._best_quantization = found["gain"]["factor"], step

    def _better_int8(self, found, step):
        """Returns the first trial of int8 with options that holds, and its step."""
        options = quantize("int8", equalize=True, correct_bias=True)
        for chain in (Chain((options,)), Chain((QUANTIZE_AWARE, step))):
            if chain.steps[0] == QUANTIZE_AWARE and "quantize_aware" not in self._techniques:
                continue
            tried = self._trials.run(chain)
            if self._holds(tried):
                return tried, chain.steps[-1] if len(chain.steps) == 1 else step
        return found, step

    def _technique(self, step):
        """Tries a stage alone, and with the best quantization."""
        if self._together((step,)):
            self._held.setdefault(step.stage, []).append(step)

    def _pair(self, pair):
        """Tries two techniques, each as bold as it held alone; else each as it held first."""
        # As of --exclude, which all stages of a chain read.
        exclude = self._exclude if "prune" in pair and "prune_channels" not in pair else ()
        both = [
            [step.excluding(exclude if stage in ("prune", "cluster") else ()) for step in steps]
            for stage, steps in ((stage, self._held[stage]) for stage in pair)
        ]
        bold, first = ([steps[number] for steps in both] for number in (-1, 0))
        if not self._together(bold) and first != bold:
            self._together(first)

    def _together(self, steps):
        """Tries stages one after the other, also with the best quantization; whether it held."""
        found = self._run(steps)
        if found and found["error"]:
            self._failed.update(step.stage for step in steps)
        if self._holds(found) and not self._trials.device.is_integer:
            self._with_quantization(steps)
        return self._holds(found)

    def _run(self, steps):
        """Returns the trial of stages that train, in the plainest file that shows their gain."""
        chain = Chain(tuple(steps))
        if self._trials.device.is_integer:
            chain = chain.then(quantize("int8"))
        elif "prune" in chain.stages and self._reads_sparse:
            chain = chain.then(quantize("none", sparse_encoding=True))
        return self._trials.run(chain)

    def _with_quantization(self, steps):
        step = self._best_quantization
        has_zeros = "prune" in [each.stage for each in steps]
        # Constants of a dynamic range do not load in sparse form, those of int8 do.
        if has_zeros and self._reads_sparse and self._int8 is not None:
            options = {**dict(self._int8.settings[1:]), "sparse_encoding": True}
            step = quantize("int8", **options)
        if step is not None:
            self._trials.run(Chain((*steps, step)))

    @property
    def _reads_sparse(self):
        """Whether zeros help by being left out of a file."""
        return self._trials.device.takes_sparse and self._goal.figure in ("size_bytes", "macs")

    def _holds(self, found):
        """Whether a trial was run, and its loss is not clearly more than is allowed."""
        return bool(found) and not found["error"] and loss_is(found, self._most) != TOO_MUCH


def loss_is(found, most, short=SHORT):
    """Returns what the loss of a trial is: "allowed", "unclear" or "too much".

    It is allowed up to `most`, of which a file after short training counts a part alone; above it
    is unclear while the low end of its interval is not.

    Args:
        found: The trial.
        most: What may be lost of the metric.
        short: The part of the loss after short training that counts; 1 for training in full.
    """
    loss = found["loss"]
    is_short = found.get("steps") and found["updates"]  # others are compared with as many updates
    if (short if is_short else 1.0) * loss["relative"] <= most:
        return ALLOWED
    return UNCLEAR if loss["relative_interval"][0] <= most else TOO_MUCH


def has_gain(found):
    """Whether a trial has less of the figure, by the low end of its interval."""
    return found["gain"]["interval"][0] > LEAST_GAIN


def ranked(trials, max_metric_loss, short=SHORT):
    """Returns the trials that gain, the best first; see `loss_is`.

    Those whose loss is allowed come first, by their factor; then those of which it is unclear, by
    theirs, and those that lost too much. Several techniques together are left out where some of
    them alone come within 5% of their factor, and lose no more.
    """
    gaining = [found for found in trials if not found["error"] and found["gain"]]
    gaining = [found for found in gaining if has_gain(found)]

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
