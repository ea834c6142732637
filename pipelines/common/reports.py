"""What reports of runs have in common: versions, the machine, how they are written and printed."""

import contextlib
import importlib.metadata
import json
import numbers
import platform

import numpy as np

import tfpeft
from pipelines.common import devices, report_page
from tfpeft.core.arguments import last_cause
from tfpeft.core.json_files import read_json
from tfpeft.evaluation.results import FIGURES
from tfpeft.evaluation.tables import evaluations_text
from tfpeft.reports.plots import path_plot

ROWS = {str: {**dict.fromkeys(FIGURES, (numbers.Real, None)), "notes": [str]}}
"""The form of the rows of a report, for `mismatch`."""
_PACKAGES = ("tensorflow", "keras", "ai-edge-litert")


def versions():
    """Returns name -> version of the packages that figures depend on."""
    others = {name: importlib.metadata.version(name) for name in _PACKAGES}
    return {"tfpeft": tfpeft.__version__, **others}


def machine():
    """Returns the machine that latencies are of."""
    return f"{platform.machine()}, Python {platform.python_version()}"


def plot_against_size(rows, metric, path):
    """Writes a PNG: a metric against the size of the file, a point per row that has both."""
    is_percent = metric == "accuracy"
    points = {
        name: (row["size_bytes"] / 1e3, (100 if is_percent else 1) * row["metrics"][metric])
        for name, row in rows.items()
        if row["size_bytes"] is not None and metric in row["metrics"]
    }
    y_label = f"{metric} on test data{', %' if is_percent else ''}"
    path_plot(path, points, x_label="size of the .tflite file, kB", y_label=y_label)


def write(folder, result, paragraphs, samples=None):
    """Writes the files of a report; report.json comes last: it shows that the run has ended.

    Args:
        folder: The `RunFolder`.
        result: The figures, which report.json holds.
        paragraphs: Those of report.md.
        samples: {name: array} of the samples that "disagreements" refers to.
    """
    folder.write("report.md", "\n\n".join([f"# {folder.path.name}", *paragraphs]))
    folder.discard([report_page.SAMPLES])
    if samples:
        folder.write(report_page.SAMPLES, lambda path: np.savez_compressed(path, **samples))
    text = json.dumps(result, indent=2)
    run = {**json.loads(text), "name": folder.path.name, "job": folder.settings["job"]}
    for name, make in report_page.PAGES.items():
        with optional(name):
            folder.write(name, make(run, samples or {}))
    folder.write("report.json", text)


@contextlib.contextmanager
def optional(part):
    """A context of a part of a report without which the run is whole: errors become a line.

    A disk that is full is an error all the same.
    """
    try:
        yield
    except OSError:
        raise
    except Exception as error:
        print(f"The report is without {part}: {last_cause(error)}", flush=True)


def show(folder, headline, schema):
    """Prints the report of a run that has ended, and returns its figures; `schema` is its form."""
    result = read_json(folder / "report.json", schema)
    print(f"\n{headline(result)}\n\n{evaluations_text(result['rows'])}\n")
    if result.get("devices"):
        print(f"{devices.text(result['devices'])}\n")
    page = ", and report.html for a browser" if (folder / "report.html").exists() else ""
    print(f"Report: {folder / 'report.md'}{page}")
    return result
