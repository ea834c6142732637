"""Mutants of the search: budgets, Pareto fronts, the median rule, which trial is the best."""

from mutant_lists.mutant import Mutant

_BUDGET = "automl/test_budget.py::"
_POINTS = "automl/test_search_points.py::"
_STATISTICS = "core/test_moving_statistics.py::"
_TRAINING = "automl/test_training.py::"

MUTANTS = (
    Mutant(
        "budget: a limit that is reached is not kept",
        "automl/trials/budget.py",
        "elif not value <= limit:",
        "elif not value < limit:",
        (f"{_BUDGET}test_a_budget_names_what_is_over_it_with_the_numbers",),
    ),
    Mutant(
        "budget: NaN is inside",
        "automl/trials/budget.py",
        "elif not value <= limit:",
        "elif value > limit:",
        (f"{_BUDGET}test_a_figure_that_is_not_known_is_not_inside",),
    ),
    Mutant(
        "front: points as good as cheaper ones",
        "automl/trials/pareto.py",
        "if loss < best:",
        "if loss <= best:",
        (f"{_BUDGET}test_the_front_has_what_no_point_beats",),
    ),
    Mutant(
        "median rule: the median stops, too",
        "automl/trials/median.py",
        "value < median if higher_is_better",
        "value <= median if higher_is_better",
        (f"{_BUDGET}test_the_median_rule_stops_what_is_worse_than_half",),
    ),
    Mutant(
        "search: what trains fast has fewer steps",
        "automl/trials/tuner.py",
        "self.pace / pace",
        "pace / self.pace",
        (f"{_TRAINING}test_models_have_as_many_steps_as_take_them_equal_times",),
    ),
    Mutant(
        "moving statistics: no shortest average",
        "core/moving_statistics.py",
        "_FASTEST = 0.8",
        "_FASTEST = 0.0",
        (f"{_STATISTICS}test_the_average_is_as_long_as_the_training_has_time_for",),
    ),
    Mutant(
        "moving statistics: a slower average than the layer's",
        "core/moving_statistics.py",
        "min(layer.momentum, max(",
        "max(layer.momentum, max(",
        (f"{_STATISTICS}test_the_average_is_as_long_as_the_training_has_time_for",),
    ),
    Mutant(
        "search: moving statistics follow trainings that go on, too",
        "automl/trials/training.py",
        "is_first = not (number or is_continued)",
        "is_first = True",
        (f"{_TRAINING}test_moving_statistics_follow_the_first_training_of_a_model",),
    ),
    Mutant(
        "search: points near the best trial differ in one choice",
        "automl/trials/oracles.py",
        "_KNOWN, _CHANGED = 8, 2",
        "_KNOWN, _CHANGED = 8, 1",
        (f"{_POINTS}test_points_near_the_best_trial_differ_from_it_in_two_choices",),
    ),
    Mutant(
        "best trial: the metric alone",
        "automl/trials/objective.py",
        "return self._first([t for t in done if not self.violations(t.figures, t.metric)])",
        "return self._first(done)",
        (f"{_POINTS}test_the_best_trial_is_the_best_of_those_inside_any_budget",),
    ),
    Mutant(
        "a metric alone: the largest file",
        "automl/trials/objective.py",
        "* _BYTES / (_BYTES + size)",
        "* size / (_BYTES + size)",
        (f"{_POINTS}test_with_a_metric_alone_the_smallest_file_is_the_best",),
    ),
    Mutant(
        "search: rungs of few points are as wide as those below",
        "automl/trials/oracles.py",
        "self._points[bracket_num] / FACTOR**round_num",
        "self._points[bracket_num]",
        ("automl/test_search.py::test_the_best_of_few_points_go_on",),
    ),
    Mutant(
        "median rule: trainings are compared after equal steps",
        "automl/trials/tuner.py",
        "part = str(part)",
        "part = str(steps)",
        (f"{_TRAINING}test_trainings_of_other_lengths_are_compared_after_equal_parts",),
    ),
    Mutant(
        "search: a latency that is over the limit in the end is returned",
        "automl/trials/job.py",
        'if measured.status == "completed":',
        "if measured.status:",
        ("automl/test_search.py::test_a_latency_is_measured_again_in_the_end",),
    ),
    Mutant(
        "NetAdapt: the step of a limit is that of another",
        "automl/trials/netadapt.py",
        "step = max(steps[name], ",
        "step = max(*steps.values(), ",
        ("automl/test_netadapt.py::test_each_limit_has_its_own_steps",),
    ),
)
