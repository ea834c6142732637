"""How much each layer can lose, as trials without training: by zeros, and by channels."""

import time

from tfpeft.channels.sensitivity import channel_sensitivity
from tfpeft.core.clone import copy_model
from tfpeft.evaluation.tasks import TASKS
from tfpeft.sparsity.sensitivity import layer_sensitivity

_HALF = 0.5
_SHARE = 0.2  # of the time that is left, which a trial may take: each layer is an evaluation
_TOO_MUCH = 0.1
"""A layer whose half of zeros alone loses more than this fraction of the metric stays dense."""


def sensitivities(store, model, training, rows, techniques):
    """Adds what layers lose by half of their weights or channels alone to the rows of layers.

    Args:
        store: The `Store` of trials.
        model: The model.
        training: The `Training`.
        rows: The rows of `layer_rows`, to which "loss_of_half_zeros" and "loss_of_half_channels"
            are added: fractions of the metric, or of the loss of several outputs; or None.
        techniques: Those that are tried.

    Returns:
        Names of layers that pruning leaves out: those that alone lose too much.
    """
    for row in rows:
        row["loss_of_half_zeros"] = row["loss_of_half_channels"] = None
    names = [row["layer"].split("/")[-1] for row in rows]
    # Kernels have no paths: of layers with equal names it is not known whose loss it is.
    by_name = {name: row for name, row in zip(names, rows, strict=True) if names.count(name) == 1}
    if not {"prune", "prune_channels"} & set(techniques):
        return ()
    layers = sum(row["macs"] > 0 for row in rows)
    least = layers * _seconds_of_evaluation(model, training) / _SHARE
    if "prune" in techniques:
        _measure(store, model, training, "layer_sensitivity", layer_sensitivity, least)
        for found in _rows(store, "layer_sensitivity"):
            names = [name for name in found["kernel"].split("/") if name in by_name]
            if names:
                by_name[names[-1]]["loss_of_half_zeros"] = found["loss"]
    if "prune_channels" in techniques:
        _measure(store, model, training, "channel_sensitivity", channel_sensitivity, least)
        for found in _rows(store, "channel_sensitivity"):
            for name in found["layers"].split(" + "):
                if name in by_name:
                    by_name[name]["loss_of_half_channels"] = found["loss"]
    sensitive = [n for n, row in by_name.items() if (row["loss_of_half_zeros"] or 0) > _TOO_MUCH]
    pruned = [n for n, row in by_name.items() if row["loss_of_half_zeros"] is not None]
    return () if len(sensitive) == len(pruned) else tuple(sensitive)


def _seconds_of_evaluation(model, training):
    """Returns about the seconds of an evaluation on the sample, by one of its batches."""
    x, batches = training.batches(1)[0][0], -(-training.sample().size // training.batch_size)
    model.predict_on_batch(x)  # traces
    started = time.perf_counter()
    model.predict_on_batch(x)
    return batches * (time.perf_counter() - started)


def _measure(store, model, training, name, function, least):
    """Runs a trial: a function of `tfpeft` on a compiled copy and some samples."""

    def measured():
        copy, options = copy_model(model), {"monitor": "loss", "mode": "min"}
        training.compiled(copy, metrics=training.metrics)
        if training.metrics:
            task = TASKS[training.tasks[None]]
            mode = "max" if task.higher_is_better else "min"
            options = {"monitor": task.headline, "mode": mode}
        data = training.sample().element()
        found = function(copy, data, [_HALF], **options, batch_size=training.batch_size)
        sign = 1.0 if options["mode"] == "max" else -1.0
        scale = abs(found.baseline) or 1.0
        losses = [sign * (found.baseline - row["metric"]) / scale for row in found.rows]
        rows = [{**row, "loss": loss} for row, loss in zip(found.rows, losses, strict=True)]
        return {"baseline": found.baseline, "monitor": found.monitor, "rows": rows}

    store.run(name, name, measured, least)


def _rows(store, name):
    return store.done.get(name, {}).get("rows", [])
