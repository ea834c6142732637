"""The pages of a run folder, report.html and model_card.md, from what is in it alone."""

import numbers
import pathlib

import jinja2
import numpy as np

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.json_files import read_json
from tfpeft.reports.html import report_html
from tfpeft.reports.model_card import model_card

SAMPLES = "report_samples.npz"
PAGES = {"report.html": report_html, "model_card.md": model_card}
"""Name of a file -> function (run, samples) that returns its text."""
_RUN = {"job": str, "flags": {str: object}}
_REPORT = {str: object}
_CONTENTS = ("rows", "trials", "recommendations")
_ROW = {"notes": [str], **dict.fromkeys(("size_bytes", "latency_ms"), (numbers.Real, None))}


def read_run(path):
    """Returns the figures of a run folder, as the pages take them, and {name: array} of samples.

    Raises:
        InputError: for a folder without a report, or with one that is damaged.
    """
    folder = pathlib.Path(path)
    missing = [name for name in ("run.json", "report.json") if not (folder / name).is_file()]
    if missing:
        expected = "the folder of a run that has ended, with run.json and report.json"
        raise unexpected(expected, f"--run={path}, without {' and '.join(missing)}")
    record = read_json(folder / "run.json", _RUN)
    report = read_json(folder / "report.json", _REPORT)
    if not any(name in report for name in _CONTENTS):
        expected = f"the report of a run, with {' or '.join(_CONTENTS)}"
        raise unexpected(expected, f"{folder / 'report.json'} without them")
    if "rows" in report:
        read_json(folder / "report.json", {"rows": {str: _ROW}})
    return {**report, "name": folder.resolve().name, "job": record["job"]}, _samples(folder)


def _samples(folder):
    path = folder / SAMPLES
    if not path.is_file():
        return {}
    try:
        with np.load(path, allow_pickle=False) as arrays:
            return dict(arrays)
    except Exception as error:  # NumPy and zipfile raise classes of their own
        raise InputError(
            f"Received a damaged file, expected an .npz of arrays. Received: {path}"
        ) from error


def page(name, path):
    """Returns the text of the page `name` of the run folder at `path`."""
    run, samples = read_run(path)
    try:
        return PAGES[name](run, samples)
    except (
        *(ArithmeticError, AttributeError, LookupError, TypeError, ValueError),
        jinja2.TemplateError,
    ) as error:
        raise InputError(
            f"Received a damaged file, expected the report of a run. Received: {path}/report.json"
            f" ({type(error).__name__}: {error})"
        ) from error
