"""Plots of points and lines, as PNG files."""

from tfpeft.core.files import replacing
from tfpeft.core.paths import file_to_write


def line_plot(path, lines, *, x_label, y_label, baseline=None):
    """Writes a PNG of lines with markers, and a legend beside them.

    Args:
        path: The file.
        lines: {label: (xs, ys)}.
        x_label: What the axis shows, with its unit.
        y_label: The same.
        baseline: (label, y) of a dashed horizontal line, or None.
    """
    figure, axes = _figure(8, x_label, y_label)
    if baseline is not None:
        label, y = baseline
        axes.axhline(y, color="black", linestyle="--", label=label)
    for label, (xs, ys) in lines.items():
        axes.plot(xs, ys, marker="o", label=label)
    axes.grid(visible=True, alpha=0.3)
    figure.legend(loc="outside right upper", fontsize="x-small")
    save_figure(figure, path)


def path_plot(path, points, *, x_label, y_label):
    """Writes a PNG of named points, joined in their order; x is logarithmic.

    Args:
        path: The file.
        points: {name: (x, y)}.
        x_label: What the axis shows, with its unit.
        y_label: The same.
    """
    figure, axes = _figure(7, x_label, y_label)
    xs, ys = [x for x, _ in points.values()], [y for _, y in points.values()]
    axes.plot(xs, ys, marker="o", color="tab:blue")
    for i, (name, point) in enumerate(points.items()):
        # Above and below in turn: two points are often at the same place.
        offset = (0, 9) if i % 2 == 0 else (0, -16)
        axes.annotate(name, point, xytext=offset, textcoords="offset points", ha="center")
    axes.set_xscale("log")
    axes.margins(0.15)
    axes.grid(visible=True, which="both", alpha=0.3)
    save_figure(figure, path)


def bar_plot(path, names, series, *, x_label):
    """Writes a PNG of horizontal bars, those of one name over each other.

    Args:
        path: The file.
        names: A name for each row, the first one on top.
        series: {label: a number for each row}, the longest bars first.
        x_label: What the axis shows, with its unit.
    """
    figure, axes = _figure(8, x_label, "")
    figure.set_figheight(1.5 + 0.18 * len(names))
    for label, values in series.items():
        axes.barh(range(len(names)), values, label=label)
    axes.set_yticks(range(len(names)), names, fontsize="x-small")
    axes.invert_yaxis()
    axes.legend(fontsize="x-small")
    save_figure(figure, path)


def save_figure(figure, path):
    """Writes a matplotlib figure as a PNG."""
    with replacing(file_to_write(path)) as partial:
        figure.savefig(partial, format="png", dpi=120)


def _figure(width, x_label, y_label):
    """Returns a figure `width` inches wide, and its axes; no display and no pyplot is needed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg  # late: it is slow to import
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    axes.set_xlabel(x_label)
    axes.set_ylabel(y_label)
    return figure, axes


def front_plot(path, points, *, front, best, limit, x_label, y_label):
    """Writes a PNG of points with intervals, the line of a front, and a limit.

    Args:
        path: The file.
        points: {name: (x, y, (low, high) of y or None)}.
        front: The names of the points on the front, by growing x.
        best: The name of the best point.
        limit: x that is not to be exceeded, or None.
        x_label: What the axis shows, with its unit.
        y_label: The same.
    """
    figure, axes = _figure(7, x_label, y_label)
    for name, (x, y, interval) in points.items():
        low, high = interval or (y, y)
        color = "tab:red" if name == best else "tab:blue" if name in front else "tab:gray"
        errors = [[max(0.0, y - low)], [max(0.0, high - y)]]
        axes.errorbar(x, y, yerr=errors, fmt="o", color=color, elinewidth=0.8)
    line = [points[name] for name in front if name in points]
    axes.plot([x for x, *_ in line], [y for _, y, _ in line], color="tab:blue", label="front")
    if best in points:
        axes.annotate("best", points[best][:2], xytext=(0, 9), textcoords="offset points")
    if limit is not None:
        axes.axvline(limit, color="black", linestyle="--", label="limit")
    axes.grid(visible=True, alpha=0.3)
    axes.legend(fontsize="x-small")
    save_figure(figure, path)
