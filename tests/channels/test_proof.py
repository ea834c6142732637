"""The smaller model computes what the model with zeros does; and the proof catches wrong rules."""

import keras
import keras_hub
import numpy as np
import pytest
from keras import layers, ops

import tfpeft
from tests.channels.models import functional, random_models, with_random_weights
from tfpeft.channels import layer_rules, proof, unknown_layers
from tfpeft.channels.selection import SCOPES

REFUSALS = ("of which channels can be removed", "for which a channel has to be removed")
WITHOUT_DATA = ("l1", "l2", "fpgm", "random")


def pruned(model, **options):
    """Returns a pruned model; checks what holds for all."""
    before = model.get_weights()
    small = tfpeft.prune_channels(model, **{"ratio": 0.4, "importance": "random", **options})
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    for ours, theirs in ((small.inputs, model.inputs), (small.outputs, model.outputs)):
        assert [(x.shape, x.dtype) for x in ours] == [(x.shape, x.dtype) for x in theirs]
    assert small.output_names == model.output_names
    report = small.channel_report
    assert report.params == (model.count_params(), small.count_params())
    assert report.params[1] < report.params[0]
    assert report.macs[1] <= report.macs[0]
    assert report.difference <= proof.TOLERANCE
    return small


@pytest.mark.parametrize("seed", range(50))
def test_random_models(seed):
    rng = np.random.default_rng(seed)
    model = random_models.random_model(seed)
    options = {
        "importance": WITHOUT_DATA[seed % len(WITHOUT_DATA)],
        "scope": "layer",
        "through_statistics": bool(seed % 2),
        "seed": seed,
        "ratio": float(rng.uniform(0.4, 0.8)),
    }
    try:
        pruned(model, **options)
    except tfpeft.InputError as error:
        if not any(text in str(error) for text in REFUSALS):
            raise


def u_net():
    def block(x, width):
        x = layers.Conv2D(width, 3, padding="same", use_bias=False)(x)
        return layers.ReLU()(layers.BatchNormalization()(x))

    def build(x):
        a = block(x, 4)
        b = block(layers.MaxPooling2D()(a), 6)
        c = block(layers.MaxPooling2D()(b), 8)
        b = block(layers.Concatenate()([layers.Conv2DTranspose(6, 2, strides=2)(c), b]), 6)
        a = block(layers.Concatenate()([layers.UpSampling2D()(b), a]), 4)
        return layers.Conv2D(2, 1, activation="softmax")(a)

    return functional((8, 8, 3), build)


def dilated():
    def build(x):
        x = layers.Conv1D(6, 1)(x)
        for rate in (1, 2, 4):
            y = layers.Conv1D(6, 3, padding="causal", dilation_rate=rate, activation="relu")(x)
            x = layers.Add()([x, layers.Conv1D(6, 1)(layers.SpatialDropout1D(0.1)(y))])
        return layers.Dense(3)(layers.GlobalMaxPooling1D()(x))

    return functional((12, 2), build)


def tagger():
    def build(x):
        x = layers.Embedding(20, 8, mask_zero=True)(x)
        x = layers.Bidirectional(layers.LSTM(6, return_sequences=True))(x)
        x = layers.LSTM(5, return_sequences=True)(layers.Dropout(0.2)(x))
        return layers.TimeDistributed(layers.Dense(4, activation="softmax"))(x)

    return functional((6,), build, dtype="int32")


class Position(layers.Layer):
    """Adds a learnt vector to each position: weights whose axes are not known."""

    def build(self, shape):
        self.vectors = self.add_weight(shape=shape[1:], name="vectors")

    def call(self, x):
        return x + self.vectors


def vision_transformer():
    def build(x):
        x = layers.Reshape((-1, 8))(layers.Conv2D(8, 2, strides=2)(x))
        x = Position()(x)
        for _ in range(2):
            y = layers.LayerNormalization()(x)
            x = x + layers.MultiHeadAttention(4, 2)(y, y)
            y = layers.LayerNormalization()(x)
            x = x + layers.Dense(8)(layers.Dense(16, activation="gelu")(y))
        return layers.Dense(3)(layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x)))

    return functional((6, 6, 3), build)


def siamese():
    encoder = keras.Sequential(
        [
            *(keras.Input((6, 6, 1)), layers.Conv2D(6, 3), layers.BatchNormalization()),
            *(layers.ReLU(), layers.Flatten(), layers.Dense(5, name="code")),
        ],
        name="encoder",
    )
    left, right = keras.Input((6, 6, 1), name="left"), keras.Input((6, 6, 1), name="right")
    distance = ops.abs(encoder(left) - encoder(right))
    return with_random_weights(keras.Model([left, right], layers.Dense(1)(distance)))


def several():
    image, vector = keras.Input((6, 6, 2), name="image"), keras.Input((4,), name="vector")
    x = layers.GlobalAveragePooling2D()(layers.Conv2D(6, 3)(image))
    y = layers.Dense(6, "tanh")(vector)
    joined = layers.Concatenate()([x, y, layers.Maximum()([x, y])])
    outputs = {
        "label": layers.Dense(3, name="label")(joined),
        "gate": layers.Dense(2, name="gate")(x * y),
        "hidden": layers.Dense(3, name="hidden")(y),
    }
    return with_random_weights(keras.Model({"image": image, "vector": vector}, outputs))


def mini_xception():
    def build(x):
        x = layers.Conv2D(4, 3, padding="same")(x)
        for width in (6, 8):
            y = layers.BatchNormalization()(layers.Conv2D(width, 1, strides=2, padding="same")(x))
            for _ in range(2):
                x = layers.SeparableConv2D(width, 3, padding="same", use_bias=False)(x)
                x = layers.ReLU()(layers.BatchNormalization()(x))
            x = layers.Add()([layers.MaxPooling2D(3, 2, padding="same")(x), y])
        return layers.Softmax()(layers.GlobalAveragePooling2D()(layers.Conv2D(3, 3)(x)))

    return functional((12, 12, 1), build)


def bert():
    backbone = keras_hub.models.BertBackbone(
        vocabulary_size=30,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        intermediate_dim=12,
        max_sequence_length=8,
        dropout=0.0,
    )
    return with_random_weights(
        keras_hub.models.BertTextClassifier(backbone, num_classes=2, preprocessor=None)
    )


MODELS = {
    "u_net": u_net,
    "dilated": dilated,
    "tagger": tagger,
    "vision_transformer": vision_transformer,
    "siamese": siamese,
    "several": several,
    "mini_xception": mini_xception,
    "bert": bert,
}


@pytest.fixture(scope="module")
def built():
    """Returns a function that builds each model once."""
    models = {}

    def build(name):
        if name not in models:
            models[name] = MODELS[name]()
        return models[name]

    return build


@pytest.mark.parametrize("name", MODELS)
def test_architectures(built, name):
    model = built(name)
    for number, ratio in enumerate((0.3, 0.6)):
        scope = "layer" if name in ("bert", "vision_transformer") else SCOPES[number]
        pruned(model, ratio=ratio, scope=scope, importance=WITHOUT_DATA[number])


def test_what_goes_of_transformers_and_what_stays(built):
    widths = pruned(built("bert"), scope="layer", ratio=0.5).channel_report.widths
    found = {name.split("/")[-1]: pair for name, pair in widths.items()}
    assert found["transformer_layer_0"] == found["transformer_layer_1"] == (12, 6)
    assert found["segment_embedding"] == (8, 8)
    report = pruned(built("vision_transformer"), scope="layer", ratio=0.5).channel_report
    widths = list(report.widths.items())
    assert [pair for name, pair in widths if "attention" in name] == [(4, 2), (4, 2)]
    assert [pair for _, pair in widths if pair[0] == 16] == [(16, 8), (16, 8)]
    assert all(pair == (8, 8) for _, pair in widths if pair[0] == 8)  # the residual path
    assert "position is a Position, whose weights have unknown axes" in report.fixed.values()


APPLICATIONS = {
    "MobileNet": lambda **options: keras.applications.MobileNet(alpha=0.25, **options),
    "MobileNetV2": lambda **options: keras.applications.MobileNetV2(alpha=0.35, **options),
    "MobileNetV3": lambda **options: keras.applications.MobileNetV3Small(
        alpha=0.75, minimalistic=True, **options
    ),
}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_applications_to_half_their_macs(name):
    model = APPLICATIONS[name](weights=None, input_shape=(32, 32, 3), classes=4)
    small = pruned(with_random_weights(model), ratio=None, max_macs=0.5, importance="l2")
    before, after = small.channel_report.macs
    assert 0.4 * before < after <= 0.5 * before


# A rule with a mistake in it, and a model that has the layer, which the error has to name.


def _wrong_dense(graph, call, inputs):
    """The kernel consumes the channels in the opposite order."""
    axes = list(inputs[0].axes)
    axes[-1] = None if axes[-1] is None else axes[-1][::-1]
    return layer_rules.dense(graph, call, [inputs[0]._replace(axes=tuple(axes))])


def _wrong_normalization(graph, call, inputs):
    """Statistics of the neighbours."""
    (x,), layer = inputs, call.operation
    for variable in (layer.gamma, layer.beta, layer.moving_mean, layer.moving_variance):
        graph.slice(layer, variable, 0, np.roll(x.axes[-1], 1), "carries")
    return [x.axes]


def _wrong_flatten(graph, call, inputs):
    """Channels before positions."""
    (x,) = inputs
    return [(None, np.repeat(x.axes[-1], np.prod(x.shape[1:-1])))]


def _wrong_softmax(graph, call, inputs):
    return [inputs[0].axes]


def _wrong_recurrent(graph, call, inputs):
    """The slices of a unit beside each other, not a block for each gate."""
    layer, cell = call.operation, call.operation.cell
    graph.consume(cell, cell.kernel, 0, inputs[0].axes[2])
    made = graph.produce(cell, cell.kernel, 1, repeats=3)
    blocks = np.repeat(made, 3)
    graph.slice(cell, cell.recurrent_kernel, 0, made, "consumes")
    graph.slice(cell, cell.recurrent_kernel, 1, blocks, "produces")
    graph.slice(cell, cell.bias, 1, blocks, "produces")
    graph.size(layer, "units", made)
    return [(None, made)]


def _image_model():
    def build(x):
        x = layers.BatchNormalization(name="norm")(layers.Conv2D(6, 2, name="conv")(x))
        return layers.Dense(3, name="head")(layers.Flatten(name="flat")(layers.ReLU()(x)))

    return functional((4, 4, 2), build)


def _vector_model():
    def build(x):
        x = layers.Softmax(name="soft")(layers.Dense(6, name="first")(x))
        return layers.Dense(3, name="head")(layers.Dense(5, "relu", name="second")(x))

    return functional((4,), build)


def _vectors():
    def build(x):
        x = layers.Dense(5, "relu", name="second")(layers.Dense(6, name="first")(x))
        return layers.Dense(3, name="head")(x)

    return functional((4,), build)


def _sequence_model():
    return functional((4, 2), lambda x: layers.Dense(3, name="head")(layers.GRU(6, name="gru")(x)))


WRONG = {
    "dense": (layers.Dense, _wrong_dense, _vectors, "'second'"),
    "normalization": (layers.BatchNormalization, _wrong_normalization, _image_model, "'norm'"),
    "flatten": (layers.Flatten, _wrong_flatten, _image_model, "'flat'"),
    "softmax": (layers.Softmax, _wrong_softmax, _vector_model, "'soft'"),
    "recurrent": (layers.GRU, _wrong_recurrent, _sequence_model, "'gru'"),
}


@pytest.mark.parametrize("name", WRONG)
def test_a_wrong_rule_is_caught_and_its_layer_named(monkeypatch, name):
    kind, rule, build, layer = WRONG[name]
    monkeypatch.setitem(layer_rules._RULES, kind, rule)
    model = build()
    options = {"ratio": 0.5, "importance": "random", "seed": 4, "scope": "layer"}
    with pytest.raises(tfpeft.InputError, match=f"layer {layer}.*differ by"):
        tfpeft.prune_channels(model, **options)
    small = tfpeft.prune_channels(model, **options, verify=False)
    assert small.channel_report.difference is None
    assert "largest difference" not in str(small.channel_report)


def test_a_rule_that_forgets_a_weight_is_one_line_that_names_the_layer(monkeypatch):
    def forgetful(graph, call, inputs):
        graph.size(call.operation, "units", made := graph.produce(*_kernel(call), 1))
        graph.consume(*_kernel(call), 0, inputs[0].axes[-1])
        return [(*inputs[0].axes[:-1], made)]

    def _kernel(call):
        return call.operation, call.operation.kernel

    monkeypatch.setitem(layer_rules._RULES, layers.Dense, forgetful)
    with pytest.raises(tfpeft.InputError, match="layer 'first' .Dense., expected weights of shape"):
        tfpeft.prune_channels(_vectors(), ratio=0.5, importance="random")


def test_an_operation_that_only_seems_to_work_without_channels_is_caught(monkeypatch):
    monkeypatch.setattr(unknown_layers, "_works_without", lambda *args: True)
    model = functional(
        (4,),
        lambda x: layers.Dense(3)(
            layers.Lambda(lambda t: ops.roll(t, 2, axis=-1), name="roll")(layers.Dense(6)(x))
        ),
    )
    with pytest.raises(tfpeft.InputError, match="layer 'roll'"):
        tfpeft.prune_channels(model, ratio=0.5, importance="random", seed=1)


def test_layers_that_draw_numbers_of_their_own_are_named():
    model = functional(
        (4,),
        lambda x: layers.Dense(3)(
            layers.Dense(6)(
                layers.Lambda(
                    lambda t: t + np.random.default_rng().normal(size=(1, 1)), name="noise"
                )(x)
            )
        ),
    )
    with pytest.raises(tfpeft.InputError, match="layer 'noise'"):
        tfpeft.prune_channels(model, ratio=0.5, importance="l1")


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16", "float64"])
def test_other_precisions(policy):
    def build(x):
        x = layers.ReLU(dtype=policy)(layers.Conv2D(6, 3, dtype=policy)(x))
        x = layers.Dense(5, dtype=policy)(layers.Flatten(dtype=policy)(x))
        return layers.Dense(2, dtype="float32")(x)

    small = pruned(functional((5, 5, 2), build))
    assert [each.dtype_policy.name for each in small.layers[1:3]] == [policy] * 2
