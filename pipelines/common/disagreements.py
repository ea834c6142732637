"""Test samples on which a file differs from the teacher, as small as the report shows them."""

import heapq
import itertools

import keras
import numpy as np

from pipelines.common import samples
from tfpeft.core.arrays import to_numpy
from tfpeft.core.graph import output_names
from tfpeft.evaluation.subjects import FileSubject, KerasSubject
from tfpeft.reports.samples import small_mask, small_sample

_COMPARED, _SHOWN, _BATCH = 1000, 8, 64


def find(teacher, file, split, tasks, kinds, names=(), *, signature=None, title="", texts=None):
    """Returns the groups of report.json's "disagreements", and {name: array} of their samples.

    Args:
        teacher: The Keras model.
        file: The `TFLiteFile`.
        split: Samples, of which up to 1,000 are compared.
        tasks: The task, or {output: task}.
        kinds: {output: the `Outputs`}; of one output, None: that.
        names: Names of classes or labels.
        signature: The signature of the file that runs.
        title: What is put before the names of outputs and arrays.
        texts: The inputs as they are shown, if others than those of the model.
    """
    x, y, _ = samples.some(split, _COMPARED)
    rows = np.linspace(0, len(texts) - 1, min(len(texts), _COMPARED)).astype(int) if texts else ()
    shown_x = np.asarray([texts[i] for i in rows]) if texts else x
    listed = output_names(teacher)
    subjects = KerasSubject(teacher, listed), FileSubject(file, signature, listed)
    groups, arrays = [], {}
    comparisons = {}
    count = len(keras.tree.flatten(x)[0])
    for start in range(0, count, _BATCH):
        part = slice(start, start + _BATCH)
        pair = [subject.predict(_rows(x, part)) for subject in subjects]
        for output in pair[0]:
            if output not in pair[1]:
                continue
            kind = kinds.get(output, next(iter(kinds.values())) if len(kinds) == 1 else None)
            task = tasks.get(output) if isinstance(tasks, dict) else tasks
            if kind is None or task is None:
                continue
            compared = comparisons.setdefault(output, Compared(task, kind, names))
            label = y.get(output) if isinstance(y, dict) else y
            label = None if label is None else to_numpy(label)[part]
            compared.add(_rows(shown_x, part), label, *(outputs[output] for outputs in pair))
    for output, compared in comparisons.items():
        name = "/".join(str(each) for each in (title or None, output) if each is not None)
        group, found = compared.group(name)
        groups.append(group)
        arrays |= found
    return groups, arrays


def _rows(x, part):
    return keras.tree.map_structure(lambda array: array[part], x)


class Compared:
    """The outputs of two models for the same samples, and those samples that differ most.

    Args:
        task: The name of the task.
        kind: The `Outputs` of both.
        names: Names of classes or labels.
    """

    def __init__(self, task, kind, names):
        self.task, self.kind, self.names = task, kind, names
        self._count = self._different = 0
        self._right = np.zeros(2, int)  # of the samples that differ: the teacher, the file
        self._sum = 0.0
        self._most, self._order = [], itertools.count()

    def add(self, x, y, teacher, file):
        """Adds a batch of inputs, labels (or None), and outputs of teacher and file."""
        teacher, file = (np.asarray(each, "float32") for each in (teacher, file))
        scores = self._scores(y, teacher, file)
        self._count += len(scores)
        self._different += int(np.sum(scores > 0))
        self._sum += float(np.sum(scores))
        for i in np.flatnonzero(scores > 0):
            item = (float(scores[i]), -next(self._order))
            if len(self._most) == _SHOWN and item < self._most[0][:2]:
                continue
            label = None if y is None else y[i]
            inputs = keras.tree.map_structure(lambda array, i=i: to_numpy(array)[i], x)
            kept = (*item, inputs, label, teacher[i], file[i])
            push = heapq.heappush if len(self._most) < _SHOWN else heapq.heapreplace
            push(self._most, kept)

    def _scores(self, y, teacher, file):
        """Returns how much the outputs of each sample differ, 0 where they count as equal."""
        if self.task in ("classification", "binary"):
            classes = [self.kind.class_numbers(each) for each in (teacher, file)]
            differ = classes[0] != classes[1]
            if y is not None and np.ndim(y) == 1:
                self._right += [int(np.sum(differ & (each == y))) for each in classes]
            # Samples of which both are sure come first.
            sure = [self._probabilities(each).max(axis=-1) for each in (teacher, file)]
            return np.where(differ, sum(sure), 0.0)
        if self.task == "multi_label":
            labels = [self.kind.label_probabilities(each) > 0.5 for each in (teacher, file)]
            return np.sum(labels[0] != labels[1], axis=tuple(range(1, teacher.ndim)))
        if self.task == "segmentation":
            maps = [self.kind.class_numbers(each) for each in (teacher, file)]
            return np.mean(maps[0] != maps[1], axis=tuple(range(1, maps[0].ndim)))
        axes = tuple(range(1, teacher.ndim))
        return np.sqrt(np.mean((teacher - file) ** 2, axis=axes) if axes else (teacher - file) ** 2)

    def _probabilities(self, array):
        return np.exp(self.kind.log_probabilities(array))

    def group(self, name):
        """Returns the group of an output, and the arrays of its samples."""
        shown, arrays = [], {}
        for number, item in enumerate(sorted(self._most, reverse=True)):
            score, _, x, label, teacher, file = item
            inputs = []
            pictures = [*_named(x), *self._maps(label, teacher, file)]
            for i, (title, kind, array) in enumerate(pictures):
                key = f"{name or 'output'}.{number}.{i}".replace("/", ".")
                arrays[key] = array
                alt = title or f"Input of sample {number + 1}"
                inputs.append({"name": title, "kind": kind, "array": key, "alt": alt})
            shown.append({"inputs": inputs, "facts": self._facts(score, label, teacher, file)})
        return {"output": name, "summary": self._summary(), "shown": shown}, arrays

    def _maps(self, label, teacher, file):
        """Yields what outputs of positions are as pictures: (name, kind, array)."""
        outputs = [("teacher", teacher), ("file", file)]
        if self.task == "segmentation":
            label = None if label is None else np.asarray(label)
            if label is not None and self.kind.one_hot:
                label = label.argmax(-1)
            maps = [(name, self.kind.class_numbers(each)) for name, each in outputs]
            if label is not None:
                maps.insert(0, ("label", label[..., 0] if label.ndim == 3 else label))
            for name, each in maps:
                if each.ndim == 2:
                    yield name, "mask", small_mask(each)
        elif self.task not in ("classification", "binary", "multi_label"):
            for name, each in outputs if teacher.ndim > 1 else ():
                yield name, *small_sample(each)

    def _facts(self, score, label, teacher, file):
        if self.task == "segmentation":
            return [["differ", f"{100 * score:.1f}% of the positions"]]
        facts = [] if label is None or np.ndim(label) > 1 else [["label", self._label(label)]]
        if teacher.ndim > 1:
            return [*facts, ["difference", f"{score:.4g}"]]
        return [*facts, ["teacher", self._predicted(teacher)], ["file", self._predicted(file)]]

    def _label(self, label):
        if self.task in ("classification", "binary"):
            number = int(np.argmax(label)) if np.ndim(label) else int(label)
            return self._name(number)
        return self._names_of(label) if self.task == "multi_label" else _numbers(label)

    def _predicted(self, outputs):
        if self.task in ("classification", "binary"):
            chances = self._probabilities(outputs[None])[0]
            number = int(self.kind.class_numbers(outputs[None])[0])
            return f"{self._name(number)} ({100 * chances[number]:.1f}%)"
        if self.task == "multi_label":
            return self._names_of(self.kind.label_probabilities(outputs) > 0.5)
        return _numbers(outputs)

    def _names_of(self, labels):
        return ", ".join(self._name(i) for i in np.flatnonzero(labels)) or "none"

    def _name(self, number):
        return str(self.names[number]) if number < len(self.names) else str(number)

    def _summary(self):
        count, different = self._count, self._different
        if self.task in ("classification", "binary"):
            if not different:
                return f"Teacher and file predict the same class for all {count:,} test samples."
            text = (
                f"Teacher and file predict different classes for {different:,} of {count:,} test "
                f"samples ({100 * different / count:.1f}%)."
            )
            teacher, file = self._right
            if teacher + file:
                text += f" Of these the teacher is right in {teacher:,}, the file in {file:,}."
            return f"{text} Those of which both are surest:"
        if self.task == "multi_label":
            return (
                f"Teacher and file differ in a label or more for {different:,} of {count:,} test "
                "samples; those with most:"
            )
        if self.task == "segmentation":
            return (
                f"Teacher and file differ at {100 * self._sum / max(1, count):.2f}% of the "
                f"positions of {count:,} test samples; those with most:"
            )
        return (
            "Root mean square difference of the outputs of teacher and file: "
            f"{self._sum / max(1, count):.4g} on average of {count:,} test samples; the largest:"
        )


def _named(x):
    """Yields (name, kind, array) of the inputs of a sample."""
    if isinstance(x, dict):
        named = x.items()
    elif isinstance(x, (list, tuple)):
        named = [(f"input {i + 1}", each) for i, each in enumerate(x)]
    else:
        named = [("", x)]
    for name, array in named:
        yield name, *small_sample(array)


def _numbers(values):
    values = np.ravel(np.asarray(values, "float64"))
    more = ", ..." if len(values) > 8 else ""
    return ", ".join(f"{value:.4g}" for value in values[:8]) + more
