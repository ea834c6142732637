"""Quality and cost of models and of .tflite files, in the same figures."""

import os
import pathlib
import tempfile
import typing

import keras
import tensorflow as tf

from tfpeft.core.arguments import check_boolean, invalid
from tfpeft.core.graph import output_names
from tfpeft.core.paths import as_path, file_to_read
from tfpeft.evaluation.latency import round_robin
from tfpeft.evaluation.quality import measure_quality
from tfpeft.evaluation.recognition import check_task
from tfpeft.evaluation.resampling import interval
from tfpeft.evaluation.results import Comparison, Evaluation
from tfpeft.evaluation.subjects import FileSubject, KerasSubject
from tfpeft.evaluation.tasks import TASKS
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.loading.model_loading import open_model


def evaluate(
    model: keras.Model | str | os.PathLike,
    data: tuple | tf.data.Dataset | keras.utils.PyDataset,
    *,
    metrics: typing.Any = None,
    task: str | dict[str, str] | None = None,
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
    names = ["sparse_top_k_categorical_accuracy"]
    print(tfpeft.evaluate(model, (x, y), metrics=names).metrics)
    ```
    """
    models = {"model": model}
    found = compare(
        models, data, metrics=metrics, task=task, from_logits=from_logits, signature=signature
    )
    return found["model"]


def compare(
    models: dict[str, keras.Model | str | os.PathLike],
    data: tuple | tf.data.Dataset | keras.utils.PyDataset,
    *,
    metrics: typing.Any = None,
    task: str | dict[str, str] | None = None,
    from_logits: bool | None = None,
    signature: str | None = None,
    reference: str | None = None,
) -> Comparison:
    """Measures the quality and cost of models and files on the same data.

    Data is read once, batch by batch, and each model has the same batches; it is never held whole.
    Quality is that of the task, with metrics of Keras and functions of the user. The cost is that
    of a .tflite file: for a Keras model, of its float32 export, or the integer one of a
    quantise-aware model, which is made in a temporary folder. Latencies are measured round robin,
    one run of every file per round, so that other work of the machine slows all of them alike.

    | task | outputs | labels |
    |---|---|---|
    | classification | (n, classes) | class numbers or one-hot rows |
    | binary | (n, 1) | 0 and 1 |
    | multi_label | (n, labels) | rows of 0 and 1 |
    | regression | (n, ..., targets) | numbers of this shape |
    | segmentation | (n, ..., classes) or (n, ..., 1) | a class per position, or one-hot |
    | reconstruction | the shape of x | x, or none |

    - classification and binary: accuracy, top_5, precision, recall, f1, auc, loss and
      calibration_error;
    - multi_label: f1, precision and recall of all labels together, their means over labels
      (f1_macro ...), accuracy, auc and loss;
    - regression: rmse, mae, r2 and pearson;
    - segmentation: mean_iou, accuracy, precision, recall, f1 and loss;
    - reconstruction: mse, mae, psnr and r2.

    Args:
        models: {name: `keras.Model`, or the path of a .keras, .h5 or .tflite file}.
        data: Samples and their labels: arrays (x, y) or (x, y, sample_weight), or a finite
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches of these. Several inputs are a
            dict of arrays by the names of the model's or file's inputs, or a tuple or list in
            their order; labels of several outputs are a dict or a list in the same way, where
            outputs in a list have the names of the layers that make them, `model.output_names`,
            those of the first such model for all models and files. Weights are >= 0, one per
            sample; of a segmentation also one per position, where 0 leaves a position out,
            whatever its label.
        metrics: Metrics of Keras, their names, or functions (labels, outputs) whose value is a
            number, or one per sample; a list, or a dict {name: metric}; of several outputs also
            {output: metrics}. They take outputs as they come, and count beside the figures of the
            task, or in place of one of the same name. A function whose value is a number gets all
            labels and outputs, up to 67 million numbers. None stands for the metrics that the
            first compiled model is compiled with.
        task: The task, or {output: task}. None recognises it by the shapes of outputs and labels,
            the last activation and the compiled loss.
        from_logits: Whether outputs are logits (True) or probabilities (False). None recognises
            them: by a last softmax or sigmoid, and where that cannot be read, numbers that are
            all in [0, 1] are probabilities. Of sigmoids, one for each class, the loss is the mean
            of their binary cross-entropies. One output is the second of two classes: a sigmoid,
            or with `from_logits=True` a logit.
        signature: The signature that runs, for .tflite files of several, such as one per task.
            Quality, MACs and latency are of the signature; bytes and parameters are of the whole
            file. Keras models, and files of one signature, run as they are.
        reference: The name of a model that the outputs of the others are compared with:
            equal_classes, the share of equal predicted classes, correlation, and
            largest_deviation, in the unit of the outputs. Then data may be x alone.

    Returns:
        A `Comparison`; `print` it, or use `to_markdown()`, `to_json()`, `difference(a, b)` and
        `["name"]`.

    Raises:
        InputError: for data that is empty, endless, not finite, of unequal counts, or with labels
            that do not fit the outputs or the task; for outputs that are not finite; for a task
            that cannot be recognised, as two fit; for a metric that does not fit; for a file that
            cannot be read; for a file of several signatures that has none of that name, and for a
            name that no file has.

    What it does not give: the latency of another machine, or of several threads; intervals of
    metrics that are no mean over samples.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    tfpeft.export_tflite(model, "m.tflite")
    compared = tfpeft.compare({"model": model, "file": "m.tflite"}, (x, y))
    print(compared)
    print(compared.difference("file", "model"), compared["file"].intervals["accuracy"])
    ```
    """
    if not isinstance(models, dict) or not models:
        raise invalid("models", "a dict {name: model or path}, one or more", models)
    if not all(isinstance(name, str) for name in models):
        raise invalid("models", "a dict whose keys are names", list(models))
    if from_logits is not None:
        check_boolean("from_logits", from_logits)
    check_task(task)
    if reference is not None and (not isinstance(reference, str) or reference not in models):
        raise invalid("reference", f"one of the names of `models`, {', '.join(models)}", reference)
    files = {name: _opened(model) for name, model in models.items() if _is_tflite(model)}
    _check_signature(files, signature)
    loaded = {name: _loaded(model) for name, model in models.items() if name not in files}
    names = next(filter(None, map(output_names, loaded.values())), None)
    subjects = {
        name: FileSubject(files[name], signature, names)
        if name in files
        else KerasSubject(loaded[name], names)
        for name in models
    }
    quality, tasks, (x, y) = measure_quality(
        subjects,
        data,
        metrics=metrics,
        task=task,
        from_logits=from_logits,
        reference=reference,
    )
    first = keras.tree.map_structure(lambda array: array[:1], x)
    costs, runs = {}, {}
    with tempfile.TemporaryDirectory() as folder:
        for i, (name, subject) in enumerate(subjects.items()):
            costs[name], file = subject.cost(x, y, pathlib.Path(folder) / str(i))
            if file is not None:
                runs[name] = file.prepare(first, signature)
    latencies = round_robin(runs)
    rows = {}
    for name, cost in costs.items():
        median, p90 = latencies.get(name, (None, None))
        cost |= {"latency_ms": median, "latency_p90_ms": p90}
        rows[name] = _row(quality[name], tasks, cost)
    headlines = tuple(
        f"{'' if output is None else f'{output}/'}{TASKS[each].headline}"
        for output, each in tasks.items()
        if each is not None
    )
    return Comparison(rows, headlines)


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


def _loaded(model):
    if isinstance(model, keras.Model):
        return model
    if not isinstance(model, (str, os.PathLike)):
        raise invalid("model", "a keras.Model or a .keras, .h5 or .tflite file", model)
    return open_model(model)


def _shown(figures, task):
    """Returns the figures of one of several outputs that a table has room for."""
    return [name for name in figures.columns if task is None or name not in task.columns[1:]]


def _row(by_output, tasks, cost):
    """Returns the `Evaluation` of the figures of each output, and the cost."""
    is_single = list(by_output) == [None]
    found = {name: {} for name in ("metrics", "intervals", "per_class", "replicates")}
    columns, notes = [], []
    for output, figures in by_output.items():
        prefix = "" if is_single else f"{output}/"

        def named(values, prefix=prefix):
            return {f"{prefix}{name}": value for name, value in values.items()}

        intervals = {name: interval(each) for name, each in figures.replicates.items()}
        found["metrics"] |= named(figures.values)
        found["intervals"] |= named({name: each for name, each in intervals.items() if each})
        found["per_class"] |= named(figures.per_class)
        found["replicates"] |= named(figures.replicates)
        shown = figures.columns if is_single else _shown(figures, TASKS.get(tasks[output]))
        columns += [f"{prefix}{name}" for name in shown]
        notes += [f"{prefix.rstrip('/')}: {note}" if prefix else note for note in figures.notes]
    matrices = {output: figures.confusion_matrix for output, figures in by_output.items()}
    return Evaluation(
        task=tasks[None] if is_single else tasks,
        confusion_matrix=matrices[None] if is_single else matrices,
        columns=tuple(columns),
        notes=(*cost.pop("notes"), *notes),
        **found,
        **cost,
    )
