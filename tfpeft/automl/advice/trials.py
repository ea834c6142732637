"""Trials on the model itself, within a time: each one is kept as JSON, and reused after a kill."""

import contextlib
import copy
import dataclasses
import json
import math
import pathlib
import sys
import time

import keras

from tfpeft.automl.advice import figures
from tfpeft.automl.advice.chains import Chain, quantize, run_step
from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.files import ResumableFolder
from tfpeft.core.json_files import read_json
from tfpeft.export.conversion import quantization_settings
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.loading.model_loading import open_model

RECORD = "recommend.json"
OF_MODEL = "model"
"""The name under which the figures of the model itself are kept."""
_LEAST_UPDATES = 20
_FORM = {
    "name": str,
    "technique": str,
    "seconds": float,
    "error": (str, None),
    "gain": (dict, None),
    "loss": (dict, None),
}
OUT_OF_TIME = "no time was left: call again with the same `folder`, or with more `minutes`"


class Clock:
    """The time that is left for trials, with a bar of it.

    Args:
        minutes: How many there are.
        verbose: Whether it prints.
    """

    def __init__(self, minutes, verbose):
        self._seconds, self._started = 60.0 * minutes, time.monotonic()
        self._verbose, self._has_bar = verbose, sys.stdout.isatty()  # which a log has no use for
        self._bar = keras.utils.Progbar(max(1, round(self._seconds)), unit_name="second")

    @property
    def left(self):
        """Seconds that are left, below 0 after the end."""
        return self._seconds - (time.monotonic() - self._started)

    def show(self, line):
        """Prints a line, and on a terminal the bar below it, if it prints."""
        if not self._verbose:
            return
        print(f"\n{line}" if self._has_bar else line, flush=True)
        if self._has_bar:
            self._bar.update(min(self._bar.target, max(1, round(self._seconds - self.left))))

    def finish(self):
        """Ends the bar."""
        if self._verbose and self._has_bar:
            self._bar.update(self._bar.target, finalize=True)
            print(flush=True)


class Store:
    """Finished trials in a folder, a JSON file each; see `core.files.ResumableFolder`.

    Args:
        folder: A `ResumableFolder`.
        clock: The `Clock`.

    Attributes:
        not_run: Names of trials for which no time was left.
    """

    def __init__(self, folder, clock):
        self.folder, self.clock, self.not_run, self.done = folder, clock, [], {}

    def run(self, name, technique, function, least=0.0):
        """Returns what a trial found, a dict; None where no time is left for it.

        A trial that was finished before is read. One that fails has the reason as "error".

        Args:
            name: Its name.
            technique: What it tries.
            function: A function without arguments that returns what it finds, plain JSON values.
            least: Seconds that have to be left.
        """
        if name in self.done:
            return self.done[name]
        file = f"{name}.json"
        found = None
        if (self.folder / file).is_file():
            with contextlib.suppress(InputError):  # a damaged one runs again
                found = read_json(self.folder / file, _FORM)
        if found is None:
            if self.clock.left <= least:
                self.not_run.append(name)
                return None
            started = time.perf_counter()
            found = {"name": name, "technique": technique, "error": None, "gain": None}
            found["loss"] = None
            try:
                found |= function()
            except ValueError as error:  # of Keras, too: what a technique does not take
                if name == OF_MODEL:
                    raise
                found["error"] = last_cause(error)
            found["seconds"] = time.perf_counter() - started
            text = json.dumps(found, indent=2)
            self.folder.write(file, text)
            found = json.loads(text)  # as it is read later: lists in place of tuples
            self.clock.show(f"{name}: {_line(found)}")
        self.done[name] = found
        return found

    def updates(self, given, seconds_of_update, *, trainings, share, most):
        """Returns the updates of a training: those given, those of the call before, or what fits.

        Args:
            given: The argument `steps`.
            seconds_of_update: A function that measures them.
            trainings: How many trainings are expected.
            share: The part of the time that is left which they may take.
            most: What is enough.
        """
        steps = given or self.folder.progress.get("updates")
        if steps is None:
            seconds = seconds_of_update()
            fitting = share * max(0.0, self.clock.left) / (seconds * trainings)
            steps = int(min(most, max(_LEAST_UPDATES, fitting)))
            self.folder.save(updates=steps)
        return steps

    def of_model(self, function):
        """Returns the figures of the model itself, which are measured once, whatever the time."""
        found = self.run(OF_MODEL, OF_MODEL, lambda: {"figures": function()}, -math.inf)
        return found["figures"]


def _line(found):
    if found["error"]:
        return found["error"]
    if not found["gain"]:
        return f"{found['seconds']:.1f} s"
    loss, gain = found["loss"], found["gain"]
    return (
        f"{gain['factor']:.2f}x less {gain['figure']}, {loss['metric']} "
        f"{loss['before']:.4g} -> {loss['after']:.4g}, {found['seconds']:.1f} s"
    )


class FileTrials:
    """Trials of chains of stages, which end in a .tflite file.

    Args:
        store: The `Store`.
        model: The model.
        goal: The `Goal`.
        device: The `Device`.
        metric: The `Metric`.
        training: The `Training`.
        x: A sample of inputs, for latencies.
        float_inputs: Whether the inputs are floats, which a file may have as int8.
    """

    times = 1
    """As many updates as this, times those of a short trial, are in each."""

    def __init__(self, store, model, goal, device, metric, training, x, float_inputs):
        self.store, self.model, self.goal, self.device = store, model, goal, device
        self.metric, self.training, self._x = metric, training, x
        self.float_inputs = float_inputs
        self._models = {(): model}
        self._before = self._figure = None

    @property
    def base(self):
        """The chain whose file others are compared with: the model as the device takes it."""
        aware = quantization_settings(self.model)
        if aware is not None:
            return Chain((quantize(aware["quantization"]),))
        return Chain((quantize("int8"),) if self.device.is_integer else ())

    def longer(self, times):
        """Returns trials of the same model that train for so many times as many updates."""
        found = copy.copy(self)
        steps = times * self.training.steps
        found.training = dataclasses.replace(self.training, steps=steps)
        found._models, found.times = {(): self.model}, times
        return found

    def run(self, chain):
        """Returns what a trial of a `Chain` found, a dict, or None; see `Store.run`."""
        return self.store.run(
            self._name(chain),
            "+".join(chain.stages),
            lambda: self._measured(chain),
            least=self._expected_seconds(chain),
        )

    def done(self):
        """Returns the finished trials of chains."""
        return [each for each in self.store.done.values() if each.get("steps") is not None]

    def _name(self, chain):
        """Returns the name of a trial: longer ones have the updates of a stage in it."""
        is_longer = self.times > 1 and chain.trained.steps
        return f"{chain.name}@{self.training.steps}" if is_longer else chain.name

    def _expected_seconds(self, chain):
        """Returns about the seconds of a longer trial, as of shorter ones; 0 of others."""
        if self.times == 1 or not chain.trained.steps or self._is_trained(chain.trained):
            return 0.0
        trained = [each for each in self.done() if each["updates"] and not each["error"]]
        same = [each for each in trained if each["name"] == chain.name]
        paces = [each["seconds"] / each["updates"] for each in same or trained]
        return self.training.steps * len(chain.trained.steps) * max(paces, default=0.0)

    def _is_trained(self, chain):
        """Whether there is the trained model of a chain."""
        return chain.steps in self._models or self._path(chain.steps).exists()

    def _measured(self, chain):
        model = self.model_of(chain.trained)
        path = self.store.folder / f"{self._name(chain)}.tflite"
        self.export(model, chain, path)
        file = TFLiteFile(path)
        gain = self._gain(file)
        loss = self.metric.loss(file)
        return {
            "steps": [[step.stage, [list(pair) for pair in step.settings]] for step in chain.steps],
            "updates": self.training.steps * len(chain.trained.steps),
            "is_base": chain == self.base,
            "is_short": bool(chain.trained.steps) and self.times == 1,
            "times": self.times,
            "size_bytes": file.contents.size_bytes,
            "gzip_bytes": file.contents.gzip_bytes,
            "gain": dataclasses.asdict(gain),
            "loss": dataclasses.asdict(loss),
        }

    def _gain(self, file):
        """Returns the `Gain` of a file over that of the model."""
        figure = self.goal.figure
        if figure == "latency_ms":
            return figures.timed_gain(self.before(), file, self._x)
        after = figures.counted_figure(figure, file, self.device)
        return figures.Gain.counted(figure, self.device_figure()[figure], after)

    def device_figure(self):
        """Returns {figure of the goal: that of the model}, where it is counted."""
        figure = self.goal.figure
        if figure == "latency_ms":
            return {}
        if self._figure is None:
            self._figure = figures.counted_figure(figure, self.before(), self.device)
        return {figure: self._figure}

    def before(self):
        """Returns the `TFLiteFile` of the model as it is."""
        if self._before is None:
            path = self.store.folder / "model.tflite"
            if not path.exists():
                self.export(self.model, self.base, path)
            self._before = TFLiteFile(path)
        return self._before

    def export(self, model, chain, path):
        """Writes the file of a model with the quantization of a chain, as the device takes it."""
        settings = {"quantization": "none", **chain.quantization}
        settings["sparse"] = settings.pop("sparse_encoding", False)
        if self.device.batch_size is not None:
            settings["batch_size"] = self.device.batch_size
            if settings["quantization"] == "int8":
                settings |= {"input_type": "int8"} if self.float_inputs else {}
                settings["output_type"] = "int8"
        data = (self.training.sample().x,)
        export_tflite(model, pathlib.Path(path), representative_data=data, **settings)

    def model_of(self, chain):
        """Returns the model after the stages of a chain that train, trained or read.

        The last one, and those that cannot be written, stay in memory.
        """
        if chain.steps in self._models:
            return self._models[chain.steps]
        found = kept_model(
            self.store.folder,
            self._name(chain),
            lambda: run_step(chain, self.model_of(chain.before), self.training),
        )
        read_again = [steps for steps in self._models if steps and self._path(steps).exists()]
        for steps in read_again:
            del self._models[steps]
        self._models[chain.steps] = found
        return found

    def _path(self, steps):
        return self.store.folder / f"{self._name(Chain(steps))}.keras"


def kept_model(folder, name, make):
    """Returns the model that a folder keeps under a name; without one, what `make` returns.

    A model that Keras does not write is made anew by a call that goes on.
    """
    path = folder / f"{name}.keras"
    if path.is_file():
        with contextlib.suppress(InputError):  # custom layers, or a damaged file
            return open_model(path)
    model = make()
    try:
        folder.write(path.name, model.save)
    except OSError:
        raise
    except Exception:  # whatever the configuration of a custom layer raises
        path.unlink(missing_ok=True)
    return model


def open_store(folder, settings, clock):
    """Returns the `Store` of a folder, which holds trials of these settings or is new."""
    opened = ResumableFolder(
        folder, RECORD, settings, kind="trials of `recommend`", argument="`folder`"
    )
    if opened.progress is None:
        opened.save()
    return Store(opened, clock)


def out_of_time(names):
    """Returns {trial: why it was not run}."""
    return dict.fromkeys(names, OUT_OF_TIME)
