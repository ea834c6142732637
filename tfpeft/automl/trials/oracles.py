"""KerasTuner's oracles, which propose points inside the budget and stop in time."""

import json
import math

import keras_tuner
import numpy as np

from tfpeft.automl.trials.candidates import own_values, with_values
from tfpeft.core.files import replacing

FACTOR = 3
"""Of Hyperband: a rung has a third of the trials of the one below, trained three times as long."""
_DRAWS = 100  # random points, none of them inside the budget, after which the search ends
_PROPOSALS = 3  # of the Gaussian process, before a random point is taken
_NEVER, _MOST_TRIALS = 10**9, 9999
_KNOWN, _CHANGED = 8, 2  # trials from which on points are near the best one; choices they change
WORST = -1e9
"""The score of a trial that cannot be taken, where an oracle needs a number."""


class WithinBudget:
    """Makes an oracle propose points inside the budget, as long as there is time for a trial.

    The points where a search begins come first; then half of the points are random, and half as
    large as the budget allows, near the best trial once there are some. An oracle's file is written
    whole or not at all, so that a kill leaves one that can be read.

    Attributes:
        candidates: The `Candidates`.
        clock: The `Clock`.
        seconds_of: A function of a trial's values that returns how long it takes.
        trial_limit: How many trials there are at most; None for any number.
        is_over: Whether the oracle has ended the search.
        error: What was raised in the search for a point; None if nothing was.
    """

    candidates = clock = seconds_of = trial_limit = error = None
    is_over = False

    def populate_space(self, trial_id):
        limit = self.trial_limit
        if self.is_over or (limit is not None and len(self.start_order) >= limit):
            return self._stop()
        try:
            response = self._proposed(trial_id)
        except Exception as error:  # KerasTuner would keep its lock, and workers would wait for it
            self.error = error
            return self._stop()
        if response["status"] != "RUNNING":
            self.is_over = response["status"] == "STOPPED"
            return response
        if self.seconds_of(response["values"]) > max(0.0, self.clock.left_for_trials):
            self._forget(trial_id)
            return self._stop()
        return response

    def _forget(self, trial_id):
        """Takes back that a trial was proposed, for which there is no time."""

    def _proposed(self, trial_id):
        """Returns what KerasTuner's oracle proposes, inside the budget."""
        return super().populate_space(trial_id)

    def _stop(self):
        self.is_over = True
        return {"status": "STOPPED", "values": None}

    def _random_values(self):
        """Returns values inside the budget; None if many points in a row are not."""
        starts = self.candidates.starts(self.hyperparameters)
        begun = len(self.start_order)
        for start in starts[begun:]:
            values = self._fitting(start)
            if values is not None:
                return values
        for _ in range(_DRAWS):
            if self.clock.left_for_trials < 0:
                return None
            values = super()._random_values()
            if values is None:
                return None
            # A point over the budget, and the one that is taken for it, are not drawn again.
            self._tried_so_far.add(self._compute_values_hash(values))
            drawn, found = values, None
            if begun % 2:
                near = self._near_the_best() or drawn
                grown = self.candidates.grown(near, self.hyperparameters)
                found = self._fitting(grown, drawn)
            if found is None:  # the grown one may be known, in a small space
                found = self._fitting(drawn, drawn)
            if found is not None:
                return found
        return None

    def _near_the_best(self):
        """Returns the values of the best trial with two of them drawn anew; None of few trials."""
        done = [t for t in self.trials.values() if t.status == "COMPLETED" and t.score > WORST]
        if len(done) < _KNOWN:
            return None
        best = max(done, key=lambda trial: trial.score)
        values = own_values(best.hyperparameters.values)
        free = [
            (each.name, [v for v in each.values if v != values[each.name]])
            for each in self.hyperparameters.space
            if each.name in values and each.name != "space" and hasattr(each, "values")
        ]
        free = [(name, others) for name, others in free if others]
        rng = np.random.default_rng(self._seed_state)
        self._seed_state += 1
        for number in rng.permutation(len(free))[:_CHANGED]:
            name, others = free[number]
            values[name] = others[rng.integers(len(others))]
        return values

    def _fitting(self, values, drawn=None):
        """Returns values near these that are inside the budget and new, or None.

        Those that have just been drawn are new, although they count as tried.
        """
        found = self.candidates.fitting(values, self.hyperparameters)
        if found is None or (found != drawn and self._duplicate(found)):
            return None
        hp = with_values(self.hyperparameters, found)
        return {name: value for name, value in found.items() if name in hp}

    def save(self):
        with replacing(self._get_oracle_fname()) as partial:
            partial.write_text(json.dumps(self.get_state(), indent=2))

    def _save_trial(self, trial):
        path = f"{self._get_trial_dir(trial.trial_id)}/trial.json"
        with replacing(path) as partial:
            partial.write_text(json.dumps(trial.get_state(), indent=2))


class Hyperband(WithinBudget, keras_tuner.oracles.HyperbandOracle):
    """Hyperband, whose first rungs have points inside the budget.

    Where a space has no more of them, the rungs are as wide as the points that there are, and
    their best ones go on.
    """

    _points = None  # {number of a bracket: points of its first rung}, once there are no more

    def _proposed(self, trial_id):
        response = super()._proposed(trial_id)
        if response["status"] != "STOPPED" or self._points is not None:
            return response
        points = {}
        for bracket in self._brackets:
            number, count = bracket["bracket_num"], len(bracket["rounds"][0])
            points[number] = max(count, points.get(number, 0))
        # Of two with one number, which workers can have begun, the fuller one goes on.
        self._brackets = [
            each
            for each in self._brackets
            if len(each["rounds"][0]) == points[each["bracket_num"]] > 0
        ]
        self._points = points
        return super()._proposed(trial_id)

    def _get_size(self, bracket_num, round_num):
        size = super()._get_size(bracket_num, round_num)
        if self._points is None or not self._points.get(bracket_num):
            return size
        return min(size, math.ceil(self._points[bracket_num] / FACTOR**round_num))

    def _forget(self, trial_id):
        for bracket in self._brackets:
            for rung in bracket["rounds"]:
                rung[:] = [each for each in rung if each["id"] != trial_id]


class RandomSearch(WithinBudget, keras_tuner.oracles.RandomSearchOracle):
    """Random points inside the budget."""


class Bayesian(WithinBudget, keras_tuner.oracles.BayesianOptimizationOracle):
    """Points where a Gaussian process expects most, inside the budget."""

    _drawn = None

    def _proposed(self, trial_id):
        for _ in range(_PROPOSALS):
            response = super()._proposed(trial_id)
            values = response.get("values")
            if response["status"] != "RUNNING" or values is self._drawn:
                return response
            found = self._fitting(values)
            if found is not None:
                return {"status": "RUNNING", "values": found}
        return self._random_populate_space()

    def _random_values(self):
        self._drawn = super()._random_values()
        return self._drawn


def make_oracle(name, *, units, seed, candidates, clock, seconds_of, trial_limit):
    """Returns the oracle of a name.

    Args:
        name: "hyperband", "bayesian" or "random".
        units: Of Hyperband, the units of training that its longest trials have.
        seed: An integer.
        candidates, clock, seconds_of, trial_limit: See `WithinBudget`.
    """
    options = {
        "objective": keras_tuner.Objective("score", "max"),
        "seed": seed + 1,  # KerasTuner takes 0 for none
        "max_consecutive_failed_trials": _NEVER,
    }
    if name == "hyperband":
        oracle = Hyperband(max_epochs=units, factor=FACTOR, hyperband_iterations=_NEVER, **options)
    elif name == "bayesian":
        oracle = Bayesian(max_trials=_MOST_TRIALS, num_initial_points=6, **options)
    else:
        oracle = RandomSearch(max_trials=_MOST_TRIALS, **options)
    oracle.candidates, oracle.clock, oracle.trial_limit = candidates, clock, trial_limit
    oracle.seconds_of, oracle.verbose = seconds_of, 0
    return oracle
