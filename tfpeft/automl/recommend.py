"""`recommend`: which technique suits a model and a goal, by short trials on this very model."""

import contextlib
import os
import pathlib
import tempfile
import typing

import keras
import numpy as np

from tfpeft.automl.advice import goals
from tfpeft.automl.advice.adapters import recommend_training
from tfpeft.automl.advice.files import recommend_files
from tfpeft.automl.advice.recommendations import Recommendations
from tfpeft.automl.advice.request import Request
from tfpeft.automl.advice.tasks import recommend_tasks
from tfpeft.automl.advice.trials import Clock
from tfpeft.core.arguments import (
    check_boolean,
    check_positive,
    check_positive_integer,
    check_seed,
    invalid,
    is_real,
)
from tfpeft.core.random_states import random_states_kept
from tfpeft.evaluation.recognition import check_task


def recommend(
    model: keras.Model,
    data: typing.Any,
    *,
    goal: str,
    target: str | None = None,
    minutes: float = 10.0,
    validation_data: typing.Any = None,
    tasks: dict[str, typing.Any] | None = None,
    folder: str | os.PathLike | None = None,
    max_metric_loss: float = 0.01,
    techniques: typing.Sequence[str] | None = None,
    task: str | dict[str, str] | None = None,
    from_logits: bool | None = None,
    steps: int | None = None,
    batch_size: int = 32,
    learning_rate: float = 1e-3,
    seed: int = 0,
    verbose: bool = True,
) -> Recommendations:
    """Recommends techniques for a model and what hurts, by short trials on this very model.

    It measures the model, reads its layers, tries what can help the goal on the target, and ranks
    what it found. With m the metric of the model and m' that of the trial on the same samples, the
    loss is `(m - m') / |m|`, of errors `(m' - m) / |m|`; of several outputs it is that of the one
    that loses most. The rule: the trials whose loss is at most `max_metric_loss` come first, by
    their gain in the goal's figure; of a short training half of the loss counts, as training in
    full wins back at least that. Then come those that lost more, but not clearly, as the 95%
    interval of the loss begins below; then those that lost too much. What has less than 5% of a
    gain is left out, and so are several techniques together that gain less than 5% over some of
    them.

    - "latency": milliseconds of a sample on one thread of this machine; of "xnnpack" and "tflm",
      multiply-accumulates that are computed; of an Ethos-U, Vela's estimate;
    - "size": bytes of the .tflite file; flash of "tflm" (with tables of values) and an Ethos-U;
    - "download": bytes of the file, compressed by gzip;
    - "memory": the arena of "tflm", the SRAM of an Ethos-U;
    - "training_cost": milliseconds of a training step, without a target;
    - "tasks": bytes of one file of all tasks, against a file for each, without a target.

    Trials of files: quantizations, channels that are removed, a student that is distilled, zeros,
    clusters and quantise-aware training, alone and together, those that count on the target. Each
    one trains for equally many updates, few hundred at most; then, while there is time, what may be
    better than the best so far trains for 4 and for 16 times as many, and of these trials all of
    the loss counts. Trials of "training_cost": adapters against training of all weights, for as
    many updates. Trials of "tasks": one backbone with a head for each task, and with an adapter
    for each, against a trained model for each.

    What it does not give: the figures of training in full, which loses less than short trials;
    times of a device that is not this machine, but for Vela's estimates.

    Args:
        model: A built, trained `keras.Model`; it stays as it is. Of "tasks" it is the backbone,
            without the head of the task that it was trained for.
        data: A sample of the training data, (x, y) or (x, y, sample_weight), a finite
            `tf.data.Dataset` or `keras.utils.PyDataset` of batches of these. It is held in memory.
            None with `tasks`.
        goal: "latency", "size", "download", "memory", "training_cost" or "tasks".
        target: A device as `describe_tflite` knows it; None for this machine.
        minutes: Number > 0: after so many no further trial begins.
        validation_data: The same, which the model was not trained on; None takes a fifth of `data`.
        tasks: Of the goal "tasks", {name: data of the task}: x as the backbone takes it, and class
            numbers, or floats to be predicted.
        folder: Folder, new or of an earlier call with the same arguments, where finished trials
            are kept, so that a call that was stopped goes on. `minutes` may differ.
        max_metric_loss: Number >= 0, the fraction of the metric that may be lost: 0.01 allows an
            accuracy of 89.1% for 90%, an error of 10.1 for 10.
        techniques: Names of those that are tried; None for all that can help. Of files: "quantize",
            "prune_channels", "distill", "prune", "cluster", "quantize_aware"; of "training_cost":
            "lora", "dora", "bottleneck", "ia3", "bitfit", "norm_tuning"; of "tasks": "heads",
            "lora".
        task, from_logits: As of `compare`.
        steps: Updates of a trial; None for as many as `minutes` allow, from 20 to 400 (1,000 of
            "tasks" and "training_cost"), and 4 and 16 times as many for what may be the best.
        batch_size, learning_rate, seed: Of training in trials, by Adam with a cosine to 0.
        verbose: Whether it prints a line for each trial, and on a terminal a bar of the time.

    Returns:
        `Recommendations`: print them, or use `to_markdown()` and `as_dict()`.

    Raises:
        InputError: if an argument is not of its kind; for a target that has no figure for the goal,
            or whose package is not installed; for data that the model does not take; for a folder
            of other trials.
        ExportError: if the model cannot be written as a file, of which the goal has its figure.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x = np.random.rand(200, 16).astype("float32")
    y = (x[:, 0] > x[:, 1]).astype("int64")
    layers = [keras.Input((16,)), keras.layers.Dense(256, activation="relu"), keras.layers.Dense(2)]
    model = keras.Sequential(layers)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    model.fit(x, y, epochs=5, verbose=0)
    found = tfpeft.recommend(
        model, (x, y), goal="download", minutes=1, techniques=["quantize"], verbose=False
    )
    print(found)
    print(found.recommendations[0].command)
    ```
    """
    _check(model, data, goal, minutes, max_metric_loss, task, from_logits, steps)
    check_positive_integer("batch_size", batch_size)
    check_positive("learning_rate", learning_rate)
    check_seed("seed", seed)
    check_boolean("verbose", verbose)
    goals.check_tasks(goal, tasks)
    device = goals.device_of(target)
    found = goals.goal_on(goal, device)
    if folder == "":
        raise invalid("folder", "the path of a folder, or None", folder)
    request = Request(
        model=model,
        data=data,
        validation_data=validation_data,
        tasks=tasks,
        name=goal,
        goal=found,
        device=device,
        techniques=_techniques(techniques, goal),
        max_metric_loss=float(max_metric_loss),
        options={"task": task, "from_logits": from_logits},
        steps=steps,
        training={"batch_size": batch_size, "learning_rate": learning_rate, "seed": seed},
        clock=Clock(minutes, verbose),
    )
    run = {"training_cost": recommend_training, "tasks": recommend_tasks}.get(goal, recommend_files)
    with _folder(folder) as path, random_states_kept():
        return run(request, path)


def _check(model, data, goal, minutes, max_metric_loss, task, from_logits, steps):
    """Raises unless the arguments are of their kinds."""
    if not isinstance(model, keras.Model) or not model.built:
        raise invalid("model", "a keras.Model that is built", model)
    check_positive("minutes", minutes)
    if not is_real(max_metric_loss) or not 0.0 <= max_metric_loss < np.inf:
        raise invalid("max_metric_loss", "a number of at least 0", max_metric_loss)
    check_task(task)
    if from_logits is not None:
        check_boolean("from_logits", from_logits)
    if steps is not None:
        check_positive_integer("steps", steps)
    if data is None and goal != "tasks":
        raise invalid("data", "samples with labels, (x, y)", data)


def _techniques(given, goal):
    """Returns the names of the techniques that may be tried."""
    known = goals.choices_of(goal)
    if given is None:
        return known
    is_list = isinstance(given, (list, tuple)) and len(given) > 0
    if not is_list or not all(isinstance(name, str) and name in known for name in given):
        expected = f"a list of some of {', '.join(known)} for goal={goal!r}"
        raise invalid("techniques", expected, given)
    return tuple(given)


@contextlib.contextmanager
def _folder(folder):
    """Yields the path of a folder; of a temporary one without `folder`."""
    if folder is not None:
        yield pathlib.Path(folder)
        return
    with tempfile.TemporaryDirectory(prefix="tfpeft-") as path:
        yield pathlib.Path(path) / "trials"
