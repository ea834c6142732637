"""Which channels are removed: an order of all of them, and limits per layer."""

import math

import numpy as np

SCOPES = ("global", "layer", "isomorphic")


class Order:
    """The order in which channels are removed, lowest scores first.

    With the scope "layer" each family loses the same fraction, with "isomorphic" all families of
    one structure together, and with "global" all families.

    Args:
        families: A list of `Family`.
        scores: An array for each of them; channels whose score is NaN stay.
        scope: One of `SCOPES`.
        round_to: The number of channels left in a family is a multiple of it.
        min_channels: How many channels stay in a family.
        max_ratio: The fraction of a family that is removed at most.
        tags: How many tags there are.
        sizes: {(name, kind) of a family: its channels before earlier rounds}, of which ratios are
            fractions; by default those that there are.

    Attributes:
        size: How many channels there are, or were before earlier rounds.
        removable: How many of them can be removed.
    """

    def __init__(
        self, families, scores, *, scope, round_to, min_channels, max_ratio, tags, sizes=None
    ):
        self._families, self._round_to, self._tags = families, round_to, tags
        self._scope, self._max_ratio = scope, max_ratio
        sizes = sizes or {}
        sizes = [sizes.get((family.name, family.kind), len(family)) for family in families]
        self.size = sum(sizes)
        numbers = np.repeat(np.arange(len(families)), [len(family) for family in families])
        values = np.concatenate(scores) if families else np.zeros(0)
        self._ranked = []
        rank = np.zeros(len(numbers), int)
        stays = np.zeros(len(numbers), bool)
        for number, family in enumerate(families):
            here = np.flatnonzero(numbers == number)
            order = here[np.argsort(values[here], kind="stable")]
            rank[order] = np.arange(len(family))
            self._ranked.append(family.roots[order - here[0]])
            low = max(min_channels, math.ceil(sizes[number] * (1 - max_ratio) - 1e-9))
            low = min(len(family), low)
            stays[order[len(family) - low :]] = True
        stays |= np.isnan(values)
        units = {"global": [0] * len(families), "layer": range(len(families))}.get(
            scope, [family.kind for family in families]
        )
        position = np.zeros(len(numbers))
        for unit in set(units):
            chosen = [number for number, each in enumerate(units) if each == unit]
            here = np.flatnonzero(np.isin(numbers, chosen))
            # In a family the order is by rank, so that equal scores do not matter.
            order = here[np.lexsort((rank[here], values[here], stays[here]))]
            size = sum(sizes[number] for number in chosen)
            position[order] = (np.arange(len(here)) + 1 + size - len(here)) / size
        order = np.lexsort((rank, position))
        self._order = order[~stays[order]]
        self._positions = position[self._order]
        self._numbers = numbers
        self.removable = len(self._order)
        self._gone = self.size - len(numbers)

    @property
    def largest_ratio(self):
        """The largest ratio that can be asked for."""
        if self._scope == "global":
            return (self._gone + self.removable) / self.size
        return self._max_ratio

    def count_of(self, ratio):
        """Returns how many channels a ratio removes: of all, or of each unit of the scope."""
        if self._scope == "global":
            return max(0, round(ratio * self.size) - self._gone)
        return int(np.sum(self._positions <= ratio + 1e-9))

    def removed(self, count):
        """Returns a mask over all tags, True where the first `count` channels are removed."""
        mask = np.zeros(self._tags, bool)
        counts = np.bincount(self._numbers[self._order[:count]], minlength=len(self._families))
        for ranked, number in zip(self._ranked, counts.tolist(), strict=True):
            left = -(-(len(ranked) - number) // self._round_to) * self._round_to
            mask[ranked[: max(0, len(ranked) - left)]] = True
        return mask


def smallest_count(fits, low, high):
    """Returns the smallest number in [low, high] that fits, by bisection; None if `high` does not.

    Args:
        fits: A function of a number that is True from some number on.
        low: An integer.
        high: An integer.
    """
    if not fits(high):
        return None
    while low < high:
        middle = (low + high) // 2
        if fits(middle):
            high = middle
        else:
            low = middle + 1
    return high
