"""Axes of charts: scales, round ticks, and places for labels that do not overlap."""

import dataclasses
import math

_STEPS = (1, 2, 2.5, 5, 10)


@dataclasses.dataclass(frozen=True)
class Scale:
    """Maps values from `low` to `high` to the places from `start` to `end` of a picture."""

    low: float
    high: float
    start: float
    end: float
    is_log: bool = False

    def __call__(self, value):
        low, high, value = (self._moved(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _moved(self, value):
        return math.log10(value) if self.is_log else value

    def ticks(self, count):
        """Returns up to about `count` round values in the range."""
        found = log_ticks(self.low, self.high, count) if self.is_log else []
        return found if len(found) > 1 else linear_ticks(self.low, self.high, count)


def scale_of(values, start, end, *, is_log=False, margin=0.08):
    """Returns the `Scale` of the range of some values, a margin wider on both sides.

    Args:
        values: Finite numbers, above 0 for a logarithm.
        start, end: Where the range begins and ends in the picture.
        is_log: Whether equal distances are equal factors.
        margin: The margin, as a part of the range.
    """
    low, high = min(values), max(values)
    if is_log:
        low, high = math.log10(low), math.log10(high)
    # Equal values get a range around them.
    width = (high - low) or (0.1 if is_log else abs(high) * 0.1 or 1.0)
    low, high = low - margin * width, high + margin * width
    return Scale(*((10**low, 10**high) if is_log else (low, high)), start, end, is_log)


def linear_ticks(low, high, count):
    """Returns round values of equal distance from `low` to `high`, at most `count` + 1."""
    rough = (high - low) / max(1, count)
    power = 10 ** math.floor(math.log10(rough))
    step = next(each * power for each in _STEPS if each * power >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low, high, count):
    """Returns values 1, 2 and 5 times a power of 10 from `low` to `high`, at most `count`."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1, 2, 5), (1, 3), (1,)):
        found = [d * 10.0**p for p in powers for d in digits if low <= d * 10.0**p <= high]
        if len(found) <= count:
            return found
    return found[:: math.ceil(len(found) / count)]


def place_labels(labels, obstacles, area):
    """Returns the place (x, y, anchor) of each label, near its point and apart from others.

    Args:
        labels: (x, y, width, height) of the point and the text of each label.
        obstacles: (left, top, right, bottom) of what labels should not cover.
        area: The same, of the picture.
    """
    taken, places = list(obstacles), []
    for x, y, width, height in labels:
        candidates = []
        for far in (1, 2, 3.2):
            up, side = y - 7 * far, 9 + 3 * (far - 1)
            down = y + height + 3 + 7 * (far - 1)
            candidates += [
                *((x + side, up, "start"), (x - side, up, "end"), (x + side, down, "start")),
                *((x - side, down, "end"), (x, up - 4, "middle"), (x, down + 4, "middle")),
            ]
        boxes = [_box(*each, width, height) for each in candidates]
        costs = [
            (_outside(box, area), sum(_shared(box, other) for other in taken), rank)
            for rank, box in enumerate(boxes)
        ]
        best = min(range(len(costs)), key=costs.__getitem__)
        taken.append(boxes[best])
        places.append(candidates[best])
    return places


def _box(x, y, anchor, width, height):
    left = x - {"start": 0, "middle": width / 2, "end": width}[anchor]
    return left, y - height, left + width, y + 3


def _shared(box, other):
    """Returns the area that two boxes share."""
    width = min(box[2], other[2]) - max(box[0], other[0])
    height = min(box[3], other[3]) - max(box[1], other[1])
    return max(0.0, width) * max(0.0, height)


def _outside(box, area):
    """Returns by how much a box leaves the area."""
    left, top, right, bottom = area
    return round(
        max(0.0, left - box[0])
        + max(0.0, top - box[1])
        + max(0.0, box[2] - right)
        + max(0.0, box[3] - bottom)
    )
