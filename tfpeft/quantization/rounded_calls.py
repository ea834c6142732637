"""The calls of layers with rounded kernels and activations, in place of their own."""

import contextlib
import functools

import keras
import tensorflow as tf
from keras import ops

from tfpeft.core.hooks import intercepting, keep_notes
from tfpeft.quantization import layer_kinds as kinds


def rounding(placements, kernels, rounded, states, integers=None):
    """Returns a context in which layers compute with rounded kernels and activations.

    Args:
        placements: `Placement`s.
        kernels: {id of a variable: the rounded tensor}.
        rounded: A function `(placement, place, tensor)` that rounds an activation.
        states: A function `(placement)` that returns the variables which `rounded` changes.
        integers: `IntegerCalls`, to compute as a file where that can be; or None.
    """
    compute = functools.partial(_compute, kernels, states)
    if integers is not None:
        compute = functools.partial(integers.compute, compute)
    return computing(placements, rounded, compute)


def computing(placements, rounded, compute):
    """Returns a context in which `compute` replaces what layers do between their roundings.

    Args:
        placements: `Placement`s.
        rounded: A function `(placement, place, tensor)` that rounds an activation, or marks it.
        compute: A function `(placement, at, call, args, kwargs)` that returns the outputs of a
            layer; `call` is the layer's own, and `at(place, tensor)` rounds where the placement has
            that place.
    """
    functions = [functools.partial(_call, each, rounded, compute) for each in placements]
    return intercepting([each.operation for each in placements], functions)


def _call(placement, rounded, compute, call, *args, **kwargs):
    layer = placement.operation

    def at(place, tensor):
        return rounded(placement, place, tensor) if getattr(placement, place) else tensor

    args, kwargs = kinds.with_first_argument(layer, args, kwargs)
    if placement.inputs:
        args = (at("inputs", args[0]), *args[1:])
    if isinstance(layer, kinds.ATTENTION):
        return kinds.attention_by_steps(call, *args, **kwargs)
    if placement.partial:
        outputs = kinds.merged(layer, args[0], functools.partial(at, "partial"))
    else:
        outputs = compute(placement, at, call, args, kwargs)
    if not placement.output:
        return outputs
    return keep_notes(at("output", outputs), outputs)


def _compute(kernels, states, placement, at, call, args, kwargs):
    layer = placement.operation
    if not placement.kernels:
        return _silu(at, args[0]) if placement.gate else call(*args, **kwargs)
    kept = replaced_kernels(layer, kernels, states(placement))
    with kept, kinds.other_activation(layer, activation_of(placement, at)):
        if isinstance(layer, kinds.SEPARABLE) and kinds.computes_as_keras(layer):
            return _separable(layer, args[0], at)
        return call(*args, **kwargs)


def activation_of(placement, at):
    """Returns the activation inside a layer, with what is rounded before and in it; or None."""
    activation = getattr(placement.operation, "activation", None)
    if placement.gate and activation is not None:
        activation = functools.partial(_silu, at)
    if placement.before_activation and activation is not None:
        activation = functools.partial(_activated, at, activation)
    return activation


def _silu(at, x):
    return x * at("gate", ops.sigmoid(x))


def _activated(at, activation, x):
    return activation(at("before_activation", x))


@contextlib.contextmanager
def replaced_kernels(layer, kernels, states):
    """A context in which variables of a layer have other values, and `states` may change."""
    # All weights, as a scope hides those of the scope around it.
    values = [(each, each.value) for each in layer.weights if id(each) not in kernels]
    rounded = [
        (each, ops.cast(kernels[id(each)], layer.compute_dtype))
        for each in layer.weights
        if id(each) in kernels
    ]
    with keras.StatelessScope(state_mapping=[*values, *rounded]) as scope:
        yield
    for variable in states:  # what was assigned inside is known to the scope alone
        value = scope.get_current_value(variable)
        if value is not None:
            variable.assign(value)


def _separable(layer, x, at):
    """Calls a separable convolution, with rounded values between its two kernels."""
    # Tensors, as Keras's operations do not take variables that are replaced.
    depthwise, pointwise = (
        tf.convert_to_tensor(each.value)
        for each in (layer.depthwise_kernel, layer.pointwise_kernel)
    )
    is_first = layer.data_format == "channels_first"
    x = ops.depthwise_conv(
        x,
        depthwise,
        strides=layer.strides,
        padding=layer.padding,
        dilation_rate=layer.dilation_rate,
        data_format=layer.data_format,
    )
    x = ops.conv(at("between", x), pointwise, strides=1, data_format=layer.data_format)
    if layer.use_bias:
        rank = len(x.shape)
        shape = [1] * rank
        shape[1 if is_first else rank - 1] = -1
        x = x + ops.reshape(layer.bias.value, shape)
    return x if layer.activation is None else layer.activation(x)
