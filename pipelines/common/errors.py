"""Errors about flags, in the form of tfpeft's own: what was expected, and what was received."""

import contextlib
import re
import sys

import tensorflow as tf

from tfpeft.core.arguments import InputError, last_cause


def invalid_flag(name, expected, received, *, error=InputError):
    """Returns the error for the value of --`name`; a list is written as it was given."""
    if isinstance(received, (list, tuple)):
        received = ",".join(map(str, received))
    return error(
        f"Received an invalid value for --{name}, expected {expected}. "
        f"Received: --{name}={received}"
    )


def unread_flag(name, reader):
    """Returns the error for a flag that has no effect on what was asked for."""
    return InputError(f"Received --{name}, which {reader} does not read")


@contextlib.contextmanager
def user_code(received):
    """Runs code that a flag names: what it raises becomes one line, what it prints goes to stderr.

    Ctrl-C remains what it is, whose code runs at that moment.

    Args:
        received: The flag, such as "--dataset=module:function".
    """
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    except (Exception, SystemExit) as error:
        raise failed(received, error) from error


def failed(received, error):
    """Returns the error for user code that raised `error`."""
    return InputError(
        "Expected code that runs; --debug prints its traceback. "
        f"Received: {received}: {_reason(error)}"
    )


def _reason(error):
    """Returns the type and the text of an exception; of one inside TensorFlow, those of the code.

    TensorFlow's text has the place in the dataset before them, and the traceback after them.
    """
    text = re.split(r"\s*Traceback \(most recent call last\)", last_cause(error))[0]
    if isinstance(error, tf.errors.OpError):
        return re.sub(r"Error in user-defined function passed to .*? Iterator::\S+: ", "", text)
    return ": ".join(dict.fromkeys([type(error).__name__, text]))


@contextlib.contextmanager
def streamed_samples(received):
    """Runs code that reads samples: what reading them raises inside TensorFlow becomes one line.

    Other errors of TensorFlow remain what they are.

    Args:
        received: The flag, such as "--dataset=module:function".
    """
    try:
        yield
    except tf.errors.OpError as error:
        if "IteratorGetNext" not in error.message:
            raise
        raise InputError(
            "Expected samples that can be read; --debug prints the traceback. "
            f"Received: {received}: {_reason(error)}"
        ) from error
