"""What layers inside a model answer, taken from the model's own forward pass."""

import contextlib
import difflib
import functools

import keras
import numpy as np
from keras import ops

from tfpeft.intercept import intercepting


def layers_by_path(model):
    """Returns {path: layer} of all layers in `model`, such as "backbone/block_1/conv"."""
    found = {}

    def visit(layer, path):
        for inner in layer._flatten_layers(include_self=False, recursive=False):
            inner_path = f"{path}/{inner.name}" if path else inner.name
            found.setdefault(inner_path, inner)
            visit(inner, inner_path)

    visit(model, "")
    return found


def find_layer(models, name, argument):
    """Returns the layer called `name`, or whose path ends in `name`, in one of the `models`.

    Raises:
        ValueError: if there is none, or more than one, which names `argument`.
    """
    wanted, matches, paths = tuple(name.split("/")), {}, []
    for model in models:
        for path, layer in layers_by_path(model).items():
            full = (model.name, *path.split("/"))
            paths.append("/".join(full if len(models) > 1 else full[1:]))
            if full[1:] == wanted and len(models) == 1:
                return layer  # the exact path goes before longer ones that end in it
            if full[-len(wanted) :] == wanted:
                matches[id(layer)] = (layer, paths[-1])
    if len(matches) == 1:
        return next(iter(matches.values()))[0]
    if matches:
        expected = f"one of the paths {', '.join(sorted(path for _, path in matches.values()))}"
    else:
        by_last_name = {path.split("/")[-1]: path for path in paths}
        near = difflib.get_close_matches(wanted[-1], by_last_name, n=5, cutoff=0.5)
        near = [by_last_name[each] for each in near] or paths[:10]
        expected = f"the name or path of a layer, such as {', '.join(near) or '(there are none)'}"
    raise ValueError(
        f"Received an invalid value for `{argument}`, expected {expected}. "
        f"Received: {argument}={name!r}"
    )


@contextlib.contextmanager
def recording(layers):
    """Yields a dict that gets the output of each layer as this thread calls it.

    Features come from the forward pass that is made anyway. A layer that is called more than once
    leaves its last output; of several outputs the first one counts.

    Args:
        layers: name -> layer.
    """
    outputs = {}

    def record(name, call, *args, **kwargs):
        output = call(*args, **kwargs)
        outputs[name] = keras.tree.flatten(output)[0]
        return output

    with intercepting(layers.values(), [functools.partial(record, name) for name in layers]):
        yield outputs


def mask_of(tensor):
    """Returns the Keras mask of a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


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
