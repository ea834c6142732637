"""The report of a run as one HTML page, which needs no other file and no network."""

import functools
import pathlib

import jinja2

from tfpeft.reports.comparison_section import comparison_section, comparison_tiles
from tfpeft.reports.predictions_section import predictions_section
from tfpeft.reports.recommendations_section import recommendation_sections, recommendation_tiles
from tfpeft.reports.run_sections import (
    again_section,
    devices_section,
    integers_section,
    layers_section,
    stages_section,
)
from tfpeft.reports.trials_sections import search_sections, search_tiles

_JOBS = {
    "share": "Several tasks on one backbone",
    "search": "Search under a budget",
    "recommend": "Which technique suits the model",
}


def report_html(run, samples=None):
    """Returns the page of a run: what was done, figures, charts, and how to repeat it.

    What a run does not have is left out: a page of "rows" alone is a table and its charts.

    Args:
        run: A dict of plain values: report.json of a run folder, with "name" and "job", and
            perhaps "headline", a text.
        samples: {name: array} of the samples that "disagreements" refers to.
    """
    sections = [
        *_own_sections(run),
        comparison_section(run),
        stages_section(run),
        layers_section(run) if run["job"] != "recommend" else None,
        predictions_section(run, samples or {}),
        integers_section(run),
        devices_section(run),
        again_section(run),
    ]
    return _template().render(
        title=run["name"],
        kicker=_kicker(run),
        lead=run.get("headline"),
        tiles_shown=_tiles(run),
        sections=[section for section in sections if section is not None],
        footer=f"Written by tfpeft{_version(run)}.",
    )


@functools.cache
def _template():
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(pathlib.Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html")


def _own_sections(run):
    if run["job"] == "search":
        return search_sections(run)
    return recommendation_sections(run) if run["job"] == "recommend" else []


def _tiles(run):
    if run["job"] == "search":
        return search_tiles(run)
    if run["job"] == "recommend":
        return recommendation_tiles(run)
    return comparison_tiles(run)


def _kicker(run):
    date = (run.get("made") or {}).get("date")
    job = _JOBS.get(run["job"], f"pipelines.{run['job']}")
    return " · ".join(filter(None, ["tfpeft report", job, date]))


def _version(run):
    version = (run.get("versions") or {}).get("tfpeft")
    return f" {version}" if version else ""
