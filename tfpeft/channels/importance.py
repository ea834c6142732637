"""How much each channel matters: a score for each one, of which the lowest are removed first."""

import keras
import numpy as np
import tensorflow as tf

from tfpeft.channels.dependency_graph import CONSUMES, PRODUCES
from tfpeft.channels.families import kernels
from tfpeft.core.arguments import invalid
from tfpeft.core.arrays import invalid_data

NEEDS_DATA = ("taylor", "hessian")
IMPORTANCES = ("taylor", "l1", "l2", "bn_scale", "fpgm", "hessian", "random")
AGGREGATES = ("mean", "sum", "max")
NORMALIZATIONS = ("mean", "max", "none")
_ROWS = 1024
"""How many filters are compared with all others in one step."""


def scores_of(families, importance, *, aggregate, normalize, model, data, batch_size, seed):
    """Returns an array of scores for each family: NaN where the importance has none.

    Args:
        families: A list of `Family`.
        importance: One of `IMPORTANCES`, or a function of a `Family` that returns scores.
        aggregate: How the scores of the weights of a channel become one; of `AGGREGATES`.
        normalize: What the scores of a family are divided by; of `NORMALIZATIONS`, or None for
            "none" where they are "random", and else "mean".
        model: The compiled model, for the loss.
        data: A `core.data.Data` with labels, or None.
        batch_size: Of the data.
        seed: Of "random".
    """
    if importance in NEEDS_DATA:
        scores = _loss_scores(families, importance, model, data, batch_size)
    elif importance == "random":
        rng = np.random.default_rng(seed)
        scores = [rng.uniform(size=len(family)) for family in families]
    elif callable(importance):
        scores = [_custom(importance, family) for family in families]
    else:
        formula = {"l1": _l1, "l2": _l2, "fpgm": _fpgm, "bn_scale": _bn_scale}[importance]
        scores = [_aggregated(family, formula, aggregate) for family in families]
    if normalize is None:
        normalize = "none" if importance == "random" else "mean"
    return [_normalized(each, normalize) for each in scores]


def _aggregated(family, formula, aggregate):
    """Returns the mean, sum or largest of the scores of the weights of each channel."""
    values = [formula(member) for member, _ in family.members]
    if all(value is None for value in values):
        return np.full(len(family), np.nan)
    if aggregate == "max":
        highest = np.full(len(family), -np.inf)
        for (_, channels), each in zip(family.members, values, strict=True):
            if each is not None:
                np.maximum.at(highest, channels[channels >= 0], each[channels >= 0])
        return highest
    total, _ = family.sum(values)
    weights = sum(value is not None for value in values)
    return total / weights if aggregate == "mean" else total


def _normalized(scores, normalize):
    scale = {"mean": np.mean, "max": np.max, "none": lambda scores: 1.0}[normalize](scores)
    return scores / scale if scale > 0 else scores


def _rows(member):
    """Returns a kernel as a matrix with a row per slice."""
    values = member.variable.numpy()
    return np.moveaxis(values, member.axis, 0).reshape(values.shape[member.axis], -1)


def _l1(member):
    """The sum of |w| of a slice."""
    return np.sum(np.abs(_rows(member)), axis=1) if len(member.variable.shape) > 1 else None


def _l2(member):
    """The sum of w^2 of a slice."""
    return np.sum(np.square(_rows(member)), axis=1) if len(member.variable.shape) > 1 else None


def _fpgm(member):
    """The sum of the distances of a slice to the other slices of the kernel that makes it."""
    if len(member.variable.shape) < 2 or member.role != PRODUCES:
        return None
    rows = _rows(member).astype("float64")
    squares = np.sum(np.square(rows), axis=1)
    sums = []
    for start in range(0, len(rows), _ROWS):
        part = slice(start, start + _ROWS)
        distances = squares[part, None] + squares[None] - 2 * rows[part] @ rows.T
        sums.append(np.sum(np.sqrt(np.maximum(distances, 0)), axis=1))
    return np.concatenate(sums)


def _bn_scale(member):
    """|gamma| of a BatchNormalization."""
    is_scale = isinstance(member.layer, keras.layers.BatchNormalization)
    is_scale = is_scale and member.variable is member.layer.gamma
    return np.abs(member.variable.numpy()) if is_scale else None


def _custom(function, family):
    try:
        scores = np.asarray(function(family), "float64")
    except (TypeError, ValueError, ArithmeticError, AttributeError, LookupError) as error:
        received = f"{function!r}, which failed: {type(error).__name__}: {error}"
        raise invalid_data("importance", "a function of a family of channels", received) from error
    if scores.shape != (len(family),) or not np.all(np.isfinite(scores)):
        expected = f"a finite number for each of the {len(family)} channels of {family.name!r}"
        raise invalid("importance", expected, scores)
    return scores


def _loss_scores(families, importance, model, data, batch_size):
    """Returns scores from the gradients g of the loss, a mean over batches.

    "taylor": (sum of w g)^2 over the slices that consume the channel: the square of the first order
    of what its removal changes. "hessian": sum of w^2 g^2 / 2 over them, with g^2 for the diagonal
    of the Hessian (Fisher).
    """
    used = []
    for family in families:
        wanted = [s for s, _ in kernels(family) if s.role == CONSUMES] or [
            s for s, _ in family.members if s.role == PRODUCES
        ]
        used.append({id(each) for each in wanted})
    wanted = {key for keys in used for key in keys}
    members = {id(s): s for family in families for s, _ in family.members if id(s) in wanted}
    variables = list({id(s.variable): s.variable for s in members.values()}.values())
    numbers = {id(variable): i for i, variable in enumerate(variables)}

    @tf.function
    def run(x, y, sample_weight):
        sources = [variable.value for variable in variables]
        with tf.GradientTape() as tape:
            tape.watch(sources)
            outputs = model(x, training=False)
            loss = model.compute_loss(x, y, outputs, sample_weight, training=False)
        gradients = tape.gradient(loss, sources, unconnected_gradients="zero")
        products = [
            tf.cast(tf.convert_to_tensor(w) * g, tf.float32)
            for w, g in zip(sources, gradients, strict=True)
        ]
        if importance == "hessian":
            products = [0.5 * tf.square(each) for each in products]
        return {
            key: tf.reduce_sum(
                products[numbers[id(s.variable)]],
                [axis for axis in range(len(s.variable.shape)) if axis != s.axis],
            )
            for key, s in members.items()
        }

    totals, batches = [np.zeros(len(family)) for family in families], 0
    for batch in data.dataset(batch_size):
        sums = {key: value.numpy() for key, value in run(*_unpacked(batch)).items()}
        for total, family, keys in zip(totals, families, used, strict=True):
            values = [sums[id(s)] if id(s) in keys else None for s, _ in family.members]
            each, _ = family.sum(values)
            total += np.square(each) if importance == "taylor" else each
        batches += 1
    if not all(np.all(np.isfinite(total)) for total in totals):
        raise invalid_data("data", "data on which the gradients are finite", "NaN or infinity")
    return [total / batches for total in totals]


def _unpacked(batch):
    return keras.utils.unpack_x_y_sample_weight(batch)
