"""Which convolutions XNNPACK's sparse kernels on ARM take, and how many zeros they need.

The numbers of https://github.com/google/XNNPACK, src/subgraph.c; padding is ((top, bottom), (left,
right)).
"""

LEAST_ZEROS = 2 / 3
"""A part runs sparse where more than this fraction of its 1x1 kernels is zero."""


def is_first(kernel, channels, strides, padding):
    """Whether a sparse part may begin with a convolution: of 3x3, on 3 channels, strides 2."""
    sides = (tuple(kernel), channels, tuple(strides))
    return sides == ((3, 3), 3, (2, 2)) and padding == ((1, 1), (1, 1))


def is_pointwise(kernel, strides, dilation, groups):
    """Whether the zeros of a convolution are skipped: of 1x1, strides 1."""
    return {*kernel, *strides, *dilation, groups} == {1}


def is_depthwise(kernel, strides, dilation, padding, multiplier):
    """Whether a depthwise convolution may stand between them: of 3x3 or 5x5, padded alike."""
    if tuple(kernel) not in ((3, 3), (5, 5)) or tuple(strides) not in ((1, 1), (2, 2)):
        return False
    side = (kernel[0] // 2,) * 2
    return {*dilation, multiplier} == {1} and padding == (side, side)
