"""What a search works on: data in memory, its split, the task, and the teacher's outputs."""

import dataclasses
import typing

import keras
import numpy as np

from tfpeft.automl.students.interface import interface_of, objective_of
from tfpeft.caching.precompute import precompute
from tfpeft.core.arguments import InputError, unexpected
from tfpeft.core.compiling import compiled_parts
from tfpeft.core.data import Batch, read
from tfpeft.core.files import replacing
from tfpeft.evaluation.outputs import Outputs, recognize_outputs
from tfpeft.evaluation.tasks import Task

_HELD_OUT = 0.2  # of the data, where no validation data is given
_MOST_HELD_OUT = 10_000
_TEACHER_FILE = "teacher.npy"


@dataclasses.dataclass(frozen=True)
class Inputs:
    """What a search works on.

    Attributes:
        train: A `Batch` of arrays.
        validation: The same.
        task: The `Task`.
        outputs: The `Outputs` of the models.
        loss: The loss, as `compile` takes it.
        teacher: The teacher, or None.
    """

    train: Batch
    validation: Batch
    task: Task
    outputs: Outputs
    loss: typing.Any
    teacher: typing.Any

    def interface(self):
        """Returns the `Interface` of students."""
        return interface_of(
            *(self.train.x, self.train.y, self.task.name, self.outputs),
            others=[self.validation.x],
        )

    def teacher_outputs(self, folder):
        """Returns the teacher's outputs for the training data, computed once for all processes."""
        if self.teacher is None:
            return None
        path = folder / _TEACHER_FILE
        if path.is_file():
            return np.load(path)
        outputs = precompute(self.teacher, self.train.x).outputs
        if not hasattr(outputs, "shape"):
            raise unexpected("a teacher of one output", f"outputs in a {type(outputs).__name__}")
        return np.asarray(outputs, "float32")

    def teacher_from_logits(self, outputs):
        """Returns whether the outputs of the teacher are logits."""
        if outputs is None:
            return None
        if isinstance(self.teacher, keras.Model):
            found = objective_of(self.teacher, self.train.x, self.train.y, self.task.name)[1]
        else:
            rows = outputs[:, None] if outputs.ndim == 1 else outputs
            found = recognize_outputs(rows, self.task.name)
        return found.from_logits


def write_teacher(folder, outputs):
    """Writes the outputs of the teacher, for other processes and after a kill."""
    if outputs is not None and not (folder / _TEACHER_FILE).is_file():
        with replacing(folder / _TEACHER_FILE) as partial:
            np.save(partial, outputs)


def inputs_of(subject, data, validation_data, *, teacher, task, loss, seed):
    """Returns the `Inputs` of the arguments of `search`.

    Args:
        subject: A Keras model whose outputs are those of the students, or None.
        data, validation_data, teacher, task, loss, seed: As of `search`.
    """
    given = _batch(data, "data", subject)
    if validation_data is None:
        train, validation = _split(given, seed)
    else:
        train, validation = given, _batch(validation_data, "validation_data", subject)
    # Of all samples, as a rare class may be in one part alone.
    found, outputs = objective_of(subject, given.x, given.y, task)
    if loss is None and subject is not None:
        loss = compiled_parts(subject)[0]
    return Inputs(train, validation, found, outputs, loss or found.loss(outputs), teacher)


def _batch(data, name, model):
    """Returns all samples as arrays, numbers in the type of the inputs of the model."""
    data = read(data, name)
    data.check_end()
    batch = data.arrays()
    if batch.y is None:
        raise InputError(f"Received invalid `{name}`, expected (x, y). Received: x alone")
    inputs = getattr(model, "inputs", None) or ()
    if not hasattr(batch.x, "dtype") or any("float" not in each.dtype for each in inputs):
        return batch
    # Pixels, as whole numbers of small types; larger types may be tokens.
    is_small = batch.x.dtype.kind in "iub" and batch.x.dtype.itemsize == 1
    if batch.x.dtype == "float64" or is_small or (batch.x.ndim > 2 and batch.x.dtype.kind in "iu"):
        return batch._replace(x=batch.x.astype("float32"))
    return batch


def _split(batch, seed):
    """Returns training and validation data, drawn at random."""
    count = min(_MOST_HELD_OUT, round(_HELD_OUT * batch.size))
    if not count or count == batch.size:
        raise unexpected("`validation_data`, or more samples in `data`", f"{batch.size} samples")
    order = np.random.default_rng(seed).permutation(batch.size)

    def rows(indices):
        return Batch(
            *(
                None if part is None else keras.tree.map_structure(lambda a: a[indices], part)
                for part in batch
            )
        )

    return rows(np.sort(order[count:])), rows(np.sort(order[:count]))
