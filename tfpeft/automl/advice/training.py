"""Short training for trials: the data, the loss of the task, and as many updates for each trial."""

import dataclasses
import time

import keras
import numpy as np

from tfpeft.core import graph
from tfpeft.core.arrays import invalid_data
from tfpeft.core.compiling import compiled_parts
from tfpeft.core.data import Batch, read
from tfpeft.distillation.distiller import Distiller
from tfpeft.distillation.logits_losses import BinarySoftLabels, SoftLabels, SquaredError
from tfpeft.evaluation.outputs import recognize_outputs
from tfpeft.evaluation.several_outputs import by_output
from tfpeft.evaluation.tasks import TASKS
from tfpeft.sparsity.compiled import read_labelled

VALIDATION_SHARE = 0.2
"""Of the data, where no validation data is given."""
MOST_VALIDATED = 2000
_SAMPLE = 512
_LEAST_SAMPLES = 10
_ALPHA, _TEMPERATURE = 0.1, 4.0  # as in the scripts
_SOFT = {
    **dict.fromkeys(("classification", "segmentation"), SoftLabels),
    **dict.fromkeys(("binary", "multi_label"), BinarySoftLabels),
    **dict.fromkeys(("regression", "reconstruction"), SquaredError),
}


def rows_of(batch, rows):
    """Returns the samples of a `Batch` with these numbers."""
    return Batch(
        *(
            None if part is None else keras.tree.map_structure(lambda a: np.asarray(a)[rows], part)
            for part in batch
        )
    )


def evenly(batch, most):
    """Returns at most so many samples of a `Batch`, evenly spaced."""
    return rows_of(batch, np.linspace(0, batch.size - 1, min(batch.size, most)).astype(int))


def split(model, data, validation_data, seed, name="data"):
    """Returns two `Batch`es of arrays, to train on and to measure on.

    Args:
        model: What they are for, a model.
        data: A sample of its data, as `core.data.read` takes it.
        validation_data: The same, or None for a fifth of the data.
        seed: Of the choice.
        name: The argument, for errors.

    Raises:
        InputError: for data that is not finite, or of fewer than ten samples.
    """
    train = _arrays(model, data, name)
    if train.size < _LEAST_SAMPLES:
        raise invalid_data(name, f"{_LEAST_SAMPLES} samples or more", train.size)
    if validation_data is not None:
        return train, evenly(_arrays(model, validation_data, "validation_data"), MOST_VALIDATED)
    order = np.random.default_rng(seed).permutation(train.size)
    count = max(2, int(VALIDATION_SHARE * train.size))
    validation = rows_of(train, np.sort(order[:count]))
    return rows_of(train, np.sort(order[count:])), evenly(validation, MOST_VALIDATED)


def _arrays(model, data, name):
    """Returns all samples as a `Batch` of arrays, which are finite."""
    data = read(data, name)
    data.check_end()
    batch = data.arrays()
    if batch.y is not None:
        read_labelled(batch.element(), name, model)  # raises for what is not finite
    return batch


@dataclasses.dataclass(frozen=True)
class Training:
    """How trials train: Adam with a cosine to 0, the same number of updates each.

    Attributes:
        train: A `Batch` of arrays.
        tasks: {output: task}, the key of one output is None.
        loss: As `compile` takes it.
        metrics: The metric that decides; () of several outputs.
        names: Names of outputs in a list, in their order; None of others.
        steps: Updates of a trial.
        batch_size, learning_rate, seed: Of `recommend`.
    """

    train: Batch
    tasks: dict
    loss: object
    metrics: tuple
    names: list | None = None
    steps: int = 1
    batch_size: int = 32
    learning_rate: float = 1e-3
    seed: int = 0

    @classmethod
    def of(cls, model, train, tasks, **settings):
        """Returns that of a model and its data, for `Training.tasks`; the steps are set later."""
        names = graph.output_names(model)
        kinds = _kinds(model, tasks, evenly(train, 64), names)
        compiled, _ = compiled_parts(model)
        metrics = ()
        if list(tasks) == [None]:
            metrics = (TASKS[tasks[None]].training_metric(kinds[None]),)
        loss = _loss(tasks, kinds, names) if compiled is None else compiled
        return cls(train, tasks, loss, metrics, names, **settings)

    def sample(self):
        """Returns some samples, drawn at random, as a `Batch`."""
        order = np.random.default_rng(self.seed).permutation(self.train.size)
        return rows_of(self.train, np.sort(order[:_SAMPLE]))

    def compiled(self, model, wrap=None, metrics=()):
        """Returns the model, compiled for the task."""
        schedule = keras.optimizers.schedules.CosineDecay(self.learning_rate, self.steps)
        optimizer = keras.optimizers.Adam(schedule)
        optimizer = optimizer if wrap is None else wrap(optimizer)
        model.compile(optimizer, loss=self.loss, metrics=list(metrics) or None)
        return model

    def fit(self, model, *, teacher=None, wrap=None, steps=None):
        """Trains a model in place, with labels and the outputs of a teacher, if there is one."""
        keras.utils.set_random_seed(self.seed)
        trained = model
        if teacher is not None:
            losses = [
                _SOFT[task](output=self.names.index(output) if self.names else output)
                for output, task in self.tasks.items()
            ]
            trained = Distiller(
                teacher,
                model,
                alpha=_ALPHA,
                temperature=_TEMPERATURE,
                distillation_losses=losses,
            )
        self.compiled(trained, wrap)
        batches = self.batches(self.steps if steps is None else steps)
        trained.fit(batches, epochs=1, shuffle=False, verbose=0)

    def batches(self, steps):
        """Returns a `keras.utils.PyDataset` of so many batches, shuffled in every pass."""
        return _Batches(self.train, self.batch_size, steps, self.seed)

    def seconds_per_step(self, model):
        """Returns the seconds of an update of a model, which is trained meanwhile."""
        self.fit(model, steps=2)  # traces
        started = time.perf_counter()
        model.fit(self.batches(5), verbose=0)
        return (time.perf_counter() - started) / 5


class _Batches(keras.utils.PyDataset):
    """So many batches of arrays, in a new order in every pass through the samples."""

    def __init__(self, batch, batch_size, steps, seed):
        super().__init__()
        self.batch, self.steps = batch, steps
        size = min(batch_size, batch.size)
        rng, passes = np.random.default_rng(seed), []
        while sum(map(len, passes)) < steps * size:
            passes.append(rng.permutation(batch.size))
        self.rows = np.concatenate(passes)[: steps * size].reshape(steps, size)

    @property
    def num_batches(self):
        return self.steps

    def __getitem__(self, index):
        found = rows_of(self.batch, self.rows[index])
        return keras.tree.lists_to_tuples(tuple(part for part in found if part is not None))


def _kinds(model, tasks, batch, names):
    """Returns {output: its `Outputs`}, by some samples with labels as of `labelled`."""
    found = graph.outputs_by_key(model.predict_on_batch(batch.x))
    found = found if names is None else dict(zip(names, found.values(), strict=True))
    labels = by_output(batch.y, list(found), "labels")
    kinds = {}
    for key, outputs in found.items():
        outputs = np.asarray(outputs, "float32")
        outputs = outputs[:, None] if outputs.ndim == 1 else outputs
        kinds[key] = recognize_outputs(
            outputs,
            tasks[key],
            activation=_activation(model, names.index(key) if names else key),
            one_hot=np.shape(labels[key]) == outputs.shape and outputs.shape[-1] > 1,
        )
    return kinds


def _loss(tasks, kinds, names):
    """Returns the loss of Keras for tasks, as `compile` takes it."""
    losses = {key: TASKS[tasks[key]].loss(kind) for key, kind in kinds.items()}
    if list(losses) == [None]:
        return losses[None]
    return list(losses.values()) if names else losses


def labelled(model, batch, name="data"):
    """Returns a `Batch` with labels, as `fit` takes them.

    Those of a model that reconstructs are its inputs; those of outputs in a list are a list.
    """
    if batch.y is None:
        if not hasattr(batch.x, "shape") or model.output_shape != model.input_shape:
            expected = "labels, (x, y), for a model that does not reconstruct its inputs"
            raise invalid_data(name, expected, "x alone")
        return batch._replace(y=batch.x)
    names = graph.output_names(model)
    if names is None:
        return batch

    def listed(part):
        known = isinstance(part, dict) and set(part) == set(names)
        return [part[name] for name in names] if known else part

    return batch._replace(y=listed(batch.y), sample_weight=listed(batch.sample_weight))


def _activation(model, key):
    try:
        return graph.last_activation(model, key)
    except (KeyError, AttributeError):  # a graph of another kind
        return None
