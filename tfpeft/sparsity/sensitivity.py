"""How much each layer can lose: the metric that is left when it is pruned alone."""

import dataclasses
import os
from collections.abc import Iterable, Sequence
from typing import Any

import keras
import numpy as np

from tfpeft.core.arguments import check_positive_integer, check_sparsity, invalid
from tfpeft.core.monitor import (
    check_one_number,
    check_tolerance,
    metric_mode,
    monitor_name,
    within_tolerance,
)
from tfpeft.reports.sensitivity import sensitivity_plot, sensitivity_table
from tfpeft.sparsity import masks
from tfpeft.sparsity.compiled import (
    check_metrics,
    check_model,
    evaluate,
    kernel_indices,
    read_labelled,
)


@dataclasses.dataclass(frozen=True)
class LayerSensitivity:
    """What `layer_sensitivity` returns: print it for a table.

    Attributes:
        baseline: The metric of the unpruned model.
        monitor: The metric's name.
        rows: A dict for each kernel and sparsity: "kernel" is its path, "weights" how many it
            has, "sparsity" in [0, 1), "metric" that of the model with this kernel pruned alone.
        mode: "min" if lower values of the metric are better, "max" if higher ones are; None
            finds it for the metrics and losses of Keras.
    """

    baseline: float
    monitor: str
    rows: list[dict]
    mode: str | None = None

    def densities(self, tolerance: float) -> dict[str, float]:
        """Returns kernel -> density, 1 - the highest sparsity whose metric holds, 1.0 if none.

        Args:
            tolerance: Number >= 0, by how much the metric may be worse than `baseline`, in the
                unit of the metric.
        """
        check_tolerance(tolerance)
        mode = metric_mode(self.monitor, mode=self.mode)
        densities = {row["kernel"]: 1.0 for row in self.rows}
        for row in self.rows:
            if within_tolerance(row["metric"], self.baseline, mode=mode, tolerance=tolerance):
                kernel = row["kernel"]
                densities[kernel] = min(densities[kernel], 1.0 - row["sparsity"])
        return densities

    def to_markdown(self) -> str:
        """Returns a table in Markdown: a row for each kernel, a column for each sparsity."""
        return sensitivity_table(self, "kernel", "weights", "sparsity")

    def __str__(self):
        return self.to_markdown()

    def plot(self, path: str | os.PathLike) -> None:
        """Writes a PNG: the metric against sparsity, a line for each kernel."""
        sensitivity_plot(path, self, "kernel", "sparsity", x_label="zeros in this kernel alone, %")


def _read_sparsities(sparsities):
    """Returns a sorted list: of a generator, which can be read once, too."""
    if isinstance(sparsities, (str, bytes, dict)) or not np.iterable(sparsities):
        raise invalid("sparsities", "a list of numbers in (0, 1), at least one", sparsities)
    read = []
    for sparsity in sparsities:
        check_sparsity("sparsities", sparsity)
        if sparsity == 0:
            raise invalid("sparsities", "numbers in (0, 1)", sparsity)
        read.append(sparsity)
    if not read:
        raise invalid("sparsities", "a list of numbers in (0, 1), at least one", sparsities)
    return sorted(read)


def layer_sensitivity(
    model: keras.Model,
    data: Any,
    sparsities: Iterable[float],
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    monitor: str | None = None,
    mode: str | None = None,
    batch_size: int = 32,
) -> LayerSensitivity:
    """Prunes each kernel alone by magnitude and evaluates: how much it can lose.

    For each kernel and sparsity: `mask = |w| among the round(size * (1 - sparsity)) largest`,
    `w <- mask * w`, evaluation, and the kernel's weights are put back. Nothing is trained.

    What it does not give: what training would win back, or what several pruned kernels cost
    together; `prune_iteratively`, which takes the `densities` of the result, measures both.

    Args:
        model: A compiled `keras.Model`; it is as before when this returns or raises.
        data: (x, y) or (x, y, sample_weight); or a `tf.data.Dataset` or `keras.utils.PyDataset`
            of batches of these, with an end.
        sparsities: Numbers in (0, 1).
        exclude: Names or patterns of layers to leave out.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        monitor: Name of a metric as `evaluate` reports it; None is the first compiled metric, or
            "loss" without any.
        mode: "min" if lower values of the metric are better, "max" if higher ones are; None finds
            it for the metrics and losses of Keras.
        batch_size: Integer, for arrays.

    Returns:
        A `LayerSensitivity`: print it for a table, `plot(path)` draws it, `densities(tolerance)`
        are for `prune_iteratively`.

    Raises:
        InputError: if an argument is not of its kind; for data that is empty, has no end or is
            not finite; for a model whose loss or metric is not; if `mode` is None and the metric is
            not one of Keras's.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x = np.random.rand(64, 8)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4, name="dense")])
    model.compile("adam", loss="mse")
    sensitivity = tfpeft.layer_sensitivity(model, (x, x[:, :4]), [0.5, 0.75])
    print(sensitivity)
    print(sensitivity.densities(tolerance=10.0))  # {'sequential/dense/kernel': 0.25}
    ```

    Reference: Li et al., "Pruning Filters for Efficient ConvNets", 2017,
    https://arxiv.org/abs/1608.08710 (of filters)
    """
    check_model(model)
    check_positive_integer("batch_size", batch_size)
    sparsities = _read_sparsities(sparsities)
    indices = kernel_indices(model, exclude, include)
    kernels = [model.trainable_variables[i] for i in indices]
    data = read_labelled(data, "data", model)
    metrics = evaluate(model, data, batch_size)
    name = monitor_name(monitor, metrics)
    check_metrics(metrics, name, model)
    check_one_number(name, metrics[name])
    mode = metric_mode(name, mode=mode, model=model)
    rows = []
    for kernel in kernels:
        values = kernel.numpy()
        try:
            for sparsity in sparsities:
                mask = masks.layer_mask(np.abs(values), sparsity)
                kernel.assign(np.where(mask, values, 0))
                metric = evaluate(model, data, batch_size)[name]
                row = {"kernel": kernel.path, "weights": values.size, "sparsity": sparsity}
                rows.append({**row, "metric": metric})
        finally:
            kernel.assign(values)
    return LayerSensitivity(metrics[name], name, rows, mode)
