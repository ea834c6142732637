"""Rounds of pruning: their history, and the folder from which they resume."""

import json
import numbers

from tfpeft.core.files import ResumableFolder, remove

RECORD = "history.json"
_ROUND = {"metric": numbers.Real, "held": bool}


class Rounds:
    """The rounds so far; with a folder, an interrupted run goes on after the last one.

    The record is written last and names the model that belongs to it.

    Args:
        directory: The folder, or None.
        settings: What makes two runs the same: a dict that JSON can hold.
        figures: {name: type} of what a round is described by, beside "metric" and "held".

    Attributes:
        monitor, baseline: The metric's name and its value for the unpruned model; None before
            `begin`.
        history: A dict for each round.

    Raises:
        InputError: if the folder holds other files, or a run with other settings.
    """

    def __init__(self, directory, settings, figures):
        self.monitor, self.baseline, self.history = None, None, []
        self.folder = None
        if directory is None:
            return
        self.folder = ResumableFolder(
            directory,
            RECORD,
            {"settings": json.loads(json.dumps(settings))},
            kind="rounds of pruning",
            argument="`directory`",
            progress={"monitor": str, "baseline": float, "history": [{**figures, **_ROUND}]},
        )
        if self.folder.progress is not None:
            progress = self.folder.progress
            self.monitor, self.baseline = progress["monitor"], progress["baseline"]
            self.history = progress["history"]

    @property
    def held(self):
        """How many rounds held."""
        return sum(step["held"] for step in self.history)

    @property
    def model_path(self):
        """The file of the last model that held."""
        return self.folder / f"round_{self.held}.keras"

    def begin(self, monitor, metrics):
        """Notes the metric that decides, of the metrics of the unpruned model."""
        self.monitor, self.baseline = monitor, metrics[monitor]
        self._save()

    def add(self, figures, metric, held, model):
        """Adds a round, and stores its model if it held."""
        self.history.append({**figures, "metric": metric, "held": held})
        if self.folder is None:
            return
        if held:
            self.folder.write(self.model_path.name, model.save)
        self._save()
        for path in self.folder.path.glob("round_*.keras"):
            if path != self.model_path:
                remove(path)

    def _save(self):
        if self.folder is not None:
            self.folder.save(monitor=self.monitor, baseline=self.baseline, history=self.history)
