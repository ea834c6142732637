"""Training with checks: the base of models whose data and outputs are checked in `fit`."""

import contextlib

import keras
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.arrays import check_ranks, invalid_data
from tfpeft.core.checks import input_errors
from tfpeft.core.fit_data import check_labels, check_length, ranks_of_labels


class CheckedModel(keras.Model):
    """A model in whose `fit` and `evaluate` a check that fails in the graph is an InputError.

    Data that is empty, or does not end, raises an error before training.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        # Name -> {form of the data: the function that Keras made for it}; Keras tracks no __dict__.
        self.__dict__["_functions"] = {"train_function": {}, "test_function": {}}

    def fit(self, x=None, y=None, *args, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: for data that is empty or does not end, and where a check fails.
        """
        steps = kwargs.get("steps_per_epoch")
        check_length("x", x, steps, "steps_per_epoch")
        check_ranks(x, "x")
        validation = kwargs.get("validation_data")
        if validation is not None and not isinstance(validation, (list, tuple)):
            steps = kwargs.get("validation_steps")
            check_length("validation_data", validation, steps, "validation_steps")
            check_ranks(validation, "validation_data")
        check_labels(x, y, kwargs.get("sample_weight"))
        if isinstance(validation, (list, tuple)):
            check_labels(*validation[:3], name="validation_data")
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
        check_length("x", x, kwargs.get("steps"), "steps")
        check_ranks(x, "x")
        check_labels(x, y, kwargs.get("sample_weight"))
        with self._checked("test_function", x, y):
            results = super().evaluate(x, y, *args, **kwargs)
        if isinstance(results, (dict, list)) and not results:
            raise invalid_data("x", "data with samples, one or more", "data without any")
        return results

    def predict(self, x, *args, **kwargs):
        """As of `keras.Model`.

        Raises:
            InputError: for other inputs than the model's.
        """
        check_length("x", x, kwargs.get("steps"), "steps")
        self._check_inputs(x)
        return super().predict(x, *args, **kwargs)

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

    def check_inputs(self, x):
        """Raises unless inputs, or their specs, are those of the model; a subclass has the check.

        The model checks what it is called with. But functions of several calls know shapes less
        well: of shapes that differ TensorFlow keeps what they have in common.
        """

    def _check_inputs(self, x):
        if isinstance(x, tf.data.Dataset):
            spec = x.element_spec
            x = spec[0] if type(spec) is tuple else spec
        if x is not None and all(hasattr(leaf, "shape") for leaf in keras.tree.flatten(x)):
            self.check_inputs(x)

    @contextlib.contextmanager
    def _checked(self, function, x, y):
        """A context of `input_errors`, after which the model can be fitted with other data."""
        # TensorFlow traces labels of two ranks as labels of any, for which no loss is defined.
        self._check_inputs(x)
        functions, form = self._functions[function], ranks_of_labels(x, y)
        if getattr(self, function) is None:  # `compile`, among others, ends what was traced
            functions.clear()
        setattr(self, function, functions.get(form))
        try:
            with input_errors():
                yield
        except InputError:
            self.train_function = self.test_function = None  # Keras keeps traces that failed
            raise
        except ValueError as error:
            if not str(error).startswith("Invalid dtype: "):  # of Keras, which reads batches first
                raise
            expected = "batches of numbers, or of texts as tensors"
            raise invalid_data("x", expected, f"a {type(x).__name__}: {error}") from error
        functions[form] = getattr(self, function)
