"""Errors about flags, in the form of tfpeft's own: what was expected, and what was received."""

from tfpeft.core.arguments import InputError


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


def first_line(error):
    """Returns the first line of what another library reports, or the name of its error."""
    return (str(error).splitlines() or [type(error).__name__])[0]
