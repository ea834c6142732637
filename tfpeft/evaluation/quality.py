"""Quality of the outputs of models on a stream of data: tasks, figures and metrics of each."""

import keras
import numpy as np

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.evaluation import user_metrics
from tfpeft.evaluation.agreement import Agreement, are_classes
from tfpeft.evaluation.figures import Figures
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.recognition import recognize_task
from tfpeft.evaluation.resampling import Groups
from tfpeft.evaluation.several_outputs import (
    by_name,
    by_output,
    metrics_by_output,
    of_output,
    output_keys,
)
from tfpeft.evaluation.stream import chunks
from tfpeft.evaluation.tasks import TASKS, Accumulator

_FIRST = 32  # samples that the cost is measured with, at most


def measure_quality(subjects, data, *, metrics=None, task=None, from_logits=None, reference=None):
    """Returns {subject: {output: `Figures`}}, {output: task}, and the first samples (x, y).

    All subjects have the same batch, one after another: data may be in another order, or
    augmented otherwise, when it is read again.

    Args:
        subjects: {name: `KerasSubject` or `FileSubject`}.
        data: As `tfpeft.core.data.read` takes it.
        metrics, task, from_logits, reference: As of `compare`.
    """
    groups, found = Groups(), None
    names = next(iter(subjects.values())).names
    metrics, task = by_name(metrics, names), by_name(task, names)
    if reference is not None:  # first, as the others are compared with its outputs
        subjects = {reference: subjects[reference], **subjects}
    for chunk in chunks(data, subjects):
        keys = output_keys(chunk.outputs)
        labels, weights = {}, by_name(chunk.sample_weight, names)
        if chunk.has_labels:
            labels = by_output(by_name(chunk.y, names), keys, "labels")
        weights = by_output(weights, keys, "sample weights")
        if found is None:
            first = _first(chunk)
            tasks = {
                key: _task_of(chunk, key, labels.get(key), subjects, task, from_logits, reference)
                for key in keys
            }
            given = metrics_by_output(metrics, keys, subjects)
            found = {}
            for name, subject in subjects.items():
                found[name] = {
                    key: _Quality(
                        subject,
                        key,
                        of_output(subject.loss, key, keys),
                        TASKS.get(tasks[key]),
                        from_logits,
                        given[key],
                        found[reference][key] if reference not in (None, name) else None,
                    )
                    for key in keys
                }
        drawn = groups.take(chunk.size)
        for name, outputs in chunk.outputs.items():
            for key, quality in found[name].items():
                alike = None if reference is None else chunk.outputs[reference][key]
                y = labels[key] if chunk.has_labels else chunk.y
                quality.add(y, outputs[key], weights[key], drawn, alike)
    by_subject = {
        name: {key: each.result(groups.samples) for key, each in by_key.items()}
        for name, by_key in found.items()
    }
    return by_subject, tasks, first


class _Quality:
    """The figures and the metrics of one output of a subject, summed up chunk by chunk.

    Args:
        subject: The model.
        output: The output.
        loss: What it is compiled with, or None.
        task: The `Task`; None without labels.
        from_logits: As of `compare`.
        metrics: ({name: metric}, whether the model is compiled with them).
        reference: The `_Quality` of the reference model, or None.
    """

    def __init__(self, subject, output, loss, task, from_logits, metrics, reference):
        self._subject, self._output, self._loss, self._task = subject, output, loss, task
        self._from_logits, self._reference = from_logits, reference
        self._given, self._are_compiled = metrics
        self._outputs, self._agreement, self._metrics, self._notes = None, None, {}, ()

    def add(self, y, outputs, weight, groups, alike=None):
        """Adds a chunk; `alike` are the outputs of the reference."""
        outputs, alike = _with_units(outputs), _with_units(alike)
        if self._outputs is None:
            self._start(y, outputs)
        if self._task is not None:
            self._figures.add(y, outputs, weight, groups)
        if self._agreement is not None:
            self._outputs.check(outputs, self._subject.name)
            if alike.shape != outputs.shape:
                expected = (
                    f"models whose outputs have the shape of the reference's, {alike.shape[1:]}"
                )
                raise unexpected(expected, f"{self._subject.name} with {outputs.shape[1:]}")
            self._agreement.add(alike, outputs, np.ones(len(outputs)), groups)
        for name, metric in list(self._metrics.items()):
            try:
                metric.add(y, outputs, weight, groups)
            except InputError as error:
                self._leave_out(name, error)

    def _start(self, y, outputs):
        name = None if self._task is None else self._task.name
        kind = recognize_outputs(
            outputs.astype("float32"),
            name,
            activation=self._subject.last_activation(self._output),
            from_logits=self._from_logits,
            one_hot=np.shape(y) == outputs.shape and outputs.shape[-1] > 1,
        )
        self._outputs = kind
        if self._reference is not None:
            losses = [self._loss, self._reference._loss]
            of_classes = are_classes(name, kind, losses)
            self._agreement = Agreement(kind, self._reference._outputs, of_classes=of_classes)
        if self._task is None:
            return
        self._figures = Accumulator(self._task, kind, self._subject.name)
        for name, metric in self._given.items():
            try:
                self._metrics[name] = user_metrics.accumulator(name, metric, y, outputs)
            except InputError as error:
                self._leave_out(name, error)

    def _leave_out(self, name, error):
        """Notes a metric that the model was compiled with; raises for one that is given."""
        if not self._are_compiled:
            raise error
        self._metrics.pop(name, None)
        self._notes += (f"no {name}, which the model is compiled with: {error}",)

    def result(self, samples):
        """Returns the `Figures`."""
        found = Figures({})
        if self._task is not None:
            found = self._figures.result(samples)
            found.columns = self._task.columns
        for name, metric in self._metrics.items():
            if not (self._are_compiled and name in found.values):  # as the task has "accuracy"
                _add_metric(found, name, *metric.result(samples))
        if self._agreement is not None:
            alike = self._agreement.result(samples)
            found.values |= alike.values
            found.replicates |= alike.replicates
            found.columns += tuple(alike.values)
            found.notes += alike.notes
        found.notes += self._notes
        if samples < 2:  # which says nothing about others
            found.replicates = {}
        return found


def _add_metric(found, name, value, replicates):
    """Adds a user's metric to `Figures`, in place of a figure of this name."""
    found.replicates.pop(name, None)
    found.values.pop(name, None)
    if value.size != 1:
        found.per_class[name] = value.ravel()
        return
    found.add({name: value.ravel()}, None if replicates is None else {name: replicates})
    if name not in found.columns:
        found.columns += (name,)


def _task_of(chunk, key, labels, subjects, task, from_logits, reference):
    """Returns the name of the task of an output: the one that is given, or else recognised.

    Subjects are asked in turn, as the loss of a Keras model may say what a file does not. None
    for data without labels, where outputs are compared with those of a reference.
    """
    given = task.get(key) if isinstance(task, dict) else task
    if given is not None and (chunk.has_labels or reference is None or given == "reconstruction"):
        return given
    errors = []
    for name, subject in subjects.items():
        try:
            return recognize_task(
                chunk.outputs[name][key],
                labels,
                inputs=chunk.x if hasattr(chunk.x, "shape") else None,
                activation=subject.last_activation(key),
                loss=of_output(subject.loss, key, list(chunk.outputs[name])),
                from_logits=from_logits,
            )
        except InputError as error:
            errors.append(error)
    if not chunk.has_labels and reference is not None:
        return None
    raise errors[0]


def _with_units(outputs):
    return outputs[:, None] if outputs is not None and outputs.ndim == 1 else outputs


def _first(chunk):
    """Returns (x, y) of some samples; y is None if there are no labels."""
    count = min(len(keras.tree.flatten(chunk.x)[0]), _FIRST)
    x, y = (
        keras.tree.map_structure(lambda array: array[:count], part) for part in (chunk.x, chunk.y)
    )
    return x, y if chunk.has_labels else None
