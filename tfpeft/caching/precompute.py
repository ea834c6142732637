"""Outputs of a frozen model, computed once and joined to the data of every epoch."""

import os
import pathlib
import typing
import zlib
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfpeft.caching.conversion import Conversion
from tfpeft.caching.frozen_model import (
    FrozenModel,
    FunctionLayer,
    TFLiteLayer,
    as_frozen_model,
    frozen_outputs,
    inputs_of_models,
)
from tfpeft.caching.samples import check_dense, check_repeatable, checksums
from tfpeft.caching.store import FolderStore, MemoryStore, Store
from tfpeft.core import weight_files
from tfpeft.core.arguments import (
    check_boolean,
    check_exclude,
    check_positive_integer,
    invalid,
    unexpected,
)
from tfpeft.core.arrays import check_finite, check_ranks, invalid_data
from tfpeft.core.checks import input_errors, passing_errors
from tfpeft.core.data import read
from tfpeft.core.layers import find_layer


class PrecomputedInputs(typing.NamedTuple):
    """Inputs with a teacher's precomputed outputs: the x of data that `join` returns.

    `teacher` is {"outputs": (outputs of each teacher,), "features": {layer name: array}}.

    Example:

    ```python
    import numpy as np, tfpeft

    x, y = np.random.rand(8, 3), np.arange(8)
    joined, labels = tfpeft.precompute(lambda x: 2.0 * x, (x, y)).join((x, y))
    print(joined.inputs.shape, joined.teacher["outputs"][0].shape)  # (8, 3) (8, 3)
    ```
    """

    inputs: typing.Any
    teacher: typing.Any

    @staticmethod
    def split(x: typing.Any) -> tuple:
        """Returns the inputs of an x, and the teacher's outputs, None if x is inputs alone."""
        if not isinstance(x, PrecomputedInputs):
            return x, None
        if not isinstance(x.teacher, dict) or not x.teacher.get("outputs"):
            expected = "PrecomputedInputs with a `teacher` of outputs, as `join` returns them"
            raise unexpected(expected, f"a {type(x.teacher).__name__} without outputs")
        return x


def precompute(
    model: FrozenModel | Sequence[FrozenModel],
    data: typing.Any,
    path: str | os.PathLike | None = None,
    *,
    features: Sequence[str] = (),
    float16: bool = False,
    batch_size: int = 256,
) -> "Precomputed":
    """Runs a frozen model over data once, and stores its outputs.

    An epoch on `precompute(teacher, data).join(data)` costs as much as training the student
    alone, as no teacher runs. The model runs with training=False. Outputs in a folder survive a
    kill: the same call resumes with the first shard that is missing.

    The data must have the same samples in the same order in every epoch, or outputs would be
    joined to other samples: shuffle before with `reshuffle_each_iteration=False`, or after the
    join. Inputs must not change either (random augmentation): the teacher's outputs for an image
    are not those for its augmentations. For such data give the `Distiller` the teacher itself, so
    that both models receive the same augmented batch (Beyer et al., 2022).

    What it does not give: outputs for samples that were not in the data of this call. A changed
    model is recognized by its weights, and by its outputs for the first batch.

    Args:
        model: A teacher as `Distiller` takes it: a Keras model, a layer, a .tflite file, a
            function of a batch, or a list of these.
        data: Arrays x, (x, y) or (x, y, sample_weight), where x may be a dict of arrays, matched
            to inputs by name, or a list, by position; or a finite, batched `tf.data.Dataset` or
            `keras.utils.PyDataset` of these.
        path: A folder for the outputs; None keeps them in memory.
        features: Names or paths of layers whose outputs are stored as well.
        float16: Whether floating-point outputs are stored in half the bytes, to 3 digits. Outputs
            in [0, 1] are not, as they may be probabilities.
        batch_size: Samples per call of the model, if the data is arrays.

    Returns:
        A `Precomputed`: `outputs`, `features`, and `join`.

    Raises:
        InputError: for data that changes or is shuffled from epoch to epoch, has no end, no
            batches or no samples; for inputs and outputs that are NaN or infinite; for a folder
            with other files, or with outputs of another model or other data; for unknown layers;
            for outputs out of the range of float16.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    teacher = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    student = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    precomputed = tfpeft.precompute(teacher, (x, y))
    distiller = tfpeft.Distiller(None, student, teacher_from_logits=True)
    distiller.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    distiller.fit(*precomputed.join((x, y)), verbose=0)
    ```

    Reference: Beyer et al., "Knowledge Distillation: A Good Teacher Is Patient and Consistent",
    2022, https://arxiv.org/abs/2106.05237
    """
    models = model if isinstance(model, (list, tuple)) else [model]
    if not models:
        raise invalid("model", "a model, a .tflite file, a function, or a list of these", model)
    models = [as_frozen_model(each, "model") for each in models]
    check_exclude(features, "features")
    check_boolean("float16", float16)
    check_positive_integer("batch_size", batch_size)
    for name in features if all(each.built for each in models) else ():
        find_layer(models, name, "features")
    data = _readable(data)
    if data.samples is None:
        check_repeatable(data)
    store = MemoryStore()
    if path is not None:
        settings = {
            "models": [_fingerprint(each) for each in models],
            "features": list(features),
            "float16": bool(float16),
        }
        store = FolderStore(path, settings)
    _fill(store, models, data, features, float16, batch_size)
    return Precomputed(store)


class Precomputed:
    """Outputs of a model for the samples of some data, in their order; see `precompute`.

    Attributes:
        samples: How many samples the data has.

    Example:

    ```python
    import numpy as np, tfpeft

    precomputed = tfpeft.precompute(lambda x: 2.0 * x, np.ones((8, 3)))
    print(precomputed.samples, precomputed.outputs[0])  # 8 [2. 2. 2.]
    ```
    """

    def __init__(self, store):
        if not isinstance(store, Store):
            raise invalid("store", "one that `precompute` has filled", store)
        self._store = store
        self.samples = store.samples

    @property
    def outputs(self) -> typing.Any:
        """The outputs of the model, (samples, ...); of several models a tuple of theirs."""
        outputs = self._store.rows(0, self.samples)["outputs"]
        return outputs[0] if len(outputs) == 1 else outputs

    @property
    def features(self) -> dict[str, np.ndarray]:
        """{layer name: outputs (samples, ...)}."""
        return self._store.rows(0, self.samples)["features"]

    def join(self, data: typing.Any) -> tuple | tf.data.Dataset:
        """Returns `data` with the model's outputs for each sample.

        Args:
            data: The data that was given to `precompute`, in the same order: arrays, or a
                `tf.data.Dataset` or `PyDataset` of any batch size.

        Returns:
            For arrays a tuple, (x,), (x, y) or (x, y, sample_weight), for `Distiller.fit(*joined)`,
            which may shuffle it; otherwise a `tf.data.Dataset` of such tuples, which may be
            unbatched, shuffled and augmented consistently from here on. x is a
            `PrecomputedInputs`.

        Raises:
            InputError: if the samples are others, or in another order. Behind the first batch of
                a dataset, `fit` of a `Distiller` or `SharedModel` raises it, and others a
                `tf.errors.InvalidArgumentError` of the same text.
        """
        data = _readable(data)
        if data.samples is None:
            return self._join_dataset(data.dataset())
        sums = checksums(data.batch.x)
        self._store.check_samples(0, sums)
        if len(sums) != self.samples:
            raise invalid("data", f"the {self.samples} samples of `precompute`", len(sums))
        x = PrecomputedInputs(data.batch.x, self._store.rows(0, self.samples))
        return _element(x, data.batch.element())

    def _join_dataset(self, dataset):
        first = next(iter(dataset.take(1)), None)
        if first is None:
            raise invalid_data("data", "data with samples, one or more", "a dataset without any")
        self._store.check_samples(0, checksums(_inputs(first)))
        dtypes = [tf.as_dtype(dtype) for dtype in self._store.dtypes]

        def number(start, element):
            count = tf.shape(keras.tree.flatten(_inputs(element))[0], tf.int64)[0]
            return start + count, (start, element)

        @passing_errors
        def look_up(start, *leaves):
            sums = checksums(list(leaves))
            self._store.check_samples(int(start), sums)
            return self._store.leaves(int(start), int(start) + len(sums))

        def join(start, element):
            x = _inputs(element)
            leaves = keras.tree.flatten(x)
            found = tf.numpy_function(look_up, [start, *leaves], dtypes, stateful=False)
            for tensor, shape in zip(found, self._store.shapes, strict=True):
                tensor.set_shape([leaves[0].shape[0], *shape])
            return _element(PrecomputedInputs(x, self._store.pack(found)), element)

        # A batch ahead, by a fixed number: autotuning makes `fit` wait at the end of an epoch.
        return dataset.scan(np.int64(0), number).map(join).prefetch(2)


def _readable(data):
    """Returns the `Data` of what a user passed, if it can be read more than once to its end."""
    data = read(data)
    data.check_end()
    if isinstance(data.given, tf.data.Dataset):
        check_dense(data.given, data.name)
        check_ranks(_inputs(data.given.element_spec), data.name)
    return data


def _fill(store, models, data, features, float16, batch_size):
    """Runs the models on all batches whose outputs are not in the store."""

    def outputs_of(x):
        xs = inputs_of_models(models, x, data.name)
        outputs, by_name = frozen_outputs(models, xs, features)
        return {"outputs": outputs, "features": by_name}

    # Traced once, for batches of any size.
    specs = _input_specs(data)
    run = tf.function(outputs_of, input_signature=[specs], autograph=False)
    done, convert = 0, None
    for batch in data.batches(batch_size):
        _check_shapes(batch.x, specs)
        check_finite(batch.x, data.name, "inputs")
        sums = checksums(batch.x)
        known = min(max(store.samples - done, 0), len(sums))  # computed before a kill
        store.check_samples(done, sums[:known])
        if known < len(sums) or done == 0:
            with input_errors():
                outputs = run(keras.tree.map_structure(tf.convert_to_tensor, batch.x))
            _check_finite(outputs, done)
            convert = convert or Conversion(outputs, float16)
            outputs = convert(outputs)
            if known and done == 0:
                store.check_outputs(_rows(outputs, 0, known))
            store.add(sums[known:], _rows(outputs, known, None))
        done += len(sums)
    store.close(done)


def _check_finite(outputs, start):
    """Raises for outputs or features of a batch that are NaN or infinite."""
    for path, leaf in keras.tree.flatten_with_path(outputs):
        if not leaf.dtype.is_floating or tf.reduce_all(tf.math.is_finite(leaf)):
            continue
        is_bad = ~np.isfinite(np.reshape(tf.cast(leaf, "float32"), [len(leaf), -1]))
        sample = start + int(np.argmax(np.any(is_bad, axis=1)))
        where = f"features[{path[1]!r}]" if path[0] == "features" else "outputs"
        received = f"NaN or infinity in {where} of sample {sample}"
        raise invalid_data("model", "a model whose outputs are finite", received)


def _input_specs(data):
    """Returns the `tf.TensorSpec`s of x in batches of any size."""
    if isinstance(data.given, tf.data.Dataset):
        return _inputs(data.given.element_spec)

    def any_size(leaf):
        tensor = tf.convert_to_tensor(leaf[:1])
        return tf.TensorSpec([None, *tensor.shape[1:]], tensor.dtype)

    return keras.tree.map_structure(any_size, next(data.batches(1)).x)


def _check_shapes(x, specs):
    leaves = keras.tree.flatten(x)
    if any(
        not spec.shape.is_compatible_with(leaf.shape)
        for spec, leaf in zip(keras.tree.flatten(specs), leaves, strict=True)
    ):
        expected = "samples of one shape in all batches, or a tf.data.Dataset of padded batches"
        raise invalid("data", expected, [tuple(leaf.shape) for leaf in leaves])


def _element(x, element):
    """Returns (x,), (x, y) or (x, y, sample_weight) of an element with other inputs.

    A tuple in any case: Keras would take the two fields of a `PrecomputedInputs` for x and y.
    """
    return (x, *element[1:]) if isinstance(element, tuple) else (x,)


def _inputs(element):
    return element[0] if isinstance(element, tuple) else element


def _rows(x, start, stop):
    return keras.tree.map_structure(lambda leaf: leaf[start:stop], x)


def _fingerprint(model):
    """Returns a text that differs between models: of weights, of a file, or a function's name."""
    if isinstance(model, TFLiteLayer):
        return f"{zlib.crc32(pathlib.Path(model.file).read_bytes()):08x}"
    if isinstance(model, FunctionLayer):
        return getattr(model.function, "__qualname__", type(model.function).__name__)
    return f"{type(model).__name__} {weight_files.fingerprint(model)}"
