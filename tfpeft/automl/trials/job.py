"""A search from its first trial to its result."""

import contextlib
import dataclasses
import json
import pathlib
import tempfile

import keras
import keras_tuner

from tfpeft.automl.students.inputs import write_teacher
from tfpeft.automl.trials import netadapt, workers
from tfpeft.automl.trials.candidates import Candidates, with_values
from tfpeft.automl.trials.clock import Clock
from tfpeft.automl.trials.costs import Costs, export
from tfpeft.automl.trials.oracles import make_oracle
from tfpeft.automl.trials.records import Records
from tfpeft.automl.trials.results import SearchResult
from tfpeft.automl.trials.training import Training
from tfpeft.automl.trials.tuner import Runner, Tuner
from tfpeft.core.arguments import BudgetError
from tfpeft.core.files import replacing
from tfpeft.core.json_files import read_json
from tfpeft.export.converter import start_converter

_PLAN = "plan.json"
_PLAN_FORM = {
    **{"steps": int, "units": int, "pace": (float, None), "point": (dict, None)},
    **{"ended": (float, None), "final": (float, None)},  # minutes
}
FINAL = "final"
"""The id of the best trial, trained longer."""
_FINAL_LENGTH = 4  # whole trainings that it may take at most
_SAFETY = 0.8  # of the time that is left, which the longer training is planned for
_WHOLE_TRAININGS = {"hyperband": 16 / 3, "bayesian": 8, "random": 8, "netadapt": 2}
"""Whole trainings that trials have the time for: of Hyperband, those of two brackets of 9 units."""
_MOST_EPOCHS, _FEWEST_STEPS = 100, 9
_LONG = 3 * 3600.0  # seconds for trials from which Hyperband has a rung more


class SearchJob:
    """Runs a search in its folder, or what is left of it.

    Args:
        folder: A `pathlib.Path`.
        role: Of `workers.role()`.
        inputs: The `Inputs`.
        objective: The `Objective`.
        subject: What is searched.
        techniques: The `TechniqueSpace`.
        plan: {"minutes", "epochs", "max_trials", "batch_size", "oracle", "seed"} of `search`.
        verbose: Whether a line is printed for each trial.
    """

    def __init__(self, folder, role, inputs, objective, subject, techniques, plan, verbose):
        self._folder, self._role, self._inputs = folder, role, inputs
        self._objective, self._plan, self._verbose = objective, plan, verbose
        self._subject = subject
        self._records = Records(folder / "trials")
        self._clock = Clock(folder, plan["minutes"], is_kept=role != workers.WORKER)
        self._costs = Costs(objective.budget, inputs.train.x)
        self._candidates = Candidates(subject, techniques, self._costs, self._records)
        if plan["oracle"] == "netadapt":
            settings = self._candidates.settings(self._candidates.start())
            self._candidates.subject = netadapt.NetAdapt(folder, subject, self._costs, settings)
        self._space = whole_space(self._candidates)

    def run(self):
        """Runs the trials that have not ended, and trains the best one longer."""
        if self._plan["minutes"] <= self._ended():
            return
        start_converter()
        if self._role == workers.WORKER:
            workers.wait_for(self._folder / _PLAN)
        is_new = not (self._folder / _PLAN).is_file()
        if is_new and self._plan["oracle"] == "netadapt":
            self._candidates.subject.check_reachable()
        elif is_new:
            self._candidates.check_reachable(self._space, self._plan["seed"])
        self._prepare(is_new)
        if self._plan["oracle"] == "netadapt":
            netadapt.run(self._candidates.subject, self._runner, self._inputs.loss, self._on_trial)
        else:
            self._run_trials()
        if self._role != workers.WORKER:
            self._train_longer()
            self._clock.save()

    def _ended(self):
        """Returns the minutes with which the search ended before; 0 if it did not."""
        path = self._folder / _PLAN
        return (read_json(path, _PLAN_FORM)["ended"] or 0.0) if path.is_file() else 0.0

    def _last_training(self):
        """Returns its id, and how many whole trainings it is at most.

        Of a search that goes on with more minutes the id has these, as the plan is of those before.
        """
        plan, minutes = read_json(self._folder / _PLAN, _PLAN_FORM), float(self._plan["minutes"])
        first = plan["final"] or minutes
        self._write_plan({**plan, "final": first})
        name = FINAL if first == minutes else f"{FINAL}_{minutes:g}"
        return name, _FINAL_LENGTH * minutes / first

    def _end(self):
        """Notes with how many minutes the search has ended."""
        plan = read_json(self._folder / _PLAN, _PLAN_FORM)
        minutes = max(self._ended(), float(self._plan["minutes"]))
        self._write_plan({**plan, "ended": minutes})

    def _write_plan(self, plan):
        with replacing(self._folder / _PLAN) as partial:
            partial.write_text(json.dumps(plan))

    def _prepare(self, is_new):
        """Makes what runs trials, with the teacher's outputs and the length of a training."""
        outputs = self._inputs.teacher_outputs(self._folder)
        if self._role != workers.WORKER:
            write_teacher(self._folder, outputs)
        self._training = Training(
            self._inputs.train,
            self._inputs.task,
            self._inputs.outputs,
            self._inputs.loss,
            teacher=outputs,
            teacher_from_logits=self._inputs.teacher_from_logits(outputs),
            batch_size=self._plan["batch_size"],
            seed=self._plan["seed"],
        )
        self._runner = Runner(
            self._folder,
            self._candidates,
            self._training,
            self._inputs.validation,
            self._objective,
            self._records,
            self._clock,
            steps=1,
            units=1,
        )
        if is_new:
            self._check_monitor()
            steps, pace, point = self._whole_training()
            units = _units(steps, self._clock.seconds_for_trials)
            plan = {"steps": steps, "units": units, "pace": pace, "point": point}
            self._write_plan({**plan, "ended": None, "final": None})
        found = read_json(self._folder / _PLAN, _PLAN_FORM)
        self._runner.steps, self._runner.units = found["steps"], found["units"]
        self._runner.pace = found["pace"]
        if self._role == workers.WORKER and found["point"] is not None:  # of this machine
            hp = with_values(self._space, found["point"])
            settings = self._candidates.settings(hp)
            self._runner.pace = self._training.pace(self._candidates.build(hp), settings)
        if is_new:
            epochs = found["steps"] / self._training.steps_per_epoch
            self._print(
                f"A whole training has {found['steps']} steps, {epochs:.3g} epochs, of "
                f"{self._training.samples:,} samples"
            )

    def _check_monitor(self):
        """Raises for a figure that decides and that no file has, by an untrained one."""
        if self._objective.name == self._objective.task.headline:
            return
        hp = self._start()
        settings = {**self._candidates.settings(hp), "quantization": "none"}
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "untrained.tflite"
            model = self._candidates.build(hp)
            export(model, path, settings, self._objective.budget, self._training.calibration)
            # All of the data: an AUC, say, needs a sample of each class.
            self._objective.metric(self._objective.evaluate(path, self._inputs.validation))

    def _start(self):
        """Returns the first point inside the budget; of "netadapt" the model as it is."""
        if self._plan["oracle"] == "netadapt":
            return self._candidates.start()
        return self._first_point()

    def _whole_training(self):
        """Returns the steps of a whole training, and the first point with the seconds of a step.

        They are those of the epochs, which each trial has, without a point; or what there is time
        for, where slower models have fewer steps.
        """
        if self._plan["epochs"] is not None:
            return self._plan["epochs"] * self._training.steps_per_epoch, None, None
        hp = self._start()
        pace = self._training.pace(self._candidates.build(hp), self._candidates.settings(hp))
        whole = self._clock.seconds_for_trials - self._clock.elapsed
        steps = 0.8 * whole / _WHOLE_TRAININGS[self._plan["oracle"]] / pace
        most = _MOST_EPOCHS * self._training.steps_per_epoch
        return int(min(most, max(_FEWEST_STEPS, steps))), pace, hp.values

    def _first_point(self):
        """Returns the first point inside the budget of those where a search begins."""
        for values in self._candidates.starts(self._space):
            found = self._candidates.fitting(values, self._space)
            if found is not None:
                return with_values(self._space, found)
        return with_values(self._space, self._candidates.starts(self._space)[0])

    def _run_trials(self):
        """Lets the oracle propose trials, and runs them here or in workers."""
        plan = self._plan
        oracle = make_oracle(
            plan["oracle"],
            units=self._runner.units,
            seed=plan["seed"],
            candidates=self._candidates,
            clock=self._clock,
            seconds_of=self._runner.seconds_of,
            trial_limit=plan["max_trials"],
        )
        with contextlib.redirect_stdout(None):  # that it reloads, which is no news
            tuner = Tuner(oracle, self._runner, self._folder, self._on_trial)
        if self._role == workers.CHIEF:
            workers.serve(tuner, oracle, self._clock, self._print)
        else:
            tuner.search()
        if oracle.error is not None:
            raise oracle.error

    def _on_trial(self, trial):
        self._clock.save()
        metric = "" if trial.metric is None else f" {self._objective.name} {trial.metric:.4f},"
        size = trial.figures.get("size_bytes")
        bytes_text = "" if size is None else f" {size:,} bytes,"
        reason = f": {trial.reason}" if trial.reason else ""
        self._print(
            f"Trial {trial.id}:{metric}{bytes_text} {trial.epochs:.3g} epochs, "
            f"{trial.seconds:.0f} s, {trial.status.replace('_', ' ')}{reason}"
        )

    def _train_longer(self):
        """Trains the most promising trial further, in the time that is left."""
        name, most = self._last_training()
        if self._records.get(name) is not None:
            return
        parent = self._objective.promising(self._records.trained())
        if parent is None or not parent.seconds_per_step:
            return
        left = self._clock.left - (parent.seconds - parent.steps * parent.seconds_per_step)
        steps = int(_SAFETY * left / parent.seconds_per_step)
        whole = self._runner.own_steps(self._runner.steps, parent.seconds_per_step)
        steps = min(steps, int(most * whole))
        if steps < max(1, self._runner.steps // self._runner.units):
            return
        self._print(f"Trial {parent.id} is trained for {steps} more steps")
        hp = with_values(self._space, parent.settings)
        self._on_trial(self._runner.run(name, hp, steps=steps, parent=parent.id))

    def result(self, test_data, temporary):
        """Returns the `SearchResult`, and writes the report.

        Raises:
            BudgetError: if no trained file keeps the budget.
        """
        trials = self._records.all()
        if not hasattr(self, "_runner"):
            self._prepare(is_new=False)
        best, trials = self._best(trials)
        if best is None:
            self._end()
            raise _none_inside(trials, self._objective)
        path = self._runner.path(best.id)
        data = self._inputs.validation if test_data is None else test_data
        rows = self._objective.rows({"model.tflite": path, **self._reference()}, data)
        rows["model.tflite"] = dataclasses.replace(
            rows["model.tflite"],
            latency_ms=best.figures["latency_ms"],
            latency_p90_ms=best.evaluation["latency_p90_ms"],
        )
        result = SearchResult(
            model=self._runner.model_of(best.id, with_values(self._space, best.settings)),
            path=path,
            evaluation=rows["model.tflite"],
            best=best,
            trials=tuple(trials),
            metric=self._objective.name,
            higher_is_better=self._objective.higher_is_better,
            budget=self._objective.budget,
            rows=rows,
            folder=self._folder,
            _temporary=temporary,
        )
        result.save(self._folder)
        self._end()
        return result

    def _best(self, trials):
        """Returns the best trial, or None, and all trials.

        A latency is measured again here and now, as trials may have run on another machine, or
        beside others: a trial that is over the limit now counts as over the budget.
        """
        while True:
            best = self._objective.best(trials)
            if best is None or "latency_ms" not in self._objective.budget.figures:
                return best, trials
            measured = self._runner.measured_again(best)
            trials = [measured if trial is best else trial for trial in trials]
            if measured.status == "completed":
                return measured, trials

    def _reference(self):
        """Returns {name: model} of what the search began with, where it is a Keras model."""
        given = getattr(self._subject, "model", None)
        if given is not None:
            return {"model": given}
        teacher = self._inputs.teacher
        return {"teacher": teacher} if isinstance(teacher, keras.Model) else {}

    def _print(self, line):
        if self._verbose:
            print(line, flush=True)


def whole_space(candidates):
    """Returns `HyperParameters` with the choices of every kind of space."""
    hp = keras_tuner.HyperParameters()
    candidates.declare(hp)
    for kind in next((each.values for each in hp.space if each.name == "space"), []):
        hp.values["space"] = kind
        candidates.declare(hp)
    hp.values = {}
    return hp


def _units(steps, seconds):
    """Returns how many units of Hyperband a whole training has: a power of its factor."""
    if seconds >= _LONG and steps >= 270:
        return 27
    return 9 if steps >= 36 else 3 if steps >= 9 else 1


def _none_inside(trials, objective):
    """Returns the error of a search in which no trained file keeps the budget."""
    trained = [trial for trial in trials if trial.metric is not None and trial.evaluation]
    if not trained:
        reasons = [trial.reason for trial in trials if trial.status == "failed"]
        what = f"of which the first failed: {reasons[0]}" if reasons else "none of them trained"
        return BudgetError(
            f"Expected a trial inside the budget {objective.budget}; allow more `minutes`, with "
            f"the same `folder`. Received: {len(trials)} trials, {what}"
        )
    closest = max(trained, key=objective.score)
    return BudgetError(
        f"Expected a trained file inside the budget {objective.budget}; allow more `minutes`, with "
        "the same `folder`, or other limits. Received: as the closest one trial "
        f"{closest.id}, {closest.reason}"
    )
