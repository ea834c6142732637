"""Pruning in rounds: measure importance, remove, retrain."""

import dataclasses
import hashlib
import json
import math
import numbers
import os
import pathlib

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.arguments import (
    check_choice,
    check_positive_integer,
    check_rate,
    invalid,
)
from tfpeft.reports.tables import markdown_table
from tfpeft.sparsity import masks
from tfpeft.sparsity.sensitivity import (
    check_data,
    check_model,
    check_tolerance,
    chosen,
    evaluate,
    holds,
    monitored,
)
from tfpeft.sparsity.strip import FixedMask


@dataclasses.dataclass(frozen=True)
class IterativePruning:
    """What `prune_iteratively` returns: print it for a table.

    Attributes:
        model: The last model that held, compiled to keep its zeros (`FixedMask`); a copy of the
            original if no step held.
        history: A dict a step: "sparsity" in [0, 1), "metric", and whether it "held".
        baseline: The metric of the unpruned model.
        monitor: The metric's name.
        reached: Whether the target sparsity was reached.
    """

    model: keras.Model
    history: list
    baseline: float
    monitor: str
    reached: bool

    def to_markdown(self):
        """Returns a table in Markdown, a row a step."""
        rows = [["unpruned", f"{self.baseline:.4f}", ""]]
        for step in self.history:
            held = "yes" if step["held"] else "no"
            rows.append([f"{100 * step['sparsity']:.2f}", f"{step['metric']:.4f}", held])
        header = ["sparsity %", self.monitor, "held"]
        return markdown_table(header, rows, align=["right", "right", "left"])

    def __str__(self):
        return self.to_markdown()


def prune_iteratively(
    model,
    train,
    validation,
    *,
    target_sparsity,
    step=0.1,
    tolerance=0.01,
    epochs_per_step=1,
    criterion="magnitude",
    scope="global",
    densities=None,
    exclude=(),
    monitor=None,
    batch_size=32,
    directory=None,
    verbose=0,
):
    """Prunes in rounds until a sparsity is reached or the metric no longer holds.

    Each round: scores -> masks at the next sparsity, `w <- mask * w`, then training of the kept
    weights with a fresh copy of the model's optimizer. Sparsity grows by `step`; a weight that is
    zero stays zero. It ends at `target_sparsity`, or with the first round after which the
    validation metric is worse than the unpruned model's by more than `tolerance`.

    Every trainable kernel of rank 2 or more takes part, as in `SparseOptimizer`.

    What it does not give: the best sparsity for a given training time (a schedule that prunes
    within one training, such as `MagnitudePruning`, needs fewer epochs); speed on x86. Copies of
    the model are made by its configuration, so a subclassed one needs `get_config`.

    Args:
        model: A compiled `keras.Model`, already trained; it stays as it is. Its optimizer, loss
            and metrics are used for each training.
        train: (x, y) or (x, y, sample_weight) as `fit` takes them, or a `tf.data.Dataset` of
            batches of these, which can be iterated again and again.
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
        monitor: Name of a metric as `evaluate` reports it; None is the first compiled metric, or
            "loss" without any. Higher is better, but for names that end in "loss", "error",
            "crossentropy" or the usual short names of losses such as "mse".
        batch_size: Integer, for arrays.
        directory: Folder to which the model that held and the history are written after each
            round. Called again with it and the same arguments and weights, rounds that are
            finished are not repeated, wherever the first call ended; the data and what was
            compiled have to be the same, too, and are not compared.
        verbose: As in `fit`.

    Returns:
        An `IterativePruning`, with the last model that held and the history.

    Raises:
        ValueError: if an argument is not of its kind; if the scores are not finite; if
            `directory` holds another run, with what differs.

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
    check_data("train", train)
    check_data("validation", validation)
    check_rate("step", step)
    check_tolerance(tolerance)
    check_positive_integer("epochs_per_step", epochs_per_step)
    check_positive_integer("batch_size", batch_size)
    if not callable(criterion):
        check_choice("criterion", criterion, ("magnitude", "gradient"))
    check_choice("scope", scope, ("layer", "global", "erk"))
    indices = chosen(model, exclude)
    paths = [model.trainable_variables[i].path for i in indices]
    weights = _matched(densities, paths)
    start = _sparsity([model.trainable_variables[i] for i in indices])
    if not isinstance(target_sparsity, numbers.Real) or not start < target_sparsity < 1.0:
        expected = f"a number in ({start:g}, 1), above the zeros that the model has"
        raise invalid("target_sparsity", expected, target_sparsity)
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
        "batch_size": batch_size,
        "weights": _fingerprint(model),
    }
    current = _compiled_copy(model, exclude)
    rounds = _Rounds(directory, settings)
    if rounds.baseline is None:
        metrics = evaluate(current, validation, batch_size)
        rounds.begin(monitored(model, monitor, metrics), metrics)
    elif rounds.last_held:
        held = clone.rebuild(model, lambda config, parents: config)
        held.load_weights(rounds.model_path)
        current.set_weights(held.get_weights())
    while not rounds.history or rounds.history[-1]["held"]:
        if rounds.history and start + step * len(rounds.history) >= target_sparsity - 1e-9:
            break  # it was reached
        sparsity = min(target_sparsity, start + step * (len(rounds.history) + 1))
        candidate = _compiled_copy(model, exclude)
        candidate.set_weights(current.get_weights())
        variables = [candidate.trainable_variables[i] for i in indices]
        scores = _scores(candidate, variables, criterion, train, batch_size)
        for variable, mask in zip(
            variables, _nested_masks(variables, scores, sparsity, scope, weights), strict=True
        ):
            variable.assign(tf.where(mask, variable, tf.zeros_like(variable)))
        if _sparsity(variables) <= _sparsity([current.trainable_variables[i] for i in indices]):
            raise invalid("step", "one that removes a weight at least in each round", step)
        _fit(candidate, train, epochs_per_step, batch_size, verbose)
        metric = evaluate(candidate, validation, batch_size)[rounds.monitor]
        held = holds(metric, rounds.baseline, rounds.monitor, tolerance)
        rounds.add(_sparsity(variables), metric, held, candidate)
        if held:
            current = candidate
    reached = rounds.history[-1]["held"]
    return IterativePruning(current, rounds.history, rounds.baseline, rounds.monitor, reached)


class _Rounds:
    """The rounds so far, and the folder, if any, from which they are taken up again.

    Files are written beside and renamed; history.json last, and it names what belongs to it.
    """

    def __init__(self, directory, settings):
        self.directory = None if directory is None else pathlib.Path(directory)
        self.settings = settings
        self.monitor, self.baseline, self.history = None, None, []
        if self.directory and (self.directory / "history.json").exists():
            saved = json.loads((self.directory / "history.json").read_text())
            now = json.loads(json.dumps(settings))
            before = saved["settings"]
            changed = [k for k in now if before.get(k) != now[k]]
            if changed:
                raise ValueError(
                    f"{self.directory} (`directory`) holds another run, expected the same "
                    "arguments and weights, or another directory. Received: "
                    + "; ".join(f"{k} was {before.get(k)!r} and is {now[k]!r}" for k in changed)
                )
            self.monitor, self.baseline = saved["monitor"], saved["baseline"]
            self.history = saved["history"]

    @property
    def last_held(self):
        """How many rounds held."""
        return sum(step["held"] for step in self.history)

    def begin(self, monitor, metrics):
        self.monitor, self.baseline = monitor, metrics[monitor]
        self._write()

    def add(self, sparsity, metric, held, model):
        self.history.append({"sparsity": sparsity, "metric": metric, "held": held})
        if self.directory is None:
            return
        if held:
            partial = self.directory / "partial.keras"
            model.save(partial)
            os.replace(partial, self.model_path)
        self._write()
        for path in self.directory.glob("round_*.keras"):
            if path != self.model_path:
                path.unlink()

    @property
    def model_path(self):
        return self.directory / f"round_{self.last_held}.keras"

    def _write(self):
        if self.directory is None:
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        partial = self.directory / "history.json.partial"
        keys = ("settings", "monitor", "baseline", "history")
        partial.write_text(json.dumps({key: getattr(self, key) for key in keys}, indent=2))
        os.replace(partial, self.directory / "history.json")


def _scores(model, variables, criterion, data, batch_size):
    if criterion == "magnitude":
        scores = [np.abs(variable.numpy()) for variable in variables]
    elif criterion == "gradient":
        scores = _gradient_scores(model, variables, data, batch_size)
    else:
        scores = [np.asarray(criterion(variable)) for variable in variables]
    for variable, each in zip(variables, scores, strict=True):
        if each.shape != tuple(variable.shape) or not np.all(np.isfinite(each)):
            raise invalid("criterion", f"finite scores of the shape of {variable.path}", each)
    return scores


def _gradient_scores(model, variables, data, batch_size):
    """Returns the mean over batches of |w * dL/dw|."""
    totals = [tf.Variable(tf.zeros(v.shape)) for v in variables]

    @tf.function
    def add(x, y, sample_weight):
        with tf.GradientTape() as tape:
            outputs = model(x, training=False)
            loss = model.compute_loss(x, y, outputs, sample_weight, training=False)
        sources = [v.value for v in variables]
        gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
        for total, variable, gradient in zip(totals, variables, gradients, strict=True):
            total.assign_add(tf.cast(tf.abs(variable * gradient), tf.float32))

    if isinstance(data, tuple):
        # Lists are several inputs or outputs, which tf.data would stack.
        parts = tuple(tuple(each) if isinstance(each, list) else each for each in data)
        data = tf.data.Dataset.from_tensor_slices(parts).batch(batch_size)
    batches = 0
    for batch in data:
        add(*keras.utils.unpack_x_y_sample_weight(batch))
        batches += 1
    return [total.numpy() / batches for total in totals]


def _nested_masks(variables, scores, sparsity, scope, weights):
    """Returns a mask a variable in which what is zero already stays so."""
    kept = [variable.numpy() != 0 for variable in variables]
    floor = min(float(each.min()) for each in scores)
    # Below all others; a layer is not asked for more than it has left.
    floor -= 1 + abs(floor)
    scores = [np.where(here, each, floor) for here, each in zip(kept, scores, strict=True)]
    sizes, shapes = [each.size for each in scores], [each.shape for each in scores]
    if weights is None and scope == "global":
        new = masks.global_masks([tf.constant(each, tf.float32) for each in scores], sparsity)
    else:
        if weights is not None:
            densities = masks.scaled_densities(weights, sizes, sparsity).numpy()
        elif scope == "erk":
            densities = masks.erk_densities(shapes, sparsity).numpy()
        else:
            densities = [1.0 - sparsity] * len(sizes)
        new = [
            masks.layer_mask(each, 1.0 - density)
            for each, density in zip(scores, densities, strict=True)
        ]
    return [mask.numpy() & here for mask, here in zip(new, kept, strict=True)]


def _compiled_copy(model, exclude):
    """Returns a copy that trains as the model does, with a new optimizer that keeps zeros."""
    copy = clone.rebuild(model, lambda config, parents: config)
    optimizer = model.optimizer
    if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
        optimizer = optimizer.inner_optimizer  # `compile` adds one again
    optimizer = type(optimizer).from_config(optimizer.get_config())
    options = dict(model._compile_config.config)
    for key in ("metrics", "weighted_metrics"):
        options[key] = keras.tree.map_structure(_fresh_metric, options.get(key))
    copy.compile(**{**options, "optimizer": FixedMask(optimizer, exclude=exclude)})
    return copy


def _fresh_metric(metric):
    if isinstance(metric, keras.metrics.Metric):
        return type(metric).from_config(metric.get_config())
    return metric


def _fit(model, data, epochs, batch_size, verbose):
    if isinstance(data, tuple):
        model.fit(
            *data[:2],
            sample_weight=data[2] if len(data) > 2 else None,
            epochs=epochs,
            batch_size=batch_size,
            verbose=verbose,
        )
    else:
        model.fit(data, epochs=epochs, verbose=verbose)


def _sparsity(variables):
    zeros = sum(int(np.sum(variable.numpy() == 0)) for variable in variables)
    return zeros / sum(math.prod(variable.shape) for variable in variables)


def _matched(densities, paths):
    """Returns the number of `densities` for each kernel path, which may be of its layer."""
    if densities is None:
        return None
    if not isinstance(densities, dict) or not all(
        isinstance(each, numbers.Real) and each > 0 for each in densities.values()
    ):
        raise invalid("densities", "a dict of kernel path or layer name -> number > 0", densities)
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


def _fingerprint(model):
    digest = hashlib.sha256()
    for weight in model.weights:
        digest.update(f"{weight.path} {weight.shape}".encode())
        digest.update(np.ascontiguousarray(weight.numpy()).tobytes())
    return digest.hexdigest()
