"""The bootstrap: sums of statistics over groups of samples, and figures of resampled groups."""

import functools

import numpy as np

GROUPS, RESAMPLES = 2000, 1000
_SEED = 0


class Groups:
    """The group of each sample of a stream.

    The first 2,000 samples are groups of one, so that these are resampled, as the bootstrap does
    it. Further ones join a group at random: then groups are resampled, and the memory no longer
    depends on how many samples there are. A group is random, and not every 2,000th sample, as data
    may be in the order of its classes.
    """

    def __init__(self):
        self._rng, self.samples = np.random.default_rng(_SEED), 0

    def take(self, count):
        """Returns the groups of the next samples, (count,)."""
        numbers = np.arange(self.samples, self.samples + count)
        drawn = self._rng.integers(0, GROUPS, count)
        self.samples += count
        return np.where(numbers < GROUPS, numbers, drawn)


class Sums:
    """Sums of statistics, a column for each, in every group.

    Attributes:
        rows: (groups, columns).
    """

    def __init__(self, columns):
        self.rows = np.zeros((GROUPS, columns))

    def add_rows(self, first, groups, values):
        """Adds values of several columns, (samples, columns), from the column `first` on."""
        order = np.argsort(groups.astype("uint16"), kind="stable")  # a radix sort
        found, starts = np.unique(groups[order], return_index=True)
        last = first + values.shape[1]
        self.rows[found, first:last] += np.add.reduceat(values[order], starts, axis=0)

    def total(self):
        """Returns the sums over all samples, (columns,)."""
        return self.rows.sum(axis=0)

    def resampled(self, samples):
        """Returns the sums of resampled groups, (resamples, columns), of so many samples."""
        groups = min(samples, GROUPS)
        return resample_counts(groups) @ self.rows[:groups]


@functools.lru_cache(maxsize=1)
def resample_counts(groups):
    """Returns how often each group is drawn, (resamples, groups); the same at every call.

    Each resample draws as many groups as there are, with replacement.
    """
    drawn = np.random.default_rng(_SEED).integers(0, groups, (RESAMPLES, groups))
    drawn += groups * np.arange(RESAMPLES)[:, None]
    counts = np.bincount(drawn.ravel(), minlength=RESAMPLES * groups)
    return counts.reshape(RESAMPLES, groups).astype("float64")


def interval(replicates):
    """Returns the 95% interval of a figure: the percentiles 2.5 and 97.5 of its replicates.

    None where the figure is not defined in more than a tenth of the resamples.
    """
    if replicates is None:
        return None
    known = replicates[np.isfinite(replicates)]
    if len(known) < 0.9 * len(replicates):
        return None
    low, high = np.percentile(known, [2.5, 97.5])
    return float(low), float(high)
