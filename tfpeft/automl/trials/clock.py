"""The clock of a search: how much of its minutes is left, over several starts of the process."""

import json
import statistics
import time

import keras

from tfpeft.core.files import replacing

_FILE = "clock.json"
_SAVED_EVERY = 10.0  # seconds
_SEARCHED = 0.6
"""The part of the minutes in which trials start; the best one is trained longer in the rest."""


class Clock:
    """Counts the seconds that a search has taken.

    Args:
        folder: A `pathlib.Path`; the time is kept in a file there.
        minutes: How long the search may take.
        is_kept: Whether `save` writes the time: not of workers, whose chief does.
    """

    def __init__(self, folder, minutes, *, is_kept=True):
        self._is_kept, self._saved = is_kept, time.monotonic()
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

    def save_at_times(self):
        """Writes the time every ten seconds, so that a kill does not give it back."""
        if time.monotonic() - self._saved > _SAVED_EVERY:
            self.save()

    def save(self):
        """Writes the time to its file."""
        self._saved = time.monotonic()
        if not self._is_kept:
            return
        with replacing(self._path) as partial:
            partial.write_text(json.dumps({"seconds": self.elapsed}))


class StepTimer(keras.callbacks.Callback):
    """Counts the updates of a training, and takes their time.

    Attributes:
        steps: Updates that were done.
    """

    def __init__(self):
        super().__init__()
        self.steps, self._times, self._ended = 0, [], None

    def on_epoch_begin(self, epoch, logs=None):
        self._ended = None  # the first step of a fit compiles, and between epochs others measure

    def on_train_batch_end(self, batch, logs=None):
        now = time.perf_counter()
        if self._ended is not None:
            self._times.append(now - self._ended)
        self._ended = now
        self.steps += 1

    @property
    def seconds_per_step(self):
        """Mean seconds of a step, the first one of each epoch left out; None without others."""
        return statistics.fmean(self._times) if self._times else None

    @property
    def median(self):
        """Median seconds of a step, which a pause of the machine does not change."""
        return statistics.median(self._times)


class StopAtDeadline(StepTimer):
    """Ends the training when the minutes of the search are over; and takes the time of steps.

    Args:
        clock: The `Clock`.

    Attributes:
        is_late: Whether it ended the training.
    """

    def __init__(self, clock):
        super().__init__()
        self._clock, self.is_late = clock, False

    def on_train_batch_end(self, batch, logs=None):
        super().on_train_batch_end(batch, logs)
        self._clock.save_at_times()
        if self._clock.left < 0:
            self.is_late = self.model.stop_training = True
