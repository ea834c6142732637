"""Ranges of int8 from histograms: percentiles, and the range of least squared error."""

import numpy as np
import pytest
import tensorflow as tf

from tfpeft.export import histograms
from tfpeft.export.float_graph import ENOUGH
from tfpeft.export.ranges import BINS, least_error_range, percentile_range

rng = np.random.default_rng(0)


def histogram(values):
    low, high = float(values.min()), float(values.max())
    return np.histogram(values, BINS, (low, high))[0], low, high


def test_percentiles_by_hand():
    """Of 10 values, one is in the first of four bins, one in the last."""
    assert percentile_range(np.array([1, 4, 4, 1]), -2.0, 2.0, 80.0) == (-1.0, 1.0)
    assert percentile_range(np.array([1, 4, 4, 1]), -2.0, 2.0, 90.0) == (-2.0, 2.0)
    assert percentile_range(np.array([1, 4, 4, 1]), -2.0, 2.0, 100.0) == (-2.0, 2.0)
    assert percentile_range(np.array([8, 1, 0, 1]), 0.0, 4.0, 80.0) == (0.0, 2.0)


def test_percentiles_are_those_of_numpy():
    values = rng.normal(size=200_000)
    low, high = percentile_range(*histogram(values))
    bin_width = np.ptp(values) / BINS
    expected = np.percentile(values, [0.005, 99.995])
    np.testing.assert_allclose([low, high], expected, atol=2 * bin_width)


def squared_error(values, low, high):
    values = values.astype("float32")
    rounded = tf.quantization.fake_quant_with_min_max_vars(values, low, high)
    return float(np.mean((values - rounded.numpy()) ** 2))


@pytest.mark.parametrize("kind", ["normal", "outliers", "relu", "negative", "uniform"])
def test_the_range_of_least_error_is_that_of_a_search_through_fake_quant(kind):
    values = rng.normal(size=20_000)
    if kind == "outliers":
        values[:5] = [12.0, -11.0, 10.0, 12.0, -8.0]
    elif kind == "relu":
        values = np.maximum(values - 1.0, 0.0) ** 2
    elif kind == "negative":
        values = -np.abs(values)
    elif kind == "uniform":
        values = rng.uniform(-1, 3, 20_000)
    counts, low, high = histogram(values)
    found = least_error_range(counts, low, high)
    assert low <= found[0] <= 0 <= found[1] <= max(high, 0)
    parts = np.linspace(0.2, 1.0, 17)
    searched = min(
        squared_error(values, min(low * p, 0.0), max(high * q, 0.0))
        for p in (parts if low < 0 else [1.0])
        for q in (parts if high > 0 else [1.0])
    )
    assert squared_error(values, *found) <= 1.02 * searched
    if kind == "uniform":
        np.testing.assert_allclose(found, [-1, 3], atol=0.1)
    if kind == "outliers":
        assert squared_error(values, *found) < 0.97 * squared_error(values, low, high)


class Graph:
    """What `choose_ranges` needs of a graph: two tensors, one of few values."""

    def __init__(self, values):
        self.values = values
        self.low = {0: values.min(), 1: values.min()}
        self.high = {0: values.max(), 1: values.max()}
        self.counts = {0: values.size, 1: 100}


class Program:
    inputs = ("x",)

    def feed(self, values):
        self.values = values["x"]

    def invoke(self):
        pass

    def tensor(self, index):
        assert index == 0
        return self.values


@pytest.mark.parametrize(
    ("ranges", "method"), [("percentile", percentile_range), ("mse", least_error_range)]
)
def test_ranges_are_chosen_for_tensors_of_many_values(ranges, method):
    values = rng.standard_t(4, size=(ENOUGH // 10, 10)).astype("float32")
    graph = Graph(values)
    histograms.choose_ranges(graph, Program(), [[values[:3000]], [values[3000:]]], ranges)
    expected = method(*histogram(values))
    np.testing.assert_allclose((graph.low[0], graph.high[0]), expected, rtol=1e-2)
    assert (graph.low[1], graph.high[1]) == (values.min(), values.max())


def test_histograms_are_those_of_numpy():
    values = rng.normal(size=50_000).astype("float32")
    expected, low, high = histogram(values)
    found = histograms._histogram(values, low, high)
    assert found.sum() == expected.sum()
    assert np.abs(np.cumsum(found) - np.cumsum(expected)).max() <= 5  # rounding at edges
    assert histograms._histogram(values, -0.1, 0.1)[0] == np.sum(values < -0.1 + 0.2 / BINS)
