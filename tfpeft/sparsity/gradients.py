"""Whether gradients are finite, checked before an update changes anything."""

import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError
from tfpeft.core.checks import assert_in_graph

_MESSAGE = "Received an invalid value for `grads`, expected finite gradients. Received: "


class NonFiniteGradientsError(InputError):
    """A gradient is NaN or infinite."""


def checked(grads, names):
    """Returns `grads`; operations that read them run after the check that they are finite.

    Args:
        grads: Tensors, `tf.IndexedSlices` or None.
        names: A name per gradient, for the error.

    Raises:
        NonFiniteGradientsError: if a gradient is NaN or infinite, in eager code, and in a graph
            that runs inside `core.checks.input_errors`.
        tf.errors.InvalidArgumentError: in another graph; not if XLA compiles it, which leaves
            assertions out.
    """
    known = [pair for pair in zip(names, grads, strict=True) if pair[1] is not None]
    if not known:
        return grads
    # A sum is finite only if each of its terms is.
    finite = tf.math.is_finite(_sum([part for _, each in known for part in _parts(each)]))

    def sums():
        return tf.stack([_sum(_parts(each)) for _, each in known])

    if tf.executing_eagerly():
        if not finite:
            bad = [known[i][0] for i in np.flatnonzero(~np.isfinite(sums()))]
            raise NonFiniteGradientsError(f"{_MESSAGE}NaN or infinite at {', '.join(bad)}")
        return grads

    def shown():
        return [f"{_MESSAGE}these sums over {', '.join(name for name, _ in known)}:", sums()]

    with tf.control_dependencies(assert_in_graph(finite, _error_in_graph, shown=shown)):
        return [g if g is None else tf.nest.map_structure(tf.identity, g) for g in grads]


def _error_in_graph():
    return NonFiniteGradientsError(f"{_MESSAGE}NaN or infinite")


def unscaled(gradient, scale):
    """Returns a gradient in float32, without the factor by which the loss was scaled up, if any.

    Where it has overflowed, it is 0.
    """
    gradient = tf.cast(gradient, tf.float32)  # of which float16 would hold too little
    if scale is None:
        return gradient
    gradient = gradient / scale
    return tf.where(tf.math.is_finite(gradient), gradient, tf.zeros_like(gradient))


def _sum(parts):
    return tf.reduce_sum(tf.concat([tf.reshape(each, [-1]) for each in parts], 0))


def _parts(gradient):
    """Returns parts of `gradient` of which one is not finite if the gradient is not.

    A gradient is a sum of products of what goes into a layer and what comes back to it. NaN in
    one of its inputs makes all it is multiplied with NaN, up to the last axis; NaN in what comes
    back does so from the first axis on. So of large ones two slices are enough.
    """
    sliced = isinstance(gradient, tf.IndexedSlices)
    values = gradient.values if sliced else tf.convert_to_tensor(gradient)
    parts = [values]
    if not sliced and len(values.shape) >= 2 and (values.shape.num_elements() or 0) >= 2**16:
        # The middle of the first axis: in convolutions the border may meet padding only.
        parts = [values[values.shape[0] // 2], values[..., 0]]
    return [tf.cast(each, tf.float32) for each in parts]
