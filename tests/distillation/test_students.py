"""The same architecture at another width."""

import keras
import numpy as np
import pytest

import tfpeft

X = np.random.default_rng(0).normal(size=(24, 5)).astype("float32")


def mlp():
    return keras.Sequential([keras.Input((5,)), keras.layers.Dense(8), keras.layers.Dense(3)])


def test_layers_follow_and_outputs_stay():
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(10, 3, padding="same")(inputs)
    branch = keras.layers.Conv2D(10, 1)(hidden)
    hidden = keras.layers.Add()([hidden, branch])
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Dropout(0.3)(hidden)
    hidden = keras.layers.SeparableConv2D(16, 3)(hidden)
    hidden = keras.layers.Dense(12, activation="relu")(keras.layers.Flatten()(hidden))
    outputs = keras.layers.Softmax()(keras.layers.Dense(4)(hidden))
    model = keras.Model(inputs, outputs)
    before = model.get_weights()
    small = tfpeft.scale_width(model, 0.5)
    assert small.output_shape == (None, 4)
    sizes = [getattr(layer, "filters", getattr(layer, "units", None)) for layer in small.layers]
    assert [size for size in sizes if size] == [5, 5, 8, 6, 4]
    for expected, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    rates = [
        layer.rate for each in (model, small) for layer in each.layers if "dropout" in layer.name
    ]
    assert rates == [0.3, 0.0]
    assert small.predict(np.zeros((1, 8, 8, 3)), verbose=0).shape == (1, 4)


@pytest.mark.parametrize(
    ("width", "units"),
    [(0.45, 4), (0.4, 3), (0.3, 2), (1.45, 12), (0.01, 1)],  # of 8: 3.6, 3.2, 2.4, 11.6 and 0.08
)
def test_widths_are_rounded_and_never_zero(width, units):
    assert tfpeft.scale_width(mlp(), width).layers[0].units == units


def test_nested_models_and_preprocessing():
    normalization = keras.layers.Normalization()
    normalization.adapt(X)
    head = keras.Sequential([keras.Input((6,)), keras.layers.Dense(4), keras.layers.Dense(3)])
    model = keras.Sequential([keras.Input((5,)), normalization, keras.layers.Dense(6), head])
    small = tfpeft.scale_width(model, 0.5)
    assert [layer.units for layer in small.layers[2].layers] == [2, 3]
    np.testing.assert_array_equal(small.layers[0].mean, normalization.mean)
    np.testing.assert_allclose(small.layers[0](X), normalization(X))


def test_groups_stay_whole():
    model = keras.Sequential(
        [
            keras.Input((8, 8, 4)),
            keras.layers.Conv2D(8, 3, groups=4),
            keras.layers.Flatten(),
            keras.layers.Dense(2),
        ]
    )
    assert tfpeft.scale_width(model, 0.6).layers[0].filters == 4


@pytest.mark.parametrize(
    ("model", "width", "message"),
    [
        (lambda: mlp(), 0.0, "`width`.*0.0"),
        (lambda: mlp(), -1, "`width`.*-1"),
        (lambda: keras.Sequential([keras.layers.Dense(3)]), 0.5, "`model`.*built"),
        (lambda: keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)]), 0.5, "`units`"),
    ],
)
def test_bad_input(model, width, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.scale_width(model(), width)


def of_attention():
    """Reshape to a number of channels, by which squeeze-and-excitation scales them."""
    inputs = keras.Input((6, 6, 3))
    hidden = keras.layers.Conv2D(16, 3)(inputs)
    scale = keras.layers.Dense(16)(keras.layers.GlobalAveragePooling2D()(hidden))
    hidden = keras.layers.Multiply()([hidden, keras.layers.Reshape((1, 1, 16))(scale)])
    return keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Flatten()(hidden)), name="se")


def of_groups():
    layers = [keras.layers.Conv2D(16, 3), keras.layers.GroupNormalization(8)]
    layers = [keras.Input((6, 6, 3)), *layers, keras.layers.Flatten(), keras.layers.Dense(2)]
    return keras.Sequential(layers, name="groups")


def of_array():
    inputs = keras.Input((4,))
    hidden = keras.layers.Dense(8)(inputs) * np.arange(8, dtype="float32")
    return keras.Model(inputs, keras.layers.Dense(2)(hidden), name="array")


@pytest.mark.parametrize(
    ("make", "width", "match"),
    [
        (of_attention, 0.5, r"'se' still fit together \(Reshape: The total size .*\(1, 1, 16\)\)"),
        (of_groups, 0.33, r"'groups' still fit together \(Number of groups \(8\) cannot be more"),
        (of_array, 0.5, r"'array' still fit together \(Multiply: Cannot broadcast shape"),
    ],
)
def test_layers_of_a_fixed_width_are_named_in_one_line(make, width, match):
    expected = f"`width`, expected a factor with which the layers of {match}.*width={width}$"
    with pytest.raises(ValueError, match=expected) as error:
        tfpeft.scale_width(make(), width)
    assert "\n" not in str(error.value)
    assert "\x1b" not in str(error.value)
