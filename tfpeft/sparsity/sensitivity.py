"""How much each layer can lose: pruned alone, the metric that is left."""

import dataclasses
import math
import numbers

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import check_positive_integer, check_sparsity, invalid
from tfpeft.reports.plots import line_plot
from tfpeft.reports.tables import markdown_table
from tfpeft.sparsity import masks
from tfpeft.sparsity.sparse_optimizer import SparseOptimizer, sparse_optimizer_of

# Ends of the names of metrics that are better when lower.
_LOWER_IS_BETTER = (
    *("loss", "error", "mae", "mse", "mape", "msle", "hinge", "logcosh", "log_cosh"),
    *("crossentropy", "divergence", "poisson", "perplexity"),
)
# Metrics are float32: 0.95 - 0.94 is a little more or less than 0.01.
_ROUNDING = 1e-6


@dataclasses.dataclass(frozen=True)
class Sensitivity:
    """What `layer_sensitivity` returns: print it for a table.

    Attributes:
        baseline: The metric of the unpruned model.
        monitor: The metric's name.
        rows: A dict a kernel and sparsity: "kernel" is its path, "weights" how many it has,
            "sparsity" in [0, 1), "metric" that of the model with this kernel pruned alone.
    """

    baseline: float
    monitor: str
    rows: list

    def densities(self, tolerance):
        """Returns kernel -> density, 1 - the highest sparsity whose metric holds, 1.0 if none.

        Args:
            tolerance: Number >= 0, by how much the metric may be worse than `baseline`, in its
                own unit.
        """
        check_tolerance(tolerance)
        densities = {row["kernel"]: 1.0 for row in self.rows}
        for row in self.rows:
            if holds(row["metric"], self.baseline, self.monitor, tolerance):
                kernel = row["kernel"]
                densities[kernel] = min(densities[kernel], 1.0 - row["sparsity"])
        return densities

    def to_markdown(self):
        """Returns a table in Markdown: a row a kernel, a column a sparsity."""
        sparsities = sorted({row["sparsity"] for row in self.rows})
        titles = ["weights", *(f"{100 * sparsity:g}%" for sparsity in sparsities)]
        return markdown_table(
            [f"{self.monitor} {self.baseline:.4f}", *titles],
            [
                [kernel, f"{rows[0]['weights']:,}", *(f"{row['metric']:.4f}" for row in rows)]
                for kernel, rows in self._by_kernel().items()
            ],
        )

    def __str__(self):
        return self.to_markdown()

    def plot(self, path):
        """Writes a PNG: the metric against sparsity, a line a kernel."""
        lines = {
            kernel: ([100 * row["sparsity"] for row in rows], [row["metric"] for row in rows])
            for kernel, rows in self._by_kernel().items()
        }
        line_plot(
            path,
            lines,
            x_label="zeros in this kernel alone, %",
            y_label=self.monitor,
            baseline=("unpruned", self.baseline),
        )

    def _by_kernel(self):
        kernels = {}
        for row in self.rows:
            kernels.setdefault(row["kernel"], []).append(row)
        return kernels


def layer_sensitivity(model, data, sparsities, *, exclude=(), monitor=None, batch_size=32):
    """Prunes each kernel alone by magnitude and evaluates: how much it can lose.

    For each kernel and sparsity: `mask = |w| among the round(size * (1 - sparsity)) largest`,
    `w <- mask * w`, evaluation, and the kernel's weights are put back. Nothing is trained.

    What it does not give: what training would win back, or what several pruned kernels cost
    together; both are for `prune_iteratively`, which takes `densities` of the result.

    Args:
        model: A compiled `keras.Model`; it is as before when this returns or raises.
        data: (x, y) or (x, y, sample_weight), or a `tf.data.Dataset` of batches of these.
        sparsities: Numbers in (0, 1).
        exclude: Names or patterns of layers to leave out.
        monitor: Name of a metric as `evaluate` reports it; None is the first compiled metric, or
            "loss" without any.
        batch_size: Integer, for arrays.

    Returns:
        A `Sensitivity`: print it for a table, `plot(path)` draws it, `densities(tolerance)` are
        for `prune_iteratively`.

    Raises:
        ValueError: if an argument is not of its kind.

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
    check_data("data", data)
    check_positive_integer("batch_size", batch_size)
    sparsities = list(sparsities)
    for sparsity in sparsities:
        check_sparsity("sparsities", sparsity)
    if not sparsities or min(sparsities) == 0:
        raise invalid("sparsities", "numbers in (0, 1), at least one", sparsities)
    kernels = [model.trainable_variables[i] for i in chosen(model, exclude)]
    metrics = evaluate(model, data, batch_size)
    name = monitored(model, monitor, metrics)
    rows = []
    for kernel in kernels:
        values = kernel.numpy()
        try:
            for sparsity in sorted(sparsities):
                mask = masks.layer_mask(np.abs(values), sparsity)
                kernel.assign(np.where(mask, values, 0))
                metric = evaluate(model, data, batch_size)[name]
                row = {"kernel": kernel.path, "weights": values.size, "sparsity": sparsity}
                rows.append({**row, "metric": metric})
        finally:
            kernel.assign(values)
    return Sensitivity(metrics[name], name, rows)


def evaluate(model, data, batch_size):
    """Returns {metric: value} of a compiled model, on arrays or a dataset."""
    if not isinstance(data, tuple):
        return model.evaluate(data, return_dict=True, verbose=0)
    sample_weight = data[2] if len(data) > 2 else None
    return model.evaluate(
        *data[:2],
        sample_weight=sample_weight,
        batch_size=batch_size,
        return_dict=True,
        verbose=0,
    )


def monitored(model, monitor, metrics):
    """Returns the name of the metric that decides: `monitor`, or else the first as compiled."""
    if monitor is None:
        return next((name for name in metrics if name != "loss"), "loss")
    if monitor not in metrics:
        raise invalid("monitor", f"one of {', '.join(metrics)}, as compiled", monitor)
    return monitor


def holds(metric, baseline, monitor, tolerance):
    """Whether a metric is worse than the baseline by `tolerance` at most."""
    worse = metric - baseline if monitor.endswith(_LOWER_IS_BETTER) else baseline - metric
    return bool(worse <= tolerance + _ROUNDING)


def chosen(model, exclude):
    """Returns the indices of the trainable variables that take part."""
    variables = model.trainable_variables
    reasons = SparseOptimizer(keras.optimizers.SGD(), exclude=exclude).skip_reasons(variables)
    indices = [i for i, why in enumerate(reasons) if why is None]
    paths = [variables[i].path for i in indices]
    if not indices:
        received = {v.path: why for v, why in zip(variables, reasons, strict=True)}
        raise invalid("model", "trainable kernels of rank >= 2 that `exclude` leaves", received)
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise invalid("model", "kernels of different paths: name its layers apart", repeated)
    return indices


def check_model(model):
    """Raises unless it is a model that is compiled with a plain optimizer."""
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    if not model.compiled or model.optimizer is None:
        raise invalid("model", "a compiled model", model)
    if sparse_optimizer_of(model.optimizer) is not None:
        raise invalid("model", "one compiled with a plain optimizer", model.optimizer)


def check_data(name, data):
    """Raises unless data are arrays or a dataset."""
    pair = isinstance(data, tuple) and len(data) in (2, 3)
    if not pair and not isinstance(data, tf.data.Dataset):
        raise invalid(name, "(x, y), (x, y, sample_weight) or a tf.data.Dataset", type(data))


def check_tolerance(tolerance):
    """Raises unless it is a number >= 0."""
    if not isinstance(tolerance, numbers.Real) or not 0 <= tolerance < math.inf:
        raise invalid("tolerance", "a number of at least 0", tolerance)
