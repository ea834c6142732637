"""What a model costs before it is trained: figures of its untrained exported file."""

import contextlib
import math
import pathlib
import tempfile

import keras
import numpy as np

from tfpeft.automl.trials.techniques import INT4, file_quantization
from tfpeft.core.clone import copy_model
from tfpeft.core.macs import count_macs
from tfpeft.core.packages import check_packages
from tfpeft.evaluation.latency import round_robin
from tfpeft.export.describe import describe_tflite
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.quantization.quantize_aware import quantize_aware
from tfpeft.sparsity.kernels import select_kernels

_WEIGHT_BYTES = {"none": 4.0, "float16": 2.0, INT4: 0.5}
"""Bytes of a weight of a kernel; 1 of integers."""
_ANY_DEVIATION = 1e9
"""An untrained model's outputs say nothing, so that its file may differ from it by any amount."""
_MEASUREMENTS = 3  # of a latency above its limit
_CALIBRATED = 32  # samples whose ranges are enough to make a file of the right size
_GZIP_EXCESS = 1.1
"""Above this many limits the compressed bytes are a clear excess: trained weights, of which many
are near zero, compress better than random ones do."""


class Costs:
    """Figures of models that have a limit, before training, each model measured once.

    Args:
        budget: The `Budget`.
        x: Some inputs, arrays in their structure.

    Attributes:
        has_limits: Whether the budget limits a figure, and not the metric alone.
    """

    def __init__(self, budget, x):
        self._budget, self._x = budget, keras.tree.map_structure(lambda a: a[:_CALIBRATED], x)
        self.has_limits = bool(budget.figures)
        self._first = keras.tree.map_structure(lambda a: np.asarray(a)[:1], x)
        if "arena_bytes" in budget.figures:
            check_packages(["tflite_micro"], "devices")

    def of(self, model, settings, *, stop=True):
        """Returns the figures of a model that has not been trained, and what violates the budget.

        The cheapest figures come first; with `stop` those behind a violation are not measured.

        Args:
            model: The model; it stays as it is.
            settings: {technique: value}: quantization, sparsity and clusters.
            stop: Whether to stop at the first violation.
        """
        wanted, found = self._budget.figures, {}
        if stop and "size_bytes" in wanted:
            least = {"size_bytes": least_bytes(model, settings)}
            violations = self._budget.violations(least)
            if violations:
                return least, [f"{text}, in its weights alone" for text in violations]
        if "macs" in wanted:
            found["macs"] = count_macs(model, self._first)
            if stop and self.exceeded(found):
                return found, self.exceeded(found)
        if set(wanted) - {"macs"}:
            model = self._imposed(model, settings)
            if settings["quantization"] == INT4:  # of 8 bits the file is as large without it
                model = quantize_aware(model, weight_bits=4, representative_data=self._x)
            with tempfile.TemporaryDirectory() as folder, _unlike_vectors(model):
                path = pathlib.Path(folder) / "untrained.tflite"
                export(model, path, settings, self._budget, self._x)
                limit = self._budget.max_latency_ms
                found |= figures_of(path, self._first, wanted, skip=("macs",), latency_limit=limit)
        return found, self.exceeded(found)

    def exceeded(self, figures):
        """Returns the violations of figures that are known before training."""
        figures = dict(figures)
        if figures.get("gzip_bytes") is not None:
            figures["gzip_bytes"] = int(figures["gzip_bytes"] / _GZIP_EXCESS)
        return self._budget.violations(figures)

    def _imposed(self, model, settings):
        """Returns the model with the zeros and clusters that it will have; a copy, where it has."""
        if "gzip_bytes" not in self._budget.figures:
            return model
        sparsity, clusters = settings.get("sparsity", 0.0), settings.get("clusters", 0)
        if not sparsity and not clusters:
            return model
        model = copy_model(model)
        for kernel in select_kernels(model.trainable_variables):
            kernel.assign(imposed(kernel.numpy(), sparsity, clusters))
        return model


@contextlib.contextmanager
def _unlike_vectors(model):
    """A context in which biases and the like, all 0 or 1 before training, are random numbers.

    A file stores equal constants once, and so would be smaller than that of the trained model.
    """
    rng, before = np.random.default_rng(0), []
    for variable in model.trainable_variables:
        values = variable.numpy()
        if values.ndim == 1 and np.all(values == values[0]):
            before.append((variable, values))
            variable.assign(values + rng.normal(0.0, 0.1, values.shape))
    try:
        yield
    finally:
        for variable, values in before:
            variable.assign(values)


def imposed(kernel, sparsity, clusters):
    """Returns a kernel whose least weights are 0, and whose others have few values.

    Args:
        kernel: An array.
        sparsity: The fraction of zeros.
        clusters: How many values it has, zero included; 0 for any number.
    """
    zeros = round(sparsity * kernel.size)
    kernel = kernel.copy()
    if zeros:
        kernel.flat[np.argsort(np.abs(kernel), axis=None)[:zeros]] = 0.0
    if clusters:
        low, high = kernel.min(), kernel.max()
        step = (high - low) / (clusters - 1) or 1.0
        kernel = np.where(kernel == 0, 0.0, low + step * np.round((kernel - low) / step))
    return kernel


def least_bytes(model, settings):
    """Returns bytes that every file of a model has: of its kernels, and of the scales of integers.

    A dynamic-range file has its small kernels in float32, so that this is a lower bound for it,
    too.
    """
    kernels = [weight for weight in model.trainable_variables if len(weight.shape) > 1]
    per_weight = _WEIGHT_BYTES.get(settings["quantization"], 1.0)
    weights = sum(math.prod(kernel.shape) for kernel in kernels)
    if file_quantization(settings) == "int8":
        weights += 4 * sum(kernel.shape[-1] for kernel in kernels if len(kernel.shape) == 4)
    return int(per_weight * weights)


def export(model, path, settings, budget, x, *, trained=False):
    """Writes the .tflite file of a trial, and returns the `ExportReport`.

    Args:
        model: The model; a quantise-aware one has ranges of its own.
        path: The file.
        settings: The settings, with the quantization.
        budget: The `Budget`: an arena is of a file of batch size 1.
        x: Inputs for the ranges of integers.
        trained: Whether the outputs of the file have to be the model's.
    """
    return export_tflite(
        model,
        path,
        quantization=file_quantization(settings),
        representative_data=x,
        allow_deviation=None if trained else _ANY_DEVIATION,
        batch_size=1 if "arena_bytes" in budget.figures else None,
        compact=True,
    )


def figures_of(path, first, names, *, skip=(), latency_limit=None):
    """Returns {figure: number} of a file.

    Args:
        path: The file.
        first: A batch of one sample of its inputs.
        names: Which figures.
        skip: Of these, which not.
        latency_limit: As of `latency_of`.
    """
    file, found = TFLiteFile(path), {}
    for name in ("size_bytes", "gzip_bytes"):
        if name in names:
            found[name] = getattr(file.contents, name)
    if "macs" in names and "macs" not in skip:
        found["macs"] = file.macs(first)
    if "arena_bytes" in names:
        found["arena_bytes"] = describe_tflite(path, target="tflm").device.arena_bytes
    if "latency_ms" in names:
        found["latency_ms"], _ = latency_of(file, first, latency_limit)
    return found


def latency_of(file, first, limit):
    """Returns the median and the 90th percentile of milliseconds of a sample on one thread.

    Args:
        file: A `TFLiteFile`.
        first: A batch of one sample.
        limit: Above it the file is measured up to three times, as a pause of the machine may be
            in a measurement; the lowest one counts. None for a single measurement.
    """
    run = file.prepare(first)
    run()
    found = []
    while not found or (limit and min(found)[0] > limit and len(found) < _MEASUREMENTS):
        found.append(round_robin({"file": run})["file"])
    return min(found)
