"""Checks inside a graph: an assertion that fails reaches the caller as an InputError.

In a graph an assertion can fail with TensorFlow's InvalidArgumentError only. `assert_in_graph`
adds the number of the check to it, "tfpeft-check-3"; `input_errors` reads the number and raises
the InputError of that check.
"""

import contextlib
import functools
import itertools
import re

import tensorflow as tf

from tfpeft.core.arguments import InputError

_TOKEN = "tfpeft-check-"
_count = itertools.count()
_numbers = {}  # make_error -> the check's number
_makers = {}  # the check's number -> make_error
_received = {}  # the check's number -> the values with which it failed


def assert_in_graph(condition, make_error, *, values=(), shown=lambda: ()):
    """Checks a condition when the graph runs, or now in eager code.

    A check that does not fail costs its condition only.

    Args:
        condition: A boolean tensor.
        make_error: A function of `values`, as NumPy arrays, that returns the InputError. It lives
            as long as the process; functions that are equal share a number.
        values: Tensors that the error names. XLA cannot compile a check with values; a check
            without values, like all assertions, is left out by XLA.
        shown: A function that returns strings and tensors, for TensorFlow's own error: the caller
            sees it outside of `input_errors`. It is called in the branch that fails.

    Returns:
        A list of operations, to be used as control dependencies; empty in eager code.

    Raises:
        InputError: in eager code.
    """
    if tf.executing_eagerly():
        if not condition:
            raise make_error(*(value.numpy() for value in values))
        return []
    number = _numbers.setdefault(make_error, next(_count))
    _makers[number] = make_error

    def record(*arrays):
        _received[number] = arrays

    def fail():
        recorded = [tf.numpy_function(record, list(values), [])] if values else []
        with tf.control_dependencies(recorded):
            data = [f"{_TOKEN}{number}", *shown()]
            return tf.raw_ops.Assert(condition=False, data=data, summarize=1000)

    return [tf.cond(condition, tf.no_op, fail)]


@contextlib.contextmanager
def input_errors():
    """A context that raises the InputErrors of checks in the graphs that run inside it."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = re.search(rf"{_TOKEN}(\d+)", error.message)
        if not found:
            raise
        number = int(found[1])
        raise _makers[number](*_received.pop(number, ())) from error


def passing_errors(function):
    """Returns a function for `tf.numpy_function`, whose InputErrors `input_errors` raises whole."""

    @functools.wraps(function)
    def run(*args):
        try:
            return function(*args)
        except InputError as error:
            number = next(_count)
            _makers[number] = functools.partial(_same, error)
            raise ValueError(f"{error} ({_TOKEN}{number})") from None

    return run


def _same(error):
    return error.with_traceback(None)
