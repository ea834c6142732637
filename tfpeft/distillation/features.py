"""Features of layers: masks, positions, vectors, and projections to another width."""

import keras
import numpy as np
from keras import ops

from tfpeft.core.arguments import unexpected

_TINY = 1e-24  # a squared length that counts as 0


def mask_at(mask, features):
    """Returns the mask (batch, steps) at the steps of `features`; None if it does not apply.

    A step of features that are shorter than the mask is unmasked if any mask step in it is.
    """
    if mask is None or len(mask.shape) != 2 or len(features.shape) != 3:
        return None
    length, size = mask.shape[1], features.shape[1]
    if None in (length, size) or length == size:
        return mask
    if size < length:
        return _averaged(ops.cast(mask, "float32"), 1, size) > 0.0
    return ops.take(mask, [step * length // size for step in range(size)], axis=1)


def zeros_where_masked(features, mask):
    """Returns the features with zeros at masked steps."""
    mask = mask_at(mask, features)
    return features if mask is None else features * ops.cast(mask, features.dtype)[..., None]


def same_positions(teacher, student, mask=None):
    """Returns feature maps (batch, positions..., channels) with the same positions, and their mask.

    Along each axis the longer map is averaged onto the shorter one, as adaptive average pooling
    does. If one map has no positions, (batch, channels), the other map is averaged over all its
    positions. Masked positions are left out of averages.
    """
    teacher, student = (_Weighted.at(mask, features) for features in (teacher, student))
    if len(teacher.shape) != len(student.shape):
        if 2 not in (len(teacher.shape), len(student.shape)):
            raise unexpected(
                "features of the same rank, or features of teacher or student without positions",
                f"teacher {teacher.shape}, student {student.shape}",
            )
        return teacher.without_positions(), student.without_positions(), None
    for axis in range(1, len(teacher.shape) - 1):
        sizes = teacher.shape[axis], student.shape[axis]
        if None not in sizes and sizes[0] != sizes[1]:
            teacher, student = (maps.averaged(axis, min(sizes)) for maps in (teacher, student))
    counts = student.counts
    return teacher.features, student.features, None if counts is None else counts[..., 0] > 0.0


class _Weighted:
    """Features, and counts of 1 or 0 per step, by which averages are weighted."""

    def __init__(self, features, counts):
        self.features, self.counts = features, counts
        self.shape = tuple(features.shape)

    @classmethod
    def at(cls, mask, features):
        mask = mask_at(mask, features)
        return cls(features, None if mask is None else ops.cast(mask, features.dtype)[..., None])

    def without_positions(self):
        axes = tuple(range(1, len(self.shape) - 1))
        return self._mean(lambda values: ops.mean(values, axis=axes)) if axes else self.features

    def averaged(self, axis, size):
        if self.shape[axis] == size:
            return self
        features = self._mean(lambda values: _averaged(values, axis, size))
        if self.counts is None:
            return _Weighted(features, None)
        return _Weighted(features, ops.cast(_averaged(self.counts, axis, size) > 0, features.dtype))

    def _mean(self, mean):
        if self.counts is None:
            return mean(self.features)
        return ops.divide_no_nan(mean(self.features * self.counts), mean(self.counts))


def _averaged(features, axis, size):
    length = features.shape[axis]
    if length == size:
        return features
    matrix = np.zeros((length, size), "float32")
    for i in range(size):
        start, end = i * length // size, -(-(i + 1) * length // size)
        matrix[start:end, i] = 1.0 / (end - start)
    matrix = ops.cast(matrix, features.dtype)
    return ops.moveaxis(ops.tensordot(features, matrix, axes=[[axis], [0]]), -1, axis)


def flatten(features):
    """Returns features as (batch, values)."""
    return ops.reshape(features, (ops.shape(features)[0], -1))


def unit_vectors(vectors):
    """Returns vectors on the last axis at length 1; those of length 0 stay, with gradients of 0."""
    squares = ops.sum(ops.square(vectors), axis=-1, keepdims=True)
    return vectors * ops.where(squares > _TINY, ops.rsqrt(ops.maximum(squares, _TINY)), 0.0)


class Projector(keras.layers.Layer):
    """Projects features (..., channels) to another number of channels: s W + b, or s itself."""

    widths = None

    def __call__(self, features, width):
        if features.shape[-1] == width:
            return features
        if not self.built:
            self.build_between(features.shape[-1], width)
        return super().__call__(features)

    def build_between(self, width, wanted):
        self.widths = [width, wanted]
        # Not called a kernel, so that sparse optimizers skip it.
        self.projection = self.add_weight(
            name="distiller_only", shape=(width, wanted), initializer="he_normal"
        )
        self.bias = self.add_weight(name="bias", shape=(wanted,), initializer="zeros")
        self.built = True

    def call(self, features):
        return ops.matmul(features, self.projection) + self.bias
