"""Compiled models that are pruned and evaluated: their checks, kernels, metrics and copies."""

import contextlib
import hashlib
import math

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core import data as data_module
from tfpeft.core.arguments import InputError, NoMatchError, invalid, last_cause
from tfpeft.core.arrays import invalid_data
from tfpeft.core.checks import input_errors
from tfpeft.core.compiling import compile_like
from tfpeft.core.layers import path_of
from tfpeft.sparsity.fixed_mask import FixedMask
from tfpeft.sparsity.kernels import skip_reasons
from tfpeft.sparsity.sparse_optimizer import sparse_optimizer_of

_DATA_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)


def check_model(model):
    """Raises unless it is a model that is compiled with a plain optimizer."""
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    if not model.compiled or model.optimizer is None:
        raise invalid("model", "a compiled model", model)
    if sparse_optimizer_of(model.optimizer) is not None:
        raise invalid("model", "one compiled with a plain optimizer", model.optimizer)


def kernel_indices(model, exclude, include):
    """Returns the indices of the trainable variables that take part.

    Raises:
        NoMatchError: if there are none, or a pattern of `exclude` or
            `include` matches nothing.
        InputError: if two of them have one path.
    """
    variables = model.trainable_variables
    reasons = skip_reasons(variables, exclude, include)
    indices = [i for i, why in enumerate(reasons) if why is None]
    paths = [variables[i].path for i in indices]
    if not indices:
        received = {path_of(v): why for v, why in zip(variables, reasons, strict=True)}
        expected = "trainable kernels of Keras's layers, or others that `include` names"
        raise invalid("model", expected, received, error=NoMatchError)
    repeated = sorted({path for path in paths if paths.count(path) > 1})
    if repeated:
        raise invalid("model", "kernels of different paths: name its layers apart", repeated)
    return indices


def evaluate(model, data, batch_size):
    """Returns {metric: value} of a compiled model on a `core.data.Data`."""
    arguments = data.fit_arguments(batch_size)
    with errors_of_data(data.name):
        return model.evaluate(**arguments, return_dict=True, verbose=0)


@contextlib.contextmanager
def errors_of_data(name):
    """A context in which an error of Keras about data becomes an InputError of one line."""
    try:
        with input_errors():
            yield
    except InputError:
        raise
    except (ValueError, TypeError, *_DATA_ERRORS) as error:
        expected = "data that the model, its loss and its metrics take"
        raise invalid_data(name, expected, last_cause(error)) from error


def sparsity_of(variables):
    """Returns the fraction of zeros in all variables together."""
    zeros = sum(int(np.sum(variable.numpy() == 0)) for variable in variables)
    return zeros / sum(math.prod(variable.shape) for variable in variables)


def compiled_copy(model, exclude, include):
    """Returns a copy that trains as the model does, with a new optimizer that keeps zeros."""
    copy = clone.copy_model(model)
    compile_like(copy, model, lambda each: FixedMask(each, exclude=exclude, include=include))
    return copy


def fingerprint(model):
    """Returns a hash of the weights of a model, with their paths and shapes."""
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{weight.path} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()


def read_labelled(data, name, model):
    """Returns the `core.data.Data` of samples with labels that end, for `fit` and `evaluate`.

    Raises:
        InputError: as `core.data.read` does; for arrays without labels, for data whose end is
            not known, and for inputs, labels or sample weights that are not finite numbers.
            Labels of a model of several tasks may be NaN, where they are missing.
    """
    read = data_module.read(data, name)
    read.check_end()
    has_missing_labels = hasattr(model, "tasks")
    for batch in read.batches():  # raises if there is none
        if batch.y is None and (read.samples is not None or model.loss is not None):
            expected = "(x, y), (x, y, sample_weight), a tf.data.Dataset or a keras.utils.PyDataset"
            raise invalid(name, expected, f"{read} without y")
        _check_finite(batch.x, name, "inputs", strings=True)
        _check_finite(batch.y, name, "labels", missing=has_missing_labels)
        _check_finite(batch.sample_weight, name, "sample weights")
    return read


def _check_finite(structure, name, what, *, strings=False, missing=False):
    for leaf in keras.tree.flatten(structure):
        if leaf is None:
            continue
        values = np.asarray(leaf)
        if strings and values.dtype.kind in "OSU":  # for a model that reads text
            continue
        if values.dtype.kind not in "biuf" and values.dtype.name != "bfloat16":
            raise invalid_data(name, f"{what} that are real numbers", f"type {values.dtype}")
        values = values.astype("float32") if values.dtype.name == "bfloat16" else values
        if not np.all(np.isfinite(values) | (np.isnan(values) if missing else False)):
            raise invalid_data(name, f"finite {what}", "NaN or infinity among them")


def check_metrics(metrics, monitor, model):
    """Raises unless the loss and the monitored metric of a model not pruned yet are numbers."""
    bad = [key for key in ("loss", monitor) if not np.all(np.isfinite(metrics.get(key, 0.0)))]
    if bad:
        received = f"{model.name!r}, whose {bad[0]} on these data is not finite"
        raise InputError(
            "Received an invalid value for `model`, expected one with a finite loss and metric. "
            f"Received: {received}"
        )
