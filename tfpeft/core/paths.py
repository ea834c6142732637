"""Paths that users give: checked before any work, with errors that name the argument."""

import os
import pathlib
import stat

from tfpeft.core.arguments import InputError


def as_path(path, argument="`path`", expected="a path"):
    """Returns a path as a `pathlib.Path`; a "~" at its beginning becomes the home folder.

    Args:
        path: A text or a path-like object of a text.
        argument: What names the path in the user's call: "`path`" or "--model".
        expected: What it should be, for errors.

    Raises:
        InputError: for other types, and for a text that is empty or no path.
    """
    try:
        text = os.fspath(path)
    except TypeError:
        raise invalid_path(argument, expected, path) from None
    if not isinstance(text, str):
        raise invalid_path(argument, f"{expected} as text", path)
    if not text.strip() or "\0" in text:
        raise invalid_path(argument, expected, text)
    try:
        return pathlib.Path(text).expanduser()
    except RuntimeError as error:  # the home folder of a user that does not exist
        raise invalid_path(argument, expected, text, f": {error}") from error


def file_to_read(path, argument="`path`", expected="a file"):
    """Returns the path of a file that exists.

    Raises:
        InputError: if there is no such file.
    """
    path = as_path(path, argument, expected)
    kind = _kind(path, argument, expected)
    if kind != "a file":
        raise invalid_path(argument, expected, path, f", which is {kind}")
    return path


def file_to_write(path, argument="`path`", expected="a path of a file"):
    """Returns the path of a file that can be written, whether it exists or not.

    Raises:
        InputError: for a folder, a device, and a path inside a file.
        OSError: if the folder that the file goes to is not writable.
    """
    text = path
    path = as_path(path, argument, expected)
    kind = _kind(path, argument, expected)
    if str(text).endswith(("/", os.sep)) and kind != "a folder":
        raise invalid_path(argument, expected, text, ", which is the name of a folder")
    if kind not in ("a file", _MISSING):
        raise invalid_path(argument, expected, path, f", which is {kind}")
    _check_parent(path, argument, expected)
    return path


def folder_to_write(path, argument="`path`", expected="a folder"):
    """Returns the path of a folder that exists or can be made.

    Raises:
        InputError: for a file, a device, and a path inside a file.
    """
    path = as_path(path, argument, expected)
    kind = _kind(path, argument, expected)
    if kind == _MISSING:
        _check_parent(path, argument, expected)
    elif kind != "a folder":
        raise invalid_path(argument, expected, path, f", which is {kind}")
    return path


def invalid_path(argument, expected, received, why=""):
    """Returns the error for a path, with `why` after it."""
    if argument.startswith("--"):
        received = f"{argument}={received}"
    else:
        received = os.fspath(received) if isinstance(received, os.PathLike) else received
        received = f"{argument.strip('`')}={received!r}"
    return InputError(
        f"Received an invalid value for {argument}, expected {expected}. Received: {received}{why}"
    )


_MISSING = "not there"


def _kind(path, argument, expected):
    """Returns what is at a path, in words."""
    try:
        mode = os.stat(path).st_mode
    except (FileNotFoundError, NotADirectoryError):
        return _MISSING
    except (OSError, ValueError) as error:  # too long, a circle of links, no text of the system
        reason = getattr(error, "strerror", None) or error
        raise invalid_path(argument, expected, path, f": {reason}") from error
    if stat.S_ISDIR(mode):
        return "a folder"
    return "a file" if stat.S_ISREG(mode) else "a device or a pipe"


def _check_parent(path, argument, expected):
    """Raises unless the nearest parent that exists is a folder in which files can be made."""
    path = pathlib.Path(os.path.realpath(path))
    parent = next(parent for parent in path.parents if parent.exists())
    if not parent.is_dir():
        raise invalid_path(argument, expected, path, f", and {parent} is a file")
    if not os.access(parent, os.W_OK | os.X_OK):
        raise PermissionError(f"Cannot write {path} ({argument}): {parent} is read-only")
