"""Area under the ROC curve: kept scores, and its value with replicates."""

import numpy as np

from tfpeft.evaluation.resampling import Sums

MOST_SCORES = 2**24
"""Scores that are kept, in float32: of more samples, a random part is."""


class Scores:
    """Scores of classes or labels, those of a random part of the samples where there are many.

    Args:
        width: Scores per sample.
    """

    def __init__(self, width):
        self._most = max(MOST_SCORES // width, 1)
        self._rng = np.random.default_rng(0)
        self._kept, self._count, self.samples = [], 0, 0

    def add(self, scores, y, weight, groups):
        """Adds scores (samples, width), labels, weights and groups."""
        keys = self._rng.random(len(scores))
        self._kept.append((keys, scores.astype("float32"), y, weight, groups))
        self._count += len(scores)
        self.samples += len(scores)
        if self._count > 2 * self._most:
            self._join()

    def _join(self):
        joined = [np.concatenate(parts) for parts in zip(*self._kept, strict=True)]
        if len(joined[0]) > self._most:
            order = np.argpartition(joined[0], self._most)[: self._most]
            joined = [part[np.sort(order)] for part in joined]
        self._kept, self._count = [tuple(joined)], len(joined[0])

    def auc(self, is_positive, samples):
        """Returns the area of each score, (width,), and replicates (resamples, width).

        The area is the share of pairs of a positive and a negative sample whose scores are in the
        right order, ties half. A replicate has the areas of each sample against all the others,
        weighted by how often it is drawn, which is DeLong's estimate of how the area varies: E. R.
        DeLong et al., "Comparing the Areas under Two or More Correlated Receiver Operating
        Characteristic Curves" (1988). NaN where all samples are positive, or negative.

        Args:
            is_positive: A function of labels and the number of a score that returns which samples
                are positive.
            samples: How many samples there are.
        """
        self._join()
        _, scores, y, weight, groups = self._kept[0]
        width = scores.shape[1]
        sums = Sums(4 * width)
        for i in range(width):
            positive = is_positive(y, i)
            shares = _shares(scores[:, i], positive, weight)
            columns = (shares * positive, positive, shares * ~positive, ~positive)
            rows = np.stack(columns, axis=1) * weight[:, None]
            sums.add_rows(4 * i, groups, np.where(weight[:, None] > 0, rows, 0))
        with np.errstate(divide="ignore", invalid="ignore"):
            total = sums.total().reshape(width, 4)
            value = total[:, 0] / total[:, 1]
            value = np.where(total[:, 3] > 0, value, np.nan)
            drawn = sums.resampled(samples).reshape(-1, width, 4)
            replicates = drawn[..., 0] / drawn[..., 1] + drawn[..., 2] / drawn[..., 3] - value
        return value, replicates

    def note(self):
        """Returns a note where not all samples were kept, in a tuple."""
        if self._count == self.samples:
            return ()
        return (f"auc of {self._count:,} random samples of {self.samples:,}",)


def mean_auc(value, replicates):
    """Returns the mean of areas over the classes that have one, (1,), and its replicates."""
    known = np.isfinite(value)
    if not known.any():
        return np.full(1, np.nan), np.full(len(replicates), np.nan)
    return value[known].mean(keepdims=True), replicates[:, known].mean(axis=1)


def _shares(scores, positive, weight):
    """Returns the share of the opposite samples that each one is in the right order with."""
    _, ranks = np.unique(scores, return_inverse=True)
    positives = np.bincount(ranks, weight * positive)
    negatives = np.bincount(ranks, weight * ~positive, len(positives))
    below = np.cumsum(negatives) - negatives / 2
    above = positives.sum() - np.cumsum(positives) + positives / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.where(positive, below[ranks] / negatives.sum(), above[ranks] / positives.sum())
