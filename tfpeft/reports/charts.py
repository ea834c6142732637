"""Charts as SVG inside a page: their colours are those of the page, light and dark.

A chart is drawn twice, for a wide page and for a phone, so that texts keep their size; the style
sheet shows one of them.
"""

import dataclasses
import math

from markupsafe import Markup

from tfpeft.reports.figures import is_number
from tfpeft.reports.scales import place_labels, scale_of

_SIZES = {"wide": (520, 330), "narrow": (318, 300)}
_SHADES = 8  # of the cells of a heat map
_CHARACTER, _LINE = 6.4, 12  # about the width and height of a letter, in pixels


@dataclasses.dataclass(frozen=True)
class Point:
    """A point of a scatter plot.

    Attributes:
        name: What a label, or a hint, says.
        x, y: Its values.
        interval: (low, high) of y, or None; one with an end that is not finite is left out.
        kind: Its class in the style sheet: "first", "row", "last", "trial", "over" or "best".
        is_labelled: Whether the name is written beside it.
    """

    name: str
    x: float
    y: float
    interval: tuple | None = None
    kind: str = "row"
    is_labelled: bool = True

    def __post_init__(self):
        if self.interval and not all(map(is_number, self.interval)):
            object.__setattr__(self, "interval", None)


def scatter(points, *, x_label, y_label, description, lines=(), limit=None):
    """Returns a scatter plot with intervals; x is logarithmic where it spans a factor of 4.

    Args:
        points: `Point`s, x above 0.
        x_label: What the axis shows, with its unit.
        y_label: The same.
        description: The alternative text.
        lines: Lists of (x, y), each joined by a line.
        limit: The x of a vertical line beyond which values are not allowed, or None.
    """
    drawn = [
        _scatter(points, size, x_label, y_label, description, lines, limit, name)
        for name, size in _SIZES.items()
    ]
    return Markup("").join(drawn)


def _scatter(points, size, x_label, y_label, description, lines, limit, name):
    width, height = size
    xs = [point.x for point in points] + ([limit] if limit else [])
    ys = [value for p in points for value in (p.y, *(p.interval or ()))]
    is_log = min(xs) > 0 and max(xs) / min(xs) >= 4
    y = scale_of(ys, height - 48, 34)
    y_ticks = [(tick, f"{tick:.6g}") for tick in y.ticks(5)]
    left = 14 + _CHARACTER * max(len(text) for _, text in y_ticks)
    x = scale_of(xs, left + 4, width - 14, is_log=is_log)
    x_ticks = [(tick, f"{tick:,.6g}") for tick in x.ticks(8 if width > 500 else 5)]
    parts = [_svg_start(width, height, name, description)]
    parts.append(_text(0, 14, y_label, "axis", "start"))
    parts.append(_text(width - 14, height - 6, x_label, "axis", "end"))
    for tick, text in y_ticks:
        parts.append(_line(left, y(tick), width - 8, y(tick), "grid"))
        parts.append(_text(left - 6, y(tick) + 4, text, "tick", "end"))
    for tick, text in x_ticks:
        parts.append(_line(x(tick), 28, x(tick), height - 44, "grid"))
        parts.append(_text(x(tick), height - 28, text, "tick", "middle"))
    if limit is not None:
        parts.append(_line(x(limit), 28, x(limit), height - 44, "limit"))
    for line in lines:
        path = " ".join(f"{x(a):.1f},{y(b):.1f}" for a, b in line)
        parts.append(Markup('<polyline class="path" points="{}"/>').format(path))
    obstacles = []
    for point in points:
        parts.append(_drawn(point, x, y))
        px, py = x(point.x), y(point.y)
        obstacles.append((px - 5, py - 5, px + 5, py + 5))
        if point.interval:
            obstacles.append((px - 2, y(point.interval[1]), px + 2, y(point.interval[0])))
    labelled = [point for point in points if point.is_labelled]
    boxes = [(x(p.x), y(p.y), _CHARACTER * len(p.name), _LINE) for p in labelled]
    places = place_labels(boxes, obstacles, (left, 20, width, height - 44))
    for point, (a, b, anchor) in zip(labelled, places, strict=True):
        parts.append(_text(a, b, point.name, f"label {point.kind}", anchor))
    return Markup("").join([*parts, Markup("</svg>")])


def _drawn(point, x, y):
    a, b = x(point.x), y(point.y)
    parts = [Markup('<g class="point {}"><title>{}</title>').format(point.kind, _hint(point))]
    if point.interval:
        low, high = (y(value) for value in point.interval)
        parts.append(_line(a, low, a, high, "bar"))
        parts += [_line(a - 4, end, a + 4, end, "bar") for end in (low, high)]
    parts.append(Markup('<circle cx="{:.1f}" cy="{:.1f}" r="5"/></g>').format(a, b))
    return Markup("").join(parts)


def _hint(point):
    interval = ""
    if point.interval:
        interval = " (95%: {:.4g} to {:.4g})".format(*point.interval)
    return f"{point.name}: {point.x:,.5g}, {point.y:.4g}{interval}"


def series(values, description):
    """Returns lines of the columns of an array (steps, columns), without axes.

    Args:
        values: Finite numbers.
        description: The alternative text.
    """
    low, high = float(values.min()), float(values.max())
    width, height = 180, 64
    parts = [_svg_start(width, height, "small", description)]
    last, scale = max(1, len(values) - 1), (height - 8) / ((high - low) or 1)
    for column in values.T:
        path = " ".join(
            f"{i / last * width:.1f},{height - 4 - (value - low) * scale:.1f}"
            for i, value in enumerate(column)
        )
        parts.append(Markup('<polyline class="path" points="{}"/>').format(path))
    return Markup("").join([*parts, Markup("</svg>")])


def heat(matrix, description):
    """Returns squares for the cells of a matrix of shares in [0, 1] that are not 0, without texts.

    Cells of about the same share are one path, as a page of hundreds of classes has many.

    Args:
        matrix: Rows of numbers.
        description: The alternative text.
    """
    side = len(matrix)
    parts = [
        Markup('<svg class="heat" viewBox="0 0 {0} {0}" role="img" aria-label="{1}">').format(
            side, description
        )
    ]
    parts.append(Markup('<rect class="ground" width="{0}" height="{0}"/>').format(side))
    cells = {}
    for i, row in enumerate(matrix):
        for j, value in enumerate(row):
            if value:
                key = "right" if i == j else "wrong", math.ceil(_SHADES * min(value, 1.0))
                cells.setdefault(key, []).append(f"M{j} {i}h1v1h-1z")
    for (kind, shade), paths in sorted(cells.items()):
        cell = Markup('<path class="{}" d="{}" fill-opacity="{:.2f}"/>')
        parts.append(cell.format(kind, "".join(paths), 0.15 + 0.85 * shade / _SHADES))
    return Markup("").join([*parts, Markup("</svg>")])


def _svg_start(width, height, name, description):
    start = '<svg class="{}" viewBox="0 0 {} {}" width="{}" height="{}" role="img" aria-label="{}">'
    return Markup(start).format(name, width, height, width, height, description)


def _line(x1, y1, x2, y2, kind):
    line = '<line class="{}" x1="{:.1f}" y1="{:.1f}" x2="{:.1f}" y2="{:.1f}"/>'
    return Markup(line).format(kind, x1, y1, x2, y2)


def _text(x, y, text, kind, anchor):
    start = '<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>'
    return Markup(start).format(kind, x, y, anchor, text)
