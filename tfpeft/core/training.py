"""Training with checks: the base of models whose data and outputs are checked in `fit`."""

import contextlib
import inspect

import keras
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.arrays import invalid_data
from tfpeft.core.checks import input_errors
from tfpeft.core.dataset_graph import is_endless


class CheckedModel(keras.Model):
    """A model in whose `fit` and `evaluate` a check that fails in the graph is an InputError.

    Data that is empty, or does not end, raises an error before training.
    """

    # The form of the data that each function was traced for.
    _train_function_form = _test_function_form = None

    def fit(self, x=None, y=None, *args, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: for data that is empty or does not end, and where a check fails.
        """
        steps = kwargs.get("steps_per_epoch")
        _check_length("x", x, steps, "steps_per_epoch")
        validation = kwargs.get("validation_data")
        if validation is not None and not isinstance(validation, (list, tuple)):
            steps = kwargs.get("validation_steps")
            _check_length("validation_data", validation, steps, "validation_steps")
        with self._checked("train_function", x, y):
            history = super().fit(x, y, *args, **kwargs)
        if history.epoch and not history.history.get("loss"):
            raise invalid_data("x", "data with samples, one or more", "data without any")
        return history

    def evaluate(self, x=None, y=None, *args, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: for data that is empty or does not end, and where a check fails.
        """
        _check_length("x", x, kwargs.get("steps"), "steps")
        with self._checked("test_function", x, y):
            return super().evaluate(x, y, *args, **kwargs)

    def train_on_batch(self, x, y=None, *args, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: where a check fails.
        """
        with self._checked("train_function", x, y):
            return super().train_on_batch(x, y, *args, **kwargs)

    def test_on_batch(self, x, y=None, *args, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: where a check fails.
        """
        with self._checked("test_function", x, y):
            return super().test_on_batch(x, y, *args, **kwargs)

    @contextlib.contextmanager
    def _checked(self, function, x, y):
        """A context of `input_errors`, after which the model can be fitted with other data."""
        # TensorFlow traces labels of two ranks as labels of any, for which no loss is defined.
        form = _form(x, y)
        if getattr(self, f"_{function}_form") not in (form, None):
            setattr(self, function, None)
        setattr(self, f"_{function}_form", form)
        try:
            with input_errors():
                yield
        except InputError:
            self.train_function = self.test_function = None  # Keras keeps traces that failed
            raise


def _check_length(name, data, steps, steps_name):
    """Raises for data without samples, and for data without an end where no steps are given."""
    if isinstance(data, tf.data.Dataset):
        if data.cardinality() == 0:
            raise invalid_data(name, "data with samples, one or more", "a dataset without any")
        if steps is None and is_endless(data):
            expected = f"a finite dataset, or `{steps_name}`"
            raise invalid_data(name, expected, "one that repeats without an end")
    elif isinstance(data, keras.utils.PyDataset):
        try:
            count = data.num_batches
        except NotImplementedError:
            return
        if count == 0:
            raise invalid_data(name, "data with samples, one or more", "a PyDataset without any")
        if count is None and steps is None:
            expected = f"a PyDataset whose `__len__` is known, or `{steps_name}`"
            raise invalid_data(name, expected, "one of unknown length")
    elif inspect.isgenerator(data):
        if steps is None:
            expected = f"`{steps_name}`, as it is not known whether a generator ends"
            raise invalid_data(name, expected, f"a generator and {steps_name}=None")
    elif data is not None:
        leaves = [leaf for leaf in keras.tree.flatten(data) if hasattr(leaf, "shape")]
        if any(len(leaf.shape) and leaf.shape[0] == 0 for leaf in leaves):
            raise invalid_data(name, "data with samples, one or more", "an array without any")


def _form(x, y):
    """Returns how many axes the labels have, as far as it is known without reading data."""
    if isinstance(x, tf.data.Dataset):
        spec = x.element_spec
        y = spec[1] if type(spec) is tuple and len(spec) > 1 else None
    elif y is None:
        return type(x).__name__
    ranks = [_rank(leaf) for leaf in keras.tree.flatten(y)]
    return f"{type(y).__name__} {ranks}"


def _rank(leaf):
    shape = getattr(leaf, "shape", None)
    return None if shape is None else getattr(shape, "rank", len(shape))
