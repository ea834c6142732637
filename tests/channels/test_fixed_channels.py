"""Channels that stay, as what they go through cannot be followed or is left out, and why."""

import keras
import numpy as np
import pytest
from keras import layers, ops

import tfpeft
from tests.channels.models import (
    flat,
    functional,
    head,
    residual,
    with_random_weights,
    without,
)

# name: (function of the input, what the report says about layer "a")
FIXED = {
    "its outputs are the model's": (lambda x: layers.Dense(4, name="a")(x), "an output"),
    "softmax over channels": (lambda x: head(layers.Dense(4, "softmax", name="a")(x)), "softmax"),
    "Softmax": (
        lambda x: head(layers.Softmax()(layers.Dense(4, name="a")(x))),
        "has statistics over",
    ),
    "mean over channels": (
        lambda x: head(ops.mean(layers.Dense(4, name="a")(x), axis=-1, keepdims=True)),
        "has statistics over",
    ),
    "added to an input": (lambda x: head(layers.Dense(3, name="a")(x) + x), "that are fixed"),
    "spread over channels": (
        lambda x: head(layers.Dense(1, name="a")(x) * layers.Dense(4)(x)),
        "spreads them",
    ),
    "an array of constants": (
        lambda x: head(layers.Dense(4, name="a")(x) * np.arange(4.0, dtype="float32")),
        "multiply",
    ),
    "a matrix of constants": (
        lambda x: head(ops.matmul(layers.Dense(4, name="a")(x), np.ones((4, 2), "float32"))),
        "a constant",
    ),
    "a width in code": (
        lambda x: head(layers.Lambda(lambda t: t[:, :2])(layers.Dense(4, name="a")(x))),
        "written for their number",
    ),
    "a width of one in code": (
        lambda x: head(layers.Lambda(lambda t: t[:, 1:])(layers.Dense(2, name="a")(x))),
        "written for their number",
    ),
    "a count in code": (
        lambda x: head(layers.Lambda(lambda t: t / ops.shape(t)[-1])(layers.Dense(4, name="a")(x))),
        "written for their number",
    ),
    "roll and add": (
        lambda x: head(ops.roll(layers.Dense(8, name="a")(x), 2, axis=-1)),
        "written for their number",
    ),
    "some of them": (lambda x: head(layers.Dense(4, name="a")(x)[:, :2]), "takes some"),
    "unequal parts": (
        lambda x: head(ops.split(layers.Dense(4, name="a")(x), [1], axis=-1)[1]),
        "splits them",
    ),
    "an axis that a convolution slides over": (
        lambda x: flat(layers.Conv1D(2, 2)(layers.Reshape((4, 1))(layers.Dense(4, name="a")(x)))),
        "slides over their axis",
    ),
    "sorted": (lambda x: head(ops.sort(layers.Dense(4, name="a")(x))), "mixes channels"),
    "GroupNormalization": (
        lambda x: head(layers.GroupNormalization(2)(layers.Dense(4, name="a")(x))),
        "statistics over the channels",
    ),
    "UnitNormalization": (
        lambda x: head(layers.UnitNormalization()(layers.Dense(4, name="a")(x))),
        "mixes channels",
    ),
    "weights of unknown axes": (
        lambda x: head(layers.SpectralNormalization(layers.Dense(3))(layers.Dense(4, name="a")(x))),
        "unknown axes",
    ),
    "a lookup": (
        lambda x: flat(
            layers.Embedding(9, 2)(ops.cast(ops.abs(layers.Dense(4, name="a")(x)), "int32"))
        ),
        "looks its inputs up",
    ),
}


@pytest.mark.parametrize("name", FIXED)
def test_what_cannot_be_followed_keeps_its_channels_and_says_why(name):
    build, why = FIXED[name]
    inputs = keras.Input((3,))
    outputs = [build(inputs), layers.Dense(2)(layers.Dense(4, name="other")(inputs))]
    model = with_random_weights(keras.Model(inputs, outputs))
    report = without(model, {"other": [0]}, verify=True).channel_report
    assert why in report.fixed["a"]
    assert report.widths["a"][0] == report.widths["a"][1]
    assert report.widths["other"] == (4, 3)


def double(build):
    """Returns a model that calls layers with channels that can go, and with its inputs."""
    inputs = keras.Input((4,))
    a = layers.Dense(4, name="a")(inputs)
    outputs = build(a, inputs)
    return with_random_weights(
        keras.Model(inputs, [*outputs, layers.Dense(2)(layers.Dense(5, name="other")(inputs))])
    )


def _nested_activation(model_input):
    return keras.Model(model_input, layers.ReLU()(model_input))


SHARED = {
    "BatchNormalization": layers.BatchNormalization,
    "PReLU": layers.PReLU,
    "Dense": lambda: layers.Dense(3, name="shared"),
    "Reshape": lambda: layers.Reshape((2, 2)),
    "GroupNormalization": lambda: layers.GroupNormalization(4),
    "a nested model": lambda: _nested_activation(keras.Input((4,))),
}


@pytest.mark.parametrize("order", [1, -1])
@pytest.mark.parametrize("name", SHARED)
def test_channels_of_layers_that_are_called_with_fixed_ones_too_stay(name, order):
    layer = SHARED[name]()

    def build(a, inputs):
        made = [layer(each) for each in (a, inputs)[::order]]
        return [head(layers.Flatten()(made[0])), layers.Dense(2)(layers.Flatten()(made[1]))]

    report = without(double(build), {"other": [0]}, verify=True).channel_report
    assert report.widths["a"] == (4, 4)
    assert "is called with channels that are fixed, too" in report.fixed["a"]


def test_layers_without_sizes_can_be_called_with_any_channels():
    relu, dot = layers.ReLU(), layers.Dot(1)

    def build(a, inputs):
        wide = relu(layers.Dense(7, name="wide")(relu(a)))
        return [head(wide), relu(inputs), dot([inputs, inputs])]

    small = without(double(build), {"a": [1], "wide": [2, 3]}, verify=True)
    assert small.channel_report.widths["wide"] == (7, 5)


def test_excluded_layers_keep_their_channels():
    model = functional((3,), residual)
    report = without(model, {"b": [0]}, verify=True, exclude=["a"]).channel_report
    assert report.widths == {"a": (4, 4), "b": (3, 2), "c": (4, 4), "head": (2, 2)}
    assert report.fixed["a"] == "a is excluded"
    assert "joins channels" in report.fixed["c"]


@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("kind", ["lora", "int8"])
def test_layers_with_keras_own_adapters_or_quantization_are_left_alone(kind, wrapped):
    dense = layers.Dense(4, name="d")
    layer = layers.TimeDistributed(dense) if wrapped else dense
    model = functional((3, 2), lambda x: head(layers.Dense(5, name="o")(layer(x))))
    if kind == "lora":
        dense.enable_lora(2)
    else:
        dense.quantize("int8")
    small = without(model, {"o": [0]}, verify=True)
    assert small.channel_report.widths["o"] == (5, 4)
    assert "d" not in small.channel_report.widths


def test_a_graph_that_keras_does_not_rebuild_is_one_line():
    dense = layers.Dense(5, name="d")
    inner = keras.Input((5,))
    model = keras.Model(inner, dense(inner), name="inner")
    inputs = keras.Input((5,))
    outer = keras.Model(inputs, head(layers.Dense(6, name="b")(dense(model(dense(inputs))))))
    with pytest.raises(tfpeft.InputError, match="without 'inner'") as error:
        without(with_random_weights(outer), {"b": [0]})
    assert "\n" not in str(error.value)
