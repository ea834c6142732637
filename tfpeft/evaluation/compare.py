"""Quality and cost of a model or of a .tflite file, in the same figures."""

import dataclasses
import json
import pathlib
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from sklearn import metrics

from tfpeft.core.arguments import invalid
from tfpeft.core.macs import count_macs
from tfpeft.export import tflite_file
from tfpeft.export.tflite import export_tflite
from tfpeft.reports import tables

_ROUNDS = 100  # of latency, at most; and at most this many seconds a file
_SECONDS = 5.0
_NO_MACS = "no MACs: the graph does not tell the rounds of its loops or all of its shapes"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The figures of one model or file; None where one cannot be had, with the reason in `notes`.

    Attributes:
        accuracy: Fraction in [0, 1].
        precision: Mean over classes (macro); a class that is never answered counts as 0.
        recall: Mean over classes.
        f1: Mean over classes.
        loss: Cross-entropy in nats, a sample.
        parameters: Weights of a model; constants of a file, those of all its signatures together.
        nonzero_parameters: Those that are not zero.
        macs: Multiply-accumulates of one sample, in convolutions and matrix products; biases,
            activations and normalisation do not count.
        size_bytes: Bytes of the whole .tflite file; of a Keras model: of its float32 export.
        gzip_bytes: The same, compressed by gzip.
        latency_ms: Median milliseconds of one run on one thread, of that file here: of one sample,
            unless the file insists on a larger batch.
        latency_p90_ms: The 90th percentile.
        notes: Why a figure is missing.
    """

    accuracy: float
    precision: float
    recall: float
    f1: float
    loss: float
    parameters: int
    nonzero_parameters: int
    macs: int | None
    size_bytes: int | None
    gzip_bytes: int | None
    latency_ms: float | None
    latency_p90_ms: float | None
    notes: tuple = ()

    def as_dict(self):
        """Returns the figures as plain JSON values."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Several evaluations, by name: print it for a table."""

    rows: dict

    def __getitem__(self, name):
        return self.rows[name]

    def __str__(self):
        return tables.table(self._dicts())

    def to_markdown(self):
        """Returns the table in Markdown."""
        return tables.markdown_table(self._dicts())

    def to_json(self):
        """Returns all figures as a JSON text, by name."""
        return json.dumps(self._dicts(), indent=2)

    def _dicts(self):
        return {name: row.as_dict() for name, row in self.rows.items()}


def evaluate(model, data, *, from_logits=None, signature=None):
    """Returns the figures of one model, file, or signature of a file; see `compare`.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    inputs = {
        "padding_mask": keras.Input((16,), dtype="bool", name="padding_mask"),
        "token_ids": keras.Input((16,), dtype="int32", name="token_ids"),
    }
    hidden = keras.layers.Embedding(100, 8)(inputs["token_ids"])
    hidden = keras.layers.GlobalAveragePooling1D()(hidden, mask=inputs["padding_mask"])
    model = keras.Model(inputs, keras.layers.Dense(2)(hidden))
    tokens, y = np.random.randint(0, 100, (64, 16)), np.random.randint(0, 2, 64)
    x = {"token_ids": tokens, "padding_mask": tokens > 0}
    print(tfpeft.evaluate(model, (x, y)).accuracy)
    ```
    """
    models = {"model": model}
    return compare(models, data, from_logits=from_logits, signature=signature)["model"]


def compare(models, data, *, from_logits=None, signature=None):
    """Measures models and files on the same data, and their latency in turn.

    Cost is that of a .tflite file throughout: a Keras model stands for its own float32 export,
    made in a temporary folder. Latencies are taken round robin, a run of each file in each
    round, so that what else the machine does falls on all alike.

    Args:
        models: Name -> `keras.Model`, or a path of a .keras, .h5 or .tflite file.
        data: Classes to predict: arrays (x, y), or a `tf.data.Dataset` of batches of them. Several
            inputs are a dict, tuple or list of arrays, as the model is called with; for a file of
            `export_tflite`, as the model behind it; for another file, a dict by the names that
            its signature gives them. y are class numbers (samples,) or one-hot rows
            (samples, classes).
        from_logits: Whether outputs are logits (True) or probabilities (False). None looks at
            them: rows that are >= 0 and sum to 1 are probabilities, and so is what a file has
            from a SOFTMAX, where int8 rounds the sum away from 1.
        signature: Which signature runs, in the .tflite files that have several, such as one a
            task: quality, MACs and latency are its own, bytes and parameters those of the whole
            file. Keras models, and files of one signature, run as they are.

    Returns:
        A `Comparison`; `print` it, or use `to_markdown()`, `to_json()` and `["name"]`.

    Raises:
        ValueError: for data that is empty, not finite, of two lengths, or with labels that the
            outputs do not have; for outputs that are not finite; for a file that cannot be read;
            for a file of several signatures that has none of that name, and for a name that no
            file has.

    What it does not give: the latency of another machine, or of several threads.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    tfpeft.export_tflite(model, "m.tflite")
    print(tfpeft.compare({"model": model, "file": "m.tflite"}, (x, y)))
    ```
    """
    if not isinstance(models, dict) or not models:
        raise ValueError(
            "Received an invalid value for `models`, expected a dict of name -> model or path, "
            f"one or more. Received: models={models!r}"
        )
    signatures = {
        name: tflite_file.choose(model, signature)
        for name, model in models.items()
        if not isinstance(model, keras.Model) and pathlib.Path(model).suffix == ".tflite"
    }
    if signature is not None and signature not in signatures.values():
        names = sorted(name for name in signatures.values() if name is not None)
        raise invalid("signature", f"one that a .tflite file has: {names}", signature)
    x, y = _arrays(data)
    with tempfile.TemporaryDirectory() as folder:
        rows, files = {}, {}
        for i, (name, model) in enumerate(models.items()):
            exported = pathlib.Path(folder) / str(i)
            if name in signatures:
                rows[name], file = _measure_file(model, x, y, from_logits, signatures[name]), model
            else:
                rows[name], file = _measure_model(_loaded(model), x, y, from_logits, exported)
            if file is not None:
                files[name] = file
        for name, (median, p90) in _latencies(files, signatures, x).items():
            rows[name] |= {"latency_ms": median, "latency_p90_ms": p90}
    return Comparison({name: Evaluation(**row) for name, row in rows.items()})


def are_logits(outputs):
    """Tells logits from probabilities: rows that are >= 0 and sum to 1 within 1%."""
    outputs = np.asarray(outputs, "float32")
    return not (np.all(outputs >= 0) and np.allclose(outputs.sum(-1), 1.0, atol=1e-2))


def _arrays(data):
    if isinstance(data, tf.data.Dataset):
        data = _joined(data)
    if len(data) != 2:
        raise ValueError(
            "Received invalid `data`, expected (x, y) with samples. "
            f"Received: a {type(data).__name__} of {len(data)}"
        )
    x, y = data
    # Lists of numbers are an array; a list of arrays is several inputs, as it is to Keras.
    is_array = isinstance(x, (list, tuple)) and not any(map(np.ndim, keras.tree.flatten(x)))
    x = np.asarray(x) if is_array else keras.tree.map_structure(np.asarray, x)
    y = np.asarray(y)
    inputs = {
        "x" + "".join(f"[{key!r}]" for key in path): each
        for path, each in keras.tree.flatten_with_path(x)
    }
    for name, each in {**inputs, "y": y}.items():
        if each.ndim == 0 or not (
            np.issubdtype(each.dtype, np.number) or np.issubdtype(each.dtype, np.bool_)
        ):
            raise ValueError(
                "Received invalid `data`, expected arrays of numbers for x and one for y. "
                f"Received: {name} of type {each.dtype} and shape {each.shape}"
            )
    if not inputs or any(len(each) != max(len(y), 1) for each in inputs.values()):
        raise ValueError(
            "Received invalid `data`, expected as many samples as labels, and one or more. "
            f"Received: {keras.tree.map_structure(len, x)} samples and {len(y)} labels"
        )
    for name, each in inputs.items():
        if not np.all(np.isfinite(each)):
            raise ValueError(
                f"Received invalid `data`, expected finite numbers. Received: NaN or inf in {name}"
            )
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    elif y.ndim == 2 and np.all((y == 0) | (y == 1)) and np.all(y.sum(axis=1) == 1):
        y = np.argmax(y, axis=1)
    if y.ndim != 1 or np.any(y != np.floor(y)) or y.min() < 0:
        raise ValueError(
            "Received invalid `data`, expected labels that are whole numbers >= 0, or one-hot. "
            f"Received: labels of shape {y.shape} and type {y.dtype} from {y.min()}"
        )
    return keras.tree.map_structure(_in_float32, x), y.astype("int64")


def _joined(dataset):
    """Returns the arrays (x, y) of a dataset of batches; none if it has none."""
    if dataset.cardinality() == tf.data.INFINITE_CARDINALITY:
        raise ValueError("Received invalid `data`, expected an end. Received: it repeats")
    spec = dataset.element_spec
    if not isinstance(spec, tuple) or len(spec) != 2:
        raise ValueError(f"Received invalid `data`, expected batches of (x, y). Received: {spec}")
    try:
        return [
            keras.tree.map_structure(lambda *each: np.concatenate(each), *parts)
            for parts in zip(*dataset.as_numpy_iterator(), strict=True)
        ]
    except ValueError as error:
        raise ValueError(
            f"Received invalid `data`, expected batches of one shape. Received: {error}"
        ) from error


def _in_float32(array):
    return array.astype("float32") if np.issubdtype(array.dtype, np.floating) else array


def _first(x, count):
    return keras.tree.map_structure(lambda each: each[:count], x)


def _loaded(model):
    if isinstance(model, keras.Model):
        return model
    path = pathlib.Path(model)
    if not path.is_file() or path.suffix not in (".keras", ".h5"):
        raise ValueError(
            "Received an invalid model, expected a keras.Model or a .keras, .h5 or .tflite file. "
            f"Received: {model!r}"
        )
    return keras.models.load_model(path, compile=False)


def _measure_file(path, x, y, from_logits, signature):
    """Returns the figures without the latency."""
    contents = tflite_file.inspect(path, sample=_first(x, 1), signature=signature)
    if from_logits is None and contents.is_softmax:
        from_logits = False
    row = _quality(tflite_file.predict(path, x, signature=signature), y, from_logits, path)
    for field in ("parameters", "nonzero_parameters", "macs", "size_bytes", "gzip_bytes"):
        row[field] = getattr(contents, field)
    if contents.macs is None:
        row["notes"] = (_NO_MACS,)
    return {**_no_latency(), **row}


def _measure_model(model, x, y, from_logits, file):
    """Returns the figures without the latency, and the path of the file that has it, or None."""
    row = _quality(model.predict(x, batch_size=256, verbose=0), y, from_logits, model.name)
    weights = [weight.numpy() for weight in model.weights]
    notes = []
    try:
        samples = (_first(x, 32), y[:32])  # a pair of inputs alone would pass for (x, y)
        exported = export_tflite(model, file, representative_data=samples)
        size_bytes, gzip_bytes = exported.size_bytes, exported.gzip_bytes
    except ValueError as error:
        notes.append(f"no .tflite file, so no bytes and no latency: {error}")
        file = size_bytes = gzip_bytes = None
    macs = count_macs(model, x)
    if macs is None:
        notes.append(_NO_MACS)
    row |= {
        "parameters": sum(weight.size for weight in weights),
        "nonzero_parameters": sum(int(np.count_nonzero(weight)) for weight in weights),
        "macs": macs,
        "size_bytes": size_bytes,
        "gzip_bytes": gzip_bytes,
        "notes": tuple(notes),
    }
    return {**_no_latency(), **row}, file


def _no_latency():
    return {"latency_ms": None, "latency_p90_ms": None}


def _quality(outputs, y, from_logits, name):
    if isinstance(outputs, (dict, list, tuple)):
        raise ValueError(
            f"Expected a model of one output, such as `shared.task(name)` of a SharedModel. "
            f"Received: {name} with {len(outputs)}"
        )
    outputs = np.asarray(outputs, "float64")
    if outputs.ndim != 2 or outputs.shape[1] < 2:
        raise ValueError(
            f"Expected outputs of shape (samples, classes). Received: {name} with {outputs.shape}"
        )
    if not np.all(np.isfinite(outputs)):
        raise ValueError(f"Expected finite outputs. Received: NaN or infinity from {name}")
    classes = outputs.shape[1]
    if y.max() >= classes:
        raise ValueError(
            f"Received labels out of range, expected 0 to {classes - 1} as {name} answers. "
            f"Received: {y.max()}"
        )
    if are_logits(outputs) if from_logits is None else from_logits:
        outputs = np.exp(outputs - outputs.max(axis=1, keepdims=True))
    probabilities = outputs / outputs.sum(axis=1, keepdims=True)
    answers = np.argmax(outputs, axis=1)
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(
        y, answers, average="macro", zero_division=0
    )
    loss = metrics.log_loss(y, probabilities, labels=np.arange(classes))
    figures = {"precision": precision, "recall": recall, "f1": f1, "loss": loss}
    return {
        "accuracy": float(metrics.accuracy_score(y, answers)),
        **{key: float(value) for key, value in figures.items()},
    }


def _latencies(files, signatures, x):
    """Returns name -> (median, 90th percentile) in ms, the files measured in turn."""
    loaded = {
        name: tflite_file.Program(tflite_file.interpreter(path), path, signatures.get(name))
        for name, path in files.items()
    }
    for each in loaded.values():
        each.feed(each.arrange(_first(x, 1)))
        each.invoke()
    times = {name: [] for name in loaded}
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for name, each in loaded.items():
            before = time.perf_counter()
            each.invoke()
            times[name].append(1e3 * (time.perf_counter() - before))
        if time.perf_counter() - started > _SECONDS * len(loaded):
            break
    return {
        name: (float(np.median(each)), float(np.percentile(each, 90)))
        for name, each in times.items()
    }
