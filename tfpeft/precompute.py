"""What a frozen model answers, computed once and joined to the data of every epoch."""

import json
import os
import pathlib
import shutil
import typing
import zlib

import keras
import numpy as np
import tensorflow as tf

from tfpeft import teachers
from tfpeft.arguments import check_positive_integer, invalid
from tfpeft.features import find_layer

_SHARD_SAMPLES = 4096  # what a kill costs at most
_PARTIAL = "tfpeft-partial."


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

    What it does not give: answers to data that a model has not seen in this call; a check that a
    function has not changed between two calls.

    Args:
        model: What a `Distiller` takes as teacher: a Keras model, a layer, a .tflite file, a
            function of a batch, or a list of these.
        data: Arrays x, (x, y) or (x, y, sample_weight), x being one or a structure of them; or a
            finite, batched `tf.data.Dataset` of such.
        path: A folder for the answers; None keeps them in memory.
        features: Names or paths of layers whose outputs are kept as well.
        float16: Whether floating-point answers are stored in half the bytes, to 3 digits.
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
    models = [teachers.as_teacher(each, "model") for each in models]
    if isinstance(features, str) or not all(isinstance(each, str) for each in features):
        raise invalid("features", "a list of layer names", features)
    check_positive_integer("batch_size", batch_size)
    for each in features if all(each.built for each in models) else ():
        find_layer(models, each, "features")
    if isinstance(data, tf.data.Dataset):
        _check_repeatable(data)
        batches = (_inputs(element) for element in data)
    else:
        arrays = _arrays(data)
        starts = range(0, len(keras.tree.flatten(arrays)[0]), batch_size)
        batches = (_rows(arrays, start, start + batch_size) for start in starts)

    def answer(x):
        outputs, by_name = teachers.answers(models, x, features)
        return {"outputs": outputs, "features": by_name}

    store = _Memory()
    if path is not None:
        about = {
            "models": [_fingerprint(each) for each in models],
            "features": list(features),
            "float16": bool(float16),
        }
        store = _Folder(pathlib.Path(path), about)
    done, run, convert = 0, None, _stored_as(float16)
    for x in batches:
        checksums = _checksums(x)
        if done < store.samples:  # computed before a kill
            store.check(done, checksums)
        else:
            x = keras.tree.map_structure(tf.convert_to_tensor, x)
            if run is None:
                # Traced once, for batches of any size.
                specs = keras.tree.map_structure(_any_batch, x)
                run = tf.function(answer, input_signature=[specs], autograph=False)
            store.add(checksums, keras.tree.map_structure(convert, run(x)))
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
        self._check_count(len(checksums))
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

    def _check_count(self, count):
        if count != self.samples:
            raise invalid("data", f"the {self.samples} samples of `precompute`", count)


class _Memory:
    """Answers in arrays, one a leaf of their structure."""

    def __init__(self):
        self.samples = 0
        self.structure = None
        self._pending = []  # (checksums, leaves) of batches
        self._parts = []  # [checksums, *leaves] that belong together, in order

    def add(self, checksums, answers):
        leaves = keras.tree.flatten(answers)
        if self.structure is None:
            self.structure = keras.tree.pack_sequence_as(answers, list(range(len(leaves))))
        self._pending.append([checksums, *leaves])

    def close(self, samples):
        self._parts.append([np.concatenate(each) for each in zip(*self._pending, strict=True)])
        self._pending = []
        self.samples = samples

    def check(self, start, checksums):
        """Raises unless the samples from `start` on have these checksums."""
        stop = start + len(checksums)
        if not np.array_equal(self._slice(0, start, stop), checksums):
            raise ValueError(
                "Received an invalid value for `data`, expected the samples that `precompute` has "
                f"seen, in the same order. Received others in samples {start} to {stop - 1}, "
                f"of {self.samples}"
            )

    @property
    def dtypes(self):
        return [leaf.dtype for leaf in self._parts[0][1:]]

    @property
    def shapes(self):
        return [leaf.shape[1:] for leaf in self._parts[0][1:]]

    def leaves(self, start, stop):
        return [self._slice(i + 1, start, stop) for i in range(len(self._parts[0]) - 1)]

    def rows(self, start, stop):
        return self.structured(self.leaves(start, stop))

    def structured(self, leaves):
        return keras.tree.map_structure(lambda index: leaves[index], _tuples(self.structure))

    def _slice(self, leaf, start, stop):
        found, first = [], 0
        for part in self._parts:
            last = first + len(part[0])
            if first < stop and last > start:
                found.append(part[leaf][max(start - first, 0) : stop - first])
            first = last
        if not found:
            return np.zeros(0, "uint32") if leaf == 0 else self._parts[0][leaf][:0]
        return found[0] if len(found) == 1 else np.concatenate(found)


class _Folder(_Memory):
    """Answers in a folder: about.json, and a folder of .npy files for each shard, all read-only.

    A shard is whole: written beside, then renamed.
    """

    def __init__(self, path, about):
        super().__init__()
        self.path = path
        path.mkdir(parents=True, exist_ok=True)
        names = {each.name for each in path.iterdir()}
        about_path = path / "about.json"
        if about_path.name in names:
            before = json.loads(about_path.read_text())
            self.structure = before.pop("structure", None)
            if before != about:
                changed = ", ".join(sorted(k for k in about if before.get(k) != about[k]))
                raise ValueError(
                    f"Received an invalid value for `path`, expected an empty folder or one of the "
                    f"same {changed}. Received: path={str(path)!r}, which holds other answers"
                )
        elif any(not name.startswith(_PARTIAL) for name in names):
            raise invalid("path", "an empty folder, or one of precomputed answers", str(path))
        self._about = about
        for leftover in path.glob(f"{_PARTIAL}*"):
            shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
        while (shard := self.path / f"{len(self._parts):05d}").is_dir():
            self._parts.append(_mapped(shard))
            self.samples += len(self._parts[-1][0])

    def add(self, checksums, answers):
        super().add(checksums, answers)
        if sum(len(each[0]) for each in self._pending) >= _SHARD_SAMPLES:
            self._write()

    def close(self, samples):
        if self._pending:
            self._write()
        if samples != self.samples:
            raise invalid("data", f"the {self.samples} samples in {self.path}", samples)

    def _write(self):
        if not self._parts:
            about = json.dumps({**self._about, "structure": self.structure}, indent=2)
            partial = self.path / f"{_PARTIAL}about.json"
            partial.write_text(about)
            os.replace(partial, self.path / "about.json")
        name = f"{len(self._parts):05d}"
        partial = self.path / f"{_PARTIAL}{name}"
        partial.mkdir()
        for index, parts in enumerate(zip(*self._pending, strict=True)):
            np.save(partial / f"{index}.npy", np.concatenate(parts))
        os.replace(partial, self.path / name)
        self._parts.append(_mapped(self.path / name))
        self.samples += len(self._parts[-1][0])
        self._pending = []


def _tuples(structure):
    """The same without lists, which tf.data takes for tensors."""
    if isinstance(structure, dict):
        return {key: _tuples(value) for key, value in structure.items()}
    if isinstance(structure, (list, tuple)):
        return tuple(map(_tuples, structure))
    return structure


def _mapped(shard):
    count = len(list(shard.glob("*.npy")))
    return [np.load(shard / f"{index}.npy", mmap_mode="r") for index in range(count)]


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


def _any_batch(tensor):
    return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)


def _rows(x, start, stop):
    return keras.tree.map_structure(lambda leaf: leaf[start:stop], x)


def _stored_as(float16):
    def convert(tensor):
        array = np.asarray(tensor)
        if array.dtype.name == "bfloat16":
            array = array.astype("float32")
        if not float16 or array.dtype.kind != "f":
            return array
        with np.errstate(over="ignore"):
            half = array.astype("float16")
        if not np.array_equal(np.isfinite(half), np.isfinite(array)):
            largest = float(np.max(np.abs(array[np.isfinite(array)])))
            raise invalid("float16", "answers of at most 65504, or False", largest)
        return half

    return convert


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
    if isinstance(model, teachers.TFLiteTeacher):
        return f"{zlib.crc32(pathlib.Path(model.file).read_bytes()):08x}"
    if isinstance(model, teachers.FunctionTeacher):
        return getattr(model.function, "__qualname__", type(model.function).__name__)
    checksum = zlib.crc32(type(model).__name__.encode())
    for weight in model.weights:
        checksum = zlib.crc32(np.ascontiguousarray(weight.numpy()), checksum)
    return f"{checksum:08x}"


def _check_repeatable(data):
    """Raises if data is infinite, or if its first batches are others each time."""
    if data.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError(
            "Received an invalid value for `data`, expected a finite dataset: repeat after the "
            "join. Received: an infinite one"
        )
    firsts, again = (list(data.take(4)) for _ in range(2))
    if _same(list(map(_inputs, firsts)), list(map(_inputs, again))):
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
        "Received an invalid value for `data`, expected an order that stays from epoch to epoch. "
        "Received other first batches each time: shuffle after the join, "
        "`precompute(model, data).join(data).unbatch().shuffle(...).batch(...)`, or with "
        "`shuffle(..., reshuffle_each_iteration=False)`"
    )


def _same(a, b):
    pairs = zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True)
    return all(np.array_equal(np.asarray(u), np.asarray(v)) for u, v in pairs)
