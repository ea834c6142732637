"""Which task the samples of a dataset are of, by flags, the given model, and the labels."""

import numpy as np

from pipelines.common import classifiers
from pipelines.common.models import call
from tfpeft.core.arguments import unexpected
from tfpeft.evaluation.recognition import recognize_task

CLASSES = ("classification", "binary")
"""Tasks with one class per sample, whose labels the scripts turn into class numbers."""
SAMPLES = 64
"""Samples that show what outputs and labels are."""


def task_of(pair, model, request, received, model_name="--model"):
    """Returns the task of samples: a name of `TASKS`, or {name of an output: name of a task}.

    Args:
        pair: Arrays (x, y, sample_weight) of some samples, y None where there are no labels.
        model: The model that is given, a Keras model or a `TFLiteFile`, or None.
        request: The `Request`.
        received: What an error names for the data.
        model_name: What an error names for the model.
    """
    x, y, _ = pair
    if request.task is not None and not isinstance(y, dict):
        return request.task
    if y is None:
        return "reconstruction"
    if model is None:
        if isinstance(y, dict):
            raise unexpected(
                "--model for labels of several outputs, as the scripts train models of one",
                f"{received} with {', '.join(y)}",
            )
        return _task_of_labels(x, y, received)
    outputs = call(model, x, model_name)
    if not isinstance(y, dict):
        found = _task_of_labels(x, y, received)
        if found == "classification" and not classifiers.is_of_numbers(request.loss_name):
            return found
        return recognize_task(
            outputs,
            y,
            inputs=x if hasattr(x, "shape") else None,
            activation=classifiers.activation_of(model),
            loss=request.wanted_loss(),
        )
    loss = request.wanted_loss()
    named = by_name(model, outputs)
    missing = sorted(set(named) ^ set(y))
    if missing:
        expected = f"labels by the names of the model's outputs, {', '.join(named)}"
        raise unexpected(expected, f"{received} with {', '.join(y)}")
    tasks = {}
    for name, output in named.items():
        of_output = loss.get(name) if isinstance(loss, dict) else loss
        tasks[name] = request.task or recognize_task(output, y[name], loss=of_output)
    return tasks


def by_name(model, outputs):
    """Returns {name: output} of a model of several outputs; raises for those in a list."""
    if isinstance(outputs, dict):
        return outputs
    if isinstance(outputs, (list, tuple)):
        expected = "a model whose outputs have names, as of keras.Model(inputs, {name: output})"
        raise unexpected(expected, f"{len(outputs)} outputs in a list")
    names = getattr(model, "output_names", None) or ["output"]
    return {names[0]: outputs}


def _task_of_labels(x, y, received):
    """Returns the task that labels show by themselves, where there is no model."""
    y = np.asarray(y)
    if y.dtype.kind not in "biuf" or y.ndim == 1 or (y.ndim == 2 and y.shape[1] == 1):
        is_class = y.dtype.kind != "f" or np.all(y == np.floor(y))
        return "classification" if is_class else "regression"
    if y.ndim == 2:
        if np.all((y == 0) | (y == 1)):
            return "classification" if np.all(y.sum(axis=1) == 1) else "multi_label"
        if y.dtype.kind == "f" and np.all(y >= 0) and np.allclose(y.sum(axis=1), 1, atol=1e-3):
            raise unexpected(
                "labels of one kind: --task=regression predicts such numbers, and np.argmax(y, "
                "axis=1) makes classes of them",
                f"{received} with rows of probabilities (soft or smoothed labels)",
            )
        if y.dtype.kind == "f":
            return "regression"
    if hasattr(x, "shape") and x.shape == y.shape and y.dtype.kind == "f":
        return "reconstruction"
    of_positions = not hasattr(x, "shape") or x.ndim > 2 or x.shape == y.shape
    if of_positions and (y.dtype.kind != "f" or np.all(y == np.floor(y))):
        return "segmentation"
    return "regression"
