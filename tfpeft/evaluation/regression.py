"""Figures of numbers: of a few targets, and of a sample that is reconstructed."""

import numpy as np

from tfpeft.evaluation.figures import Figures, Statistics
from tfpeft.evaluation.resampling import Sums

_MOMENTS = ("weight", "y", "yy", "p", "pp", "yp", "error", "square")


class ValueStatistics(Statistics):
    """Errors and correlations of targets, which are the last axis; other axes are positions.

    - rmse, sqrt(mean((y - p)^2)) of all targets together; mae, mean(|y - p|);
    - r2, 1 - sum((y - p)^2) / sum((y - mean(y))^2), the mean over the targets that are not
      constant;
    - pearson, the correlation of y and p, the mean over the targets.
    """

    def __init__(self, outputs):
        self.outputs, self._shift = outputs, None
        self._sums = Sums(len(_MOMENTS) * outputs.units)

    def add(self, y, outputs, weight, groups):
        p = np.asarray(outputs, "float64")
        axes = tuple(range(1, p.ndim - 1))
        if self._shift is None:  # differences of large numbers would be lost in their squares
            self._shift = y.mean(axis=(0, *axes))
        weight = np.broadcast_to(
            weight.reshape(weight.shape + (1,) * (y.ndim - weight.ndim)), y.shape
        )
        error, y, p = y - p, y - self._shift, p - self._shift
        values = (np.ones_like(y), y, y * y, p, p * p, y * p, np.abs(error), error * error)
        rows = [(value * weight).sum(axis=axes) for value in values]
        self._sums.add_rows(0, groups, np.concatenate(rows, axis=1))

    def result(self, samples):
        total, resampled = self._sums.total()[None], self._sums.resampled(samples)
        with np.errstate(divide="ignore", invalid="ignore"):
            each, drawn = self._per_target(total), self._per_target(resampled)
            found = Figures({})
            found.add(_of_all(each), _of_all(drawn))
        if self.outputs.units > 1:
            names = ("rmse", "mae", "r2", "pearson")
            found.per_class = {name: each[name][0] for name in names}
        return found

    def _per_target(self, sums):
        """Returns {figure: (..., targets)} of sums (..., moments * targets)."""
        moments = sums.reshape(len(sums), len(_MOMENTS), self.outputs.units)
        sums = dict(zip(_MOMENTS, np.moveaxis(moments, 1, 0), strict=True))
        weight = sums["weight"]
        spread, spread_p = (
            _spread(weight, sums[name], sums[square]) for name, square in (("y", "yy"), ("p", "pp"))
        )
        together = sums["yp"] - sums["y"] * sums["p"] / weight
        mse = sums["square"] / weight
        return {
            "mse": mse,
            "rmse": np.sqrt(mse),
            "mae": sums["error"] / weight,
            "r2": 1 - sums["square"] / spread,
            "pearson": np.clip(together / np.sqrt(spread * spread_p), -1, 1),
        }


class SampleStatistics(Statistics):
    """Errors of samples that are reconstructed, and what the mean sample would give.

    - mse, mean((y - p)^2), and mae, mean(|y - p|), over all values;
    - psnr, 10 log10(peak^2 / mse) in dB, where peak is the range of the labels, max - min;
    - r2, 1 - sum((y - p)^2) / sum((y - m)^2), where m is the mean of all values.
    """

    columns = ("weight", "error", "square", "y", "yy")

    def __init__(self, outputs):
        super().__init__(outputs)
        self._shift, self._low, self._high = None, np.inf, -np.inf

    def add(self, y, outputs, weight, groups):
        if self._shift is None:
            self._shift = y.mean()
        counted = y[weight > 0]
        if counted.size:
            self._low, self._high = min(self._low, counted.min()), max(self._high, counted.max())
        super().add(y, outputs, weight, groups)

    def statistics(self, y, outputs):
        axes = tuple(range(1, y.ndim))
        error, shifted = y - np.asarray(outputs, "float64"), y - self._shift
        return {
            "error": np.abs(error).mean(axis=axes),
            "square": (error * error).mean(axis=axes),
            "y": shifted.mean(axis=axes),
            "yy": (shifted * shifted).mean(axis=axes),
        }

    def figures(self, sums):
        mse = sums["square"] / sums["weight"]
        spread = _spread(sums["weight"], sums["y"], sums["yy"])
        return {
            "mse": mse,
            "mae": sums["error"] / sums["weight"],
            "psnr": 10 * np.log10((self._high - self._low) ** 2 / mse),
            "r2": 1 - sums["square"] / spread,
        }


def _of_all(each):
    """Returns {figure: (...,)} of figures per target."""
    found = {name: _mean_of_known(each[name]) for name in ("mae", "r2", "pearson")}
    return {"rmse": np.sqrt(each["mse"].mean(axis=-1)), **found}


def _mean_of_known(values):
    """Returns the mean over the targets that have a figure, (...,)."""
    known = np.isfinite(values)
    return np.where(known, values, 0).sum(axis=-1) / known.sum(axis=-1)


def _spread(weight, total, squares):
    """Returns the sum of squared differences from the mean; NaN where it is 0 but for rounding."""
    spread = squares - total * total / weight
    return np.where(spread > 1e-12 * np.maximum(squares, 1e-300), spread, np.nan)
