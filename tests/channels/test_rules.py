"""Which slices of which weights go with a channel, by hand; outputs with zeros put in by hand."""

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
    widths,
    with_random_weights,
    without,
)
from tfpeft.channels.plan import Plan


def conv_block(x):
    x = layers.Conv2D(4, 2, name="a")(x)
    x = layers.ReLU()(layers.BatchNormalization(name="norm")(x))
    return flat(layers.Conv2D(3, 2, name="b")(x))


def shared_twice(x):
    dense = layers.Dense(4, activation="relu", name="b")
    return head(dense(dense(layers.Dense(4, name="a")(x))))


def squeeze_excite(x):
    x = layers.Conv2D(4, 1, name="a")(x)
    y = layers.Dense(2, "relu", name="squeeze")(layers.GlobalAveragePooling2D()(x))
    y = layers.Dense(4, "sigmoid", name="excite")(y)
    return head(layers.GlobalMaxPooling2D()(layers.Multiply()([x, layers.Reshape((1, 1, 4))(y)])))


def glu(x):
    a, b = ops.split(layers.Dense(6, name="a")(x), 2, axis=-1)
    return head(a * ops.sigmoid(b))


def heads_by_hand(x):
    x = layers.Reshape((3, 2, 2))(layers.Dense(4, name="a")(x))  # two heads of two
    x = layers.Permute((2, 1, 3))(x)
    return head(ops.mean(x, axis=(2,))[:, 1])


def nested(x):
    inner = keras.Input((4,))
    model = keras.Model(inner, layers.Dense(3, name="b")(layers.ReLU()(inner)), name="inner")
    return head(model(layers.Dense(4, name="a")(x)))


def attention(layer):
    def build(x):
        return head(layer(x, layers.Dense(3, name="memory")(x)))

    return build


C = [1]  # the channel that is removed


# name: (shape of a sample, function of the input, layer, its channels that are removed,
#     {layer: {number of a weight: {axis: slices that go}}},
#     {layer: {number of a weight: {axis: slices of it that consume what goes}}})
CASES = {
    "dense": (
        *((3,), lambda x: head(layers.Dense(4, "relu", name="a")(x)), "a", C),
        *({"a": {0: {1: C}, 1: {0: C}}}, {"head": {0: {0: C}}}),
    ),
    "dense without bias on positions": (
        *((3, 2), lambda x: head(layers.Dense(4, use_bias=False, name="a")(x)), "a", C),
        *({"a": {0: {1: C}}}, {"head": {0: {0: C}}}),
    ),
    "convolution, normalization": (
        *((5, 5, 2), conv_block, "a", C),
        {"a": {0: {3: C}, 1: {0: C}}, "norm": {i: {0: C} for i in range(4)}},
        {"b": {0: {2: C}}},
    ),
    "flatten": (  # 4 positions of 3 channels
        *((5, 5, 2), conv_block, "b", C),
        *({"b": {0: {3: C}, 1: {0: C}}}, {"head": {0: {0: [1 + 3 * i for i in range(9)]}}}),
    ),
    "flatten of channels first": (
        (2, 2, 2),
        lambda x: flat(layers.Permute((3, 1, 2))(layers.Conv2D(3, 1, name="a")(x))),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}}, {"head": {0: {0: [4, 5, 6, 7]}}}),
    ),
    "flatten with data_format channels first": (
        (2, 2, 2),
        lambda x: head(
            layers.Flatten("channels_first")(
                layers.Permute((3, 1, 2))(layers.Conv2D(3, 1, name="a")(x))
            )
        ),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}}, {"head": {0: {0: [1, 4, 7, 10]}}}),
    ),
    "Conv1D": (
        (5, 2),
        lambda x: flat(layers.Conv1D(2, 2, name="b")(layers.Conv1D(3, 2, name="a")(x))),
        *("a", C, {"a": {0: {2: C}, 1: {0: C}}}, {"b": {0: {1: C}}}),
    ),
    "Conv3D": (
        (3, 3, 3, 2),
        lambda x: flat(layers.Conv3D(2, 2, name="b")(layers.Conv3D(3, 2, name="a")(x))),
        *("a", C, {"a": {0: {4: C}, 1: {0: C}}}, {"b": {0: {3: C}}}),
    ),
    "transposed": (
        (2, 2, 2),
        lambda x: flat(
            layers.Conv2DTranspose(2, 2, name="b")(layers.Conv2DTranspose(3, 2, name="a")(x))
        ),
        *("a", C, {"a": {0: {2: C}, 1: {0: C}}}, {"b": {0: {3: C}}}),
    ),
    "depthwise with a multiplier": (
        (3, 3, 2),
        lambda x: flat(
            layers.Conv2D(2, 1, name="b")(
                layers.DepthwiseConv2D(2, depth_multiplier=2, name="d")(
                    layers.Conv2D(3, 1, name="a")(x)
                )
            )
        ),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}, "d": {0: {2: C}, 1: {0: [2, 3]}}}),
        {"b": {0: {2: [2, 3]}}},
    ),
    "separable with a multiplier": (
        (3, 3, 2),
        lambda x: flat(
            layers.SeparableConv2D(2, 2, depth_multiplier=2, name="s")(
                layers.Conv2D(3, 1, name="a")(x)
            )
        ),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}, "s": {0: {2: C}}}, {"s": {1: {2: [2, 3]}}}),
    ),
    "groups: the same place in each": (
        (3, 3, 2),
        lambda x: flat(layers.Conv2D(4, 2, groups=2, name="g")(layers.Conv2D(6, 1, name="a")(x))),
        *("a", C, {"a": {0: {3: [1, 4]}, 1: {0: [1, 4]}}}, {"g": {0: {2: C}}}),
    ),
    "outputs of groups: the same place in each": (
        (2, 2, 4),
        lambda x: flat(layers.Conv2D(4, 2, groups=2, name="g")(x)),
        *("g", C, {"g": {0: {3: [1, 3]}, 1: {0: [1, 3]}}}, {"head": {0: {0: [1, 3]}}}),
    ),
    "a group for each channel": (
        (3, 3, 2),
        lambda x: flat(
            layers.Conv2D(2, 1, name="b")(
                layers.Conv2D(6, 2, groups=3, name="g")(layers.Conv2D(3, 1, name="a")(x))
            )
        ),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}, "g": {0: {3: [2, 3]}, 1: {0: [2, 3]}}}),
        {"b": {0: {2: [2, 3]}}},
    ),
    "SimpleRNN": (
        *((3, 2), lambda x: head(layers.SimpleRNN(3, name="r")(x)), "r", C),
        {"r": {0: {1: C}, 1: {1: C}, 2: {0: C}}},
        {"r": {1: {0: C}}, "head": {0: {0: C}}},
    ),
    "LSTM": (
        *((3, 2), lambda x: head(layers.LSTM(3, name="r")(x)), "r", C),
        {"r": {0: {1: [1, 4, 7, 10]}, 1: {1: [1, 4, 7, 10]}, 2: {0: [1, 4, 7, 10]}}},
        {"r": {1: {0: C}}, "head": {0: {0: C}}},
    ),
    "GRU": (
        (3, 2),
        lambda x: flat(layers.GRU(3, return_sequences=True, name="r")(x)),
        *("r", C, {"r": {0: {1: [1, 4, 7]}, 1: {1: [1, 4, 7]}, 2: {1: [1, 4, 7]}}}),
        {"r": {1: {0: C}}, "head": {0: {0: [1, 4, 7]}}},
    ),
    "inputs of a GRU, and its bias of one row": (
        (3, 2),
        lambda x: head(layers.GRU(2, reset_after=False, name="r")(layers.Dense(3, name="a")(x))),
        *("a", C, {"a": {0: {1: C}, 1: {0: C}}}, {"r": {0: {0: C}}}),
    ),
    "Bidirectional": (
        *((3, 2), lambda x: head(layers.Bidirectional(layers.GRU(3, name="r"), name="b")(x))),
        *("forward_r", C),
        {"b": {0: {1: [1, 4, 7]}, 1: {1: [1, 4, 7]}, 2: {1: [1, 4, 7]}}}
        | {"b ": {3: {1: [1, 4, 7]}, 4: {1: [1, 4, 7]}, 5: {1: [1, 4, 7]}}},
        {"b": {1: {0: C}, 4: {0: C}}, "head": {0: {0: [1, 4]}}},
    ),
    "Embedding": (
        *((3,), lambda x: flat(layers.Embedding(5, 3, name="e")(x)), "e", C),
        *({"e": {0: {1: C}}}, {"head": {0: {0: [1, 4, 7]}}}),
    ),
    "a head": (
        *((3, 4), attention(layers.MultiHeadAttention(3, 2, value_dim=5, name="m")), "m", C),
        {"m": {i: {1 - i % 2: C} for i in range(6)}},
        {"m": {6: {0: C}}},
    ),
    "heads of queries that share keys": (
        *((3, 3), attention(layers.GroupQueryAttention(2, 4, 2, name="m")), "m", C),
        {"m": {0: {1: [2, 3]}, 1: {0: [2, 3]}} | {i: {1 - i % 2: C} for i in range(2, 6)}},
        {"m": {6: {0: [2, 3]}}},
    ),
    "keys and values of attention": (
        *((3, 4), attention(layers.MultiHeadAttention(3, 2, name="m")), "memory", C),
        {"memory": {0: {1: C}, 1: {0: C}}},
        {"m": {2: {0: C}, 4: {0: C}}},
    ),
    "EinsumDense": (
        (3, 2),
        lambda x: head(layers.EinsumDense("abc,cd->abd", (3, 4), bias_axes="d", name="e")(x)),
        *("e", C, {"e": {0: {1: C}, 1: {0: C}}}, {"head": {0: {0: C}}}),
    ),
    "inputs of an EinsumDense with a matrix a channel": (
        (3, 2),
        lambda x: flat(
            layers.EinsumDense("abc,cd->abcd", (3, 4, 2), name="e")(layers.Dense(4, name="a")(x))
        ),
        *("a", C, {"a": {0: {1: C}, 1: {0: C}}, "e": {0: {0: C}}}),
        {"head": {0: {0: [8 * t + 2 + d for t in range(3) for d in range(2)]}}},
    ),
    "concatenate": (
        (3,),
        lambda x: head(
            layers.Concatenate()([layers.Dense(3, name="a")(x), layers.Dense(4, name="b")(x), x])
        ),
        *("b", C, {"b": {0: {1: C}, 1: {0: C}}}, {"head": {0: {0: [4]}}}),
    ),
    "a residual path": (
        *((3,), residual, "c", C),
        {"a": {0: {1: C}, 1: {0: C}}, "c": {0: {1: C}, 1: {0: C}}},
        {"b": {0: {0: C}}, "head": {0: {0: C}}},
    ),
    "squeeze and excite": (
        *((3, 3, 2), squeeze_excite, "a", C),
        {"a": {0: {3: C}, 1: {0: C}}, "excite": {0: {1: C}, 1: {0: C}}},
        {"squeeze": {0: {0: C}}, "head": {0: {0: C}}},
    ),
    "PReLU": (
        (2, 2, 2),
        lambda x: flat(layers.PReLU(name="p")(layers.Conv2D(3, 1, name="a")(x))),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}, "p": {0: {2: C}}}),
        {"head": {0: {0: [1, 4, 7, 10]}}},
    ),
    "PReLU of each value after Flatten": (
        (2, 2, 2),
        lambda x: head(layers.PReLU(name="p")(layers.Flatten()(layers.Conv2D(3, 1, name="a")(x)))),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}, "p": {0: {0: [1, 4, 7, 10]}}}),
        {"head": {0: {0: [1, 4, 7, 10]}}},
    ),
    "GroupNormalization with a group per channel": (
        (2, 2, 2),
        lambda x: flat(layers.GroupNormalization(3, name="n")(layers.Conv2D(3, 1, name="a")(x))),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}, "n": {0: {0: C}, 1: {0: C}}}),
        {"head": {0: {0: [1, 4, 7, 10]}}},
    ),
    "a layer called twice": (
        *((3,), shared_twice, "a", C),
        {"a": {0: {1: C}, 1: {0: C}}, "b": {0: {1: C}, 1: {0: C}}},
        {"b": {0: {0: C}}, "head": {0: {0: C}}},
    ),
    "a nested model": (
        *((3,), nested, "a", C),
        *({"a": {0: {1: C}, 1: {0: C}}}, {"inner": {0: {0: C}}}),
    ),
    "TimeDistributed": (
        (3, 2),
        lambda x: flat(layers.TimeDistributed(layers.Dense(4, name="a"), name="t")(x)),
        *("a", C, {"t": {0: {1: C}, 1: {0: C}}}, {"head": {0: {0: [1, 5, 9]}}}),
    ),
    "gated linear unit": (
        *((3,), glu, "a", C),
        *({"a": {0: {1: [1, 4]}, 1: {0: [1, 4]}}}, {"head": {0: {0: C}}}),
    ),
    "heads by reshape: the same place in each": (
        *((3, 2), heads_by_hand, "a", C),
        *({"a": {0: {1: [1, 3]}, 1: {0: [1, 3]}}}, {"head": {0: {0: C}}}),
    ),
    "what moves positions": (
        (4, 4, 2),
        lambda x: head(
            layers.GlobalMaxPooling2D()(
                layers.Cropping2D(1)(
                    layers.UpSampling2D(2)(
                        layers.ZeroPadding2D(1)(
                            layers.AveragePooling2D(2)(layers.Conv2D(3, 1, name="a")(x))
                        )
                    )
                )
            )
        ),
        *("a", C, {"a": {0: {3: C}, 1: {0: C}}}, {"head": {0: {0: C}}}),
    ),
    "an operation that is run to see what it does": (
        (3,),
        lambda x: head(ops.flip(layers.Lambda(lambda t: t * t)(layers.Dense(4, name="a")(x)), -1)),
        *("a", C, {"a": {0: {1: C}, 1: {0: C}}}, {"head": {0: {0: [2]}}}),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_slices_that_go_with_a_channel_and_the_outputs_without_it(name):
    shape, build, layer, channels, gone, consumed = CASES[name]
    model = functional(shape, build, dtype="int32" if name == "Embedding" else "float32")
    small = without(model, {layer: channels})
    changes = {}
    for places in (gone, consumed):
        for owner, weights in places.items():
            for number, axes in weights.items():
                changes.setdefault((owner.strip(), number), {}).update(axes)
    for old, new in zip(model.layers, small.layers, strict=True):
        pairs = zip(old.get_weights(), new.get_weights(), strict=True)
        for number, (before, after) in enumerate(pairs):
            for axis, slices in changes.pop((old.name, number), {}).items():
                before = np.delete(before, slices, axis)
            np.testing.assert_array_equal(after, before, f"{old.name}, weight {number}")
    assert not changes
    rng = np.random.default_rng(3)
    x = rng.normal(size=(4, *shape)) if name != "Embedding" else rng.integers(0, 5, (4, *shape))
    for owner, weights in consumed.items():
        values = model.get_layer(owner).get_weights()
        for number, axes in weights.items():
            for axis, slices in axes.items():
                np.moveaxis(values[number], axis, 0)[slices] = 0.0
        model.get_layer(owner).set_weights(values)
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("merge", [None, "concat", "sum", "mul", "ave"])
def test_both_directions_lose_the_same_units(merge):
    def build(x):
        lstm = layers.LSTM(4, return_state=True, name="r")
        made = layers.Bidirectional(lstm, merge_mode=merge, name="b")(x)
        return head(layers.Concatenate()(made))

    model = functional((3, 2), build)
    small = without(model, {"forward_r": [0, 2]}, verify=True)
    inner = small.get_layer("b")
    assert [inner.forward_layer.units, inner.backward_layer.units] == [2, 2]


@pytest.mark.parametrize("normalize", [False, True])
def test_a_dot_product_loses_a_place_of_both(normalize):
    def build(x):
        a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
        return head(layers.Dot(1, normalize=normalize)([a, b]))

    model = functional((3,), build)
    small = without(model, {"a": [1]}, verify=True)
    x = np.random.default_rng(0).normal(size=(4, 3)).astype("float32")
    a, b = (x @ w + c for w, c in (model.get_layer(name).get_weights() for name in "ab"))
    a, b = np.delete(a, 1, 1), np.delete(b, 1, 1)
    if normalize:
        a, b = (each / np.linalg.norm(each, axis=1, keepdims=True) for each in (a, b))
    kernel, bias = model.get_layer("head").get_weights()
    expected = np.sum(a * b, axis=1, keepdims=True) @ kernel + bias
    np.testing.assert_allclose(small(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("contract", ["matmul", "einsum", "Dot"])
def test_a_product_of_two_tensors_loses_a_place_of_both(contract):
    def build(x):
        a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
        c = layers.Dense(3, name="c")(x)
        scores = {
            "matmul": lambda: ops.matmul(a, ops.transpose(b, (0, 2, 1))),
            "einsum": lambda: ops.einsum("btc,bsc->bts", a, b),
            "Dot": lambda: layers.Dot(2)([a, b]),
        }[contract]()
        return head(ops.matmul(scores, c))

    model = functional((5, 3), build)
    assert widths(model) == {"a": 4, "b": 4, "c": 3, "head": 0}
    small = without(model, {"a": [1], "c": [0, 2]}, verify=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    a, b, c = (x @ w + v for w, v in (model.get_layer(name).get_weights() for name in "abc"))
    a, b = np.delete(a, 1, 2), np.delete(b, 1, 2)
    kernel, bias = model.get_layer("head").get_weights()
    mixed = a @ b.transpose(0, 2, 1) @ c[..., 1:2]
    np.testing.assert_allclose(small(x), mixed @ kernel[1:2] + bias, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    "layer",
    [
        layers.LayerNormalization(name="n"),
        layers.LayerNormalization(center=False, scale=False, name="n"),
        layers.LayerNormalization(rms_scaling=True, name="n"),
        layers.RMSNormalization(name="n"),
    ],
    ids=["layer", "layer without weights", "layer with rms_scaling", "rms"],
)
def test_statistics_over_channels_are_of_the_channels_that_are_left(layer):
    def build(x):
        return head(type(layer).from_config(layer.get_config())(layers.Dense(5, name="a")(x)))

    model = functional((3, 2), build)
    with pytest.raises(tfpeft.NoMatchError, match="statistics over the channels"):
        Plan(model)
    small = without(model, {"a": [1, 4]}, verify=True, through_statistics=True)
    x = np.random.default_rng(0).normal(size=(4, 3, 2)).astype("float32")
    kernel, bias = model.get_layer("a").get_weights()
    values = np.delete(x @ kernel + bias, [1, 4], axis=-1)
    mean = 0.0 if isinstance(layer, layers.RMSNormalization) else values.mean(-1, keepdims=True)
    variance = np.mean(np.square(values - mean), axis=-1, keepdims=True)
    shift = 0.0 if getattr(layer, "rms_scaling", False) else mean
    values = (values - shift) / np.sqrt(variance + layer.epsilon)
    scale, *offset = [np.delete(w, [1, 4]) for w in model.get_layer("n").get_weights()] or [1.0]
    values = values * scale + (offset[0] if offset else 0.0)
    kernel, bias = model.get_layer("head").get_weights()
    expected = values @ np.delete(kernel, [1, 4], axis=0) + bias
    np.testing.assert_allclose(small(x), expected, rtol=1e-3, atol=1e-4)


def test_a_sum_that_is_called_twice():
    inner = keras.Input((3, 4))
    product = keras.Model(inner, ops.matmul(inner, ops.transpose(inner, (0, 2, 1))))
    inputs = keras.Input((3, 4))
    a, b = layers.Dense(4, name="a")(inputs), layers.Dense(4, name="b")(inputs)
    model = with_random_weights(keras.Model(inputs, [flat(product(a)), product(b)]))
    small = without(model, {"b": [1]}, verify=True)  # a's goes with it
    assert small.channel_report.widths["a"] == (4, 3)


def test_masks_are_of_positions():
    tokens = keras.Input((5,), dtype="int32")
    mask = keras.Input((5,), dtype="bool")
    x = layers.Embedding(9, 4, mask_zero=True, name="e")(tokens)
    x = layers.Bidirectional(layers.LSTM(3, return_sequences=True, name="r"), name="b")(x)
    x = layers.MultiHeadAttention(2, 2, name="m")(x, x)
    x = layers.GRU(3, return_sequences=True, name="g")(x, mask=mask)
    x = layers.GlobalAveragePooling1D()(x, mask=mask)
    model = with_random_weights(keras.Model([tokens, mask], head(x)))
    small = without(model, {"e": [1], "forward_r": [0], "m": [1], "g": [2]}, verify=True)
    kept = {name: after for name, (_, after) in small.channel_report.widths.items()}
    assert kept == {
        **{"e": 3, "b/forward_r": 2, "b/backward_r": 2, "m": 1, "g": 2},
        "head": 2,
    }


def test_sides_that_are_free():
    inputs = keras.Input((None, None, 2))
    x = layers.Conv2D(4, 3, padding="same", name="a")(inputs)
    gate = layers.Dense(4, "sigmoid")(layers.GlobalAveragePooling2D(keepdims=True)(x))
    x = layers.Reshape((-1, 4))(x * gate)
    x = layers.Dense(3, name="b")(layers.Reshape((-1, 2, 2))(x))
    model = with_random_weights(keras.Model(inputs, head(x)))
    small = without(model, {"b": [1]}, verify=True)
    x = np.random.default_rng(0).normal(size=(2, 5, 7, 2)).astype("float32")
    values = model.get_layer("head").get_weights()
    values[0][1] = 0.0
    model.get_layer("head").set_weights(values)
    np.testing.assert_allclose(small(x), model(x), rtol=1e-4, atol=1e-5)


def test_a_layer_that_is_called_at_each_step_and_by_itself():
    inputs = keras.Input((3, 4))
    dense = layers.Dense(5, name="d")
    steps = layers.GlobalMaxPooling1D()(layers.TimeDistributed(dense, name="t")(inputs))
    whole = dense(layers.GlobalAveragePooling1D()(inputs))
    model = with_random_weights(keras.Model(inputs, head(layers.Concatenate()([steps, whole]))))
    small = without(model, {"d": [1]}, verify=True)
    assert small.get_layer("head").kernel.shape == (8, 2)
