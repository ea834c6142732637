"""The median rule: a trial stops that is worse than the median of the others at the same part."""

import statistics

_FEWEST = 3  # other trials, below which a median says little


def median_reason(steps, value, others, *, higher_is_better=True):
    """Returns why a trial stops, in words; None if it goes on.

    It stops if its metric is worse than the median of the metrics that other trials had after the
    same part of their trainings, of three others or more.

    Args:
        steps: Updates that are done.
        value: The metric after them.
        others: The same metric of other trials.
        higher_is_better: Whether higher values are better.

    Reference: Golovin et al., "Google Vizier: A Service for Black-Box Optimization", 2017 (the
    median automated stopping rule).
    """
    if len(others) < _FEWEST:
        return None
    median = statistics.median(others)
    is_worse = value < median if higher_is_better else value > median
    if not is_worse:
        return None
    return f"{value:.5g} after {steps} steps, worse than the median {median:.5g} of {len(others)}"
