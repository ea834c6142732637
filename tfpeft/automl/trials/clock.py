"""The clock of a search: how much of its minutes is left, over several starts of the process."""

import json
import time

import keras

from tfpeft.core.files import replacing

_FILE = "clock.json"
_SEARCHED = 0.6
"""The part of the minutes in which trials start; the best one is trained longer in the rest."""


class Clock:
    """Counts the seconds that a search has taken.

    Args:
        folder: A `pathlib.Path`; the time is kept in a file there.
        minutes: How long the search may take.
    """

    def __init__(self, folder, minutes):
        self._path, self._seconds = folder / _FILE, 60.0 * minutes
        self._before, self._started = 0.0, time.monotonic()
        if self._path.is_file():
            try:
                self._before = float(json.loads(self._path.read_text())["seconds"])
            except (ValueError, KeyError, TypeError):
                self._before = 0.0  # it was cut off: the time starts again

    @property
    def elapsed(self):
        """Seconds that have passed, those before a kill included."""
        return self._before + time.monotonic() - self._started

    @property
    def left(self):
        """Seconds that are left."""
        return self._seconds - self.elapsed

    @property
    def left_for_trials(self):
        """Seconds that are left for trials, before the best one is trained longer."""
        return _SEARCHED * self._seconds - self.elapsed

    @property
    def seconds_for_trials(self):
        """Seconds that all trials have."""
        return _SEARCHED * self._seconds

    def save(self):
        """Writes the time to its file."""
        with replacing(self._path) as partial:
            partial.write_text(json.dumps({"seconds": self.elapsed}))


class StopAtDeadline(keras.callbacks.Callback):
    """Ends the training when the minutes of the search are over; and takes the time of steps.

    Args:
        clock: The `Clock`.

    Attributes:
        steps: Updates that were done.
        is_late: Whether it ended the training.
    """

    def __init__(self, clock):
        super().__init__()
        self._clock, self.steps, self.is_late, self._first = clock, 0, False, None

    def on_train_batch_end(self, batch, logs=None):
        self.steps += 1
        if self._clock.left < 0:
            self.is_late = self.model.stop_training = True
