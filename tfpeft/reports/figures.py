"""Titles and formats of figures, the same in all tables and reports."""

import math

FRACTIONS = {  # figures that are shown in per cent, and their titles
    "accuracy": "accuracy %",
    "precision": "precision %",
    "recall": "recall %",
    "f1": "F1 %",
    "mean_iou": "mean IoU %",
}
_TITLES = {"rmse": "RMSE", "mae": "MAE", "r2": "R2", "mse": "MSE", "psnr": "PSNR dB"}
COSTS = (  # title, key, format
    ("parameters", "parameters", lambda v: f"{v:,}"),
    ("non-zero", "nonzero_parameters", lambda v: f"{v:,}"),
    ("M MACs", "macs", lambda v: f"{v / 1e6:.3f}"),
    ("kB", "size_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("gzip kB", "gzip_bytes", lambda v: f"{v / 1e3:,.1f}"),
    ("ms", "latency_ms", lambda v: f"{v:.3f}"),
    ("p90 ms", "latency_p90_ms", lambda v: f"{v:.3f}"),
)
OF_CLASSES = ("accuracy", "precision", "recall", "f1", "loss")
"""The columns of rows that name none, as those of reports before 0.2.0."""
AXES = {  # figure -> what an axis says, and by what values are divided
    "size_bytes": ("size of the .tflite file, kB", 1e3),
    "gzip_bytes": ("size of the .tflite file in gzip, kB", 1e3),
    "latency_ms": ("latency of one sample on one thread, ms", 1),
    "macs": ("multiply-accumulates of one sample, millions", 1e6),
    "arena_bytes": ("arena of the interpreter, kB", 1e3),
    "parameters": ("parameters", 1),
}
_UNITS = {"bytes": (" kB", 1e3, ",.1f"), "ms": (" ms", 1, ".3g"), "macs": (" M", 1e6, ",.3g")}


def name_of_file(rows):
    """Returns the name of the row that a run is about: the last .tflite file, or the last row."""
    files = [name for name in rows if name.endswith(".tflite")]
    return (files or list(rows))[-1]


def title(key):
    """Returns the title of a figure of quality, "output/figure" or "figure"."""
    output, slash, figure = key.rpartition("/")
    return f"{output}{slash}{FRACTIONS.get(figure) or _TITLES.get(figure, figure)}"


def is_fraction(key):
    """Whether a figure of quality is shown in per cent."""
    return key.rpartition("/")[2] in FRACTIONS


def cell(key, value):
    """Returns a figure of quality as text, "-" for None."""
    if value is None:
        return "-"
    return f"{100 * value:.2f}" if is_fraction(key) else f"{value:.4f}"


def metrics_of(row):
    """Returns {figure: number} of a row, also of a report that has classes only."""
    if "metrics" in row:
        return row["metrics"]
    return {name: row[name] for name in OF_CLASSES}


def with_unit(figure, value):
    """Returns the value of a cost with its unit: "70.4 kB", "1.2 ms", "51 µs"; "-" for None."""
    if value is None:
        return "-"
    if figure.endswith("_ms") and value < 0.1:
        return f"{1e3 * value:.3g} µs"
    if isinstance(value, int) and figure.rpartition("_")[2] not in _UNITS:
        return f"{value:,}"
    if figure == "macs" and value < 1e6:
        return f"{value / 1e3:.3g} k"
    unit, divisor, form = _UNITS.get(figure.rpartition("_")[2], ("", 1, ",.4g"))
    return f"{value / divisor:{form}}{unit}"


def change(value, key, *, unit=" points"):
    """Returns a change of a figure of quality as text, with its sign; no "-0.00"."""
    if not is_fraction(key):
        return f"{value:+.4g}"
    return f"{round(100 * value, 2) + 0.0:+.2f}{unit}"


def quality(key, value):
    """Returns a figure of quality with its unit: "97.22 %", "0.0421"."""
    return f"{100 * value:.2f} %" if is_fraction(key) else f"{value:.4g}"


def name_of(key):
    """Returns the name of a figure of quality, without a unit, in a capital letter."""
    name = title(key).removesuffix(" %")
    return name[:1].upper() + name[1:]


_COST_NAMES = {
    "size_bytes": "size",
    "gzip_bytes": "size in gzip",
    "latency_ms": "latency",
    "latency_p90_ms": "latency, 90th percentile",
    "macs": "multiply-accumulates",
    "arena_bytes": "arena",
    "flash_bytes": "flash",
    "sram_bytes": "SRAM",
    "inference_ms": "estimated time on the NPU",
    "step_ms": "time of a training step",
    "share_of_macs": "of the multiply-accumulates",
    "share_of_bytes": "of the bytes",
    "loss_of_half_zeros": "lost with half of it zero",
    "loss_of_half_channels": "lost with half of the channels",
    "nonzero_parameters": "parameters that are not zero",
}


def cost_name(figure):
    """Returns the name of a cost: "size", "latency"."""
    return _COST_NAMES.get(figure, figure.replace("_", " "))


def is_number(value):
    """Whether a value of JSON is a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


_LOWER_IS_BETTER = ("rmse", "mae", "mse", "loss", "calibration_error", "largest_deviation")


def is_lower_better(key):
    """Whether a lower figure of quality is better."""
    return key.rpartition("/")[2] in _LOWER_IS_BETTER
