"""Which chains are tried, in which order, by what the trials before them found."""

import dataclasses
import math

from tfpeft.automl.advice.chains import (
    QUANTIZE_AWARE,
    TUNE,
    Chain,
    first_step,
    next_step,
    quantize,
)
from tfpeft.automl.advice.ranking import ALLOWED, LEAST_GAIN, TOO_MUCH, has_gain, latest, loss_is

_PAIRS = (
    *(("prune_channels", "prune"), ("distill", "prune"), ("prune", "cluster")),
    *(("prune_channels", "cluster"), ("distill", "cluster")),
)
LONGER = (4, 16)
"""What may be best trains again for so many times as many updates."""
_INT8 = (quantize("int8"),)
_HOPELESS = (0.5, 0.1)
"""Losses before that, as fractions, from which no training is expected to recover."""
_MOST_OVERFITTED = 0.05
"""The gap between training and validation, as a fraction, above which a student comes first."""


class Planner:
    """Runs trials of chains, from one technique alone to several together.

    1. Quantizations of the file, as the model is; where int8 loses too much, int8 with its options,
       and then quantise-aware training, which all int8 files below then have.
    2. Training alone, for as many updates, so that what it wins is not taken for a technique's; not
       where a device takes int8 files, and plain ones lose too much.
    3. Each technique that trains, as it is first tried, alone and with the best quantization.
    4. Each technique once more: bolder if it held, milder if it did not.
    5. Pairs of techniques that held, as bold as each did, and with the best quantization.
    6. While there is time, what may be better than the best so far, again from the start, trained
       for 4 times as many updates, those that lost least first. Where a technique holds then, its
       bolder step and its pairs follow, trained for as long. Then the same for 16 times as many.

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
        self._best_quantization = self._int8 = ()  # their steps
        self._quantization_gain = 1.0
        self._quantized = set()  # chains that were tried with a quantization

    def run(self, longer=()):
        """Runs all trials for which there is time.

        Args:
            longer: `FileTrials` that train for longer, one after the other.
        """
        self._quantizations()
        stages = self._stages()
        if stages and not (self._trials.device.is_integer and self._int8 != _INT8):
            self._run((TUNE,))
        for stage in stages:
            self._technique(self._first(stage))
        for stage in stages:
            if stage not in self._failed:
                self._technique(next_step(self._first(stage), held=stage in self._held))
        for pair in _PAIRS:
            if all(stage in self._held for stage in pair):
                self._pair(pair)
        for self._trials, hopeless in zip(longer, _HOPELESS, strict=False):
            self._longer(stages, hopeless)

    def _longer(self, stages, hopeless):
        """Trains what may be the best again, for longer, those that lost least first."""
        tried = set()
        while True:
            chains = self._promising(stages, hopeless)
            chains = [chain for chain in chains if chain not in tried]
            if not chains:
                return
            chain = chains[0]
            tried.add(chain)  # also where there was no time for it
            if chain.steps == (QUANTIZE_AWARE,):
                steps = (QUANTIZE_AWARE, *_INT8)
                self._take(steps, self._trials.run(Chain(steps)))
            elif self._together(chain.steps) and len(chain.steps) == 1:
                self._follow(chain.steps[0])

    def _follow(self, step):
        """Tries what follows from a step that holds after longer training: bolder, and pairs."""
        steps = self._held.setdefault(step.stage, [])
        if step in steps:
            return
        steps.append(step)
        if step == self._first(step.stage):
            self._technique(next_step(step, held=True))
        for pair in _PAIRS:
            if step.stage in pair and all(stage in self._held for stage in pair):
                self._pair(pair)

    def _promising(self, stages, hopeless):
        """Returns chains that may be better than the best so far, those that lost least first.

        They gain more than what surely loses no more than is allowed; with the best quantization,
        where that was not tried, their gain is estimated as the product of both. Of a technique
        whose first step gains less, it is the bolder one, if that was not tried.
        """
        done = [each for each in self._trials.done() if has_gain(each)]
        best = max(
            (
                each["gain"]["factor"]
                for each in latest(done)
                if loss_is(each, self._most, short=1.0) == ALLOWED
            ),
            default=1.0,
        )
        found, settled = {}, set()
        for each in done:
            chain = Chain.read(each["steps"])
            key, gain, loss = chain.techniques, each["gain"]["factor"], each["loss"]["relative"]
            if not key.steps or TUNE in key.steps:
                continue
            # Files of zeros in sparse form become hardly smaller with it.
            is_known = key in self._quantized or chain.quantization.get("sparse_encoding")
            if not is_known and not _is_quantized(chain):
                gain *= self._quantization_gain
            if each["times"] == self._trials.times:
                settled.add(key)
            known = found.get(key, (0.0, math.inf))
            found[key] = (max(known[0], gain), min(known[1], loss))
        for stage in stages:
            first = Chain((self._first(stage),))
            bolder = Chain((next_step(first.steps[0], held=True),))
            if first in found and found[first][0] <= LEAST_GAIN * best and bolder not in found:
                found[bolder] = (math.inf, found.pop(first)[1])
        promising = [
            (loss, chain.name, chain)
            for chain, (gain, loss) in found.items()
            if gain > LEAST_GAIN * best and loss < hopeless and chain not in settled
        ]
        return [chain for _, _, chain in sorted(promising, key=lambda each: each[:2])]

    def _first(self, stage):
        return first_step(stage, self._exclude if stage == "prune" else ())

    def _stages(self):
        """Returns the stages that train, in the order in which they are tried."""
        stages = [s for s in self._goal.techniques if s in self._techniques]
        if self._overfits and "distill" in stages:
            stages = ["distill", *(stage for stage in stages if stage != "distill")]
        return [stage for stage in stages if stage not in self._skipped]

    def _quantizations(self):
        """Tries quantizations of the model as it is, and takes those that hold."""
        if "quantize" in self._techniques and "quantize" not in self._skipped:
            for name in self._goal.quantizations:
                steps = (quantize(name),)
                found = self._trials.run(Chain(steps))
                if name == "int8" and found and not self._holds(found):
                    found, steps = self._better_int8(found, steps)
                self._take(steps, found)
        if self._trials.device.is_integer and not self._int8:
            trains = "quantize_aware" in self._techniques and self._goal.quantizations
            self._int8 = (QUANTIZE_AWARE, *_INT8) if trains else _INT8

    def _take(self, steps, found):
        """Takes a quantization for techniques, if it holds: for int8 files, and as the best one."""
        if not self._holds(found):
            return
        if steps[-1].value == "int8":
            self._int8 = steps
        if found["gain"]["factor"] > max(LEAST_GAIN, self._quantization_gain):
            self._best_quantization = steps
            self._quantization_gain = found["gain"]["factor"]

    def _better_int8(self, found, steps):
        """Returns the first trial of int8 with options or training that holds, and its steps."""
        ways = [(quantize("int8", equalize=True, correct_bias=True),)]
        if "quantize_aware" in self._techniques:
            ways.append((QUANTIZE_AWARE, *steps))
        for way in ways:
            tried = self._trials.run(Chain(way))
            if self._holds(tried):
                return tried, way
        return found, steps

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
        if self._trials.device.is_integer:
            steps = (*steps, *self._after(steps, self._int8))
        elif "prune" in Chain(steps).stages and self._reads_sparse:
            steps = (*steps, quantize("none", sparse_encoding=True))
        return self._trials.run(Chain(tuple(steps)))

    def _with_quantization(self, steps):
        quantization = self._best_quantization
        # Constants of a dynamic range do not load in sparse form, those of int8 do.
        if "prune" in Chain(steps).stages and self._reads_sparse and self._int8:
            *aware, file = self._int8
            options = {**dict(file.settings[1:]), "sparse_encoding": True}
            quantization = (*aware, quantize("int8", **options))
        if quantization:
            self._quantized.add(Chain(tuple(steps)))
            self._trials.run(Chain((*steps, *self._after(steps, quantization))))

    def _after(self, steps, quantization):
        """Returns a quantization as it follows stages: few values stay few without equalization."""
        if "cluster" not in Chain(steps).stages:
            return quantization
        return tuple(
            dataclasses.replace(
                step, settings=tuple(s for s in step.settings if s[0] != "equalize")
            )
            for step in quantization
        )

    @property
    def _reads_sparse(self):
        """Whether zeros help by being left out of a file."""
        return self._trials.device.takes_sparse and self._goal.figure in ("size_bytes", "macs")

    def _holds(self, found):
        """Whether a trial was run, and its loss is not clearly more than is allowed."""
        return bool(found) and not found["error"] and loss_is(found, self._most) != TOO_MUCH


def _is_quantized(chain):
    return chain.quantization.get("quantization", "none") != "none"
