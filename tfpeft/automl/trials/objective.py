"""The objective: which metric decides, how a trial is scored, and what the budget says of it."""

import numpy as np

from tfpeft.core.arguments import invalid
from tfpeft.core.data import Batch
from tfpeft.core.monitor import metric_mode
from tfpeft.evaluation.compare import compare, evaluate
from tfpeft.reports.figures import is_fraction

_SMALL_PART = 0.1  # of `min_metric`, what the smallest file can add to a score
_BYTES = 2**16  # a file of which adds half of it


class Objective:
    """The metric of a search on validation data, under a budget.

    Args:
        task: The `Task`.
        outputs: The `Outputs` of the models.
        budget: The `Budget`.
        metrics: Metrics beside those of the task, as `evaluate` takes them.
        monitor: The figure that decides; None for the task's.
        mode: "min" or "max", what is better of it; None to find it by its name.
        seed: An integer.
    """

    def __init__(self, task, outputs, budget, *, metrics=None, monitor=None, mode=None, seed=0):
        self.task, self.outputs, self.budget, self.seed = task, outputs, budget, seed
        self.name = (monitor or task.headline).removeprefix("val_")
        self._metrics = metrics
        if self.name == task.headline and mode is None:
            self.higher_is_better = task.higher_is_better
        else:
            self.higher_is_better = metric_mode(self.name, mode=mode) == "max"
        least = budget.min_metric
        if least is not None and is_fraction(self.name) and not 0 <= least <= 1:
            raise invalid("min_metric", f"a fraction in [0, 1] of {self.name}", least)

    def evaluate(self, path, data):
        """Returns the `Evaluation` of a file on a `Batch`."""
        from_logits = True if self.outputs.from_logits else None
        return evaluate(
            path,
            data.element(),
            metrics=self._metrics,
            task=self.task.name,
            from_logits=from_logits,
        )

    def rows(self, models, data):
        """Returns {name: `Evaluation`} of models and files on the same data."""
        element = data.element() if isinstance(data, Batch) else data
        options = {"metrics": self._metrics, "task": self.task.name}
        if self.outputs.from_logits and self.outputs.units == 1:
            options["from_logits"] = True
        return dict(compare(models, element, **options).rows)

    def metric(self, evaluation):
        """Returns the figure that decides."""
        if self.name not in evaluation.metrics:
            known = ", ".join(evaluation.metrics)
            raise invalid("monitor", f"one of {known}", self.name)
        return float(np.asarray(evaluation.metrics[self.name]).reshape(-1)[0])

    def violations(self, figures, metric):
        """Returns the texts of what is over the budget."""
        return self.budget.violations(
            figures, metric=metric, higher_is_better=self.higher_is_better
        )

    def score(self, trial):
        """Returns a number of which more is better, for an oracle.

        It is the metric, or of a budget of `min_metric` alone, above which a smaller file is
        better, the metric up to there, and then more for fewer bytes.
        """
        metric = trial.metric if self.higher_is_better else -trial.metric
        if self.budget.figures:
            return metric
        least = self.budget.min_metric if self.higher_is_better else -self.budget.min_metric
        size = trial.figures.get("size_bytes")
        if metric < least or size is None:
            return min(metric, least)
        return least + _SMALL_PART * (abs(least) or 1.0) * _BYTES / (_BYTES + size)

    def best(self, trials):
        """Returns the best of completed trials, all of them inside the budget; None without any."""
        done = [trial for trial in trials if trial.status == "completed"]
        return self._first([t for t in done if not self.violations(t.figures, t.metric)])

    def promising(self, trials):
        """Returns the best trial whose figures keep the budget, whether its metric does or not."""
        known = [trial for trial in trials if trial.evaluation is not None]
        return self._first([t for t in known if not self.budget.violations(t.figures)])

    def _first(self, trials):
        def by_score(trial):
            metric = trial.metric if self.higher_is_better else -trial.metric
            return self.score(trial), -trial.figures["size_bytes"], metric

        return max(trials, key=by_score, default=None)
