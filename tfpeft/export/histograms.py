"""Ranges that a second pass over the samples chooses: percentiles, and of least error."""

import numpy as np

from tfpeft.export.float_graph import ENOUGH
from tfpeft.export.ranges import BINS, least_error_range, percentile_range

_METHODS = {"percentile": percentile_range, "mse": least_error_range}


def choose_ranges(graph, program, samples, ranges):
    """Narrows the observed ranges of the tensors that have enough values for a histogram.

    Few values say little about the outermost ones: `FloatGraph.extend_ranges` is for them.

    Args:
        graph: A `FloatGraph` that has observed the samples.
        program: As `FloatGraph.observe` takes it.
        samples: As `FloatGraph.observe` takes it.
        ranges: A key of `_METHODS`.
    """
    tensors = [t for t, count in graph.counts.items() if count >= ENOUGH and _is_wide(graph, t)]
    counts = {tensor: np.zeros(BINS) for tensor in tensors}
    for arrays in samples if tensors else ():
        program.feed(dict(zip(program.inputs, arrays, strict=True)))
        program.invoke()
        for tensor in tensors:
            counts[tensor] += _histogram(
                program.tensor(tensor), graph.low[tensor], graph.high[tensor]
            )
    for tensor in tensors:
        bounds = graph.low[tensor], graph.high[tensor]
        graph.low[tensor], graph.high[tensor] = _METHODS[ranges](counts[tensor], *bounds)


def _is_wide(graph, tensor):
    width = graph.high[tensor] - graph.low[tensor]
    return np.isfinite(width) and width > 0


def _histogram(values, low, high):
    """Returns how many values are in each of `BINS` bins of equal width, much as np.histogram."""
    bins = (values.ravel() - np.float32(low)) * np.float32(BINS / (high - low))
    return np.bincount(np.clip(bins, 0, BINS - 1).astype(np.int32), minlength=BINS)
