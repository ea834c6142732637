"""Budgets and Pareto fronts, against what was worked out by hand."""

import pytest

import tfpeft
from tfpeft.automl.trials.median import median_reason
from tfpeft.automl.trials.pareto import pareto_front


def test_a_budget_names_what_is_over_it_with_the_numbers():
    budget = tfpeft.Budget(max_size_bytes=30_000, max_latency_ms=0.5, min_metric=0.9)
    assert budget.figures == ("size_bytes", "latency_ms")
    figures = {"size_bytes": 31_204, "latency_ms": 0.5, "macs": 10**9}
    assert budget.violations(figures) == ["size_bytes is 31,204, above max_size_bytes=30,000"]
    assert budget.violations(figures, metric=0.9)[1:] == []
    assert budget.violations(figures, metric=0.89)[1:] == [
        "the metric is 0.89, below min_metric=0.9"
    ]
    assert str(budget) == "max_size_bytes=30,000, max_latency_ms=0.5, min_metric=0.9"


def test_a_figure_that_is_not_known_is_not_inside():
    budget = tfpeft.Budget(max_macs=100)
    assert budget.violations({"macs": None}) == ["macs is not known, with max_macs=100"]
    assert budget.violations({"macs": float("nan")})
    assert budget.violations({}) == []


def test_a_lower_metric_is_better_of_errors():
    budget = tfpeft.Budget(min_metric=2.5)
    assert budget.violations({}, metric=2.0, higher_is_better=False) == []
    assert budget.violations({}, metric=3.0, higher_is_better=False) == [
        "the metric is 3, above min_metric=2.5"
    ]


@pytest.mark.parametrize(
    "limits",
    [
        {},
        {"max_size_bytes": 0},
        {"max_macs": 1.5},
        {"max_latency_ms": -1.0},
        {"min_metric": float("nan")},
    ],
)
def test_limits_are_of_their_kind(limits):
    with pytest.raises(tfpeft.InputError, match=next(iter(limits), "limit")):
        tfpeft.Budget(**limits)


def test_the_front_has_what_no_point_beats():
    # c costs more than b and is worse; d is as good as b and costs more; e is unknown.
    points = {"a": (10, 0.5), "b": (20, 0.8), "c": (30, 0.7), "d": (40, 0.8), "f": (50, 0.9)}
    assert pareto_front({**points, "e": (None, 1.0)}) == ["a", "b", "f"]
    assert pareto_front(points, higher_is_better=False) == ["a"]
    assert pareto_front({"a": (10, 0.5), "b": (10, 0.6), "c": (10, 0.6)}) == ["b"]


def test_the_median_rule_stops_what_is_worse_than_half():
    others = [0.5, 0.625, 0.875, 1.0]  # the median is 0.75
    assert median_reason(100, 0.74, others) == (
        "0.74 after 100 steps, worse than the median 0.75 of 4"
    )
    assert median_reason(100, 0.75, others) is None
    assert median_reason(100, 0.75, others, higher_is_better=False) is None
    assert median_reason(100, 0.76, others, higher_is_better=False) is not None
    assert median_reason(100, 0.0, others[:2]) is None  # of two, a median says little
