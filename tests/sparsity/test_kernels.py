"""Which weights take part: kernels of Keras's layers by their role, others if they are named."""

import keras
import pytest

import tfpeft
from tests.networks import X, Y, compiled, train, zeros
from tfpeft.core.arguments import InputError, NoMatchError
from tfpeft.core.kernel_axes import is_kernel
from tfpeft.sparsity.kernels import skip_reasons

L = keras.layers


@keras.saving.register_keras_serializable("test_kernels")
class Tokens(L.Layer):
    """A custom layer whose weights have the names of kernels, but are none."""

    def build(self, shape):
        self.token = self.add_weight(name="class_token", shape=(1, shape[-1]))
        self.kernel = self.add_weight(name="kernel", shape=(shape[-1], shape[-1]))
        self.tables = [self.add_weight(name="position_kernel", shape=(1, shape[-1]))]
        self.inner = L.Embedding(3, shape[-1], name="inner")
        self.inner.build(None)

    def call(self, x):
        return x @ self.kernel + self.token + self.tables[0]


class Scaled(L.Dense):
    """A subclass of a layer with a kernel, with a weight of its own."""

    def build(self, shape):
        super().build(shape)
        self.extra = self.add_weight(name="scale_kernel", shape=(2, 2))


class Banked(keras.Model):
    """A model that holds a weight itself."""

    def __init__(self):
        super().__init__(name="banked")
        self.kernel = self.add_weight(name="kernel", shape=(2, 2))


class OfHub(L.Layer):
    def build(self, shape):
        self.kernel = self.add_weight(name="output_kernel", shape=(2, 3))
        self.table = self.add_weight(name="table", shape=(2, 3))


OfHub.__module__ = "keras_hub.src.layers.of_hub"


def names_of(layer, shape, **options):
    """Returns the names of a layer's trainable weights that take part."""
    if isinstance(shape, list):
        layer.build(*shape)
    elif shape is not None:
        layer.build(shape)
    variables = layer.trainable_variables
    reasons = skip_reasons(variables, **options)
    return [v.path.split("/")[-1] for v, why in zip(variables, reasons, strict=True) if why is None]


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (L.Dense(3), (None, 4), ["kernel"]),
        (L.EinsumDense("abc,cd->abd", (2, 3), bias_axes="bd"), (None, 2, 4), ["kernel"]),
        (L.Conv2DTranspose(3, 2), (None, 4, 4, 2), ["kernel"]),
        (L.DepthwiseConv1D(2), (None, 4, 2), ["kernel"]),
        (L.SeparableConv2D(3, 2), (None, 4, 4, 2), ["depthwise_kernel", "pointwise_kernel"]),
        (L.Bidirectional(L.GRU(2)), (None, 3, 2), ["kernel", "recurrent_kernel"] * 2),
        (L.ConvLSTM1D(2, 2), (None, 3, 4, 2), ["kernel", "recurrent_kernel"]),
        (L.MultiHeadAttention(2, 2), [(None, 3, 4)] * 2, ["kernel"] * 4),
        (L.GroupQueryAttention(2, 4, 2), [(None, 3, 4)] * 2, ["kernel"] * 4),
        (L.SpectralNormalization(L.Conv2D(2, 2)), (None, 4, 4, 2), ["kernel"]),
        (L.Embedding(5, 3), None, []),
        (L.PReLU(), (None, 3, 2), []),
        (L.STFTSpectrogram(frame_length=8, frame_step=4, fft_length=8), (None, 32, 1), []),
        (Tokens(), (None, 3), []),
        (Scaled(3), (None, 4), ["kernel"]),
        (OfHub(), (None, 2), ["output_kernel"]),
        (Banked(), None, []),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, L.Layer) else "",
)
def test_kernels_by_their_role(layer, shape, expected):
    assert names_of(layer, shape) == expected


def test_every_layer_of_keras_with_a_weight_named_kernel_is_known():
    known = [L.Conv1D, L.Conv3D, L.Conv3DTranspose, L.SeparableConv1D, L.SimpleRNNCell, L.LSTMCell]
    for cls in known:
        assert is_kernel(cls.__new__(cls), "kernel"), cls
    for cls in (L.Layer, L.Wrapper, L.RNN, keras.Model, L.BatchNormalization):
        assert not is_kernel(cls.__new__(cls), "kernel"), cls


def test_weights_of_frozen_layers_never_take_part():
    layer = L.Dense(3)
    layer.build((None, 4))
    layer.trainable = False
    assert skip_reasons(layer.variables, include=()) == ["not trainable", "rank 1: no kernel"]
    with pytest.raises(NoMatchError, match="`include`.*kernel"):
        skip_reasons(layer.variables, include=["kernel"])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"include": ["tokens"]}, ["class_token", "kernel", "position_kernel"]),
        ({"include": ["class_*"]}, ["class_token"]),
        ({"include": ["inner"]}, ["embeddings"]),
        ({"include": ["tokens/inner/*"]}, ["embeddings"]),
        ({"include": ["tokens"], "exclude": ["*kernel"]}, ["class_token"]),
        ({"include": ["*"]}, ["class_token", "kernel", "position_kernel", "embeddings"]),
    ],
)
def test_what_include_takes_in(options, expected):
    assert names_of(Tokens(name="tokens"), (None, 3), **options) == expected


def test_biases_of_an_included_block_stay_out_and_kernels_need_no_include():
    assert names_of(L.GRU(2, name="block"), (None, 3, 2), include=["block"]) == [
        "kernel",
        "recurrent_kernel",
    ]


@pytest.mark.parametrize(
    ("include", "error", "message"),
    [
        (["nothing"], NoMatchError, "`include`, expected names.*tokens/kernel.*'nothing'"),
        ("tokens", InputError, "`include`, expected a list or tuple of names.*'tokens'"),
        ([3], InputError, "`include`.*3"),
    ],
)
def test_bad_includes(include, error, message):
    with pytest.raises(error, match=message):
        names_of(Tokens(name="tokens"), (None, 3), include=include)


HALF = {"begin": 0.0, "total_steps": 2, "frequency": 1}
OPTIMIZERS = {
    "magnitude": lambda **k: tfpeft.MagnitudePruning(
        keras.optimizers.SGD(0.0), tfpeft.constant_sparsity(0.5, **HALF), **k
    ),
    "random": lambda **k: tfpeft.RandomPruning(
        keras.optimizers.SGD(0.0), tfpeft.constant_sparsity(0.5, **HALF), **k
    ),
    "rigl": lambda **k: tfpeft.RigL(keras.optimizers.SGD(0.0), 0.5, end_step=4, frequency=1, **k),
    "static": lambda **k: tfpeft.StaticSparse(keras.optimizers.SGD(0.0), 0.5, **k),
    "dropout": lambda **k: tfpeft.TargetedDropout(keras.optimizers.SGD(0.0), 0.5, 0.5, **k),
    "proximal": lambda **k: tfpeft.ProximalL1(keras.optimizers.SGD(0.0), 0.1, **k),
    "group": lambda **k: tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.0), 0.1, **k),
    "fixed": lambda **k: tfpeft.FixedMask(keras.optimizers.SGD(0.0), **k),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_every_optimizer_takes_include_and_saves_it(name):
    layer = Tokens(name="tokens")
    layer.build((None, 3))
    optimizer = OPTIMIZERS[name](include=["*tokens/kernel"])
    config = keras.saving.serialize_keras_object(optimizer)
    copy = keras.saving.deserialize_keras_object(config)
    copy.build(layer.trainable_variables)
    assert [v.path for v in copy.sparse_variables] == ["tokens/kernel"]
    assert "tokens/class_token" in copy.skipped
    assert "include" not in OPTIMIZERS[name]().get_config()  # as version 0.1.0 saved it


def test_an_included_weight_is_pruned_and_stripped(tmp_path):
    model = keras.Sequential([keras.Input((6,)), Tokens(name="tokens"), L.Dense(3, name="head")])
    model = compiled(model, OPTIMIZERS["magnitude"](include=["kernel"]))
    train(model, epochs=1)
    model.save(tmp_path / "model.keras")
    small = tfpeft.strip_pruning(keras.models.load_model(tmp_path / "model.keras"))
    tokens, head = small.layers
    assert (zeros(tokens.kernel), zeros(tokens.token), zeros(head.kernel)) == (18, 0, 9)


def test_sensitivity_and_rounds_take_include():
    model = keras.Sequential([keras.Input((6,)), Tokens(name="tokens"), L.Dense(3, name="head")])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    for include, kernels in (((), 1), (["*tokens/kernel"], 2)):
        found = tfpeft.layer_sensitivity(model, (X, Y), [0.5], include=include)
        assert len(found.rows) == kernels
    pruned = tfpeft.prune_iteratively(
        model,
        (X, Y),
        (X, Y),
        target_sparsity=0.5,
        step=0.5,
        tolerance=10.0,
        scope="layer",
        include=["*tokens/kernel"],
    ).model
    assert (zeros(pruned.layers[0].kernel), zeros(pruned.layers[0].token)) == (18, 0)


@keras.saving.register_keras_serializable("test_kernels")
class Regularized(L.Layer):
    def __init__(self, kernel_regularizer=None, **options):
        super().__init__(**options)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)

    def build(self, shape):
        self.kernel = self.add_weight(
            name="kernel", shape=(shape[-1], 2), regularizer=self.kernel_regularizer
        )

    def call(self, x):
        return x @ self.kernel

    def get_config(self):
        regularizer = keras.regularizers.serialize(self.kernel_regularizer)
        return {**super().get_config(), "kernel_regularizer": regularizer}


@pytest.mark.parametrize(
    ("options", "count"),
    [({}, 3), ({"include": ["own"]}, 4), ({"include": ["own", "words"]}, 5)],
)
def test_the_penalty_is_on_kernels_of_keras_and_on_what_is_named(options, count):
    layers = [L.Embedding(5, 3, name="words"), L.LSTM(2), Regularized(name="own"), L.Dense(1)]
    model = keras.Sequential([keras.Input((4,)), *layers])
    assert len(tfpeft.l1_regularize(model, 0.1, **options).losses) == count
    with pytest.raises(NoMatchError, match=r"`include`.*'nothing'"):
        tfpeft.l1_regularize(model, 0.1, include=["nothing"])
