"""Data of several tasks, each with samples of its own, as one dataset."""

import typing

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import (
    check_choice,
    check_positive,
    check_positive_integer,
    check_seed,
    invalid,
)

SAMPLINGS = ("proportional", "uniform", "temperature", None)


class TaskInputs(typing.NamedTuple):
    """Inputs a task: the x of data that `mix_tasks` returns, {task: inputs}."""

    by_task: typing.Any


def mix_tasks(data, *, sampling="proportional", temperature=None, batch_size=32, seed=0):
    """Returns a dataset of batches that hold samples of every task, for a `SharedModel`.

    A batch of B samples has n_t of task t, which are B * p_t in whole numbers (the largest
    remainders are rounded up), one at least, with N_t the samples that there are:

    - "proportional": p_t = N_t / sum N;
    - "uniform": p_t = 1 / tasks;
    - "temperature": p_t ~ N_t^(1 / T), between the two.

    An epoch has ceil(sum N / B) batches. Each task is shuffled anew whenever it begins again: small
    ones are repeated within an epoch, of large ones each epoch sees another part. With
    `sampling=None`, for evaluation, every sample comes once, in order; a task that has no more is
    filled up with samples whose labels are missing (NaN), which neither loss nor metrics count.

    As every batch has every task, optimizers with momentum see each of them at each step, and a
    task trains as it would alone. How much a task counts is said by `compile(loss_weights=)`: the
    loss of a task is the mean over its own samples.

    What it does not give: batches in which a task has no samples, so `batch_size` is at least the
    number of tasks, and a task far below a batch's share comes more often than its p_t.

    Args:
        data: {task: data}, each arrays (x, y) or (x, y, sample_weight), where x may be a dict or
            list of arrays; or a finite `tf.data.Dataset` of batches of these, which is run once to
            count its samples, and batched again (sides of unknown length are padded with zeros).
            Of datasets 10,000 samples at a time are shuffled, from a random one on.
        sampling: See above.
        temperature: T >= 1 of "temperature", 2 if not given; 1 is proportional.
        batch_size: B.
        seed: Of the order: the same seed gives the same batches, epoch for epoch, as long as
            TensorFlow's global seed is the same too.

    Returns:
        A `tf.data.Dataset` of (`TaskInputs`, {task: labels}) or, if any task has them,
        (`TaskInputs`, {task: labels}, {task: sample weights}).

    Raises:
        ValueError: for arguments out of range, tasks without samples, and infinite datasets.

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
        raise invalid("data", "{task: data}, one task or more", data)
    check_choice("sampling", sampling, SAMPLINGS)
    if temperature is not None and sampling != "temperature":
        raise invalid("temperature", 'None unless sampling="temperature"', temperature)
    temperature = 2.0 if temperature is None else temperature
    check_positive("temperature", temperature)
    if temperature < 1.0:
        raise invalid("temperature", "a number of at least 1", temperature)
    check_positive_integer("batch_size", batch_size)
    if batch_size < len(data):
        raise invalid("batch_size", f"at least {len(data)}, as there are tasks", batch_size)
    check_seed("seed", seed)
    sources = {task: _source(task, each) for task, each in data.items()}
    sizes = np.array([source.samples for source in sources.values()], "float64")
    power = {"uniform": 0.0, "temperature": 1.0 / temperature}.get(sampling, 1.0)
    rows = dict(zip(sources, _rows(sizes**power, batch_size), strict=True))
    weighted = any(len(source.spec) > 2 for source in sources.values())

    def together(parts):
        x = TaskInputs({task: part[0] for task, part in parts.items()})
        y = {task: part[1] for task, part in parts.items()}
        if not weighted:
            return x, y
        return x, y, {task: _weights(*part) for task, part in parts.items()}

    def mixed(parts):
        return tf.data.Dataset.zip(parts).map(together).take(steps)

    def epoch(seed):
        # Sets the seed of the graph traced here, and of nothing else. Under a global seed of 0
        # `shuffle` would refuse a seed that is a tensor.
        tf.random.set_seed(1)
        parts = {
            task: source.batches(rows[task], seed + i)
            for i, (task, source) in enumerate(sources.items())
        }
        return mixed(parts)

    if sampling is None:
        steps = max(-(-source.samples // rows[task]) for task, source in sources.items())
        batches = mixed({t: _once(each, rows[t], steps) for t, each in sources.items()})
    else:
        steps = -(-int(sizes.sum()) // batch_size)
        # A number for each epoch, of which all of its order follows. What a shuffled dataset
        # reads ahead would change the epochs after it.
        seeds = tf.data.Dataset.random(seed=seed, rerandomize_each_iteration=True).take(1)
        batches = seeds.flat_map(epoch)
    return batches.apply(tf.data.experimental.assert_cardinality(steps)).prefetch(2)


def _rows(weights, batch_size):
    """Returns whole numbers >= 1 that add up to `batch_size`, close to the weights' shares."""
    shares = batch_size * weights / weights.sum()
    rows = np.maximum(np.floor(shares), 1).astype(int)
    while rows.sum() != batch_size:
        missing = shares - rows
        if rows.sum() < batch_size:
            rows[np.argmax(missing)] += 1
        else:  # where a small share was brought up to one
            rows[np.argmin(np.where(rows > 1, missing, np.inf))] -= 1
    return rows.tolist()


class _Source(typing.NamedTuple):
    samples: int
    spec: typing.Any  # of a sample: (x, y) or (x, y, sample weight)
    batches: typing.Any  # a function (rows, seed or None for in order) of batches


def _source(task, data):
    if isinstance(data, tf.data.Dataset):
        return _of_dataset(task, data)
    if not isinstance(data, tuple) or len(data) not in (2, 3):
        expected = "arrays (x, y) or (x, y, sample_weight), or a tf.data.Dataset"
        raise invalid(f"data[{task!r}]", expected, type(data).__name__)
    tensors = keras.tree.map_structure(_tensor, (data[0], *map(np.asarray, data[1:])))
    lengths = {len(leaf) if leaf.shape.rank else 0 for leaf in keras.tree.flatten(tensors)}
    if len(lengths) != 1 or 0 in lengths:
        expected = "as many samples as labels, one or more"
        raise invalid(f"data[{task!r}]", expected, sorted(lengths))
    samples = lengths.pop()

    def batches(rows, seed):
        order = tf.data.Dataset.range(samples)
        if seed is not None:
            order = order.shuffle(samples, seed=seed).repeat()
        return order.batch(rows, drop_remainder=seed is not None).map(
            lambda chosen: keras.tree.map_structure(lambda each: tf.gather(each, chosen), tensors)
        )

    spec = keras.tree.map_structure(lambda t: tf.TensorSpec(t.shape[1:], t.dtype), tensors)
    return _Source(samples, spec, batches)


def _tensor(array):
    array = array if tf.is_tensor(array) else np.asarray(array)
    if array.dtype == np.float64:
        array = array.astype(keras.config.floatx())  # as `fit` takes arrays
    return tf.convert_to_tensor(array)


def _of_dataset(task, data):
    spec = data.element_spec
    if not isinstance(spec, tuple) or len(spec) not in (2, 3):
        raise invalid(f"data[{task!r}]", "batches of (x, y) or (x, y, sample_weight)", spec)
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise invalid(f"data[{task!r}]", "a finite dataset", "one that repeats")

    def counted(count, *element):
        return count + tf.shape(keras.tree.flatten(element)[0], tf.int64)[0]

    samples = int(data.reduce(np.int64(0), counted))
    if samples == 0:
        raise invalid(f"data[{task!r}]", "as many samples as labels, one or more", 0)
    each = data.unbatch()
    is_free = any(None in leaf.shape for leaf in keras.tree.flatten(each.element_spec))

    def batches(rows, seed):
        samples_ = each
        if seed is not None:
            # From anywhere on, else an epoch that is shorter never comes to the end of a large one.
            start = seed % samples
            samples_ = each.skip(start).concatenate(each.take(start))
            samples_ = samples_.shuffle(min(samples, 10_000), seed=seed).repeat()
        batch = samples_.padded_batch if is_free else samples_.batch
        return batch(rows, drop_remainder=seed is not None)

    return _Source(samples, each.element_spec, batches)


def _once(source, rows, steps):
    def without_marker(x, y, *weight):
        # NaN marks what is missing, so labels become floats; 24 bits hold any class number.
        return (x, tf.cast(y, tf.float32), *weight)

    def unlabelled(x, y, *weight):
        return (x, tf.fill(tf.shape(y), np.float32("nan")), *map(tf.zeros_like, weight))

    batches = source.batches(rows, None).map(without_marker)
    filler = source.batches(1, None).take(1).map(without_marker).map(unlabelled)
    return batches.concatenate(filler.repeat()).take(steps)


def _weights(x, y, weights=None):
    """Returns the weights of samples, ones where a task has none."""
    return tf.ones(tf.shape(y)[:1], keras.config.floatx()) if weights is None else weights
