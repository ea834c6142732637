"""Quality of the outputs of models on a stream of data: tasks, figures and metrics of each."""

import keras
import numpy as np

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.evaluation import user_metrics
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.recognition import recognize_task
from tfpeft.evaluation.resampling import Groups
from tfpeft.evaluation.stream import chunks
from tfpeft.evaluation.tasks import TASKS, Accumulator


def measure_quality(subjects, data, *, metrics=None, task=None, from_logits=None):
    """Returns {subject: {output: `Figures`}}, {output: task}, and the first samples (x, y).

    Args:
        subjects: {name: `KerasSubject` or `FileSubject`}.
        data: As `tfpeft.core.data.read` takes it.
        metrics: As of `compare`.
        task: As of `compare`.
        from_logits: As of `compare`.
    """
    groups, first, found = Groups(), None, None
    for chunk in chunks(data, subjects):
        keys = _output_keys(chunk.outputs)
        labels = by_output(chunk.y, keys, "labels")
        weights = by_output(chunk.sample_weight, keys, "sample weights")
        if found is None:
            first = (_first(chunk.x), _first(chunk.y) if chunk.has_labels else None)
            tasks = {
                key: task_of(chunk, key, labels[key], subjects, task, from_logits) for key in keys
            }
            given = metrics_by_output(metrics, keys, subjects)
            found = {
                name: {
                    key: _Quality(subject, key, TASKS[tasks[key]], from_logits, *given[key])
                    for key in keys
                }
                for name, subject in subjects.items()
            }
        drawn = groups.take(chunk.size)
        for name, outputs in chunk.outputs.items():
            for key, quality in found[name].items():
                quality.add(labels[key], outputs[key], weights[key], drawn)
    return (
        {
            name: {key: each.result(groups.samples) for key, each in by_key.items()}
            for name, by_key in found.items()
        },
        tasks,
        first,
    )


class _Quality:
    """The figures and the metrics of one output of a subject, summed up chunk by chunk."""

    def __init__(self, subject, output, task, from_logits, metrics, are_compiled):
        self._subject, self._output, self._task = subject, output, task
        self._from_logits = from_logits
        self._given, self._are_compiled = metrics, are_compiled
        self._figures = self._metrics = None
        self._notes = ()

    def add(self, y, outputs, weight, groups):
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        if self._figures is None:
            self._start(np.asarray(y), outputs)
        self._figures.add(y, outputs, weight, groups)
        for name, metric in list(self._metrics.items()):
            try:
                metric.add(y, outputs, weight, groups)
            except InputError as error:
                self._leave_out(name, error)

    def _start(self, y, outputs):
        kind = recognize_outputs(
            outputs.astype("float32"),
            self._task.name,
            activation=self._subject.last_activation(self._output),
            from_logits=self._from_logits,
            one_hot=y.shape == outputs.shape and outputs.shape[-1] > 1,
        )
        self._figures = Accumulator(self._task, kind, self._subject.name)
        self._metrics = {}
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
        found = self._figures.result(samples)
        found.columns = self._task.columns
        for name, metric in self._metrics.items():
            if self._are_compiled and name in found.values:
                continue  # such as "accuracy", which the task has
            value, replicates = metric.result(samples)
            found.replicates.pop(name, None)
            found.values.pop(name, None)
            if value.ndim:
                found.per_class[name] = value.ravel()
                continue
            found.add({name: value[None]}, None if replicates is None else {name: replicates})
            found.columns = (*found.columns, *({name} - {*found.columns}))
        found.notes += self._notes
        return found


def task_of(chunk, key, labels, subjects, task, from_logits):
    """Returns the name of the task of an output: the one that is given, or else recognised.

    Subjects are asked in turn, as the loss of a Keras model may say what a file does not.
    """
    given = task.get(key) if isinstance(task, dict) else task
    if given is not None:
        return given
    errors = []
    for name, subject in subjects.items():
        try:
            return recognize_task(
                chunk.outputs[name][key],
                labels if chunk.has_labels else None,
                inputs=chunk.x if hasattr(chunk.x, "shape") else None,
                activation=subject.last_activation(key),
                loss=_of_output(subject.loss, key, list(chunk.outputs[name])),
                from_logits=from_logits,
            )
        except InputError as error:
            errors.append(error)
    raise errors[0]


def metrics_by_output(metrics, keys, subjects):
    """Returns {output: ({name: metric}, whether these are compiled ones)}."""
    if metrics is not None:
        if keys == [None]:
            return {None: (user_metrics.named_metrics(metrics), False)}
        is_by_output = isinstance(metrics, dict) and set(metrics) <= set(keys)
        return {
            key: (user_metrics.named_metrics(metrics.get(key) if is_by_output else metrics), False)
            for key in keys
        }
    compiled = next((each.metrics for each in subjects.values() if each.metrics), None) or []
    found = {}
    for key in keys:
        named = {}
        for structure in compiled:
            for metric in keras.tree.flatten(_of_output(structure, key, keys)):
                try:
                    named |= user_metrics.named_metrics([metric])
                except InputError:
                    continue  # an object that only the model itself knows
        found[key] = (named, True)
    return found


def _of_output(structure, key, keys):
    """Returns what a structure, as `compile` takes it, has for an output."""
    if isinstance(structure, dict):
        return structure.get(key, None) if len(keys) > 1 else list(structure.values())
    if isinstance(structure, (list, tuple)) and len(keys) > 1:
        return structure[keys.index(key)] if len(structure) == len(keys) else None
    return structure


def by_output(structure, keys, what):
    """Returns {output: array or None} of labels or weights as data has them."""
    if structure is None:
        return dict.fromkeys(keys)
    if keys == [None]:
        leaves = keras.tree.flatten(structure)
        return {None: leaves[0] if len(leaves) == 1 else structure}
    if isinstance(structure, dict) and set(structure) == set(keys):
        return structure
    if isinstance(structure, (list, tuple)) and len(structure) == len(keys):
        return dict(zip(keys, structure, strict=True))
    if what == "sample weights" and hasattr(structure, "shape"):
        return dict.fromkeys(keys, structure)  # of the samples, for all outputs
    expected = f"{what} of each output, {', '.join(map(str, keys))}, in a dict or in their order"
    received = ", ".join(map(str, structure)) if isinstance(structure, dict) else "others"
    raise InputError(f"Received invalid `data`, expected {expected}. Received: {received}")


def _output_keys(outputs):
    """Returns the outputs, which all subjects must have."""
    found = {name: list(by_key) for name, by_key in outputs.items()}
    (first, keys), *others = found.items()
    for name, each in others:
        if set(each) != set(keys):
            listed = f"{first} with {keys}, {name} with {each}"
            raise unexpected("models and files of the same outputs", listed)
    return keys


def _first(structure):
    return keras.tree.map_structure(lambda array: array[:32], structure)
