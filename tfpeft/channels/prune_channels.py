"""Channel pruning: a smaller model, without the channels that matter least."""

import fractions
from collections.abc import Callable, Sequence
from typing import Any

import keras

from tfpeft.channels.importance import AGGREGATES, NORMALIZATIONS
from tfpeft.channels.plan import Plan
from tfpeft.channels.selection import SCOPES, Order
from tfpeft.channels.targets import Targets
from tfpeft.core.arguments import (
    check_boolean,
    check_choice,
    check_positive_integer,
    check_seed,
    invalid,
    is_real,
)


def prune_channels(
    model: keras.Model,
    *,
    ratio: float | None = None,
    max_macs: int | float | fractions.Fraction | None = None,
    max_params: int | float | fractions.Fraction | None = None,
    max_size_bytes: int | float | fractions.Fraction | None = None,
    max_latency_ms: float | fractions.Fraction | None = None,
    importance: str | Callable = "taylor",
    data: Any = None,
    scope: str = "global",
    aggregate: str = "mean",
    normalize: str | None = None,
    round_to: int = 1,
    min_channels: int = 1,
    max_ratio_per_layer: float = 0.9,
    exclude: Sequence[str] = (),
    through_statistics: bool = False,
    verify: bool = True,
    batch_size: int = 32,
    seed: int = 0,
) -> keras.Model:
    """Returns a smaller model, from which the channels that matter least are removed.

    A channel is an output of a convolution, a Dense or an Embedding, a unit of a recurrent layer, a
    head of attention. It is removed with all that belongs to it, in every layer: the slices of the
    weights that make it, carry it (BatchNormalization, depthwise convolutions) and consume it.
    Channels that are added to each other, as in residual networks, are removed together: they are
    one below. The weights that are left keep their values; training afterwards wins back most of
    what was lost.

    A score is computed for each channel, and those with the lowest scores are removed, until
    `ratio` is reached and all budgets hold. Then the smaller model is compared with `model`, in
    which the weights that consume the removed channels are zero: the outputs of every layer have
    to be the same, to 1e-4 of the largest.

    Scores. With w the weights of a channel's slices and g the gradients of the loss:

    - "taylor": mean over batches of (sum of w g)^2, over the weights that consume the channel. That
      is the square of what the loss changes, to first order, when the channel is removed.
    - "hessian": mean over batches of the sum of w^2 g^2 / 2, over the same weights: the second
      order, with g^2 for the diagonal of the Hessian (Fisher).
    - "l1", "l2": the sum of |w|, or of w^2, for each kernel that makes, carries or consumes it.
    - "fpgm": the sum of the distances of a filter to the other filters of its layer: near the
      geometric median a filter can be replaced by others.
    - "bn_scale": |gamma| of its BatchNormalization layers; channels without one stay.
    - "random": uniform.

    Of "l1", "l2", "fpgm" and "bn_scale" a channel has a number for each of its kernels or layers,
    which `aggregate` makes one.

    What it does not give: channels that a layer mixes in a way that is not known stay, as do
    channels with statistics over them (`LayerNormalization`), unless `through_statistics`. The
    report names them. Heads of KerasHub's transformer layers stay, as their width is the width of
    the model by their number. Nothing is trained.

    Args:
        model: A built functional or Sequential model, with nested ones; it stays as it is. It is
            compiled, if the scores need the loss.
        ratio: Number in [0, 1): the fraction of channels that is removed.
        max_macs: The multiply-accumulates of one sample that are left at most: a whole number above
            1, or a fraction of the model's own: a float in (0, 1), or a `fractions.Fraction`. A
            value of 1 would be neither, and is an error. Sides that are free count as 32.
        max_params: The parameters that are left, in the same way.
        max_size_bytes: The bytes of the float32 .tflite file, in the same way.
        max_latency_ms: The median milliseconds of one sample in the float32 .tflite file, on this
            machine and one thread: any number above 0; a fraction of the model's own has to be a
            `fractions.Fraction`. The model is exported several times.
        importance: "taylor", "hessian", "l1", "l2", "fpgm", "bn_scale" or "random"; or a function
            of a family of channels (`tfpeft.channels.families.Family`) that returns a score for
            each.
        data: (x, y), (x, y, sample_weight), a `tf.data.Dataset` or a `keras.utils.PyDataset` of
            batches, for "taylor" and "hessian"; a few hundred samples are enough.
        scope: "global": all channels are ranked together. "layer": each layer loses the same
            fraction. "isomorphic": those of layers of the same structure are ranked together, and
            each structure loses the same fraction.
        aggregate: "mean", "sum" or "max" of the scores of the kernels of a channel.
        normalize: What scores are divided by before they are compared with those of other layers:
            their "mean" or "max" in the layer, or "none". By default "none" for "random" and
            "mean" for others: a channel of a wide layer changes the loss less than one of a
            narrow layer, so that scores as they are leave too little of wide layers.
        round_to: Integer: the number of channels left in a layer is a multiple of it, such as 8.
        min_channels: Integer: how many channels stay in each layer.
        max_ratio_per_layer: Number in (0, 1): the fraction of a layer that is removed at most.
        exclude: Names or patterns of layers that keep their channels.
        through_statistics: Whether channels are removed through LayerNormalization and
            RMSNormalization, too, which then have statistics over the channels that are left.
        verify: Whether the smaller model is compared with the model with zeros.
        batch_size: Integer, for arrays.
        seed: Integer, of "random".

    Returns:
        A new model, plain Keras, compiled as `model` is. Its attribute `channel_report` has the
        widths, the costs, and what stayed with the reason: print it, or `plot(path)`. The attribute
        is not saved.

    Raises:
        InputError: if an argument is not of its kind; for a model without a graph; if the smaller
            model differs from the model with zeros.
        NoMatchError: if no channel can be removed, or a pattern of `exclude` matches nothing.
        BudgetError: if a budget cannot be met, with the least that can be reached.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential(
        [
            keras.Input((8, 8, 3)),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.Conv2D(16, 3, activation="relu"),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(4),
        ]
    )
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    data = np.random.rand(64, 8, 8, 3), np.random.randint(0, 4, 64)
    small = tfpeft.prune_channels(model, max_macs=0.5, data=data)
    print(small.channel_report)
    small.fit(*data, verbose=0)
    ```

    Reference: Molchanov et al., "Importance Estimation for Neural Network Pruning", 2019,
    https://arxiv.org/abs/1906.10771 (taylor); Li et al., "Pruning Filters for Efficient ConvNets",
    2017, https://arxiv.org/abs/1608.08710 (l1); Liu et al., "Learning Efficient Convolutional
    Networks through Network Slimming", 2017, https://arxiv.org/abs/1708.06519 (bn_scale); He et
    al., "Filter Pruning via Geometric Median", 2019, https://arxiv.org/abs/1811.00250 (fpgm); Fang
    et al., "DepGraph: Towards Any Structural Pruning", 2023, https://arxiv.org/abs/2301.12900
    (what depends on a channel); Fang et al., "Isomorphic Pruning for Vision Models", 2024,
    https://arxiv.org/abs/2407.04616
    """
    check_settings(
        scope=scope,
        aggregate=aggregate,
        normalize=normalize,
        round_to=round_to,
        min_channels=min_channels,
        max_ratio_per_layer=max_ratio_per_layer,
        batch_size=batch_size,
        seed=seed,
    )
    check_boolean("verify", verify)
    targets = Targets(ratio, max_macs, max_params, max_size_bytes, max_latency_ms)
    plan = Plan(model, exclude=exclude, through_statistics=through_statistics)
    scores = plan.scores(
        importance,
        data,
        aggregate=aggregate,
        normalize=normalize,
        batch_size=batch_size,
        seed=seed,
    )
    order = Order(
        plan.families,
        scores,
        scope=scope,
        round_to=round_to,
        min_channels=min_channels,
        max_ratio=max_ratio_per_layer,
        tags=plan.graph.tags.count,
    )
    new, removed, figures = targets.reach(plan, order)
    return plan.finish(new, removed, figures, verify=verify)


def check_settings(
    *,
    scope,
    aggregate,
    normalize,
    round_to,
    min_channels,
    max_ratio_per_layer,
    batch_size,
    seed,
):
    """Raises unless the arguments are of their kinds; see `prune_channels`."""
    check_choice("scope", scope, SCOPES)
    check_choice("aggregate", aggregate, AGGREGATES)
    check_choice("normalize", normalize, (None, *NORMALIZATIONS))
    for name, value in (("round_to", round_to), ("min_channels", min_channels)):
        check_positive_integer(name, value)
    if not is_real(max_ratio_per_layer) or not 0 < max_ratio_per_layer < 1:
        raise invalid("max_ratio_per_layer", "a number in (0, 1)", max_ratio_per_layer)
    check_positive_integer("batch_size", batch_size)
    check_seed("seed", seed)
