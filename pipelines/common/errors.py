"""Errors about flags, in the form of tfpeft's own: what was expected, and what was received."""

import contextlib
import sys

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
    reason = ": ".join(dict.fromkeys([type(error).__name__, last_cause(error)]))
    return InputError(
        f"Expected code that runs; --debug prints its traceback. Received: {received}: {reason}"
    )
