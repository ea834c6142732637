"""What optimizers promise of kernels, zeros or few values: counted, and saved with the model."""

import json
import math
import pathlib
import weakref

import keras
import numpy as np

from tfpeft.core.layers import path_of

FILE = "promised_zeros.json"


class SavedPromise:
    """What optimizers had promised for variables of a model that was loaded from a file.

    Attributes:
        iterations: The step of the optimizer when the model was saved.
    """

    def __init__(self, zeros, values, iterations):
        self._zeros, self._values, self.iterations = zeros, values, iterations

    def promised_zeros(self):
        """Returns pairs (variables, zeros they have at least), as a `SparseOptimizer` does."""
        return self._zeros

    def promised_values(self):
        """Returns (variable, number of values at most, axes of channels), as it does, too."""
        return self._values


def promises_of(variables):
    """Returns the sparse optimizers of variables, or their saved promises, without repetition.

    An optimizer is an attribute of the variables that it trains: the model may have been trained
    inside another one, or in a loop that never compiled it.
    """
    found = {}
    for variable in variables:
        optimizer = getattr(variable, "sparse_optimizer", None)
        while optimizer is not None:
            if hasattr(optimizer, "promised_zeros"):
                found[id(optimizer)] = optimizer
            optimizer = getattr(optimizer, "inner_optimizer", None)
    return list(found.values())


def missing_zeros(optimizer, variables=None):
    """Returns a text for each kernel, or group of kernels, with fewer zeros than promised.

    Args:
        optimizer: A `SparseOptimizer` or a `SavedPromise`.
        variables: Groups with any other variable are left out; None for all groups.
    """
    missing = []
    for group, promised in _promises_about(optimizer, variables):
        zeros = sum(zeros_in(variable) for variable in group)
        if zeros < promised:
            missing.append(
                f"{', '.join(map(path_of, group))}: {zeros} of {promised} zeros at step "
                f"{steps_done(optimizer)}"
            )
    return missing


def too_many_values(optimizer, variables):
    """Returns a text for each of the variables with more distinct values than promised."""
    too_many = []
    for variable, promised, axes in _values_of(optimizer, variables):
        values = distinct_values(variable.numpy(), axes)
        if values > promised:
            where = " in a channel" if axes else ""
            too_many.append(
                f"{path_of(variable)}: {values} values{where}, not {promised}, at step "
                f"{steps_done(optimizer)}"
            )
    return too_many


def distinct_values(array, axes=()):
    """Returns how many distinct values an array has; with axes, the most of any channel."""
    channels = math.prod(array.shape[axis] for axis in axes)
    rows = np.moveaxis(array, axes, range(len(axes))).reshape(channels, -1)
    return int(np.max(np.sum(np.diff(np.sort(rows)) != 0, axis=1)) + 1)


def steps_done(optimizer):
    """Returns how many updates an optimizer, or a `SavedPromise`, has behind it."""
    # Not `int(...)`: under a strategy TensorFlow converts its variables to arrays only.
    return int(keras.ops.convert_to_numpy(optimizer.iterations))


def _values_of(optimizer, variables):
    known = set(map(id, variables))
    return [each for each in optimizer.promised_values() if id(each[0]) in known]


def _promises_about(optimizer, variables):
    promises = optimizer.promised_zeros()
    if variables is None:
        return promises
    known = set(map(id, variables))
    return [pair for pair in promises if all(id(variable) in known for variable in pair[0])]


def zeros_in(variable):
    """Returns how many weights of a variable are zero."""
    values = variable.numpy()
    return values.size - np.count_nonzero(values)


class _Assets(keras.losses.Loss):
    """The promises about a model, as a file among the assets of its .keras file.

    Keras saves and loads the assets of Keras objects that are attributes of a model. The smallest
    of Keras's objects is a loss; this one is no loss of the model.
    """

    def __init__(self, model):
        super().__init__()
        self._model = weakref.ref(model)

    def save_assets(self, folder):
        weights = self._model().weights
        indices = {id(variable): i for i, variable in enumerate(weights)}
        optimizers = promises_of(weights)
        promises = [
            {"weights": [indices[id(variable)] for variable in group], "zeros": int(zeros)}
            for optimizer in optimizers
            for group, zeros in _promises_about(optimizer, weights)
        ]
        values = [
            {"weight": indices[id(variable)], "values": number, "axes": axes}
            for optimizer in optimizers
            for variable, number, axes in _values_of(optimizer, weights)
        ]
        if promises or values:
            step = max(map(steps_done, optimizers))
            content = json.dumps({"step": step, "promises": promises, "values": values})
            (pathlib.Path(folder) / FILE).write_text(content)

    def load_assets(self, folder):
        file = None if folder is None else pathlib.Path(folder) / FILE
        if file is None or not file.is_file():
            return
        weights = self._model().weights
        saved = json.loads(file.read_text())
        promises = [
            ([weights[i] for i in promise["weights"]], promise["zeros"])
            for promise in saved["promises"]
        ]
        values = [
            (weights[promise["weight"]], promise["values"], tuple(promise["axes"]))
            for promise in saved.get("values", ())  # there is none in files of 0.1.0
        ]
        promise = SavedPromise(promises, values, saved["step"])
        for variable in [*(v for group, _ in promises for v in group), *(v for v, *_ in values)]:
            # Not where an optimizer was loaded, too.
            if isinstance(getattr(variable, "sparse_optimizer", promise), SavedPromise):
                variable.sparse_optimizer = promise


_assets = weakref.WeakKeyDictionary()


def _assets_of(model):
    if model not in _assets:
        _assets[model] = _Assets(model)
    return _assets[model]


# The one attribute that tfpeft adds to a class of Keras: a model is loaded as Keras's own class,
# and Keras loads assets for the attributes of that class. Configuration, weights and layers of a
# model stay as they are, so that its file loads without tfpeft, too. A record in the configuration,
# as an initializer or a constraint of a layer, would need tfpeft wherever the file is loaded, and
# would miss attention and subclassed models, whose configurations lack the layers inside.
keras.Model._tfpeft_promised_zeros = property(_assets_of)
