"""Compiled models that are pruned and evaluated: their checks, kernels, metrics and copies."""

import hashlib
import math

import keras
import numpy as np

from tfpeft.core import clone
from tfpeft.core import data as data_module
from tfpeft.core.arguments import NoMatchError, invalid
from tfpeft.core.layers import path_of
from tfpeft.sparsity.fixed_mask import FixedMask
from tfpeft.sparsity.kernels import skip_reasons
from tfpeft.sparsity.sparse_optimizer import sparse_optimizer_of


def check_model(model):
    """Raises unless it is a model that is compiled with a plain optimizer."""
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    if not model.compiled or model.optimizer is None:
        raise invalid("model", "a compiled model", model)
    if sparse_optimizer_of(model.optimizer) is not None:
        raise invalid("model", "one compiled with a plain optimizer", model.optimizer)


def kernel_indices(model, exclude):
    """Returns the indices of the trainable variables that take part.

    Raises:
        NoMatchError: if there are none, or a pattern of `exclude` matches nothing.
        InputError: if two of them have one path.
    """
    variables = model.trainable_variables
    reasons = skip_reasons(variables, exclude)
    indices = [i for i, why in enumerate(reasons) if why is None]
    paths = [variables[i].path for i in indices]
    if not indices:
        received = {path_of(v): why for v, why in zip(variables, reasons, strict=True)}
        expected = "trainable kernels of rank >= 2 that `exclude` leaves"
        raise invalid("model", expected, received, error=NoMatchError)
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise invalid("model", "kernels of different paths: name its layers apart", repeated)
    return indices


def evaluate(model, data, batch_size):
    """Returns {metric: value} of a compiled model on a `core.data.Data`."""
    arguments = data.fit_arguments(batch_size)
    return model.evaluate(**arguments, return_dict=True, verbose=0)


def sparsity_of(variables):
    """Returns the fraction of zeros in all variables together."""
    zeros = sum(int(np.sum(variable.numpy() == 0)) for variable in variables)
    return zeros / sum(math.prod(variable.shape) for variable in variables)


def compiled_copy(model, exclude):
    """Returns a copy that trains as the model does, with a new optimizer that keeps zeros."""
    copy = clone.copy_model(model)
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer  # `compile` adds one again
    optimizer = clone.copy_object(optimizer)
    options = dict(model._compile_config.config)
    for key in ("metrics", "weighted_metrics"):
        options[key] = keras.tree.map_structure(_fresh_metric, options.get(key))
    copy.compile(**{**options, "optimizer": FixedMask(optimizer, exclude=exclude)})
    return copy


def _fresh_metric(metric):
    if isinstance(metric, keras.metrics.Metric):
        return clone.copy_object(metric)
    return metric


def fingerprint(model):
    """Returns a hash of the weights of a model, with their paths and shapes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{weight.path} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def read_labelled(data, name):
    """Returns the `core.data.Data` of samples with labels that end, for `fit` and `evaluate`.

    Raises:
        InputError: as `core.data.read` does; for arrays without labels, and for data whose end
            is not known.
    """
    read = data_module.read(data, name)
    read.check_end()
    first = next(iter(read.batches()))  # raises if there is none
    if read.samples is not None and first.y is None:
        expected = "(x, y), (x, y, sample_weight), a tf.data.Dataset or a keras.utils.PyDataset"
        raise invalid(name, expected, f"{read} without y")
    return read
