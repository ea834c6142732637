"""Ranges of activations in int8: from the histogram of a tensor to the least and largest value."""

import numpy as np

RANGES = ("mse", "percentile", "extended")
BINS = 2048
_PERCENT = 99.99
_PARTS = np.linspace(0.2, 1.0, 33)
"""Candidates of `least_error_range`: parts of the observed range, per side of zero."""
_BLOCK = 11
"""Candidates that are computed together; more would need memory, and are not faster."""


def percentile_range(counts, low, high, percent=_PERCENT):
    """Returns the range without the outermost values, half of them per side.

    Args:
        counts: How many values each bin of equal width has, (bins,).
        low: Lower edge of the first bin.
        high: Upper edge of the last bin.
        percent: How many of 100 values are inside, in (0, 100].

    Returns:
        (low, high), edges of bins.
    """
    edges = np.linspace(low, high, len(counts) + 1)
    share = np.cumsum(counts) / np.sum(counts)
    outside = (1 - percent / 100) / 2 + 1e-12  # fractions are rounded
    first = np.searchsorted(share, outside, side="right")
    last = np.searchsorted(share, 1 - outside, side="left")
    return edges[first], edges[last + 1]


def least_error_range(counts, low, high):
    """Returns the range whose 8-bit grid has the least squared error over the values.

        argmin over (a, b) of sum_i counts_i (m_i - grid(m_i))^2

    where m_i is the middle of bin i, and grid(m) the nearest of the 256 values from a to b, one
    of which is 0. Candidates are a = low p and b = high q, for p and q from 0.2 to 1 in steps of
    0.025; of a range that does not have 0 inside, the side beyond 0 is 0.

    Args:
        counts: As of `percentile_range`.
        low: As of `percentile_range`.
        high: As of `percentile_range`.

    Returns:
        (low, high).
    """
    edges = np.linspace(low, high, len(counts) + 1)
    # Values of 0, of which ReLU makes many, have no error, other than the middle of their bin.
    filled = (counts > 0) & ~((edges[:-1] <= 0) & (edges[1:] >= 0))
    middles, counts = ((edges[:-1] + edges[1:]) / 2)[filled], counts[filled]
    least, most = (side.ravel() for side in np.meshgrid(*_candidates(low, high), indexing="ij"))
    errors = np.concatenate(
        [
            (counts * (middles - _grid(middles, *block)) ** 2).sum(axis=1)
            for block in zip(_blocks(least), _blocks(most), strict=True)
        ]
    )
    best = len(errors) - 1 - np.argmin(errors[::-1])  # of equal ones, the widest
    return least[best], most[best]


def _candidates(low, high):
    return (low * _PARTS if low < 0 else np.zeros(1)), (high * _PARTS if high > 0 else np.zeros(1))


def _blocks(bounds):
    return [bounds[start : start + _BLOCK, None] for start in range(0, len(bounds), _BLOCK)]


def _grid(values, low, high):
    """Returns the nearest of the 256 values from `low` to `high`, moved so that 0 is one."""
    step = np.maximum(high - low, 1e-30) / 255
    zero = np.round(-low / step)
    return (np.clip(np.round(values / step) + zero, 0, 255) - zero) * step
