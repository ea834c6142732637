"""What reports of runs have in common: versions, the machine, how they are written and printed."""

import importlib.metadata
import json
import numbers
import platform

from pipelines.common import devices
from tfpeft.core.json_files import read_json
from tfpeft.evaluation.results import FIGURES
from tfpeft.evaluation.tables import evaluations_text

ROWS = {str: {**dict.fromkeys(FIGURES, (numbers.Real, None)), "notes": [str]}}
"""The form of the rows of a report, for `mismatch`."""
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


def show(folder, headline, schema):
    """Prints the report of a run that has ended, and returns its figures; `schema` is its form."""
    result = read_json(folder / "report.json", schema)
    print(f"\n{headline(result)}\n\n{evaluations_text(result['rows'])}\n")
    if result.get("devices"):
        print(f"{devices.text(result['devices'])}\n")
    print(f"Report: {folder / 'report.md'}")
    return result
