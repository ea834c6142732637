"""What reports of runs have in common: versions, the machine, how they are written and printed."""

import importlib.metadata
import json
import platform

from tfpeft.core.arguments import InputError
from tfpeft.evaluation.tables import evaluations_text

_PACKAGES = ("tensorflow", "keras", "ai-edge-litert")


def versions():
    """Returns name -> version of the packages that figures depend on."""
    return {name: importlib.metadata.version(name) for name in _PACKAGES}


def machine():
    """Returns the machine that latencies are of."""
    return f"{platform.machine()}, Python {platform.python_version()}"


def write(folder, result, paragraphs):
    """Writes report.md and report.json, which comes last: it shows that the run has ended."""
    folder.write("report.md", "\n\n".join([f"# {folder.path.name}", *paragraphs]))
    folder.write("report.json", json.dumps(result, indent=2))


def show(folder, headline):
    """Prints the report of a run that has ended, and returns its figures."""
    result = read_json(folder / "report.json")
    print(f"\n{headline(result)}\n\n{evaluations_text(result['rows'])}\n")
    print(f"Report: {folder / 'report.md'}")
    return result


def read_json(path):
    """Returns the content of a JSON file that a script wrote."""
    try:
        return json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"Received a damaged file, expected JSON. Received: {path}") from error
