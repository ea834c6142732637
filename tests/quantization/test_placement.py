"""Where a model rounds: behind what an integer file computes in one operator."""

import keras
import numpy as np
import pytest

from tfpeft.core.arguments import NoMatchError
from tfpeft.quantization.placement import plan_of

layers = keras.layers


def places(model, exclude=()):
    """Returns {path: what is rounded}, of placements that round."""
    found = {}
    for placement in plan_of(model, exclude).placements:
        marks = [name for name in ("inputs", "between", "before_activation", "output", "gate")]
        marks = [name for name in marks if getattr(placement, name)]
        if placement.follows:
            marks[marks.index("output")] = f"as {placement.follows}"
        if placement.fixed:
            marks[marks.index("output")] = placement.fixed
        if marks or placement.kernels:
            found[placement.path] = (["kernel"] if placement.kernels else []) + marks
    return found


def of(*hidden, inputs=(8, 8, 3)):
    """Returns a model of a chain of layers."""
    inputs = keras.Input(inputs)
    outputs = inputs
    for layer in hidden:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def conv(**options):
    return layers.Conv2D(4, 3, padding="same", name="conv", **options)


def norm(**options):
    return layers.BatchNormalization(name="norm", **options)


@pytest.mark.parametrize(
    ("hidden", "expected"),
    [
        ([conv()], {"conv": ["kernel", "output"]}),
        ([conv(activation="relu")], {"conv": ["kernel", "output"]}),
        ([conv(), layers.ReLU(name="relu")], {"conv": ["kernel"], "relu": ["output"]}),
        ([conv(), layers.ReLU(6.0, name="relu")], {"conv": ["kernel"], "relu": ["output"]}),
        (
            [conv(), layers.ReLU(3.0, name="relu")],
            {"conv": ["kernel", "output"], "relu": ["output"]},
        ),
        ([conv(), norm()], {"conv": ["kernel"], "norm": ["output"]}),
        (
            [conv(), norm(), layers.Activation("relu", name="relu")],
            {"conv": ["kernel"], "relu": ["output"]},
        ),
        (
            [conv(), layers.Dropout(0.1), norm(), layers.LeakyReLU(name="leaky")],
            {"conv": ["kernel"], "norm": ["output"], "leaky": ["output"]},
        ),
        ([conv(activation="relu"), norm()], {"conv": ["kernel", "output"], "norm": ["output"]}),
        (
            [conv(activation="sigmoid")],
            {"conv": ["kernel", "before_activation", (0.0, 255 / 256)]},
        ),
        (
            [conv(activation="swish")],
            {"conv": ["kernel", "before_activation", "output", "gate"]},
        ),
        (
            [conv(), layers.Softmax(name="soft")],
            {"conv": ["kernel", "output"], "soft": [(0.0, 255 / 256)]},
        ),
        ([conv(), layers.MaxPooling2D(), layers.Flatten()], {"conv": ["kernel", "output"]}),
        (
            [conv(), layers.AveragePooling2D(2, name="mean")],
            {"conv": ["kernel", "output"], "mean": ["as conv/output"]},
        ),
        (
            [layers.AveragePooling2D(2, name="mean"), conv()],
            {"mean": ["as input_0"], "conv": ["kernel", "output"]},
        ),
        (
            [layers.SeparableConv2D(4, 3, name="both")],
            {"both": ["kernel", "between", "output"]},
        ),
    ],
)  # fmt: skip
def test_chains(hidden, expected):
    assert places(of(*hidden)) == expected


def test_two_readers_of_a_convolution():
    inputs = keras.Input((8, 8, 3))
    hidden = conv()(inputs)
    outputs = layers.Add(name="add")([hidden, layers.ReLU(name="relu")(hidden)])
    outputs = layers.ReLU(name="last")(outputs)
    assert places(keras.Model(inputs, outputs)) == {
        "conv": ["kernel", "output"],
        "relu": ["output"],
        "last": ["output"],
    }


def test_what_is_joined_has_one_range():
    inputs = keras.Input((8, 8, 3))
    first = conv()(inputs)
    second = layers.MaxPooling2D(1)(layers.ReLU(name="relu")(first))
    joined = layers.Concatenate(name="join")(
        [first, second, layers.Activation("tanh", name="tanh")(first)]
    )
    again = layers.Concatenate(name="last")([joined, layers.Conv2D(2, 1, name="more")(joined)])
    found = places(keras.Model(inputs, again))
    assert found["conv"] == ["kernel", "as last/output"]
    assert found["relu"] == found["join"] == ["as last/output"]
    assert found["more"] == ["kernel", "as last/output"]
    assert found["last"] == ["output"]
    assert found["tanh"] == [(-1.0, 127 / 128)]


def test_nested_and_shared_layers():
    shared = layers.Dense(6, name="shared")
    inner = keras.Sequential(
        [keras.Input((6,)), layers.Dense(6, name="dense"), layers.ReLU(name="r")]
    )
    inner.name = "inner"
    inputs = keras.Input((6,))
    outputs = inner(layers.ReLU(name="relu")(shared(shared(inputs))))
    assert places(keras.Model(inputs, outputs)) == {
        "shared": ["kernel", "output"],  # called twice: what is behind it is not known
        "relu": ["output"],
        "inner/dense": ["kernel"],
        "inner/r": ["output"],
    }


def test_attention_rounds_scores_and_values():
    inputs = keras.Input((5, 8))
    outputs = layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    found = places(keras.Model(inputs, outputs))
    softmax = next(path for path in found if "softmax" in path)
    assert found.pop(softmax) == ["inputs", (0.0, 255 / 256)]
    assert found == {
        "attention/query": ["kernel", "output"],
        "attention/key": ["kernel", "output"],
        "attention/value": ["kernel", "output"],
        "attention/attention_output": ["kernel", "inputs", "output"],
    }


def test_what_stays_float_has_a_reason():
    inputs = keras.Input((5, 8))
    hidden = layers.LayerNormalization(name="norm")(layers.Dense(8, name="dense")(inputs))
    hidden = layers.LSTM(4, name="lstm")(hidden)
    model = keras.Model(inputs, layers.Dense(2, name="head")(hidden))
    plan = plan_of(model, ["head"])
    assert plan.in_float == {
        "norm": "its mean and variance are computed in float32",
        "lstm": "loops stay in float32",
        "head": "excluded by 'head'",
    }
    assert "head" not in places(model, ["head"])  # nor is the output of the model rounded
    assert places(model, ["dense"])["dense"] == ["output"]


@pytest.mark.parametrize(("spread", "is_rounded"), [([1.0, 2.0], True), ([1.0, 1e4], False)])
def test_a_table_of_unlike_columns_is_normalized_in_float(spread, is_rounded):
    table = np.random.default_rng(0).normal(size=(100, 2)) * spread
    layer = layers.Normalization(name="scale")
    layer.adapt(table)
    plan = plan_of(of(layer, layers.Dense(2), inputs=(2,)))
    assert plan.rounded_inputs == [is_rounded]
    assert ("scale" in plan.in_float) != is_rounded


def test_integer_inputs_are_not_rounded():
    inputs = keras.Input((4,), dtype="int32")
    outputs = layers.Dense(2)(layers.Embedding(9, 4)(inputs))
    assert plan_of(keras.Model(inputs, outputs)).rounded_inputs == [False]


def test_names_that_match_nothing():
    with pytest.raises(NoMatchError, match="`exclude`.*conv.*'other'"):
        plan_of(of(conv()), ["other"])
    with pytest.raises(NoMatchError, match="`model`.*conv: excluded"):
        plan_of(of(conv()), ["conv"])
