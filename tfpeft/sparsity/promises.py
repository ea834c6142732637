"""The zeros that optimizers promise for the end of training: counted, and saved with the model."""

import json
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

    def __init__(self, promises, iterations):
        self._promises, self.iterations = promises, iterations

    def promised_zeros(self):
        """Returns pairs (variables, zeros they have at least), as a `SparseOptimizer` does."""
        return self._promises


def promises_of(variables):
    """Returns the sparse optimizers of variables, or what was saved of them, each once.

    Training makes them an attribute of the variable: the model may have been trained inside
    another one, or in a loop that never compiled it.
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
                f"{int(optimizer.iterations)}"
            )
    return missing


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
    """The promises about a model as a file among the assets of its .keras file.

    Keras saves and loads the assets of what a model has as attributes, if it is one of Keras's
    objects; a loss is the smallest of these. It is no loss of the model.
    """

    def __init__(self, model):
        super().__init__()
        self._model = weakref.ref(model)

    def save_assets(self, folder):
        weights = self._model().weights
        indices = {id(variable): i for i, variable in enumerate(weights)}
        saved = [
            {
                "step": int(optimizer.iterations),
                "promises": [
                    {"weights": [indices[id(variable)] for variable in group], "zeros": zeros}
                    for group, zeros in _promises_about(optimizer, weights)
                ],
            }
            for optimizer in promises_of(weights)
        ]
        if any(each["promises"] for each in saved):
            (pathlib.Path(folder) / FILE).write_text(json.dumps(saved))

    def load_assets(self, folder):
        file = None if folder is None else pathlib.Path(folder) / FILE
        if file is None or not file.is_file():
            return
        weights = self._model().weights
        outer = None
        for each in reversed(json.loads(file.read_text())):
            promises = [
                ([weights[i] for i in promise["weights"]], promise["zeros"])
                for promise in each["promises"]
            ]
            saved = SavedPromise(promises, each["step"])
            saved.inner_optimizer = outer
            outer = saved
        for variable in weights:
            current = getattr(variable, "sparse_optimizer", None)
            # An optimizer that was loaded, too, knows better.
            if current is None or isinstance(current, SavedPromise):
                variable.sparse_optimizer = outer


_assets = weakref.WeakKeyDictionary()


def _assets_of(model):
    if model not in _assets:
        _assets[model] = _Assets(model)
    return _assets[model]


# The one thing that tfpeft adds to a class of Keras. A model is loaded by Keras's own classes,
# which read what they have a name for: so the promise has to have a name there. It leaves
# configuration, weights and layers as they are; without tfpeft the file loads as well.
keras.Model._tfpeft_promised_zeros = property(_assets_of)
