"""What layers inside a model answer, taken from the model's own forward pass."""

import keras
import numpy as np
from keras import ops


def mask_at(mask, features):
    """Returns a mask (batch, steps) for the steps of `features`, or None where it has no say.

    Features that are shorter than the mask stand where any of their steps is unmasked.
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
    """Returns the features, those of masked steps as zeros."""
    mask = mask_at(mask, features)
    return features if mask is None else features * ops.cast(mask, features.dtype)[..., None]


def same_positions(teacher, student, mask=None):
    """Returns feature maps (batch, positions..., channels) with the same positions, and their mask.

    Along each axis the longer map is averaged onto the shorter one, as adaptive average pooling
    does. Where one of them has no positions, (batch, channels), the other is averaged over all
    of its own. Masked positions are left out of averages.
    """
    teacher, student = (_Masked.at(mask, features) for features in (teacher, student))
    if len(teacher.shape) != len(student.shape):
        if 2 not in (len(teacher.shape), len(student.shape)):
            raise ValueError(
                "Expected features of the same rank, or one of them without positions. "
                f"Received: teacher {teacher.shape}, student {student.shape}"
            )
        return teacher.without_positions(), student.without_positions(), None
    for axis in range(1, len(teacher.shape) - 1):
        sizes = teacher.shape[axis], student.shape[axis]
        if None not in sizes and sizes[0] != sizes[1]:
            teacher, student = (each.averaged(axis, min(sizes)) for each in (teacher, student))
    counts = student.counts
    return teacher.features, student.features, None if counts is None else counts[..., 0] > 0.0


class _Masked:
    """Features, and 1 or 0 for each step that counts; averages are weighted by these."""

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
            return _Masked(features, None)
        return _Masked(features, ops.cast(_averaged(self.counts, axis, size) > 0, features.dtype))

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


class Projector(keras.layers.Layer):
    """Brings features (..., channels) to another number of channels: s W + b, or s itself."""

    widths = None

    def __call__(self, features, width):
        if features.shape[-1] == width:
            return features
        if not self.built:
            self.build_between(features.shape[-1], width)
        return super().__call__(features)

    def build_between(self, width, wanted):
        self.widths = [width, wanted]
        # Not a kernel by name: what makes a student's kernels sparse leaves it alone.
        self.projection = self.add_weight(
            name="distiller_only", shape=(width, wanted), initializer="he_normal"
        )
        self.bias = self.add_weight(name="bias", shape=(wanted,), initializer="zeros")
        self.built = True

    def call(self, features):
        return ops.matmul(features, self.projection) + self.bias
