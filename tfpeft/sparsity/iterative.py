"""Pruning in rounds: measure importance, remove, retrain."""

import dataclasses
import math
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.arguments import (
    check_choice,
    check_positive_integer,
    check_rate,
    check_sparsity,
    invalid,
    is_real,
)
from tfpeft.core.model_files import damage_of
from tfpeft.core.monitor import (
    MODES,
    check_one_number,
    check_tolerance,
    metric_mode,
    monitor_name,
    within_tolerance,
)
from tfpeft.core.paths import file_to_read, invalid_path
from tfpeft.reports.tables import markdown_table
from tfpeft.sparsity.compiled import (
    check_metrics,
    check_model,
    compiled_copy,
    errors_of_data,
    evaluate,
    fingerprint,
    kernel_indices,
    read_labelled,
    sparsity_of,
)
from tfpeft.sparsity.importance import nested_masks, scores_of
from tfpeft.sparsity.rounds import Rounds


@dataclasses.dataclass(frozen=True)
class IterativePruningResult:
    """What `prune_iteratively` returns: print it for a table.

    Attributes:
        model: The last model that held, compiled to keep its zeros (`FixedMask`); a copy of the
            original if no step held.
        history: A dict for each round: "sparsity" in [0, 1), "metric", and whether it "held".
        baseline: The metric of the unpruned model.
        monitor: The metric's name.
        reached: Whether the target sparsity was reached.
    """

    model: keras.Model
    history: list[dict]
    baseline: float
    monitor: str
    reached: bool

    def to_markdown(self) -> str:
        """Returns a table in Markdown, a row for each round."""
        rows = [["unpruned", f"{self.baseline:.4f}", ""]]
        for step in self.history:
            held = "yes" if step["held"] else "no"
            rows.append([f"{100 * step['sparsity']:.2f}", f"{step['metric']:.4f}", held])
        header = ["sparsity %", self.monitor, "held"]
        return markdown_table(header, rows, align=["right", "right", "left"])

    def __str__(self):
        return self.to_markdown()


def prune_iteratively(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    target_sparsity: float,
    step: float = 0.1,
    tolerance: float = 0.01,
    epochs_per_step: int = 1,
    criterion: str | Callable = "magnitude",
    scope: str = "global",
    densities: dict[str, float] | None = None,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
    monitor: str | None = None,
    mode: str | None = None,
    batch_size: int = 32,
    directory: str | os.PathLike | None = None,
    verbose: int | str = 0,
) -> IterativePruningResult:
    """Prunes in rounds until a sparsity is reached or the metric no longer holds.

    Each round: scores -> masks at the next sparsity, `w <- mask * w`, then training of the kept
    weights with a fresh copy of the model's optimizer. Sparsity grows by `step`; a weight that is
    zero stays zero. The last round is the one that reaches `target_sparsity`, or the first one
    after which the validation metric is worse than the unpruned model's by more than `tolerance`.

    The trainable kernels of Keras's layers take part, as in `SparseOptimizer`.

    What it does not give: the best sparsity for a given training time (a schedule that prunes
    within one training, such as `MagnitudePruning`, needs fewer epochs); speed on x86. Copies of
    the model are made by its configuration, so a subclassed one needs `get_config`.

    Args:
        model: A compiled `keras.Model`, already trained; it stays as it is. Its optimizer, loss
            and metrics are used for each training.
        train: (x, y) or (x, y, sample_weight) as `fit` takes them; or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of these, with an end.
        validation: The same, for the metric.
        target_sparsity: Number in (0, 1), above what the model has: the fraction of zeros in all
            these kernels.
        step: Number in (0, 1], the fraction of all their weights removed in a round.
        tolerance: Number >= 0, in the unit of the metric: 0.01 of an accuracy is one point.
        epochs_per_step: Integer, the epochs of training in a round.
        criterion: "magnitude": `|w|`. "gradient": the mean over all batches of `train` of
            `|w * dL/dw|`, L the loss that training minimises, with the model in inference mode.
            Or a callable `variable -> scores`, finite and of the variable's shape; the highest
            are kept.
        scope: "layer", "global" or "erk", as in `Pruning`. A layer that has more zeros already
            keeps them, and then there are more in all than was asked for; the history has what
            there is.
        densities: Takes the place of `scope`: a dict of kernel path or layer name -> positive
            number, one for every kernel, such as `layer_sensitivity(...).densities(0.01)`. The
            density of a kernel is `min(1, scale * number)`, with the `scale` that gives the
            round's sparsity.
        exclude: Names or patterns of layers to leave dense.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        monitor: Name of a metric as `evaluate` reports it; None is the first compiled metric, or
            "loss" without any.
        mode: "min" if lower values of the metric are better, "max" if higher ones are; None finds
            it for the metrics and losses of Keras.
        batch_size: Integer, for arrays.
        directory: Folder, new or empty, to which the model that held and the history are written
            after each round. A call with the same folder, arguments and weights goes on after
            the last finished round; the data and what was compiled have to be the same, too,
            and are not compared.
        verbose: As in `fit`.

    Returns:
        An `IterativePruningResult`, with the last model that held and the history.

    Raises:
        InputError: if an argument is not of its kind; for data that is empty, has no end or is
            not finite; if scores, gradients, or the unpruned model's loss or metric are not
            finite; if `mode` is None and the metric is not one of Keras's; if `directory` holds
            other rounds, with what differs.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x = np.random.rand(64, 8)
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile("adam", loss="mse")
    model.fit(x, x[:, :4], verbose=0)
    pruned = tfpeft.prune_iteratively(
        model, (x, x[:, :4]), (x, x[:, :4]), target_sparsity=0.5, step=0.25, tolerance=1.0
    )
    print(pruned)
    print(np.mean(pruned.model.layers[0].kernel == 0))  # 0.5
    ```

    Reference: Han et al., "Learning both Weights and Connections for Efficient Neural Networks",
    2015, https://arxiv.org/abs/1506.02626 (rounds, magnitude); Molchanov et al., "Pruning
    Convolutional Neural Networks for Resource Efficient Inference", 2017,
    https://arxiv.org/abs/1611.06440 (gradient)
    """
    check_model(model)
    check_rate("step", step)
    check_tolerance(tolerance)
    check_positive_integer("epochs_per_step", epochs_per_step)
    check_positive_integer("batch_size", batch_size)
    if not callable(criterion):
        check_choice("criterion", criterion, ("magnitude", "gradient"))
    check_choice("scope", scope, ("layer", "global", "erk"))
    if directory == "":
        raise invalid("directory", "the path of a folder, or None", directory)
    if monitor is not None and not isinstance(monitor, str):
        raise invalid("monitor", "the name of a metric, or None", monitor)
    if mode is not None:
        check_choice("mode", mode, MODES)
    if not isinstance(verbose, (str, int)) or verbose not in ("auto", 0, 1, 2):
        raise invalid("verbose", "'auto', 0, 1 or 2", verbose)
    indices = kernel_indices(model, exclude, include)
    kernels = [model.trainable_variables[i] for i in indices]
    weights = _density_weights(densities, [kernel.path for kernel in kernels])
    start = sparsity_of(kernels)
    check_sparsity("target_sparsity", target_sparsity)
    if target_sparsity <= start:
        expected = f"a number in ({start:g}, 1), above the zeros that the model has"
        raise invalid("target_sparsity", expected, target_sparsity)
    train = read_labelled(train, "train", model)
    validation = read_labelled(validation, "validation", model)
    settings = {
        "target_sparsity": target_sparsity,
        "step": step,
        "tolerance": tolerance,
        "epochs_per_step": epochs_per_step,
        "criterion": getattr(criterion, "__qualname__", str(criterion)),
        "scope": scope,
        "densities": weights,
        "exclude": list(exclude),
        "monitor": monitor,
        "mode": mode,
        "batch_size": batch_size,
        "weights": fingerprint(model),
    }
    if include:  # which folders of version 0.1.0 lack
        settings["include"] = list(include)
    current = compiled_copy(model, exclude, include)
    rounds = Rounds(directory, settings, {"sparsity": float})
    metrics = evaluate(current, validation, batch_size)  # when resuming, too: it builds metrics
    name = monitor_name(monitor, metrics)
    if rounds.monitor not in (None, name):
        why = f", where it is {rounds.monitor}"
        expected = f"rounds whose metric is {name}, as the model is compiled"
        raise invalid_path("`directory`", expected, rounds.folder.path, why)
    check_metrics(metrics, name, model)
    check_one_number(name, metrics[name])
    mode = metric_mode(name, mode=mode, model=current)
    if rounds.baseline is None:
        rounds.begin(name, metrics)
    elif rounds.held:
        _load_weights(current, rounds.model_path, model)
    while not rounds.history or rounds.history[-1]["held"]:
        if rounds.history and start + step * len(rounds.history) >= target_sparsity - 1e-9:
            break  # it was reached
        sparsity = min(target_sparsity, start + step * (len(rounds.history) + 1))
        candidate = compiled_copy(model, exclude, include)
        candidate.set_weights(current.get_weights())
        variables = [candidate.trainable_variables[i] for i in indices]
        with errors_of_data("train"):
            scores = scores_of(candidate, variables, criterion, train, batch_size)
        masks = nested_masks(variables, scores, sparsity, scope, weights)
        for variable, mask in zip(variables, masks, strict=True):
            variable.assign(tf.where(mask, variable, tf.zeros_like(variable)))
        if sparsity_of(variables) <= sparsity_of([current.trainable_variables[i] for i in indices]):
            raise invalid("step", "one that removes a weight at least in each round", step)
        with errors_of_data("train"):
            candidate.fit(
                **train.fit_arguments(batch_size), epochs=epochs_per_step, verbose=verbose
            )
        metric = evaluate(candidate, validation, batch_size)[rounds.monitor]
        held = within_tolerance(metric, rounds.baseline, mode=mode, tolerance=tolerance)
        rounds.add({"sparsity": sparsity_of(variables)}, metric, held, candidate)
        if held:
            current = candidate
    reached = rounds.history[-1]["held"]
    return IterativePruningResult(current, rounds.history, rounds.baseline, rounds.monitor, reached)


def _load_weights(model, path, original):
    """Gives a model the weights of a saved copy of `original`, whatever classes it is made of."""
    damage = damage_of(file_to_read(path, "`directory`", "the model of the last round"), whole=True)
    if damage:
        expected = "a folder of whole files: remove it, to begin again"
        raise invalid_path("`directory`", expected, path, f", which is damaged: {damage}")
    saved = clone.copy_model(original)
    saved.load_weights(path)
    model.set_weights(saved.get_weights())


def _density_weights(densities, paths):
    """Returns the number of `densities` for each kernel path, which may be of its layer."""
    if densities is None:
        return None
    if not isinstance(densities, dict) or not all(
        is_real(each) and 0 < each < math.inf for each in densities.values()
    ):
        expected = "a dict of kernel path or layer name -> finite number > 0"
        raise invalid("densities", expected, densities)
    found, used = [], set()
    for path in paths:
        names = [name for name in (path, *path.split("/")[:-1]) if name in densities]
        if not names:
            raise invalid("densities", f"a number for each of {paths}", densities)
        used.add(names[0])
        found.append(float(densities[names[0]]))
    if used != set(densities):
        raise invalid("densities", f"names among {paths}", sorted(set(densities) - used))
    return found
