"""Trials of a search: what each was, cost and reached, in files that outlast a kill."""

import dataclasses
import json
import pathlib

from tfpeft.core.arguments import InputError
from tfpeft.core.files import replacing
from tfpeft.core.json_files import read_json

STATUSES = ("completed", "over_budget", "stopped", "failed")
_SCHEMA = {"id": str, "settings": {}, "status": str, "figures": {}}
_REJECTED = "over_budget.jsonl"


@dataclasses.dataclass(frozen=True)
class SearchTrial:
    """A trial of `search`.

    Attributes:
        id: Its name.
        settings: {choice: value}.
        status: "completed" (inside the budget); "over_budget", before training or after it;
            "stopped" early, as it was worse than others; or "failed".
        reason: Why it is not completed; "" if it is.
        metric: The metric of its file on validation data; of a stopped trial of the model so far.
            None without any.
        interval: (low, high) of 95% of the metric; None without any.
        figures: {figure: number} of its file; of one that was not trained, of the untrained file.
        epochs: How many epochs it was trained, those of the trial that it goes on with included.
        seconds: How long it took, those of that trial not included.
        steps: Updates of this trial alone.
        seconds_per_step: Of its training.
        reports: {how many of nine parts of its float training: metric of the model after them}.
        evaluation: The figures of `Evaluation.as_dict()` on validation data; None without a file.
        parent: The id of the trial that it goes on with; None if it begins anew.
        layer_snr_db: {layer: signal-to-noise ratio in dB} of an integer file, against the float
            file that it was made of; {} of others.
    """

    id: str
    settings: dict
    status: str
    reason: str = ""
    metric: float | None = None
    interval: tuple | None = None
    figures: dict = dataclasses.field(default_factory=dict)
    epochs: float = 0.0
    seconds: float = 0.0
    steps: int = 0
    seconds_per_step: float | None = None
    reports: dict = dataclasses.field(default_factory=dict)
    evaluation: dict | None = None
    parent: str | None = None
    layer_snr_db: dict = dataclasses.field(default_factory=dict)

    def as_dict(self) -> dict:
        """Returns what a report has of the trial, as plain JSON values."""
        return {
            "id": self.id,
            "settings": self.settings,
            "status": self.status,
            "reason": self.reason,
            "metric": self.metric,
            "interval": None if self.interval is None else list(self.interval),
            "figures": self.figures,
            "epochs": self.epochs,
            "seconds": round(self.seconds, 2),
            "parent": self.parent,
        }


class Records:
    """The trials of a folder, which several processes may add to.

    Args:
        folder: A `pathlib.Path`, which exists.
    """

    def __init__(self, folder):
        self._folder = pathlib.Path(folder)
        self._folder.mkdir(exist_ok=True)
        self._read = {}

    def add(self, trial):
        """Writes a trial to its file."""
        with replacing(self._path(trial.id)) as partial:
            partial.write_text(json.dumps(dataclasses.asdict(trial), indent=2))

    def reject(self, settings, status, reason, figures):
        """Adds a trial that is not trained; one process of a search does this."""
        number = len(self.rejected()) + 1
        line = {"id": f"b{number:04d}", "settings": settings, "status": status}
        self._rejected.append(SearchTrial(**line, reason=reason, figures=figures))
        with open(self._folder / _REJECTED, "a") as file:
            file.write(json.dumps({**line, "reason": reason, "figures": figures}) + "\n")

    def get(self, name):
        """Returns the trial of an id; None if it has not ended."""
        path = self._path(name)
        return self._trial(path) if path.is_file() else None

    def trained(self):
        """Returns the trials that were trained and have ended, in the order of their ids."""
        paths = sorted(self._folder.glob("[!t]*.json"))
        return [self._trial(path) for path in paths]

    def rejected(self):
        """Returns the trials that were not trained."""
        if not hasattr(self, "_rejected"):
            self._rejected = list(_lines(self._folder / _REJECTED))
        return self._rejected

    def all(self):
        """Returns all trials, those that were trained first."""
        return [*self.trained(), *self.rejected()]

    def _path(self, name):
        return self._folder / f"{name}.json"

    def _trial(self, path):
        if path not in self._read:
            found = read_json(path, _SCHEMA)
            interval = found.get("interval")
            try:
                trial = SearchTrial(**{**found, "interval": interval and tuple(interval)})
            except TypeError as error:
                raise InputError(
                    f"Received a damaged file, expected a trial of a search. Received: {path}"
                ) from error
            self._read[path] = trial
        return self._read[path]


def _lines(path):
    """Yields the trials of a file; a last line that a kill cut off is left out."""
    if not path.is_file():
        return
    for line in path.read_text().splitlines():
        try:
            yield SearchTrial(**json.loads(line))
        except (ValueError, TypeError):
            continue
