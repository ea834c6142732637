"""Quality and cost of models and of .tflite files, in the same figures."""

import dataclasses
import json
import os
import pathlib
import tempfile

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import check_boolean, invalid, last_cause
from tfpeft.core.arrays import check_numbers
from tfpeft.core.graph import last_activation
from tfpeft.core.inputs import arrange
from tfpeft.core.macs import count_macs
from tfpeft.core.paths import as_path, file_to_read
from tfpeft.evaluation.labelled_data import read_classes
from tfpeft.evaluation.latency import round_robin
from tfpeft.evaluation.quality import classification_quality
from tfpeft.evaluation.tables import evaluations_markdown, evaluations_text
from tfpeft.export.conversion import quantization_settings
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.loading.model_loading import open_model

_NO_MACS = "no MACs: the graph has loops, or shapes that are not known"


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """The figures of one model or file; a missing figure is None, with the reason in `notes`.

    What `evaluate` returns, and `compare` for each of its models.

    Attributes:
        accuracy: Fraction in [0, 1].
        precision: Mean over classes (macro); a class that is never predicted counts as 0.
        recall: Mean over classes.
        f1: Mean over classes.
        loss: Cross-entropy in nats, per sample.
        parameters: Weights of a model; constants of a file, of all its signatures together.
        nonzero_parameters: Parameters that are not zero.
        macs: Multiply-accumulates of one sample, in convolutions and matrix products; biases,
            activations and normalisation do not count.
        size_bytes: Bytes of the whole .tflite file; of a Keras model: of its float32 export, or
            its integer one if it is quantise-aware.
        gzip_bytes: The same, compressed by gzip.
        latency_ms: Median milliseconds of one run of that file on one thread of this machine: of
            one sample, unless the file insists on a larger batch.
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
    notes: tuple[str, ...] = ()

    def as_dict(self) -> dict:
        """Returns the figures as plain JSON values."""
        return {**dataclasses.asdict(self), "notes": list(self.notes)}


@dataclasses.dataclass(frozen=True)
class Comparison:
    """What `compare` returns, an `Evaluation` by name: print it for a table.

    Attributes:
        rows: {name: `Evaluation`}.
    """

    rows: dict[str, Evaluation]

    def __getitem__(self, name: str) -> Evaluation:
        return self.rows[name]

    def __str__(self) -> str:
        return evaluations_text(self._dicts())

    def to_markdown(self) -> str:
        """Returns the table in Markdown."""
        return evaluations_markdown(self._dicts())

    def to_json(self) -> str:
        """Returns all figures as a JSON text, by name."""
        return json.dumps(self._dicts(), indent=2)

    def _dicts(self):
        return {name: row.as_dict() for name, row in self.rows.items()}


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: tuple | tf.data.Dataset | keras.utils.PyDataset,
    *,
    from_logits: bool | None = None,
    signature: str | None = None,
) -> Evaluation:
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


def compare(
    models: dict[str, keras.Model | str | os.PathLike],
    data: tuple | tf.data.Dataset | keras.utils.PyDataset,
    *,
    from_logits: bool | None = None,
    signature: str | None = None,
) -> Comparison:
    """Measures the quality and cost of models and files on the same data.

    The cost is that of a .tflite file: for a Keras model, of its float32 export, or the integer one
    of a quantise-aware model, which is made in a temporary folder. A file is read once. Latencies
    are measured round robin, one run of every file per round, so that other work of the machine
    slows all of them alike.

    Args:
        models: {name: `keras.Model`, or the path of a .keras, .h5 or .tflite file}.
        data: Samples and their classes: arrays (x, y), or a finite `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of (x, y). Several inputs are a dict of arrays by
            the names of the model's or file's inputs, or a tuple or list in their order. y are
            class numbers (samples,) or one-hot rows (samples, classes).
        from_logits: Whether outputs are logits (True) or probabilities (False). None recognises
            them: by a last softmax or sigmoid, and where that cannot be read, numbers that are
            all in [0, 1] are probabilities. Of sigmoids, one for each class, the loss is the mean
            of their binary cross-entropies. One output is the second of two classes: a sigmoid,
            or with `from_logits=True` a logit.
        signature: The signature that runs, for .tflite files of several, such as one per task.
            Quality, MACs and latency are of the signature; bytes and parameters are of the whole
            file. Keras models, and files of one signature, run as they are.

    Returns:
        A `Comparison`; `print` it, or use `to_markdown()`, `to_json()` and `["name"]`.

    Raises:
        InputError: for data that is empty, not finite, of unequal counts, or with labels that the
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
        raise invalid("models", "a dict {name: model or path}, one or more", models)
    if not all(isinstance(name, str) for name in models):
        raise invalid("models", "a dict whose keys are names", list(models))
    if from_logits is not None:
        check_boolean("from_logits", from_logits)
    files = {name: _opened(model) for name, model in models.items() if _is_tflite(model)}
    _check_signature(files, signature)
    x, labels = read_classes(data)
    first = _first(x, 1)
    figures, runs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, model) in enumerate(models.items()):
            if name in files:
                file = files.pop(name)  # its batches need not stay in memory
                figures[name] = _file_figures(file, x, labels, from_logits, signature)
            else:
                exported = pathlib.Path(folder) / str(i)
                figures[name], file = _model_figures(
                    _loaded(model), x, labels, from_logits, exported
                )
            if file is not None:
                runs[name] = file.prepare(first, signature)
    latencies = round_robin(runs)
    rows = {}
    for name, found in figures.items():
        median, p90 = latencies.get(name, (None, None))
        rows[name] = Evaluation(**found, latency_ms=median, latency_p90_ms=p90)
    return Comparison(rows)


def _is_tflite(model):
    if not isinstance(model, (str, os.PathLike)):
        return False
    return as_path(model, "`model`", "a .keras, .h5 or .tflite file").suffix == ".tflite"


def _opened(path):
    return TFLiteFile(file_to_read(path, "`model`", "a .tflite file"))


def _check_signature(files, signature):
    """Raises unless every file has one signature, or that one, and some file has that one."""
    found = [file.signature(signature).name for file in files.values()]
    if signature is not None and signature not in found:
        names = sorted(name for name in found if name is not None)
        raise invalid("signature", f"one that a .tflite file has: {names}", signature)


def _first(x, count):
    return keras.tree.map_structure(lambda array: array[:count], x)


def _loaded(model):
    if isinstance(model, keras.Model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise invalid("model", "a keras.Model or a .keras, .h5 or .tflite file", model)
    return open_model(model)


def _file_figures(file, x, labels, from_logits, signature):
    """Returns the figures of a file, without the latency."""
    activation = "softmax" if file.is_softmax(signature) else None
    # An error names the argument of `evaluate`, not of `predict`.
    check_numbers(file.signature(signature).arrange(x, "data"), "data")
    outputs = file.predict(x, signature)
    macs = file.macs(_first(x, 1), signature)
    return {
        **classification_quality(outputs, labels, from_logits, file.path, activation),
        "parameters": file.contents.parameters,
        "nonzero_parameters": file.contents.nonzero_parameters,
        "macs": macs,
        "size_bytes": file.contents.size_bytes,
        "gzip_bytes": file.contents.gzip_bytes,
        "notes": (_NO_MACS,) if macs is None else (),
    }


def _model_figures(model, x, labels, from_logits, path):
    """Returns the figures of a model, without the latency, and its file at `path`, or None."""
    x = arrange(model, x)
    check_numbers(x, "data")
    outputs = model.predict(x, batch_size=256, verbose=0)
    activation = last_activation(model)
    figures = classification_quality(outputs, labels, from_logits, model.name, activation)
    weights = [weight.numpy() for weight in model.weights]
    notes = []
    try:
        samples = (
            _first(x, 32),
            labels.numbers[:32],
        )  # a pair of inputs alone would pass for (x, y)
        aware = quantization_settings(model)
        quantization = "none" if aware is None else aware["quantization"]
        exported = export_tflite(
            model, path, quantization=quantization, representative_data=samples
        )
        file, size_bytes, gzip_bytes = TFLiteFile(path), exported.size_bytes, exported.gzip_bytes
    except ValueError as error:  # also of Keras, where it cannot trace the model
        notes.append(f"no .tflite file, so no bytes and no latency: {last_cause(error)}")
        file = size_bytes = gzip_bytes = None
    macs = count_macs(model, x)
    if macs is None:
        notes.append(_NO_MACS)
    figures |= {
        "parameters": sum(weight.size for weight in weights),
        "nonzero_parameters": sum(int(np.count_nonzero(weight)) for weight in weights),
        "macs": macs,
        "size_bytes": size_bytes,
        "gzip_bytes": gzip_bytes,
        "notes": tuple(notes),
    }
    return figures, file
