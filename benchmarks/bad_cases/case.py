"""A bad input, and what came of it: a clear error, or one of five worse things."""

import contextlib
import dataclasses
import io
import linecache
import os
import pathlib
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable

from tfpeft.core.arguments import InputError
from tfpeft.core.files import PARTIAL

KINDS = ("good", "unclear", "traceback", "silent", "hang", "half-written")
TIME_LIMIT = 120  # seconds for a case; most need a thousandth of it
GIVEN = "given"  # how the name of a file begins that a case itself writes
LONGEST = 600  # characters that someone reads as one line

_PACKAGES = tuple(f"{os.sep}{name}{os.sep}" for name in ("tfpeft", "pipelines"))
_SAYS_WHAT = ("xpected", "eceived", "annot", "belongs", "nknown")


@dataclasses.dataclass(frozen=True)
class Case:
    """An input that must be rejected.

    Attributes:
        name: The call, as a user would write it.
        call: A function that makes the call, in an empty current folder.
        named: Words of which an error must have one: the argument, the flag, or the file.
        is_script: Whether it returns the (status, stderr, stdout) of a script.
        repaired: Names of files that may be made again instead, if a line of the output says so.
    """

    name: str
    call: Callable
    named: tuple[str, ...]
    is_script: bool = False
    repaired: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Made:
    """A bad value that is made when it is needed: a model, a dataset, a file."""

    text: str
    make: Callable

    def __repr__(self):
        return self.text


def made(value):
    """Returns the value that a table holds, or makes it."""
    return value.make() if isinstance(value, Made) else value


# Other words that name an argument: what is in it, or the place where it goes.
WORDS = {
    "data": ("inputs", "labels", "samples"),
    "train": ("inputs", "labels", "samples"),
    "validation": ("inputs", "labels", "samples"),
    "validation_data": ("inputs", "labels", "samples"),
    "x": ("inputs", "samples"),
    "model": ("Cannot rebuild", "outputs", "classes of tiny", "as 'tiny' has it"),
    "models": ("model",),
    "backbone": ("Cannot rebuild",),
    "heads": ("task", "head"),
    "adapters": ("target",),
}
_FILES = ("path", "model", "models", "teacher", "directory")  # named by the file, too


def bad_arguments(name, function, good, bad):
    """Returns a case for each bad value of each argument; the other arguments are good.

    Args:
        name: The call, such as "LoRA".
        function: Called with keyword arguments.
        good: Returns the good arguments, a dict.
        bad: {argument: values}.
    """

    def case(argument, value):
        text = repr(value).replace("\n", " ")
        file = text.strip("'")
        # One letter is in every sentence.
        named = (argument,) if len(argument) > 1 else (f"`{argument}", f"{argument}=")
        is_file = argument in _FILES and text.startswith("'") and len(file) > 4
        return Case(
            f"{name}({argument}={text})",
            lambda: function(**{**good(), argument: made(value)}),
            (*named, *WORDS.get(argument, ()), *([file] if is_file else [])),
        )

    return [case(argument, value) for argument, values in bad.items() for value in values]


class TimedOut(BaseException):
    """A case that took longer than TIME_LIMIT."""


def run(case):
    """Runs a case; returns its kind, and the text of what came."""
    before, late = pathlib.Path.cwd(), []

    def time_out(signum, frame):
        late.append(True)  # the exception may be lost in other code
        raise TimedOut

    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        handler = signal.signal(signal.SIGALRM, time_out)
        signal.alarm(TIME_LIMIT)
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                kind, text = _outcome(case)
        except TimedOut:
            kind, text = "hang", ""
        finally:
            signal.alarm(0)
            signal.signal(signal.SIGALRM, handler)
            os.chdir(before)
        left = sorted(
            str(path.relative_to(folder))
            for path in pathlib.Path(folder).rglob("*")
            if path.is_file() and _is_rest(path.relative_to(folder), case)
        )
    if late:
        return "hang", f"no end within {TIME_LIMIT} s"
    if kind in ("good", "unclear") and left:
        return "half-written", f"{', '.join(left)} stayed: {text}"
    return kind, text


def _is_rest(path, case):
    """Whether a file should not be there after an error; scripts keep whole files of stages."""
    if path.name.startswith(PARTIAL):
        return True
    return not case.is_script and not path.parts[0].startswith(GIVEN)


def _outcome(case):
    try:
        returned = case.call()
    except TimedOut:
        raise
    except BaseException as error:  # SystemExit of a user's function, too
        return _kind_of_error(error, case.named), _described(error)
    if case.is_script:
        status, errors, output = returned
        kind = _kind_of_script(status, errors, case.named)
        if kind == "silent" and _says_repaired(f"{output}\n{errors}", case.repaired):
            kind = "good"
        return kind, f"status {status}: {errors.strip()}"
    return "silent", f"returned a {type(returned).__name__}"


def _kind_of_error(error, named):
    if not _on_purpose(error):
        return "traceback"
    return "good" if _is_clear(str(error), named) else "unclear"


def _kind_of_script(status, errors, named):
    if status in (0, 2):  # 2 is the verdict of --max_accuracy_drop, after a whole run
        return "silent"
    if "Traceback" in errors:
        return "traceback"
    lines = errors.strip().splitlines()
    is_line = status == 1 and len(lines) == 1 and lines[0].startswith("error: ")
    return "good" if is_line and _is_clear(lines[0], named) else "unclear"


def _says_repaired(text, files):
    says = ("damaged", "again", "unreadable", "annot read")
    lines = [line for line in text.splitlines() if any(word in line for word in says)]
    return any(file in line for file in files for line in lines)


def _is_clear(text, named):
    return (
        "\n" not in text
        and len(text) <= LONGEST
        and any(word in text for word in named)
        and any(word in text for word in _SAYS_WHAT)
    )


def _on_purpose(error):
    """Whether tfpeft raised it by a statement of its own, or Python for an unknown argument."""
    if isinstance(error, InputError):
        return True
    frame = traceback.extract_tb(error.__traceback__)[-1]
    if isinstance(error, TypeError) and "argument" in str(error) and __file__ == frame.filename:
        return True
    line = linecache.getline(frame.filename, frame.lineno).strip()
    is_ours = any(package in frame.filename for package in _PACKAGES)
    return (
        is_ours
        and isinstance(error, (ValueError, TypeError, OSError))
        and line.startswith("raise ")
    )


def _described(error):
    frame = traceback.extract_tb(error.__traceback__)[-1]
    place = f"{'/'.join(pathlib.Path(frame.filename).parts[-2:])}:{frame.lineno}"
    return f"{type(error).__name__} ({place}): {error}"


def run_script(script, *arguments):
    """Runs a script as its user does, in this process; returns its status, stderr and stdout."""
    output, errors = io.StringIO(), io.StringIO()
    before = sys.argv, sys.path[:]
    sys.argv = [script.__name__, *map(str, arguments)]
    sys.path.insert(0, os.getcwd())  # as `python -m` does
    status = 0
    try:
        with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(output):
            script.SCRIPT.run()
    except SystemExit as end:
        status = 0 if end.code is None else end.code
    finally:
        sys.argv, sys.path[:] = before
    return status, errors.getvalue(), output.getvalue()
