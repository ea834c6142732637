"""NetAdapt: a trained model loses channels, round by round, against a measured figure."""

import json
import math
import time

import keras
import numpy as np

from tfpeft.automl.trials.candidates import unreachable
from tfpeft.automl.trials.records import SearchTrial
from tfpeft.automl.trials.training_graphs import training_graphs_freed
from tfpeft.channels.plan import Plan
from tfpeft.core.arguments import BudgetError, unexpected
from tfpeft.core.clone import copy_model
from tfpeft.core.files import replacing
from tfpeft.core.json_files import read_json

_ROUNDS = 6  # in which the model comes down to the limit
_LEAST_STEP = 0.02  # of a figure, in a round
_AIM = {"latency_ms": 0.95}  # of a limit: a file is measured again, and never takes the same time
_MEASURED = 3  # times that a cut of a group is measured to find its size
_FEWEST = 2  # channels that a group keeps
_STATE = "netadapt.json"
_ROUND = {"removed": [int], "figure": float}


class NetAdapt:
    """Cuts groups of channels until a model is inside the budget.

    In each round, every group (a layer, or layers whose channels are added to each other) is cut
    alone, by the channels that matter least, until the figure falls by the same step. Each of these
    models is trained shortly, and the one with the best metric is kept.

    Args:
        folder: A `pathlib.Path`: rounds that have ended are kept there.
        subject: The `ModelSubject`.
        costs: The `Costs`.
        settings: {technique: value} of all models.

    Reference: Yang et al., "NetAdapt: Platform-Aware Neural Network Adaptation for Mobile
    Applications", 2018, https://arxiv.org/abs/1804.03230
    """

    is_trained, shrinking = True, {}

    def __init__(self, folder, subject, costs, settings):
        self._folder, self._subject, self._costs = folder / "netadapt", subject, costs
        self._folder.mkdir(exist_ok=True)
        self.settings, self.model = settings, subject.model
        self._path = self._folder / _STATE
        self.rounds = []
        if self._path.is_file():
            self.rounds = read_json(self._path, {"rounds": [_ROUND]})["rounds"]

    def as_dict(self):
        """Returns what identifies it, as plain JSON values."""
        return self._subject.as_dict()

    def build(self, hp, settings):
        """Returns a new model with the weights after the round that `hp` names."""
        return self.after(hp.values.get("round", len(self.rounds)))

    def after(self, number):
        """Returns a new model as it was after so many rounds."""
        model = copy_model(self.model)
        for each in self.rounds[:number]:
            plan = Plan(model)
            model = plan.without(_mask(plan, each["removed"]))
        if number:
            model.load_weights(self._weights(number))
        return model

    def _weights(self, number):
        return str(self._folder / f"round_{number}.weights.h5")

    def figures(self, model):
        """Returns the figures of a model that have a limit."""
        return self._costs.of(model, self.settings, stop=False)[0]

    def check_reachable(self):
        """Raises a BudgetError unless a model with the fewest channels is inside the budget."""
        plan = Plan(copy_model(self.model))
        removed = [root for f in plan.families for root in f.roots[_FEWEST:].tolist()]
        figures, violations = self._costs.of(
            plan.without(_mask(plan, removed)), self.settings, stop=False
        )
        if violations:
            raise unreachable([(figures, violations)])

    def proposals(self, model, name, before, target):
        """Yields (group, channels removed, its tags, the cut model, its figures).

        Args:
            model: The model, compiled for the scores.
            name: The figure that falls.
            before: Its value.
            target: Its value that a cut reaches; groups that cannot reach it are cut as far as
                they can be.
        """
        plan = Plan(model)
        scores = self._subject.scores_of(plan)
        for family, score in zip(plan.families, scores, strict=True):
            most = min(len(family) - _FEWEST, int(np.sum(~np.isnan(score))))
            if most < 1:
                continue
            ranked = family.roots[np.argsort(score, kind="stable")]
            count, new, figures = self._smallest_cut(plan, ranked, most, name, before, target)
            yield family.name, count, ranked[:count].tolist(), new, figures

    def _smallest_cut(self, plan, ranked, most, name, before, target):
        """Returns (channels, model, figures) of about the smallest cut that reaches the target.

        The figure is taken to fall evenly with the channels, and measured where that leads to.
        """
        count, best = most, None
        for _ in range(_MEASURED):
            new = plan.without(_mask(plan, ranked[:count].tolist()))
            figures = self.figures(new)
            fell = before - figures[name]
            reached = figures[name] <= target
            if best is None or (reached and count < best[0]):
                best = count, new, figures
            if fell <= 0 or (count == most and not reached):
                break
            wanted = math.ceil((before - target) / fell * count)
            wanted = min(most, max(wanted, 1 if reached else count + 1))
            if wanted >= best[0] or wanted == count:
                break
            count = wanted
        return best

    def keep(self, removed, figure, model):
        """Writes a round that has ended."""
        model.save_weights(self._weights(len(self.rounds) + 1))
        self.rounds.append({"removed": removed, "figure": float(figure)})
        with replacing(self._path) as partial:
            partial.write_text(json.dumps({"rounds": self.rounds}, indent=2))


def run(adapt, runner, loss, on_trial):
    """Runs the rounds that have not ended, then a whole training of the last model.

    Args:
        adapt: The `NetAdapt`.
        runner: The `Runner`, whose candidates are its models.
        loss: The loss, as `compile` takes it.
        on_trial: A function of each `SearchTrial`.

    Raises:
        BudgetError: if no group of channels can be cut any more.
    """
    budget, clock = runner.objective.budget, runner.clock
    limits = {name: getattr(budget, f"max_{name}") * _AIM.get(name, 1) for name in budget.figures}
    first = adapt.figures(adapt.model)
    steps = {name: max(first[name] - limit, 0.0) / _ROUNDS for name, limit in limits.items()}
    while clock.left_for_trials > 0:
        current = adapt.after(len(adapt.rounds))
        figures = _figures(adapt, runner, current)
        if all(figures[name] <= limit for name, limit in limits.items()):
            break
        name = max(limits, key=lambda each: figures[each] / limits[each])
        step = max(steps[name], _LEAST_STEP * figures[name])
        target = max(limits[name], figures[name] - step)
        current.compile("sgd", loss)
        with training_graphs_freed():
            is_cut = _round(adapt, runner, current, figures, name, target, on_trial)
        if not is_cut and budget.violations(figures):
            expected = f"a model with channels to cut further below {name}={figures[name]:,g}"
            raise unexpected(expected, f"the budget {budget}", error=BudgetError)
        if not is_cut:  # inside, if not by as much as was aimed at
            break
    name = f"whole{len(adapt.rounds)}"
    if runner.records.get(name) is None:
        on_trial(runner.run(name, _values(runner, adapt)))


def _figures(adapt, runner, current):
    """Returns the figures of the model after the last round, and of its trained file the larger."""
    figures = adapt.figures(current)
    trial = runner.records.get(f"round{len(adapt.rounds)}")
    # With the latency of the trained file, one more round could follow for a pause of the machine.
    exact = {} if trial is None else {n: v for n, v in trial.figures.items() if n != "latency_ms"}
    return {name: max(value, exact.get(name, value)) for name, value in figures.items()}


def _round(adapt, runner, current, before, name, target, on_trial):
    """Runs a round: keeps the best of the cuts of all groups; returns whether there was any."""
    number, best = len(adapt.rounds) + 1, None
    proposals = []
    for each in adapt.proposals(current, name, before[name], target):
        if each[-1][name] < before[name]:
            proposals.append(each)
        # Each group is exported up to three times: of many groups that takes long.
        if proposals and runner.clock.left_for_trials < 0:
            break
    if not proposals:
        return False
    steps = max(1, runner.steps // (_ROUNDS * len(proposals)))
    higher, ended = runner.objective.task.higher_is_better, []
    for group, count, removed, model, figures in proposals:
        if runner.clock.left_for_trials < 0 and best is not None:
            break
        began = time.monotonic()
        keras.utils.set_random_seed(runner.objective.seed)
        settings = {**adapt.settings, "quantization": "none"}  # rounding comes in the end
        _, model = runner.training.run(model, settings, steps)
        per_step = (time.monotonic() - began) / steps
        metric = runner.training.evaluate(model, runner.validation)
        trial = SearchTrial(
            id=f"round{number}-{len(ended) + 1:02d}",
            settings={**adapt.settings, "round": number, "group": group, "removed": count},
            status="stopped",
            reason="another cut of this round is better",
            metric=metric,
            figures=figures,
            epochs=round(steps / runner.training.steps_per_epoch, 3),
            seconds=time.monotonic() - began,
            steps=steps,
            seconds_per_step=per_step,
        )
        ended.append(trial)
        loss = -metric if higher else metric
        if best is None or loss < best[0]:
            best = loss, trial, removed, model
    _, kept, removed, model = best
    adapt.keep(removed, kept.figures[name], model)
    for trial in ended:
        if trial is kept:
            hp = _values(runner, adapt)
            on_trial(runner.record_as(f"round{number}", hp, model, trial))
        else:
            runner.records.add(trial)
    return True


def _values(runner, adapt):
    """Returns `HyperParameters` of the model after the last round."""
    hp = runner.candidates.start()
    hp.values["round"] = len(adapt.rounds)
    return hp


def _mask(plan, removed):
    mask = np.zeros(plan.graph.tags.count, bool)
    mask[removed] = True
    return mask
