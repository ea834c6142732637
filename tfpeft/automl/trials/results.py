"""SearchResult: the best model of a search, all trials, and their Pareto fronts."""

import dataclasses
import json
import os
import pathlib
import shutil
import typing

import keras

from tfpeft.automl.trials.budget import FIGURES, UNITS, Budget
from tfpeft.automl.trials.pareto import pareto_front
from tfpeft.automl.trials.records import STATUSES, SearchTrial
from tfpeft.core.arguments import check_choice
from tfpeft.core.files import replacing
from tfpeft.core.paths import file_to_write, folder_to_write
from tfpeft.evaluation.results import Evaluation
from tfpeft.reports.html import report_html
from tfpeft.reports.plots import front_plot
from tfpeft.reports.tables import markdown_table


@dataclasses.dataclass(frozen=True)
class SearchResult:
    """What `search` returns: print it for a table.

    Attributes:
        model: The best model, as it was exported; of "quantize_aware" and "quantize_aware_int4" a
            `QuantizeAwareModel`.
        path: Its .tflite file, which keeps every limit of the budget.
        evaluation: The `Evaluation` of the file: on `test_data` where it was given, else on the
            validation data by which it was chosen. Its latency is the one that the budget was
            checked with.
        best: Its `SearchTrial`.
        trials: All trials: those that were trained, and those that were over the budget before.
        metric: Name of the figure that decided, on validation data.
        higher_is_better: Whether more of it is better.
        budget: The `Budget`.
        rows: {name: `Evaluation`} on the same data: of the file, and of the model or teacher that
            the search began with.
        folder: The folder of the search, with a .tflite file for each trained trial in `files`.
    """

    model: keras.Model
    path: pathlib.Path
    evaluation: Evaluation
    best: SearchTrial
    trials: tuple[SearchTrial, ...] = dataclasses.field(repr=False)
    metric: str
    higher_is_better: bool
    budget: Budget
    rows: dict[str, Evaluation] = dataclasses.field(repr=False)
    folder: pathlib.Path
    # A folder that nobody named goes with the result.
    _temporary: typing.Any = dataclasses.field(default=None, repr=False, compare=False)

    def front(self, figure: str = "size_bytes") -> list[SearchTrial]:
        """Returns the trials that no other one beats in a figure without a worse metric.

        Args:
            figure: "size_bytes", "gzip_bytes", "latency_ms", "macs", or "arena_bytes" where the
                budget has a limit of it.
        """
        check_choice("figure", figure, FIGURES)
        by_id = {trial.id: trial for trial in self.trials}
        names = pareto_front(self._points(figure), higher_is_better=self.higher_is_better)
        return [by_id[name] for name in names]

    def _points(self, figure):
        """Returns {id: (figure, metric)} of the trials that have a file."""
        return {
            trial.id: (trial.figures.get(figure), trial.metric)
            for trial in self.trials
            if trial.evaluation is not None
        }

    def as_dict(self) -> dict:
        """Returns what report.json has, as plain JSON values."""
        return {
            "job": "search",
            "metric": self.metric,
            "higher_is_better": self.higher_is_better,
            "budget": self.budget.as_dict(),
            "trials": [trial.as_dict() for trial in self.trials],
            "best": self.best.id,
            "layer_snr_db": self.best.layer_snr_db,
            "front": {name: [t.id for t in self.front(name)] for name in self._figures()},
            "rows": {name: row.as_dict() for name, row in self.rows.items()},
        }

    def _figures(self):
        """Returns the figures that files of trials have."""
        return [name for name in FIGURES if any(name in t.figures for t in self._measured())]

    def _first_figure(self):
        """Returns the figure of the first limit: of the bytes, if there is none."""
        return (*self.budget.figures, "size_bytes")[0]

    def _measured(self):
        return [trial for trial in self.trials if trial.evaluation is not None]

    def to_markdown(self) -> str:
        """Returns the best model, how many trials there were, and the front of bytes in tables."""
        counts = {status: sum(t.status == status for t in self.trials) for status in STATUSES}
        shown = ", ".join(
            f"{count} {status.replace('_', ' ')}" for status, count in counts.items() if count
        )
        figures = self._figures()
        front = self.front(self._first_figure())
        names = ["best", *dict.fromkeys(trial.id for trial in front)]
        by_id = {trial.id: trial for trial in self.trials}
        rows = []
        for name in names:
            trial = self.best if name == "best" else by_id[name]
            low, high = trial.interval or (None, None)
            interval = "" if low is None else f"{low:.4f} to {high:.4f}"
            rows.append(
                [
                    f"best ({trial.id})" if name == "best" else trial.id,
                    f"{trial.metric:.4f}",
                    interval,
                    *(_number(trial.figures.get(each)) for each in figures),
                    f"{trial.epochs:.3g}",
                    ", ".join(f"{key}={value}" for key, value in trial.settings.items()),
                ]
            )
        header = ["trial", f"{self.metric}, validation", "95%", *figures, "epochs", "settings"]
        align = ["left", *["right"] * (len(header) - 2), "left"]
        return "\n".join(
            [
                f"Budget: {self.budget}. Trials: {shown}.",
                "",
                markdown_table(header, rows, align=align),
            ]
        )

    def __str__(self):
        return self.to_markdown()

    def plot(self, path: str | os.PathLike, figure: str = "size_bytes") -> None:
        """Writes a PNG of all trials that have a file, with the front, the best, and the limit.

        Args:
            path: The file.
            figure: As of `front`.
        """
        check_choice("figure", figure, FIGURES)
        by_id = {trial.id: trial for trial in self.trials}
        points = {
            name: (*point, by_id[name].interval)
            for name, point in self._points(figure).items()
            if point[0] is not None
        }
        front_plot(
            file_to_write(path),
            points,
            front=[trial.id for trial in self.front(figure)],
            best=self.best.id,
            limit=getattr(self.budget, f"max_{figure}"),
            x_label=UNITS[figure],
            y_label=f"{self.metric} on validation data",
        )

    def save(self, folder: str | os.PathLike) -> None:
        """Writes a folder: model.tflite, best.keras, pareto.png, report.json, .md and .html."""
        folder = folder_to_write(folder, "`folder`")
        folder.mkdir(parents=True, exist_ok=True)
        with replacing(folder / "model.tflite") as partial:
            shutil.copyfile(self.path, partial)
        with replacing(folder / "best.keras") as partial:
            self.model.save(partial)
        self.plot(folder / "pareto.png", self._first_figure())
        with replacing(folder / "report.md") as partial:
            partial.write_text(f"# Search\n\n{self.to_markdown()}\n")
        text = json.dumps(self.as_dict(), indent=2)
        page = report_html({**json.loads(text), "name": folder.resolve().name})
        with replacing(folder / "report.html") as partial:
            partial.write_text(page, encoding="utf-8")
        with replacing(folder / "report.json") as partial:
            partial.write_text(text)


def _number(value):
    if value is None:
        return ""
    return f"{value:,}" if isinstance(value, int) else f"{value:.4g}"
