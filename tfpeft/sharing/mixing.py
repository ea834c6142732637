"""Data of several tasks as one dataset, whose batches hold samples of every task."""

from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core import data as core_data
from tfpeft.core.arguments import (
    check_choice,
    check_positive,
    check_positive_integer,
    check_seed,
    invalid,
)
from tfpeft.core.arrays import check_finite, check_ranks, invalid_data

SAMPLINGS = ("proportional", "uniform", "temperature", None)
SHUFFLED_AT_ONCE = 10_000
"""How many samples of a dataset are shuffled together."""


class TaskInputs(NamedTuple):
    """Inputs per task: the x of the data that `mix_tasks` returns.

    Attributes:
        by_task: {task: inputs}.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    backbone = keras.Sequential([keras.Input((8,)), keras.layers.Dense(16, activation="relu")])
    shared = tfpeft.SharedModel(backbone, {"shape": 3, "colour": 2})
    inputs = tfpeft.TaskInputs({"shape": np.zeros((6, 8)), "colour": np.zeros((2, 8))})
    print(shared(inputs)["colour"].shape)  # (2, 2)
    ```
    """

    by_task: Any


def mix_tasks(
    data: dict[str, Any],
    *,
    sampling: str | None = "proportional",
    temperature: float | None = None,
    batch_size: int = 32,
    seed: int = 0,
) -> tf.data.Dataset:
    """Returns a dataset for a `SharedModel`, whose batches hold samples of every task.

    A batch of B samples has n_t samples of task t. n_t is B * p_t as a whole number, at least 1
    (the largest remainders are rounded up). With N_t samples in the data of task t:

    - "proportional": p_t = N_t / sum N;
    - "uniform": p_t = 1 / tasks;
    - "temperature": p_t ~ N_t^(1 / T), between these two.

    An epoch has ceil(sum N / B) batches. The data of a task is shuffled again whenever it begins
    again: small data is repeated within an epoch; of large data each epoch has another part. With
    `sampling=None`, for evaluation, every sample comes once, in order; shorter data is filled up
    with samples whose labels are missing (NaN), which losses and metrics of a `SharedModel` leave
    out.

    As every batch has samples of every task, optimizers with momentum update each task at each
    step, as if it were trained alone. The weight of a task is an argument of `compile`,
    `loss_weights`: the loss of a task is the mean over its own samples.

    What it does not give: batches without samples of a task. So `batch_size` is at least the
    number of tasks, and a task whose p_t is below 1 / B is sampled more often than p_t.

    Args:
        data: {task: data}. The data of a task are arrays (x, y) or (x, y, sample_weight), where x
            may be a dict or list of arrays, also nested; or a finite, batched `tf.data.Dataset`
            or `keras.utils.PyDataset` of these. A dataset is iterated once to count its samples,
            and batched again (sides of unknown length are padded with zeros); it is shuffled
            10,000 samples at a time, from a random start.
        sampling: "proportional", "uniform", "temperature" or None, see above.
        temperature: T >= 1 of "temperature", None for 2; 1 is proportional.
        batch_size: B, the samples of all tasks together.
        seed: Of the order. The same seed gives the same batches in each epoch, if TensorFlow's
            global seed is the same, too.

    Returns:
        A `tf.data.Dataset` of (`TaskInputs`, {task: labels}), or, if the data of a task have
        sample weights, of (`TaskInputs`, {task: labels}, {task: sample weights}).

    Raises:
        InputError: for arguments out of range, and data that are empty, endless, not batched,
            without labels or with texts as labels, or of which samples and labels differ in number.

    Example:

    ```python
    import numpy as np, tfpeft

    large = np.random.rand(90, 8), np.random.randint(0, 3, 90)
    small = np.random.rand(30, 8), np.random.randint(0, 2, 30)
    mixed = tfpeft.mix_tasks({"shape": large, "colour": small}, batch_size=8)
    inputs, labels = next(iter(mixed))
    print(inputs.by_task["shape"].shape, inputs.by_task["colour"].shape)  # (6, 8) (2, 8)
    ```

    Reference: Raffel et al., "Exploring the Limits of Transfer Learning with a Unified
    Text-to-Text Transformer", 2020, section 3.5.2, https://arxiv.org/abs/1910.10683
    """
    if not isinstance(data, dict) or not data:
        raise invalid_data("data", "{task: data}, one task or more", _described(data))
    check_choice("sampling", sampling, SAMPLINGS)
    if temperature is not None and sampling != "temperature":
        raise invalid("temperature", 'None unless sampling="temperature"', temperature)
    temperature = 2.0 if temperature is None else temperature
    check_positive("temperature", temperature)
    if temperature < 1.0:
        raise invalid("temperature", "a number of at least 1", temperature)
    check_positive_integer("batch_size", batch_size)
    if not len(data) <= batch_size < 2**31:
        raise invalid("batch_size", f"at least {len(data)}, the number of tasks", batch_size)
    check_seed("seed", seed)
    sources = {task: _source(given, f"data[{task!r}]") for task, given in data.items()}
    sizes = np.array([source.samples for source in sources.values()], "float64")
    power = {"uniform": 0.0, "temperature": 1.0 / temperature}.get(sampling, 1.0)
    counts = dict(zip(sources, sample_counts(sizes**power, batch_size), strict=True))
    if sampling is None:
        steps = max(-(-source.samples // counts[task]) for task, source in sources.items())
        batches = _once(sources, counts, steps)
    else:
        steps = -(-int(sizes.sum()) // batch_size)
        batches = _sampled(sources, counts, steps, seed)
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def sample_counts(weights, batch_size):
    """Returns whole numbers >= 1 whose sum is `batch_size`, close to the weights' shares of it."""
    shares = batch_size * weights / weights.sum()
    counts = np.maximum(np.floor(shares), 1).astype(int)
    while counts.sum() != batch_size:
        missing = shares - counts
        if counts.sum() < batch_size:
            counts[np.argmax(missing)] += 1
        else:  # where a share below 1 was raised to 1
            counts[np.argmin(np.where(counts > 1, missing, np.inf))] -= 1
    return counts.tolist()


def _sampled(sources, counts, steps, seed):
    """Returns a dataset of `steps` batches, in another order in every epoch."""

    def epoch(epoch_seed):
        # Sets the seed of the graph that is traced here, not the global one. With a global seed
        # of 0 `shuffle` raises for a seed that is a tensor.
        tf.random.set_seed(1)
        return _zipped(
            {
                task: source.shuffled(counts[task], epoch_seed + i)
                for i, (task, source) in enumerate(sources.items())
            },
            steps,
        )

    # A random number per epoch, from which its order follows: the state of a shuffled dataset
    # would depend on how far the epoch before was read.
    seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
    return seeds.flat_map(epoch)


def _once(sources, counts, steps):
    """Returns a dataset of `steps` batches with each sample once, then samples without labels."""

    def float_labels(x, y, *weight):
        # Labels become floats, as a missing one is NaN; 24 bits hold any class number.
        return (x, tf.cast(y, tf.float32), *weight)

    def without_label(x, y, *weight):
        return (x, tf.fill(tf.shape(y), np.float32("nan")), *map(tf.zeros_like, weight))

    parts = {}
    for task, source in sources.items():
        batches = source.in_order(counts[task]).map(float_labels)
        filler = source.in_order(1).take(1).map(float_labels).map(without_label)
        parts[task] = batches.concatenate(filler.repeat()).take(steps)
    return _zipped(parts, steps)


def _zipped(parts, steps):
    """Returns {task: dataset of (x, y) or (x, y, sample weight)} as one dataset."""
    weighted = any(len(part.element_spec) > 2 for part in parts.values())

    def merge(elements):
        x = TaskInputs({task: element[0] for task, element in elements.items()})
        y = {task: element[1] for task, element in elements.items()}
        if not weighted:
            return x, y
        return x, y, {task: _sample_weights(*element) for task, element in elements.items()}

    return tf.data.Dataset.zip(parts).map(merge).take(steps)


def _sample_weights(x, y, weights=None):
    """Returns the sample weights of an element, or ones."""
    return tf.ones(tf.shape(y)[:1], keras.config.floatx()) if weights is None else weights


def _described(data):
    """Returns data that is no dict in words, as arrays are long."""
    is_short = data is None or not keras.tree.flatten(data)
    return repr(data) if is_short else f"a {type(data).__name__}"


def _source(given, name):
    """Returns the data of one task as a source of batches."""
    check_ranks(given, name)
    data = core_data.read(given, name)
    if isinstance(data, core_data.ArrayData):
        labels, source = data.batch.y, _ArraySource
        weights = data.batch.sample_weight
        if weights is not None and not np.all(np.isfinite(weights)):
            raise invalid_data(name, "finite sample weights", "NaN or infinity")
    else:
        data = data.dataset()
        spec, source = data.element_spec, _DatasetSource
        labels = (*spec, None)[1] if isinstance(spec, tuple) else None
    if not hasattr(labels, "shape") or isinstance(
        labels, (tf.RaggedTensorSpec, tf.SparseTensorSpec)
    ):
        expected = "arrays (x, y) or (x, y, sample_weight), or batches of these, with y an array"
        raise invalid_data(name, expected, f"a {type(given).__name__}")
    dtype = np.dtype(getattr(labels.dtype, "as_numpy_dtype", labels.dtype))
    if dtype.kind in "OSUMm":
        expected = "labels that are real numbers"
        raise invalid_data(name, expected, "texts" if dtype.kind in "OSU" else f"type {dtype}")
    return source(data, name)


class _ArraySource:
    """Batches of samples that are in memory."""

    def __init__(self, data, name):
        check_finite(data.batch.x, name, "inputs")
        check_finite(data.batch.y, name, "labels", missing=True)
        self.samples = data.samples
        element = keras.tree.lists_to_tuples(data.batch.element())
        self._tensors = keras.tree.map_structure(_tensor, element)

    def in_order(self, count):
        return self._gathered(tf.data.Dataset.range(self.samples).batch(count))

    def shuffled(self, count, seed):
        order = tf.data.Dataset.range(self.samples).shuffle(self.samples, seed=seed).repeat()
        return self._gathered(order.batch(count, drop_remainder=True))

    def _gathered(self, indices):
        return indices.map(
            lambda rows: keras.tree.map_structure(lambda t: tf.gather(t, rows), self._tensors)
        )


def _tensor(array):
    if array.dtype == np.float64:
        array = array.astype(keras.config.floatx())  # as `fit` converts arrays
    return tf.convert_to_tensor(array)


class _DatasetSource:
    """Batches of the samples of a `tf.data.Dataset`."""

    def __init__(self, dataset, name):
        def count(total, *element):
            return total + tf.shape(keras.tree.flatten(element)[0], tf.int64)[0]

        self.samples = int(dataset.reduce(np.int64(0), count))
        if not self.samples:
            raise invalid_data(name, "data with samples, one or more", "a dataset without any")
        self._dataset = dataset.unbatch()
        sides = [leaf.shape for leaf in keras.tree.flatten(self._dataset.element_spec)]
        self._is_padded = any(None in shape for shape in sides)

    def in_order(self, count):
        return self._batched(self._dataset, count, drop_remainder=False)

    def shuffled(self, count, seed):
        # From a random start, or a short epoch would never reach the end of a large dataset.
        start = seed % self.samples
        rotated = self._dataset.skip(start).concatenate(self._dataset.take(start))
        buffer = min(self.samples, SHUFFLED_AT_ONCE)
        return self._batched(rotated.shuffle(buffer, seed=seed).repeat(), count, True)

    def _batched(self, samples, count, drop_remainder):
        batch = samples.padded_batch if self._is_padded else samples.batch
        return batch(count, drop_remainder=drop_remainder)
