"""Channel pruning in rounds: measure importance, remove, train, and again."""

import dataclasses
import fractions
import os
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np

from tfpeft.channels.plan import Plan
from tfpeft.channels.prune_channels import check_settings
from tfpeft.channels.report import ChannelReport
from tfpeft.channels.selection import Order
from tfpeft.channels.targets import Targets, TargetsMet
from tfpeft.core.arguments import check_choice, check_positive_integer, invalid
from tfpeft.core.compiling import compile_like
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
from tfpeft.distillation.distiller import Distiller
from tfpeft.reports.tables import markdown_table
from tfpeft.sparsity.compiled import (
    check_metrics,
    check_model,
    errors_of_data,
    evaluate,
    fingerprint,
    read_labelled,
)
from tfpeft.sparsity.rounds import Rounds

_FIGURES = {"macs": int, "params": int, "removed": [int]}


@dataclasses.dataclass(frozen=True)
class IterativeChannelPruningResult:
    """What `prune_channels_iteratively` returns: print it for a table.

    Attributes:
        model: The last model that held, compiled as the original is; the original itself if no
            round held.
        history: A dict for each round: "macs", "params", "metric", and whether it "held".
        baseline: The metric of the original.
        monitor: The metric's name.
        reached: Whether the targets were reached.
        report: The `ChannelReport` of the last model that held, of all rounds; None if none held.
    """

    model: keras.Model
    history: list[dict]
    baseline: float
    monitor: str
    reached: bool
    report: ChannelReport | None

    def to_markdown(self) -> str:
        """Returns a table in Markdown, a row for each round."""
        rows = [["unpruned", "", f"{self.baseline:.4f}", ""]]
        for step in self.history:
            held = "yes" if step["held"] else "no"
            rows.append([f"{step['macs']:,}", f"{step['params']:,}", f"{step['metric']:.4f}", held])
        header = ["multiply-accumulates", "parameters", self.monitor, "held"]
        return markdown_table(header, rows, align=["right", "right", "right", "left"])

    def __str__(self):
        return self.to_markdown()


def prune_channels_iteratively(
    model: keras.Model,
    train: Any,
    validation: Any,
    *,
    steps: int = 5,
    tolerance: float = 0.01,
    epochs_per_step: int = 1,
    ratio: float | None = None,
    max_macs: int | float | fractions.Fraction | None = None,
    max_params: int | float | fractions.Fraction | None = None,
    max_size_bytes: int | float | fractions.Fraction | None = None,
    max_latency_ms: float | fractions.Fraction | None = None,
    teacher: keras.Model | None = None,
    alpha: float = 0.1,
    temperature: float = 4.0,
    importance: str | Callable = "taylor",
    scope: str = "global",
    aggregate: str = "mean",
    normalize: str | None = None,
    round_to: int = 1,
    min_channels: int = 1,
    max_ratio_per_layer: float = 0.9,
    exclude: Sequence[str] = (),
    through_statistics: bool = False,
    monitor: str | None = None,
    mode: str | None = None,
    batch_size: int = 32,
    seed: int = 0,
    directory: str | os.PathLike | None = None,
    verbose: int | str = 0,
) -> IterativeChannelPruningResult:
    """Prunes channels in rounds, with training after each, until targets or a metric's limit.

    Each of the `steps` rounds goes an equal part of the way to the targets: scores on `train`, the
    channels with the lowest ones removed, `epochs_per_step` epochs of training with a new copy of
    the model's optimizer. Parts for which no channel has to be removed are passed over. The last
    round is the one that reaches the targets, or the first one after which the validation metric
    is worse than the original's by more than `tolerance`.

    With `teacher=model`, training is distillation from the original: `Distiller(teacher, ...)`
    with `alpha` and `temperature`.

    What it does not give: what `prune_channels` does not; the best widths for a given training
    time. One long training after one round is often as good, and simpler.

    Args:
        model: A compiled functional or Sequential model, already trained; it stays as it is.
        train: (x, y) or (x, y, sample_weight) as `fit` takes them; or a `tf.data.Dataset` or
            `keras.utils.PyDataset` of batches of these, with an end.
        validation: The same, for the metric.
        steps: Integer, the number of rounds.
        tolerance: Number >= 0, in the unit of the metric: 0.01 of an accuracy is one point.
        epochs_per_step: Integer, the epochs of training in a round.
        ratio, max_macs, max_params, max_size_bytes, max_latency_ms: The targets, as of
            `prune_channels`; at least one. Fractions are of `model`.
        teacher: A model whose outputs are learnt as well as the labels, such as `model` itself; or
            None.
        alpha: Weight of the labels in [0, 1], with a teacher.
        temperature: Number > 0, with a teacher.
        importance, scope, aggregate, normalize, round_to, min_channels, exclude,
            through_statistics, seed: As of `prune_channels`.
        max_ratio_per_layer: Number in (0, 1): the fraction of a layer of `model` that is removed
            at most in all rounds.
        monitor: Name of a metric as `evaluate` reports it; None is the first compiled metric, or
            "loss" without any.
        mode: "min" if lower values of the metric are better, "max" if higher ones are; None finds
            it for the metrics and losses of Keras.
        batch_size: Integer, for arrays.
        directory: Folder, new or empty, to which the model that held and the history are written
            after each round. A call with the same folder, arguments and weights goes on after the
            last finished round; the data, the teacher and what was compiled have to be the same,
            too, and are not compared.
        verbose: As in `fit`.

    Returns:
        An `IterativeChannelPruningResult`, with the last model that held and the history.

    Raises:
        InputError: if an argument is not of its kind; for data that is empty, has no end or is not
            finite; for a model whose loss or metric is not finite; if `directory` holds other
            rounds, with what differs.
        NoMatchError: if no channel can be removed.
        BudgetError: if a target cannot be reached, with the least that can.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x = np.random.rand(64, 8)
    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]
    )
    model.compile("adam", loss="mse")
    model.fit(x, x[:, :4], verbose=0)
    data = x, x[:, :4]
    pruned = tfpeft.prune_channels_iteratively(
        model, data, data, max_macs=0.5, steps=2, tolerance=1.0
    )
    print(pruned)
    print(pruned.report)
    ```

    Reference: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", 2017, https://arxiv.org/abs/1611.06440 (rounds with training between)
    """
    check_model(model)
    limits = {
        "scope": scope,
        "round_to": round_to,
        "min_channels": min_channels,
        "max_ratio_per_layer": max_ratio_per_layer,
    }
    scoring = {"aggregate": aggregate, "normalize": normalize, "seed": seed}
    check_settings(**limits, **scoring, batch_size=batch_size)
    check_positive_integer("steps", steps)
    check_positive_integer("epochs_per_step", epochs_per_step)
    check_tolerance(tolerance)
    if directory == "":
        raise invalid("directory", "the path of a folder, or None", directory)
    if mode is not None:
        check_choice("mode", mode, MODES)
    if not isinstance(verbose, (str, int)) or verbose not in ("auto", 0, 1, 2):
        raise invalid("verbose", "'auto', 0, 1 or 2", verbose)
    targets = Targets(ratio, max_macs, max_params, max_size_bytes, max_latency_ms)
    following = {"exclude": exclude, "through_statistics": through_statistics}
    first = Plan(model, **following)
    sizes = {(family.name, family.kind): len(family) for family in first.families}
    train = read_labelled(train, "train", model)
    validation = read_labelled(validation, "validation", model)

    def order_of(plan):
        scores = plan.scores(importance, train, **scoring, batch_size=batch_size)
        return Order(
            plan.families,
            scores,
            scope=scope,
            round_to=round_to,
            min_channels=min_channels,
            max_ratio=max_ratio_per_layer,
            tags=plan.graph.tags.count,
            sizes=sizes,
        )

    def fit(candidate):
        trained = candidate
        if teacher is not None:
            trained = Distiller(teacher, candidate, alpha=alpha, temperature=temperature)
            compile_like(trained, model)
        with errors_of_data("train"):
            trained.fit(**train.fit_arguments(batch_size), epochs=epochs_per_step, verbose=verbose)

    settings = {
        "ratio": ratio,
        "budgets": [str(x) for x in (max_macs, max_params, max_size_bytes, max_latency_ms)],
        "steps": steps,
        "tolerance": tolerance,
        "epochs_per_step": epochs_per_step,
        "teacher": teacher is not None and [alpha, temperature],
        "importance": getattr(importance, "__qualname__", str(importance)),
        **limits,
        **scoring,
        **following,
        "exclude": list(exclude),
        "monitor": monitor,
        "mode": mode,
        "batch_size": batch_size,
        "weights": fingerprint(model),
    }
    rounds = Rounds(directory, settings, _FIGURES)
    metrics = evaluate(model, validation, batch_size)
    name = monitor_name(monitor, metrics)
    check_metrics(metrics, name, model)
    check_one_number(name, metrics[name])
    mode = metric_mode(name, mode=mode, model=model)
    if rounds.baseline is None:
        rounds.begin(name, metrics)
    current, report = model, None
    for step in rounds.history:
        if step["held"]:
            plan = first if current is model else Plan(current, **following)
            current, report = _without(plan, step["removed"], report, directory)
    if report is not None:
        _load_weights(current, rounds.model_path)
    while len(rounds.history) < steps and all(step["held"] for step in rounds.history):
        plan = first if current is model else Plan(current, **following)
        found = _next_round(targets, first, plan, order_of(plan), len(rounds.history), steps)
        if found is None:
            break
        new, removed, measured = found
        candidate = plan.finish(new, removed, measured)
        joined = _joined(report, candidate.channel_report)
        fit(candidate)
        metric = evaluate(candidate, validation, batch_size)[rounds.monitor]
        held = within_tolerance(metric, rounds.baseline, mode=mode, tolerance=tolerance)
        figures = {
            "macs": int(joined.macs[1]),
            "params": int(joined.params[1]),
            "removed": np.flatnonzero(removed).tolist(),
        }
        rounds.add(figures, metric, held, candidate)
        if held:
            current, report = candidate, joined
    reached = rounds.history[-1]["held"]
    history = [
        {key: value for key, value in step.items() if key != "removed"} for step in rounds.history
    ]
    return IterativeChannelPruningResult(
        current, history, rounds.baseline, rounds.monitor, reached, report
    )


def _next_round(targets, first, plan, order, done, steps):
    """Returns what the next round removes, as `Targets.reach`; None if the targets are reached.

    Parts of the way to the targets for which no channel has to be removed are passed over.
    """
    for number in range(done + 1, steps + 1):
        try:
            return targets.part(first, number, steps).reach(plan, order)
        except TargetsMet:
            if number == steps and not done:
                raise
    return None


def _without(plan, roots, report, directory):
    """Returns the model of a round that was finished before, and the report so far."""
    there = {root for family in plan.families for root in family.roots.tolist()}
    if not there.issuperset(roots):
        expected = "a folder of whole files: remove it, to begin again"
        raise invalid_path("`directory`", expected, directory, ", whose history.json is damaged")
    removed = np.zeros(plan.graph.tags.count, bool)
    removed[roots] = True
    new = plan.finish(plan.without(removed), removed, {}, verify=False)
    return new, _joined(report, new.channel_report)


def _joined(before, after):
    """Returns the report of two rounds as one."""
    if before is None:
        return after
    return dataclasses.replace(
        after,
        widths={name: (before.widths[name][0], new) for name, (_, new) in after.widths.items()},
        macs=(before.macs[0], after.macs[1]),
        params=(before.params[0], after.params[1]),
    )


def _load_weights(model, path):
    damage = damage_of(file_to_read(path, "`directory`", "the model of the last round"), whole=True)
    if damage:
        expected = "a folder of whole files: remove it, to begin again"
        raise invalid_path("`directory`", expected, path, f", which is damaged: {damage}")
    model.load_weights(path)
