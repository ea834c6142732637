"""Spaces of students for sequences: Small1D for signals and tables, TinyTransformer for tokens."""

from collections.abc import Sequence

import keras

from tfpeft.automl.students.architecture import (
    Architecture,
    check_numbers,
    check_ranges,
    check_words,
    choose,
    normalized,
    rounded,
)
from tfpeft.core.arguments import unexpected

_SHORTEST = 8  # positions below which a stage does not halve


class Small1D(Architecture):
    """Students for signals (positions, channels), or rows of numbers: convolutions along them.

    Stages of blocks as in `SmallCNN`, with kernels over positions; then the mean over the
    positions. Rows of numbers of a table, (numbers,), which have no order, pass layers of all to
    all instead: `depth` of them of `width` units.

    Args:
        stages: Integers, how many stages there are; the first block of each but the first halves
            the positions.
        depth: Integers, blocks of a stage, or layers of a table.
        width: Integers, channels of the first stage, or units of a layer.
        growth: Numbers from 1 to 4, from one stage to the next.
        kernel: Integers, positions that a kernel covers.
        block: "plain" convolutions, or "separable" ones: depthwise, then 1x1.

    Raises:
        InputError: for values that are not of their kind.

    What it does not give: recurrent layers, and outputs for each position.

    Example:

    ```python
    import tfpeft

    space = tfpeft.Small1D(stages=(2, 3), width=(8, 16), kernel=(3, 5, 9))
    ```
    """

    name = "small_1d"

    def __init__(
        self,
        *,
        stages: Sequence[int] = (1, 2, 3),
        depth: Sequence[int] = (1, 2),
        width: Sequence[int] = (8, 16, 24, 32, 48, 64),
        growth: Sequence[float] = (1.0, 1.5, 2.0),
        kernel: Sequence[int] = (3, 5, 9),
        block: Sequence[str] = ("plain", "separable"),
    ):
        ranges = {"stages": stages, "depth": depth, "width": width, "kernel": kernel}
        vars(self).update(check_ranges(ranges))
        self.growth = check_numbers("growth", growth, 1.0, 4.0)
        self.block = check_words("block", block, ("plain", "separable"))

    size_names = ("width", "growth", "depth", "stages", "kernel")

    def accepts(self, interface):
        return len(interface.shape) in (1, 2) and interface.vocabulary_size is None

    def build(self, hp, interface):
        """Returns a functional model for inputs (positions, channels) or (numbers,).

        Args:
            hp: KerasTuner's `HyperParameters`.
            interface: The `Interface`: shapes, units and normalization.
        """
        if not self.accepts(interface):
            raise unexpected("signals or rows of numbers for Small1D", f"shape {interface.shape}")
        inputs, hidden = interface.inputs()
        width, depth = choose(hp, "width", self.width), choose(hp, "depth", self.depth)
        if len(interface.shape) == 1:
            for _ in range(depth):
                hidden = normalized(keras.layers.Dense(width, use_bias=False)(hidden))
            return keras.Model(inputs, interface.outputs(hidden), name=self.name)
        growth, kernel = choose(hp, "growth", self.growth), choose(hp, "kernel", self.kernel)
        block = choose(hp, "block", self.block)
        for stage in range(choose(hp, "stages", self.stages)):
            channels = rounded(width * growth**stage)
            for number in range(depth):
                halves = number == 0 and stage > 0 and hidden.shape[1] >= 2 * _SHORTEST
                hidden = _convolution(hidden, block, channels, kernel, 2 if halves else 1)
        hidden = keras.layers.GlobalAveragePooling1D()(hidden)
        return keras.Model(inputs, interface.outputs(hidden), name=self.name)


def _convolution(hidden, block, width, kernel, strides):
    if block == "separable":
        hidden = normalized(
            keras.layers.DepthwiseConv1D(kernel, strides=strides, padding="same", use_bias=False)(
                hidden
            )
        )
        kernel, strides = 1, 1
    layer = keras.layers.Conv1D(width, kernel, strides=strides, padding="same", use_bias=False)
    return normalized(layer(hidden))


class TinyTransformer(Architecture):
    """Students for tokens (positions,) or vectors (positions, numbers): attention and Dense layers.

    An Embedding of tokens, or a Dense layer of vectors. A depthwise convolution over three
    neighbours is added, from which positions are known, in a few bytes. Then `depth` blocks:
    LayerNormalization, attention, LayerNormalization, two Dense layers with GELU, with what a part
    begins with added to it. Then the mean over the positions; token 0 is padding, which the mean
    leaves out.

    Args:
        depth: Integers, how many blocks there are.
        width: Integers, numbers of a position.
        heads: Integers, heads of attention, of `width / heads` numbers each.
        expansion: Integers, width of the inner Dense layer, in widths.

    Raises:
        InputError: for values that are not of their kind.

    What it does not give: attention that leaves padding out; decoders, and outputs for each token.

    Example:

    ```python
    import tfpeft

    space = tfpeft.TinyTransformer(depth=(1, 2), width=(16, 32), heads=(2,))
    ```

    Reference: Vaswani et al., "Attention Is All You Need", 2017, https://arxiv.org/abs/1706.03762;
    Chu et al., "Conditional Positional Encodings for Vision Transformers", 2021,
    https://arxiv.org/abs/2102.10882
    """

    name = "tiny_transformer"
    size_names = ("width", "expansion", "depth")

    def __init__(
        self,
        *,
        depth: Sequence[int] = (1, 2),
        width: Sequence[int] = (16, 32, 48, 64),
        heads: Sequence[int] = (1, 2, 4),
        expansion: Sequence[int] = (1, 2),
    ):
        ranges = {"depth": depth, "width": width, "heads": heads, "expansion": expansion}
        vars(self).update(check_ranges(ranges))

    def accepts(self, interface):
        return len(interface.shape) == (1 if interface.vocabulary_size else 2)

    def build(self, hp, interface):
        """Returns a functional model for tokens (positions,) or vectors (positions, numbers).

        Args:
            hp: KerasTuner's `HyperParameters`.
            interface: The `Interface`: shapes, units, vocabulary and normalization.
        """
        if not self.accepts(interface):
            raise unexpected("tokens or vectors for TinyTransformer", f"shape {interface.shape}")
        width, heads = choose(hp, "width", self.width), choose(hp, "heads", self.heads)
        expansion = choose(hp, "expansion", self.expansion)
        inputs, hidden = interface.inputs()
        mask = None
        if interface.vocabulary_size:
            hidden = keras.layers.Embedding(interface.vocabulary_size, width)(inputs)
            mask = keras.ops.not_equal(inputs, 0)
        else:
            hidden = keras.layers.Dense(width)(hidden)
        near = keras.layers.DepthwiseConv1D(3, padding="same")(hidden)
        hidden = keras.layers.Add()([hidden, near])
        for _ in range(choose(hp, "depth", self.depth)):
            inner = keras.layers.LayerNormalization(epsilon=1e-6)(hidden)
            inner = keras.layers.MultiHeadAttention(heads, max(1, width // heads))(inner, inner)
            hidden = keras.layers.Add()([hidden, inner])
            inner = keras.layers.LayerNormalization(epsilon=1e-6)(hidden)
            inner = keras.layers.Dense(width * expansion, activation="gelu")(inner)
            hidden = keras.layers.Add()([hidden, keras.layers.Dense(width)(inner)])
        hidden = keras.layers.LayerNormalization(epsilon=1e-6)(hidden)
        hidden = keras.layers.GlobalAveragePooling1D()(hidden, mask=mask)
        return keras.Model(inputs, interface.outputs(hidden), name=self.name)
