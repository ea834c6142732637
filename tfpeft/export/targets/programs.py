"""Programs of other packages, run in a child process: a crash there is an error here."""

import importlib.util
import signal
import subprocess
import sys

from tfpeft.core.arguments import shortened, unexpected


def check_installed(target, module, package):
    """Raises unless a package is installed.

    Args:
        target: What needs it, for errors.
        module: A module of it.
        package: What pip calls it.
    """
    if importlib.util.find_spec(module) is None:
        raise unexpected(
            f"the package {package} for target={target!r}; install it by: "
            "pip install 'tfpeft[devices]'",
            f"no module {module}",
        )


def run_python(arguments, folder):
    """Returns the ended `subprocess.CompletedProcess` of a Python with arguments, in a folder."""
    # Without -P files of the folder could take the place of modules.
    command = [sys.executable, "-P", *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, capture_output=True, text=True, errors="replace", check=False
    )


def last_words(ended):
    """Returns why a child ended, in one line: its signal, or the last line that it printed."""
    if ended.returncode < 0:
        return f"it was ended by {signal.Signals(-ended.returncode).name}"
    lines = [line.strip() for line in (ended.stderr or ended.stdout).splitlines() if line.strip()]
    return shortened(lines[-1], 300) if lines else f"its status is {ended.returncode}"


def check_one_signature(file, target):
    """Raises unless a `TFLiteFile` has one signature, or none."""
    names = file.read_graphs(lambda graphs: [name for g in graphs for name in g.signatures])
    if len(names) > 1:
        raise unexpected(
            f"a file of one signature for target={target!r}; export each task alone",
            f"{file.path} with {', '.join(names)}",
        )


def check_dense(file, target):
    """Raises unless no constant of a `TFLiteFile` has to be unpacked from its sparse form."""
    if "DENSIFY" in file.contents.ops:
        raise unexpected(
            f"a file of dense constants for target={target!r}: export_tflite(..., sparse=False)",
            f"{file.path} with DENSIFY",
        )
