"""A script: parses its flags, runs its `main`, and makes one line of bad input."""

import contextlib
import dataclasses
import os
import sys
import traceback
import typing
import warnings

import tensorflow as tf
from absl import flags as absl_flags
from absl import logging

from pipelines.common import help as help_texts
from pipelines.common import stopping, workers
from pipelines.common.errors import streamed_samples, unread_flag
from pipelines.common.flags import DEBUG, settings_of
from tfpeft.core.arguments import InputError
from tfpeft.core.checks import input_errors

_HELP = {"help", "helpshort", "?", "helpfull"}
_CLOSED_PIPE = 141  # the exit status of programs that write to a pipe which nobody reads
_DEFINE = {
    str: absl_flags.DEFINE_string,
    int: absl_flags.DEFINE_integer,
    float: absl_flags.DEFINE_float,
    bool: absl_flags.DEFINE_bool,
    list: absl_flags.DEFINE_list,
}


@dataclasses.dataclass(frozen=True)
class Script:
    """A module of this folder that runs as `python -m pipelines.NAME`.

    Attributes:
        main: Called with the settings, and with the list of the files or texts named after the
            flags if the script takes any. It returns the exit status.
        doc: Docstring of the module, which --help shows.
        groups: Title -> flags that the script reads; --debug is added.
        first: Names of the flags that matter most, ten at most.
        takes_files: Whether there may be arguments that are no flags.
        trains: Whether all workers of TF_CONFIG run it together; else the chief runs it alone.
        others: Flags of other scripts, for which the error is that this script does not read them.
    """

    main: typing.Callable
    doc: str
    groups: dict
    first: tuple
    takes_files: bool = False
    trains: bool = True
    others: tuple = ()

    def __post_init__(self):
        object.__setattr__(self, "groups", {**self.groups, "errors": (DEBUG,)})

    @property
    def flags(self):
        """All flags that the script reads, each once."""
        return tuple({flag.name: flag for flags in self.groups.values() for flag in flags}.values())

    def run(self):
        """Runs the script with the arguments of this process, and ends the process."""
        try:
            with stopping.stoppable():
                status = self.status(sys.argv[1:])
                if sys.stdout is not None:
                    sys.stdout.flush()
        except stopping.Stopped as stopped:
            print(stopping.line(stopped.status - 128), file=sys.stderr, flush=True)
            status = stopped.status
        except BrokenPipeError:
            # Python flushes once more when it ends, and would print an error.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            status = _CLOSED_PIPE
        sys.exit(status)

    def status(self, arguments):
        """Runs the script; returns its exit status: 1 for bad input, which is one line."""
        if _help_flags(arguments):
            make = help_texts.full if "helpfull" in _help_flags(arguments) else help_texts.short
            print(make(self.doc, self.groups, self.first))
            return 1
        logging.set_verbosity(logging.ERROR)
        tf.get_logger().setLevel("ERROR")
        warnings.filterwarnings("ignore", module="tensorflow")
        try:
            return self.call(arguments)
        except BrokenPipeError:
            raise
        except (InputError, OSError) as error:
            if "--debug" in arguments:
                traceback.print_exception(error)
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            return 1

    def call(self, arguments):
        """Runs the script; bad input raises, also where data is checked while it is read."""
        settings, files = self.parse(arguments)
        if not self.trains and workers.is_no_chief():
            return 0
        together = workers.together() if self.trains else contextlib.nullcontext()
        dataset = f"--dataset={getattr(settings, 'dataset', None)}"
        with streamed_samples(dataset), input_errors(), together:
            return self.main(settings, files) if self.takes_files else self.main(settings)

    def parse(self, arguments):
        """Returns the settings that the arguments ask for, and those that are no flags."""
        values = absl_flags.FlagValues()
        for flag in self.flags:
            define = absl_flags.DEFINE_multi_string if flag.repeated else _DEFINE[flag.kind]
            define(flag.name, None, flag.help, flag_values=values)
        try:
            _, *files = values(["script", *arguments])
        except absl_flags.UnrecognizedFlagError as error:
            names = {error.flagname, error.flagname.removeprefix("no")}
            if names & {flag.name for flag in self.others}:
                raise unread_flag(error.flagname, "this script") from error
            raise InputError(str(error)) from error
        except absl_flags.IllegalFlagValueError as error:
            raise self._unreadable(error) from error
        except (absl_flags.Error, ValueError) as error:  # ValueError: of --noNAME=VALUE
            raise InputError(str(error)) from error
        if files and not self.takes_files:
            raise InputError(f"Expected flags only. Received: {' '.join(files)}")
        given = {f.name: values[f.name].value for f in self.flags if values[f.name].present}
        return settings_of(self.flags, given), files

    def _unreadable(self, error):
        """Returns the error for a value that absl cannot read; its text is --NAME=VALUE: REASON."""
        given = str(error).removesuffix(f": {error.__context__}").removeprefix("flag --")
        name, _, value = given.partition("=")
        flags = [flag for flag in self.flags if flag.name == name]
        return flags[0].invalid(value) if flags else InputError(str(error))


def _help_flags(arguments):
    """Returns the names of the flags among the arguments that ask for help."""
    flags = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return _HELP & {flag.lstrip("-") for flag in flags if flag.startswith("-")}
