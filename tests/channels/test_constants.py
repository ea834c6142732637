"""Channels that are constant: removed, and what they add goes into the next bias."""

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft import InputError, NoMatchError

layers = keras.layers


def outputs(model, seed=0):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(4, *model.inputs[0].shape[1:])).astype("float32")
    return model.predict(x, verbose=0)


def zero(layer, channels, bias=0.0):
    """Makes channels of a layer constant before its activation."""
    weights = layer.get_weights()
    weights[0][..., channels] = 0
    if layer.use_bias:
        weights[1][channels] = bias
    layer.set_weights(weights)


def random_weights(model):
    rng = np.random.default_rng(1)
    for weight in model.weights:
        low = 0.5 if "variance" in weight.path or "gamma" in weight.path else -1.0
        weight.assign(rng.uniform(low, 1.0, weight.shape))
    return model


def sequential(*parts, shape=(9, 9, 2)):
    return random_weights(keras.Sequential([keras.Input(shape), *parts]))


def test_a_constant_goes_into_the_bias_of_a_dense_layer():
    model = sequential(
        layers.Dense(5, activation="relu"), layers.Dense(3, activation="tanh"), shape=(4,)
    )
    zero(model.layers[0], [1, 4], bias=[0.5, -2.0])
    kernel, bias = model.layers[1].get_weights()
    small = tfpeft.remove_constant_channels(model)
    assert list(small.channel_report.widths.values()) == [(5, 3), (3, 3)]
    np.testing.assert_allclose(small.layers[1].bias, bias + 0.5 * kernel[1], rtol=1e-6)
    np.testing.assert_allclose(small.layers[1].kernel, kernel[[0, 2, 3]])
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-6)


def test_a_layer_without_bias_gets_one():
    model = sequential(
        layers.Conv2D(4, 3, activation="sigmoid"),
        layers.Conv2D(3, 3, use_bias=False),
        layers.BatchNormalization(),
    )
    zero(model.layers[0], [2], bias=0.0)  # sigmoid(0) = 0.5
    kernel = model.layers[1].kernel.numpy()
    small = tfpeft.remove_constant_channels(model)
    np.testing.assert_allclose(
        small.layers[1].bias, 0.5 * kernel[:, :, 2].sum(axis=(0, 1)), rtol=1e-5
    )
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


@pytest.mark.parametrize(
    ("second", "bias", "left"),
    [
        (lambda: layers.Conv2D(3, 3, padding="valid"), 1.0, 3),
        (lambda: layers.Conv2D(3, 1, padding="same"), 1.0, 3),
        (lambda: layers.Conv2D(3, 3, padding="same"), 1.0, 4),  # zeros at the border
        (lambda: layers.Conv2D(3, 3, padding="same"), -1.0, 3),  # relu(-1) = 0
        (lambda: layers.Conv2D(2, 3, groups=2), 1.0, 4),
        (lambda: layers.Conv2DTranspose(3, 3), 1.0, 4),
        (lambda: layers.Conv2DTranspose(3, 3), -1.0, 3),
        (lambda: layers.SeparableConv2D(3, 3), -1.0, 3),
    ],
)
def test_where_a_constant_is_the_same_everywhere(second, bias, left):
    model = sequential(layers.Conv2D(4, 3, activation="relu"), second())
    zero(model.layers[0], [0], bias=bias)
    if left == 4:
        with pytest.raises(NoMatchError, match="channels that are constant and can be removed"):
            tfpeft.remove_constant_channels(model)
        return
    small = tfpeft.remove_constant_channels(model)
    assert small.layers[0].filters == left
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


@pytest.mark.parametrize(
    ("between", "left"),
    [
        ([layers.MaxPooling2D(), layers.Dropout(0.5), layers.ELU()], 3),
        ([layers.AveragePooling2D(2), layers.Flatten()], 3),
        ([layers.GlobalAveragePooling2D()], 3),
        ([layers.ZeroPadding2D(), layers.Flatten()], 4),
        ([layers.UpSampling2D(), layers.Cropping2D(), layers.GlobalMaxPooling2D()], 3),
        ([layers.Permute((3, 1, 2)), layers.Reshape((4, -1)), layers.Permute((2, 1))], 3),
    ],
)
def test_a_constant_passes_through_layers_without_weights(between, left):
    between = [layer.from_config(layer.get_config()) for layer in between]
    model = sequential(layers.Conv2D(4, 3), *between, layers.Dense(2))
    zero(model.layers[0], [3], bias=0.25)
    if left == 4:
        with pytest.raises(NoMatchError):
            tfpeft.remove_constant_channels(model)
        return
    small = tfpeft.remove_constant_channels(model)
    assert small.layers[0].filters == left
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


def test_batch_normalization_makes_constants_by_its_scale_and_moves_others():
    model = sequential(
        layers.Conv2D(5, 3), layers.BatchNormalization(), layers.ReLU(), layers.Conv2D(2, 3)
    )
    zero(model.layers[0], [0], bias=0.3)
    norm = model.layers[1]
    gamma = norm.gamma.numpy()
    gamma[2] = 0.0
    norm.gamma.assign(gamma)
    small = tfpeft.remove_constant_channels(model)
    assert small.layers[0].filters == 3
    np.testing.assert_array_equal(small.layers[1].gamma, gamma[[1, 3, 4]])
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


def test_channels_that_are_added_go_if_their_sum_is_constant():
    inputs = keras.Input((6,))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    added = layers.Add()([a, b])
    model = random_weights(keras.Model(inputs, layers.Dense(2)(added)))
    zero(model.get_layer("a"), [0, 1], bias=1.0)
    zero(model.get_layer("b"), [1, 2], bias=2.0)  # 1 is constant in both
    small = tfpeft.remove_constant_channels(model)
    assert small.get_layer("a").units == small.get_layer("b").units == 3
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


def test_a_layer_called_twice_has_one_bias():
    inputs = keras.Input((6,))
    first, second, head = layers.Dense(4), layers.Dense(4), layers.Dense(2)
    model = keras.Model(inputs, layers.Add()([head(first(inputs)), head(second(inputs))]))
    random_weights(model)
    zero(first, [0, 1], bias=1.0)
    zero(second, [0, 1], bias=[1.0, 2.0])  # 1 has another value in the second call
    small = tfpeft.remove_constant_channels(model)
    assert [layer.units for layer in small.layers if isinstance(layer, layers.Dense)][:2] == [3, 3]
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


def test_a_layer_keeps_a_channel_and_the_model_is_as_before():
    model = sequential(layers.Dense(3, activation="relu"), layers.Dense(2), shape=(4,))
    zero(model.layers[0], [0, 1, 2], bias=1.0)
    before = model.get_weights()
    small = tfpeft.remove_constant_channels(model)
    assert small.layers[0].units == 1
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-6)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_what_proximal_group_l1_made_zero_goes():
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            layers.Dense(16, activation="relu", name="hidden"),
            layers.Dense(2, name="head"),
        ]
    )
    optimizer = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.1), 0.2, exclude=["head"])
    model.compile(optimizer, "mse")
    model.fit(x, x[:, :2], epochs=8, batch_size=8, verbose=0)
    model = tfpeft.strip_pruning(model)
    zeros = int(np.sum(~model.layers[0].kernel.numpy().any(axis=0)))
    assert 0 < zeros < 16
    small = tfpeft.remove_constant_channels(model)
    assert small.layers[0].units == 16 - zeros
    np.testing.assert_allclose(outputs(small), outputs(model), atol=1e-5)


def test_recurrent_and_excluded_layers_keep_their_channels():
    model = sequential(layers.LSTM(4), layers.Dense(3, name="d"), layers.Dense(2), shape=(5, 3))
    model.layers[0].set_weights([np.zeros_like(w) for w in model.layers[0].get_weights()])
    zero(model.layers[1], [0])
    with pytest.raises(NoMatchError):
        tfpeft.remove_constant_channels(model, exclude=["d"])
    small = tfpeft.remove_constant_channels(model)
    assert small.layers[0].units == 4
    assert small.layers[1].units == 2


def test_outputs_that_differ_are_an_error(monkeypatch):
    model = sequential(layers.Dense(5, activation="relu"), layers.Dense(3), shape=(4,))
    zero(model.layers[0], [1], bias=0.5)
    constants = "tfpeft.channels.constants._Constants.biases"
    monkeypatch.setattr(constants, lambda self, removed: {})
    with pytest.raises(
        InputError, match="same outputs, to 0.0001 .* Received: outputs that differ"
    ):
        tfpeft.remove_constant_channels(model)
    tfpeft.remove_constant_channels(model, verify=False)
