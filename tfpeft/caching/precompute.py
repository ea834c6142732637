"""What a frozen model answers, computed once and joined to the data of every epoch."""

import pathlib
import typing
import zlib

import keras
import numpy as np
import tensorflow as tf

from tfpeft.caching import frozen_model
from tfpeft.caching.store import Conversion, Folder, Memory
from tfpeft.core import weight_files
from tfpeft.core.arguments import check_positive_integer, invalid
from tfpeft.core.layers import find_layer


class Taught(typing.NamedTuple):
    """Inputs, and what the teacher answers to them: the x of data that `join` returns.

    `teacher` is {"outputs": (what each teacher answers,), "features": {name: array}}.
    """

    inputs: typing.Any
    teacher: typing.Any

    @staticmethod
    def split(x):
        """Returns the inputs of an x, and what the teacher answers, or None."""
        return x if isinstance(x, Taught) else (x, None)


def precompute(model, data, path=None, *, features=(), float16=False, batch_size=256):
    """Runs a frozen model over data once, and keeps what it answers.

    An epoch on `precompute(teacher, data).join(data)` costs what the student alone costs, as no
    teacher runs. The model runs with training=False. In a folder, what is done is kept after a
    kill: the same call goes on with the first shard that is missing.

    Data whose order changes from epoch to epoch is refused, as answers would meet other samples:
    shuffle before the answers are computed with `reshuffle_each_iteration=False`, or after the
    join. Inputs that change (random augmentation) are refused, too: what the teacher says of an
    image does not hold for its augmentations. For those give the `Distiller` the teacher itself, so
    that both models see the same augmented batch (Beyer et al., 2022).

    What it does not give: answers to data that a model has not seen in this call. Whether the model
    is still the one whose answers are in the folder is seen by its weights, and by what it answers
    to the first batch.

    Args:
        model: What a `Distiller` takes as teacher: a Keras model, a layer, a .tflite file, a
            function of a batch, or a list of these.
        data: Arrays x, (x, y) or (x, y, sample_weight), x being one or a structure of them; or a
            finite, batched `tf.data.Dataset` of such.
        path: A folder for the answers; None keeps them in memory.
        features: Names or paths of layers whose outputs are kept as well.
        float16: Whether floating-point answers are stored in half the bytes, to 3 digits. Outputs
            in [0, 1] are not, as they may be probabilities.
        batch_size: Samples that the model sees at once, of arrays.

    Returns:
        A `Precomputed`: `outputs`, `features`, and `join`.

    Raises:
        ValueError: for data that changes from epoch to epoch, or is infinite; for a folder that
            holds something else, or the answers of another model, or to other data; for layers
            that are not there; for answers that float16 cannot hold.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    taught = tfpeft.precompute(teacher, (x, y))
    distiller = tfpeft.Distiller(None, student, teacher_from_logits=True)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(*taught.join((x, y)), verbose=0)
    ```

    Reference: Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent",
    2022, https://arxiv.org/abs/2106.05237
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    models = [frozen_model.as_teacher(each, "model") for each in models]
    if isinstance(features, str) or not all(isinstance(each, str) for each in features):
        raise invalid("features", "a list of layer names", features)
    check_positive_integer("batch_size", batch_size)
    for each in features if all(each.built for each in models) else ():
        find_layer(models, each, "features")
    if isinstance(data, tf.data.Dataset):
        _check_repeatable(data)
        batches = (_inputs(element) for element in data)
        specs = _inputs(data.element_spec)
    else:
        arrays = _arrays(data)
        starts = range(0, len(keras.tree.flatten(arrays)[0]), batch_size)
        batches = (_rows(arrays, start, start + batch_size) for start in starts)
        specs = keras.tree.map_structure(_any_rows, arrays)

    def answer(x):
        outputs, by_name = frozen_model.answers(models, x, features)
        return {"outputs": outputs, "features": by_name}

    # Traced once, for batches of any size.
    run = tf.function(answer, input_signature=[specs], autograph=False)
    store = Memory()
    if path is not None:
        about = {
            "models": [_fingerprint(each) for each in models],
            "features": list(features),
            "float16": bool(float16),
        }
        store = Folder(path, about)
    done, convert = 0, None
    for x in batches:
        checksums = _checksums(x)
        known = min(max(store.samples - done, 0), len(checksums))  # computed before a kill
        store.check(done, checksums[:known])
        if known < len(checksums) or done == 0:
            answers = run(keras.tree.map_structure(tf.convert_to_tensor, x))
            convert = convert or Conversion(answers, float16)
            answers = convert(answers)
            if known and done == 0:
                store.check_answers(_rows(answers, 0, known))
            store.add(checksums[known:], _rows(answers, known, None))
        done += len(checksums)
    if done == 0:
        raise ValueError("Received an invalid value for `data`, expected samples. Received: none")
    store.close(done)
    return Precomputed(store)


class Precomputed:
    """What a model answers to the samples of some data, in their order; see `precompute`.

    Attributes:
        samples: How many there are.
    """

    def __init__(self, store):
        self._store = store
        self.samples = store.samples

    @property
    def outputs(self):
        """What the model answers, (samples, ...); a tuple if there were several models."""
        outputs = self._store.rows(0, self.samples)["outputs"]
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def features(self):
        """{layer name: outputs (samples, ...)}."""
        return self._store.rows(0, self.samples)["features"]

    def join(self, data):
        """Returns `data` with what the model answers to each sample.

        Args:
            data: The data that was given to `precompute`, in the same order: arrays, or a batched
                `tf.data.Dataset`, of any batch size.

        Returns:
            The same, where x is a `Taught`: for `Distiller.fit`, as arrays `fit(*joined)`. These
            may be shuffled by `fit`; a dataset may be unbatched, shuffled and augmented
            consistently from here on.

        Raises:
            ValueError: if the samples are others, or in another order; a dataset in which that
                shows later ends `fit` with a `tf.errors.InvalidArgumentError` that says so.
        """
        if isinstance(data, tf.data.Dataset):
            return self._join_dataset(data)
        x = _arrays(data)
        checksums = _checksums(x)
        self._store.check(0, checksums)
        if len(checksums) != self.samples:
            raise invalid("data", f"the {self.samples} samples of `precompute`", len(checksums))
        labels_and_weights = data[1:] if isinstance(data, tuple) else ()
        return (Taught(x, self._store.rows(0, self.samples)), *labels_and_weights)

    def _join_dataset(self, data):
        for element in data.take(1):
            self._store.check(0, _checksums(_inputs(element)))
        dtypes = [tf.as_dtype(dtype) for dtype in self._store.dtypes]

        def number(start, element):
            count = tf.shape(keras.tree.flatten(_inputs(element))[0], tf.int64)[0]
            return start + count, (start, element)

        def look_up(start, *leaves):
            checksums = _checksums(list(leaves))
            self._store.check(int(start), checksums)
            return self._store.leaves(int(start), int(start) + len(checksums))

        def join(start, element):
            x = _inputs(element)
            leaves = keras.tree.flatten(x)
            found = tf.numpy_function(look_up, [start, *leaves], dtypes, stateful=False)
            for tensor, shape in zip(found, self._store.shapes, strict=True):
                tensor.set_shape([leaves[0].shape[0], *shape])
            taught = Taught(x, self._store.structured(found))
            return (taught, *element[1:]) if isinstance(element, tuple) else taught

        # A batch ahead, by a fixed number: autotuning makes `fit` wait at the end of an epoch.
        return data.scan(np.int64(0), number).map(join).prefetch(2)


def _arrays(data):
    x = data[0] if isinstance(data, tuple) else data
    leaves = keras.tree.flatten(x)
    lengths = {len(leaf) if getattr(leaf, "ndim", 0) else None for leaf in leaves}
    if len(lengths) != 1 or None in lengths:
        expected = "arrays x, (x, y) or (x, y, sample_weight), or a tf.data.Dataset"
        raise invalid("data", expected, type(data).__name__)
    return x


def _inputs(element):
    return element[0] if isinstance(element, tuple) else element


def _any_rows(array):
    tensor = tf.convert_to_tensor(array[:1])
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def _rows(x, start, stop):
    return keras.tree.map_structure(lambda leaf: leaf[start:stop], x)


def _checksums(x):
    """Returns a number a sample, of all its inputs."""
    sums = np.zeros(len(keras.tree.flatten(x)[0]), "uint32")
    for leaf in keras.tree.flatten(x):
        leaf = np.asarray(leaf)
        if leaf.dtype.kind in "OSU":  # text, as TensorFlow has it
            leaf = tf.convert_to_tensor(leaf).numpy()
            rows = [repr(row if isinstance(row, bytes) else row.tolist()).encode() for row in leaf]
        else:
            rows = np.ascontiguousarray(leaf)
        sums[:] = [zlib.crc32(row, int(before)) for row, before in zip(rows, sums, strict=True)]
    return sums


def _fingerprint(model):
    """Returns a text that differs between models: of weights, of a file, or a function's name."""
    if isinstance(model, frozen_model.TFLiteTeacher):
        return f"{zlib.crc32(pathlib.Path(model.file).read_bytes()):08x}"
    if isinstance(model, frozen_model.FunctionTeacher):
        return getattr(model.function, "__qualname__", type(model.function).__name__)
    return f"{type(model).__name__} {weight_files.fingerprint(model)}"


def _check_repeatable(data):
    """Raises if data is infinite, or if its first batches are others each time."""
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "Received an invalid value for `data`, expected a finite dataset: repeat after the "
            "join. Received: an infinite one"
        )
    if not isinstance(data.element_spec, (tuple, dict, tf.TensorSpec)) or any(
        not isinstance(spec, tf.TensorSpec) for spec in keras.tree.flatten(data.element_spec)
    ):
        raise invalid("data", "batches of dense tensors: x, (x, y) or (x, y, w)", data.element_spec)
    firsts, again = (list(data.take(4)) for _ in range(2))
    if len(firsts) == len(again) and _same(list(map(_inputs, firsts)), list(map(_inputs, again))):
        return
    has_labels = isinstance(firsts[0], tuple) and len(firsts[0]) > 1
    if has_labels and _same([each[1] for each in firsts], [each[1] for each in again]):
        raise ValueError(
            "Received an invalid value for `data`, expected inputs that stay from epoch to epoch. "
            "Received inputs that change while their labels stay: random augmentation, whose "
            "answers cannot be stored. Give the Distiller the teacher itself, so that both models "
            "see the same augmented batch; or augment after the join, the student's inputs only"
        )
    raise ValueError(
        "Received an invalid value for `data`, expected samples and an order that stay from epoch "
        "to epoch. Received other first batches each time. If it is augmented at random, give the "
        "Distiller the teacher itself; if it is shuffled, shuffle after the join, "
        "`precompute(model, data).join(data).unbatch().shuffle(...).batch(...)`, or with "
        "`shuffle(..., reshuffle_each_iteration=False)`"
    )


def _same(a, b):
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return all(np.array_equal(np.asarray(u), np.asarray(v)) for u, v in pairs)
