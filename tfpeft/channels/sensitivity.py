"""How much each layer can lose: the metric that is left when its channels alone are pruned."""

import dataclasses
import os
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfpeft.channels.plan import Plan
from tfpeft.channels.proof import zeroed_weights
from tfpeft.channels.surgery import Kept
from tfpeft.core.arguments import check_positive_integer, check_seed, check_sparsity, invalid
from tfpeft.core.compiling import compile_like
from tfpeft.core.monitor import check_one_number, metric_mode, monitor_name
from tfpeft.reports.sensitivity import sensitivity_plot, sensitivity_table
from tfpeft.sparsity.compiled import check_metrics, check_model, evaluate, read_labelled


@dataclasses.dataclass(frozen=True)
class ChannelSensitivity:
    """What `channel_sensitivity` returns: print it for a table.

    Attributes:
        baseline: The metric of the model.
        monitor: The metric's name.
        rows: A dict for each family of channels and ratio: "layers" the names of the layers that
            make the channels, "channels" how many there are, "ratio" in (0, 1), "metric" that of
            the model without them.
        mode: "min" if lower values of the metric are better, "max" if higher ones are.
    """

    baseline: float
    monitor: str
    rows: list[dict]
    mode: str

    def to_markdown(self) -> str:
        """Returns a table in Markdown: a row for each family, a column for each ratio."""
        return sensitivity_table(self, "layers", "channels", "ratio")

    def __str__(self):
        return self.to_markdown()

    def plot(self, path: str | os.PathLike) -> None:
        """Writes a PNG: the metric against the ratio, a line for each family."""
        sensitivity_plot(
            path, self, "layers", "ratio", x_label="channels removed in these layers alone, %"
        )


def channel_sensitivity(
    model: keras.Model,
    data: Any,
    ratios: Iterable[float] = (0.25, 0.5, 0.75),
    *,
    importance: str | Callable = "taylor",
    exclude: Sequence[str] = (),
    through_statistics: bool = False,
    monitor: str | None = None,
    mode: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> ChannelSensitivity:
    """Prunes the channels of each layer alone and evaluates: how much it can lose.

    Layers whose channels are one, such as those of a residual path, are pruned together. For each
    of these families and each ratio, the `floor(ratio * channels)` channels with the lowest scores
    are taken out, at least one and not all, and the model is evaluated. Nothing is trained.

    What it does not give: what training would win back, or what several layers cost together.

    Args:
        model: A compiled functional or Sequential model; it is as before when this returns or
            raises.
        data: (x, y) or (x, y, sample_weight); or a `tf.data.Dataset` or `keras.utils.PyDataset`
            of batches of these, with an end. It is used for the scores, too.
        ratios: Numbers in (0, 1).
        importance, exclude, through_statistics, seed: As of `prune_channels`.
        monitor: Name of a metric as `evaluate` reports it; None is the first compiled metric, or
            "loss" without any.
        mode: "min" if lower values of the metric are better, "max" if higher ones are; None finds
            it for the metrics and losses of Keras.
        batch_size: Integer, for arrays.

    Returns:
        A `ChannelSensitivity`: print it for a table, `plot(path)` draws it.

    Raises:
        InputError: if an argument is not of its kind; for data that is empty, has no end or is not
            finite; for a model without a graph, or whose loss or metric is not finite.
        NoMatchError: if no channel can be removed.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]
    )
    model.compile("adam", loss="mse")
    x = np.random.rand(64, 8)
    print(tfpeft.channel_sensitivity(model, (x, x[:, :4]), [0.25, 0.5]))
    ```

    Reference: Li et al., "Pruning Filters for Efficient ConvNets", 2017,
    https://arxiv.org/abs/1608.08710
    """
    check_model(model)
    check_positive_integer("batch_size", batch_size)
    check_seed("seed", seed)
    ratios = _read_ratios(ratios)
    plan = Plan(model, exclude=exclude, through_statistics=through_statistics)
    data = read_labelled(data, "data", model)
    metrics = evaluate(model, data, batch_size)
    name = monitor_name(monitor, metrics)
    check_metrics(metrics, name, model)
    check_one_number(name, metrics[name])
    mode = metric_mode(name, mode=mode, model=model)
    scores = plan.scores(
        importance, data, aggregate="mean", normalize=None, batch_size=batch_size, seed=seed
    )
    rows = []
    for family, each in zip(plan.families, scores, strict=True):
        if len(family) < 2 or np.any(np.isnan(each)):
            continue
        ranked = family.roots[np.argsort(each, kind="stable")]
        for ratio in ratios:
            count = min(len(family) - 1, max(1, int(ratio * len(family) + 1e-9)))
            metric = _metric_without(plan, ranked[:count], data, batch_size)[name]
            row = {"layers": family.name, "channels": len(family), "ratio": ratio}
            rows.append({**row, "metric": metric})
    return ChannelSensitivity(metrics[name], name, rows, mode)


def _metric_without(plan, roots, data, batch_size):
    """Returns the metrics of a model without some channels."""
    graph, kept = plan.graph, Kept(plan.graph, roots)
    if not graph.contractions and not graph.normalized:
        # Zeros are the same, and faster than a new model.
        changed = zeroed_weights(graph, kept)
        before = [(variable, variable.numpy()) for variable, _ in changed]
        try:
            for variable, value in changed:
                variable.assign(value)
            return evaluate(graph.model, data, batch_size)
        finally:
            for variable, value in before:
                variable.assign(value)
    mask = np.zeros(graph.tags.count, bool)
    mask[roots] = True
    new = plan.without(mask)
    compile_like(new, graph.model)
    return evaluate(new, data, batch_size)


def _read_ratios(ratios):
    """Returns a sorted list: of a generator, which can be read once, too."""
    if isinstance(ratios, (str, bytes, dict)) or not np.iterable(ratios):
        raise invalid("ratios", "a list of numbers in (0, 1), at least one", ratios)
    read = []
    for ratio in ratios:
        check_sparsity("ratios", ratio)
        if ratio == 0:
            raise invalid("ratios", "numbers in (0, 1)", ratio)
        read.append(ratio)
    if not read:
        raise invalid("ratios", "a list of numbers in (0, 1), at least one", ratios)
    return sorted(read)
