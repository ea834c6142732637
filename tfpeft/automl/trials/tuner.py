"""The tuner: runs the trials that an oracle proposes, and records what came of each."""

import dataclasses
import os
import statistics
import time

import keras
import keras_tuner
from keras_tuner.engine import base_tuner

from tfpeft.automl.trials.candidates import own_values
from tfpeft.automl.trials.clock import StopAtDeadline
from tfpeft.automl.trials.costs import export, figures_of, latency_of
from tfpeft.automl.trials.median import median_reason
from tfpeft.automl.trials.oracles import WORST
from tfpeft.automl.trials.records import SearchTrial
from tfpeft.automl.trials.techniques import TRAINED_BITS, file_quantization
from tfpeft.automl.trials.training import Stopped, Watch
from tfpeft.automl.trials.training_graphs import training_graphs_freed
from tfpeft.core.arguments import InputError, last_cause, unexpected
from tfpeft.export.layer_errors import recording_layer_errors
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.quantization.quantize_aware import quantize_aware

_TIMED_FROM = 10.0  # seconds of a training, from which the time of a step is taken before it
_MOST_TIMES = 8.0  # as many, or as few, updates as the plan has for a model of another speed
_FAILURES = 6  # trials in a row that fail, none before them completed: a mistake, and no bad luck


class Runner:
    """Runs a trial: builds, trains, exports, measures and records it.

    Args:
        folder: A `pathlib.Path` for weights and files.
        candidates: The `Candidates`.
        training: The `Training`.
        validation: A `Batch` of validation data.
        objective: The `Objective`.
        records: The `Records`.
        clock: The `Clock`.
        steps: Updates of a whole training.
        units: How many units that is.

    Attributes:
        pace: Seconds of an update of the model for which the steps are planned. Others have as many
            as take them as long, so that what trains fast is trained for longer. None: all have
            the same steps.
    """

    pace = None

    def __init__(
        self, folder, candidates, training, validation, objective, records, clock, *, steps, units
    ):
        self.folder, self.candidates, self.training = folder, candidates, training
        self.validation, self.objective, self.records = validation, objective, records
        self.clock, self.steps, self.units = clock, steps, units
        self._first = keras.tree.map_structure(lambda a: a[:1], validation.x)
        for name in ("weights", "files"):
            (folder / name).mkdir(exist_ok=True)

    def run(self, name, hp, *, steps=None, is_paced=False, parent=None, watches=False):
        """Returns the `SearchTrial` of a trial, which is trained unless it has a record.

        Args:
            name: Its id.
            hp: KerasTuner's `HyperParameters` with its values.
            steps: Updates; None for a whole training.
            is_paced: Whether it has as many as take it as long as the plan's model takes for these.
            parent: The id of a trial whose training goes on; None to begin anew.
            watches: Whether it stops if it is worse than the median of the others.
        """
        done = self.records.get(name)
        if done is not None:  # a kill came after its record
            return done
        with training_graphs_freed():
            steps = self.steps if steps is None else steps
            return self._run(name, hp, steps, is_paced, parent, watches)

    def _run(self, name, hp, steps, is_paced, parent, watches):
        settings = self.candidates.settings(hp)
        shown = {**own_values(hp.values), **settings}
        began, trained = time.monotonic(), StopAtDeadline(self.clock)
        reports = {}
        before = None if parent is None else self.records.get(parent)
        epochs = 0.0 if before is None else before.epochs
        found = {"id": name, "settings": shown, "parent": parent}
        try:
            keras.utils.set_random_seed(self.objective.seed)
            model = self.candidates.build(hp)
            if is_paced and self._is_timed(steps):
                known = before and before.seconds_per_step
                pace = known or self.training.pace(self.candidates.build(hp), settings)
                steps = self.own_steps(steps, pace)
            if parent is not None:
                model.load_weights(self._weights(parent))
            # A model in training has the task's metric, and no other that decides.
            watches = watches and self.objective.name == self.objective.task.headline
            watch = self._watch(name, reports) if watches else None
            training_began = time.monotonic()
            model, inner = self.training.run(
                *(model, settings, steps),
                is_continued=parent is not None,
                seed=0 if before is None else round(100 * epochs) + 1,
                callbacks=[trained],
                watch=watch,
            )
            spent = time.monotonic() - training_began
            inner.save_weights(self._weights(name))
            if settings["quantization"] in TRAINED_BITS:
                model.save_weights(self._weights(name, ".aware"))
            found |= self._measured(model, name, settings)
        except Stopped as stopped:
            spent = time.monotonic() - training_began
            found |= {"status": "stopped", "reason": str(stopped), "metric": stopped.metric}
        except Exception as error:  # of a trial, which may be any: the search goes on
            kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
            found |= {"status": "failed", "reason": f"{kind}{last_cause(error)}"}
        per_step = None
        if found["status"] != "failed" and trained.steps:
            per_step = trained.seconds_per_step or spent / trained.steps
        trial = SearchTrial(
            **found,
            epochs=round(epochs + trained.steps / self.training.steps_per_epoch, 3),
            seconds=time.monotonic() - began,
            steps=trained.steps,
            seconds_per_step=per_step,
            reports=reports,
        )
        self.records.add(trial)
        return trial

    def record_as(self, name, hp, model, trial):
        """Exports and records a model that was trained already, as the trial `name`.

        Args:
            name: The id.
            hp: `HyperParameters` with its values.
            model: The model.
            trial: The `SearchTrial` of its training.
        """
        settings = {**self.candidates.settings(hp)}
        settings["quantization"] = file_quantization(settings)
        model.save_weights(self._weights(name))
        found = self._measured(model, name, settings)
        ended = dataclasses.replace(
            trial, id=name, settings={**trial.settings, **settings}, **found
        )
        self.records.add(ended)
        return ended

    def _measured(self, model, name, settings):
        """Exports a model and returns the fields of its record."""
        path, budget = self.path(name), self.objective.budget
        with recording_layer_errors() as errors:
            export(model, path, settings, budget, self.training.calibration, trained=True)
        evaluation = self.objective.evaluate(path, self.validation)
        if "latency_ms" in budget.figures and evaluation.latency_ms > budget.max_latency_ms:
            evaluation = dataclasses.replace(evaluation, **self._latency(path))
        figures = {
            each: getattr(evaluation, each)
            for each in ("size_bytes", "gzip_bytes", "macs", "latency_ms")
        }
        if "arena_bytes" in budget.figures:
            figures |= figures_of(path, self._first, ("arena_bytes",))
        metric = self.objective.metric(evaluation)
        violations = self.objective.violations(figures, metric)
        interval = evaluation.intervals.get(self.objective.name)
        return {
            "status": "over_budget" if violations else "completed",
            "reason": "; ".join(violations),
            "metric": metric,
            "interval": interval and tuple(map(float, interval)),
            "figures": figures,
            "evaluation": evaluation.as_dict(),
            "layer_snr_db": errors,
        }

    def measured_again(self, trial):
        """Returns a trial with the latency that its file has now; one over the budget says so."""
        latency = self._latency(self.path(trial.id))
        figures = {**trial.figures, "latency_ms": latency["latency_ms"]}
        violations = self.objective.violations(figures, trial.metric)
        return dataclasses.replace(
            trial,
            figures=figures,
            evaluation={**trial.evaluation, **latency},
            status="over_budget" if violations else "completed",
            reason="; ".join(violations),
        )

    def _latency(self, path):
        """Returns {figure: milliseconds} of a file, which has a limit of its latency."""
        limit = self.objective.budget.max_latency_ms
        found = latency_of(TFLiteFile(path), self._first, limit)
        return dict(zip(("latency_ms", "latency_p90_ms"), found, strict=True))

    def _is_timed(self, steps):
        """Whether a training of so many steps is long enough for its pace to count."""
        return self.pace is not None and steps * self.pace >= _TIMED_FROM

    def own_steps(self, steps, pace):
        """Returns the updates that take a model as long as these take the model of the plan.

        Args:
            steps: Updates of the plan.
            pace: Seconds of an update of the model.
        """
        if not self._is_timed(steps):
            return steps
        times = min(_MOST_TIMES, max(1 / _MOST_TIMES, self.pace / pace))
        return max(1, round(steps * times))

    def _watch(self, name, reports):
        """Returns the `Watch` of the median rule."""
        higher = self.objective.task.higher_is_better

        # A training has a part with the rounding of the file behind those that are watched, of
        # another length for each kind of file: the parts are compared, and not the steps.
        def is_worse(part, steps, metric):
            part = str(part)
            reports[part] = metric
            others = [
                trial.reports[part]
                for trial in self.records.trained()
                if trial.id != name and part in trial.reports
            ]
            return median_reason(steps, metric, others, higher_is_better=higher)

        return Watch(self.validation, is_worse)

    def _weights(self, name, kind=""):
        return str(self.folder / "weights" / f"{name}{kind}.weights.h5")

    def path(self, name):
        """Returns the .tflite file of a trial."""
        return self.folder / "files" / f"{name}.tflite"

    def model_of(self, name, hp):
        """Returns the model of a trial as it was exported."""
        model = self.candidates.build(hp)
        model.load_weights(self._weights(name))
        bits = TRAINED_BITS.get(self.candidates.settings(hp)["quantization"])
        if not bits or not os.path.exists(self._weights(name, ".aware")):
            return model
        data = self.training.calibration
        quantized = quantize_aware(model, weight_bits=bits, representative_data=data)
        quantized.load_weights(self._weights(name, ".aware"))
        return quantized

    def seconds_of(self, values):
        """Returns about how long a trial takes, by those before it; 0.0 before the first one."""
        known = [each for each in self.records.trained() if each.seconds_per_step]
        if not known:
            return 0.0
        steps = self.steps_of(values)
        same = [each for each in known if each.id == values.get("tuner/trial_id")]
        speed = statistics.median_high(each.seconds_per_step for each in same or known)
        if self._is_timed(steps) and not same:
            speed = self.pace
        others = [each.seconds - each.steps * each.seconds_per_step for each in known]
        return self.own_steps(steps, speed) * speed + statistics.median_high(others)

    def steps_of(self, values):
        """Returns the updates of a trial: of Hyperband those of its rung."""
        if "tuner/epochs" not in values:
            return self.steps
        units = values["tuner/epochs"] - values.get("tuner/initial_epoch", 0)
        return max(1, round(self.steps * units / self.units))


class Tuner(base_tuner.BaseTuner):
    """KerasTuner's loop over trials, which a `Runner` runs.

    Args:
        oracle: The oracle.
        runner: The `Runner`.
        folder: Where KerasTuner keeps its state.
        on_trial: A function of the `SearchTrial` that has ended.
    """

    def __init__(self, oracle, runner, folder, on_trial):
        self._runner, self._on_trial, self._failures = runner, on_trial, []
        self._has_rungs = isinstance(oracle, keras_tuner.oracles.HyperbandOracle)
        space = runner.candidates

        class Declared(keras_tuner.HyperModel):
            def build(self, hp):
                space.declare(hp)

        super().__init__(oracle, Declared(), directory=str(folder), project_name="oracle")
        if not self._is_worker():
            self.save()  # so that a kill within the first trial leaves what is resumed

    def _get_tuner_fname(self):
        """Returns the file by which KerasTuner knows of a search that goes on.

        It is the same for a chief and for a process alone, of which one may follow the other.
        """
        if self._is_worker():
            return super()._get_tuner_fname()
        return os.path.join(str(self.project_dir), "tuner0.json")

    def _try_run_and_update_trial(self, trial):
        """Runs a trial and reports its score; KerasTuner's own takes mistakes for failures."""
        score = self.run_trial(trial)
        if score is None:
            trial.status = "FAILED"
            return
        self.oracle.update_trial(trial.trial_id, {"score": score})
        trial.status = "COMPLETED"

    def run_trial(self, trial):
        """Returns the score of a trial; None of one that cannot be taken.

        Raises:
            InputError: if the first trials all fail.
        """
        values = trial.hyperparameters.values
        ended = self._runner.run(
            trial.trial_id,
            trial.hyperparameters,
            steps=self._runner.steps_of(values),
            is_paced=True,
            parent=values.get("tuner/trial_id"),
            watches=not self._has_rungs,
        )
        self._on_trial(ended)
        self._check_failures(ended)
        objective = self._runner.objective
        # A metric that is not reached yet may be, with more training; bytes do not change.
        if ended.metric is not None and not objective.budget.violations(ended.figures):
            return objective.score(ended)
        return WORST if self._has_rungs else None  # rungs wait for a score of each trial

    def _check_failures(self, ended):
        if ended.status != "failed":
            self._failures = None
        elif self._failures is not None:
            self._failures.append(ended.reason)
            if len(self._failures) >= _FAILURES:
                expected = "a space and data that trials can use"
                raise unexpected(expected, f"{_FAILURES} that failed: {self._failures[0]}")
