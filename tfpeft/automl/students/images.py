"""Spaces of students for images: SmallCNN and MobileBlocks."""

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
from tfpeft.core.arguments import invalid, unexpected

_SMALLEST_MAP = 4  # pixels of a side below which a stage does not halve


class _Images(Architecture):
    """Stages of blocks: each stage but the first halves the image, and is `growth` times wider."""

    def __init__(self, stages, depth, width, growth, kernel, first_stride):
        ranges = {"stages": stages, "depth": depth, "width": width, "kernel": kernel}
        vars(self).update(check_ranges({**ranges, "first_stride": first_stride}))
        if not set(self.first_stride) <= {1, 2}:
            raise invalid("first_stride", "1, 2 or both", first_stride)
        self.growth = check_numbers("growth", growth, 1.0, 4.0)

    @property
    def size_names(self):
        depths = [f"depth_{i}" for i in range(max(self.stages), 0, -1)]
        return ("width", "growth", *depths, *self._own_size_names, "stages", "kernel")

    def accepts(self, interface):
        return len(interface.shape) in (2, 3) and interface.vocabulary_size is None

    def build(self, hp, interface):
        """Returns a functional model for images (height, width) or (height, width, channels).

        Args:
            hp: KerasTuner's `HyperParameters`.
            interface: The `Interface`: shapes, units and normalization.
        """
        if not self.accepts(interface):
            raise unexpected("images, for a space of image models", f"shape {interface.shape}")
        inputs, hidden = interface.inputs()
        if len(interface.shape) == 2:
            hidden = keras.layers.Reshape((*interface.shape, 1))(hidden)
        widths, kernel = self._widths(hp), choose(hp, "kernel", self.kernel)
        stride = choose(hp, "first_stride", self.first_stride)
        hidden = keras.layers.Conv2D(
            widths[0], 3, strides=_stride(hidden, stride), padding="same", use_bias=False
        )(hidden)
        hidden = normalized(hidden)
        block = choose(hp, "block", self.block)
        # Drawn in any case, so that the choices do not depend on the number of stages.
        depths = [choose(hp, f"depth_{i + 1}", self.depth) for i in range(max(self.stages))]
        for stage, width in enumerate(widths):
            # The first convolution is a block of the first stage.
            for number in range(1 if stage == 0 else 0, depths[stage]):
                strides = _stride(hidden, 2) if number == 0 else 1
                hidden = self._block(hp, block, hidden, width, kernel, strides)
        hidden = keras.layers.GlobalAveragePooling2D()(hidden)
        return keras.Model(inputs, interface.outputs(hidden), name=self.name)

    def _widths(self, hp):
        width, growth = choose(hp, "width", self.width), choose(hp, "growth", self.growth)
        return [rounded(width * growth**i) for i in range(choose(hp, "stages", self.stages))]

    def _block(self, hp, block, hidden, width, kernel, strides):
        raise NotImplementedError


def _stride(hidden, wanted):
    """Returns the stride that a map has room for."""
    return wanted if min(hidden.shape[1:3]) >= 2 * _SMALLEST_MAP else 1


def _added(hidden, branch):
    """Returns a branch plus what it began with, where both have a shape."""
    return keras.layers.Add()([hidden, branch]) if hidden.shape == branch.shape else branch


class SmallCNN(_Images):
    """Students for images, of convolutions: fast to train on a CPU, and on most devices.

    Stages of blocks, each with a 3x3 (or larger) convolution, BatchNormalization and ReLU; the
    first block of a stage but the first halves the image. A 3x3 convolution is the first block of
    the first stage. Stage i has `width * growth^(i - 1)` channels, in fours. Then the mean over the
    image, and one layer of outputs. Arguments are the values that the search draws from.

    Args:
        stages: Integers, how many stages there are.
        depth: Integers, blocks of a stage; each stage has its own.
        width: Integers, channels of the first stage.
        growth: Numbers from 1 to 4, from one stage to the next.
        kernel: Integers, sides of the kernels.
        block: "plain", or "residual": two convolutions, to which what they begin with is added
            where both have a shape.
        first_stride: Integers, 1 or 2: whether the first convolution halves the image.

    Raises:
        InputError: for values that are not of their kind.

    What it does not give: models for sequences or tokens (`Small1D`, `TinyTransformer`), and
    outputs for each pixel.

    Example:

    ```python
    import tfpeft

    space = tfpeft.SmallCNN(stages=(2, 3), width=(8, 12, 16), kernel=(3,), block=("plain",))
    ```
    """

    name = "small_cnn"
    _own_size_names = ()

    def __init__(
        self,
        *,
        stages: Sequence[int] = (2, 3),
        depth: Sequence[int] = (1, 2),
        width: Sequence[int] = (8, 12, 16, 20, 24, 32),
        growth: Sequence[float] = (1.0, 1.5, 2.0),
        kernel: Sequence[int] = (3,),
        block: Sequence[str] = ("plain", "residual"),
        first_stride: Sequence[int] = (1, 2),
    ):
        super().__init__(stages, depth, width, growth, kernel, first_stride)
        self.block = check_words("block", block, ("plain", "residual"))

    def _block(self, hp, block, hidden, width, kernel, strides):
        def convolution(hidden, strides):
            layer = keras.layers.Conv2D(
                width, kernel, strides=strides, padding="same", use_bias=False
            )
            return layer(hidden)

        if block == "plain":
            return normalized(convolution(hidden, strides))
        branch = normalized(convolution(hidden, strides))
        branch = normalized(convolution(branch, 1), activate=False)
        return keras.layers.ReLU()(_added(hidden, branch))


class MobileBlocks(_Images):
    """Students for images, of depthwise separable blocks: few bytes and few multiplications.

    As `SmallCNN`, with other blocks. "separable" is a depthwise convolution and one of 1x1;
    "inverted" is one of 1x1 that is `expansion` times wider, a depthwise one, and one of 1x1 back
    (inverted residual). What a block begins with is added where both have a shape. In the same
    bytes there are more layers than in a `SmallCNN`; a step of training takes longer on a CPU.

    Args:
        stages: Integers, how many stages there are.
        depth: Integers, blocks of a stage; each stage has its own.
        width: Integers, channels of the first stage.
        growth: Numbers from 1 to 4, from one stage to the next.
        kernel: Integers, sides of the depthwise kernels.
        block: "separable" or "inverted".
        expansion: Integers, of "inverted" blocks.
        first_stride: Integers, 1 or 2: whether the first convolution halves the image.

    Raises:
        InputError: for values that are not of their kind.

    What it does not give: as `SmallCNN`.

    Example:

    ```python
    import tfpeft

    space = tfpeft.MobileBlocks(stages=(3,), depth=(1, 2), width=(16, 24), kernel=(3, 5))
    ```

    Reference: Howard et al., "MobileNets", 2017, https://arxiv.org/abs/1704.04861; Sandler et al.,
    "MobileNetV2: Inverted Residuals and Linear Bottlenecks", 2018,
    https://arxiv.org/abs/1801.04381
    """

    name = "mobile_blocks"
    _own_size_names = ("expansion",)

    def __init__(
        self,
        *,
        stages: Sequence[int] = (2, 3),
        depth: Sequence[int] = (1, 2, 3),
        width: Sequence[int] = (8, 16, 24, 32, 40, 48, 64),
        growth: Sequence[float] = (1.0, 1.5, 2.0),
        kernel: Sequence[int] = (3, 5),
        block: Sequence[str] = ("separable", "inverted"),
        expansion: Sequence[int] = (2, 4),
        first_stride: Sequence[int] = (1, 2),
    ):
        super().__init__(stages, depth, width, growth, kernel, first_stride)
        self.block = check_words("block", block, ("separable", "inverted"))
        self.expansion = check_ranges({"expansion": expansion})["expansion"]

    def _block(self, hp, block, hidden, width, kernel, strides):
        expansion = choose(hp, "expansion", self.expansion)
        before = hidden
        if block == "inverted":
            hidden = normalized(_pointwise(hidden, hidden.shape[-1] * expansion))
        hidden = keras.layers.DepthwiseConv2D(
            kernel, strides=strides, padding="same", use_bias=False
        )(hidden)
        hidden = _pointwise(normalized(hidden), width)
        if block == "inverted":  # linear: a ReLU on few channels would lose what they carry
            return _added(before, normalized(hidden, activate=False))
        return _added(before, normalized(hidden))


def _pointwise(hidden, width):
    return keras.layers.Conv2D(width, 1, use_bias=False)(hidden)
