"""What layers inside a model answer, taken from the model's own forward pass."""

import contextlib
import difflib
import functools

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfpeft.arguments import invalid
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
    model_names = [model.name for model in models]
    if len(set(model_names)) < len(models):
        model_names = [str(index) for index in range(len(models))]
    for index, model in enumerate(models):
        for path, layer in layers_by_path(model).items():
            full = (model_names[index], *path.split("/"))
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
    raise invalid(argument, expected, name)


@contextlib.contextmanager
def recording(layers):
    """Yields a dict that gets the output of each layer as this thread calls it.

    Features come from the forward pass that is made anyway; of several outputs the first one
    counts.

    Args:
        layers: name -> layer.

    Raises:
        ValueError: if one of them is called more than once.
    """
    outputs = {}

    def record(name, layer, call, *args, **kwargs):
        output = call(*args, **kwargs)
        if name in outputs:
            raise ValueError(
                f"Expected layers that are called once, as features have to be those of one place. "
                f"Received: {name}, which is called again"
            )
        first = keras.tree.flatten(output)[0]
        # The mask at once, and on a tensor of its own: attention takes masks off its inputs.
        outputs[name] = tf.identity(first)
        outputs[name]._keras_mask = _mask_of_output(layer, args, output, first)
        return output

    functions = [functools.partial(record, name, layer) for name, layer in layers.items()]
    with intercepting(layers.values(), functions):
        yield outputs


def _mask_of_output(layer, args, output, first):
    """Returns the mask that Keras will give to the first output of a call."""
    if mask_of(first) is not None or not layer.supports_masking or not args:
        return mask_of(first)
    inputs = keras.tree.map_structure(mask_of, args[0])
    if all(mask is None for mask in keras.tree.flatten(inputs)) and not _makes_masks(layer):
        return None
    masks = layer.compute_mask(args[0], inputs)
    return masks[0] if isinstance(masks, (list, tuple)) and masks else masks


def _makes_masks(layer):
    return isinstance(layer, (keras.layers.Embedding, keras.layers.Masking, keras.Model))


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
