"""Adapters on layers whose weights are used otherwise than by their own call: named, or right."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.adapters import mergeable
from tfpeft.core.arguments import InputError
from tfpeft.core.same_outputs import in_float32

L = keras.layers
rng = np.random.default_rng(0)
X = rng.normal(size=(4, 3)).astype("float32")
TOKENS = rng.integers(0, 9, (4, 5))


def predict(model, x):
    return np.asarray(model(x, training=False))


def dense(*layers, shape=(3,)):
    return keras.Sequential([keras.Input(shape), *layers, L.Dense(2, name="top")])


def with_keras_lora():
    model = dense(L.Dense(4, name="a"))
    model.layers[0].enable_lora(1)
    for weight in model.layers[0].weights:
        weight.assign(rng.normal(size=weight.shape))
    return model


def quantized(mode):
    model = keras.Sequential([keras.Input((8,)), L.Dense(4, name="a")])
    model.quantize(mode)
    return model


def reversible():
    table, inputs = L.ReversibleEmbedding(9, 4, name="a"), keras.Input((5,), dtype="int32")
    return keras.Model(inputs, table(L.Dense(4, name="inner")(table(inputs)), reverse=True))


class Tied(keras.Model):
    """Logits by the table of the tokens."""

    def __init__(self):
        super().__init__()
        self.a, self.inner = L.Embedding(9, 4, name="a"), L.Dense(4, name="inner")

    def call(self, tokens):
        return keras.ops.matmul(self.inner(self.a(tokens)), keras.ops.transpose(self.a.embeddings))

    def get_config(self):
        return {}


def tied():
    model = Tied()
    model(TOKENS)
    return model


class UsesKernel(L.Layer):
    """Reads the kernel of a layer that it also calls."""

    def __init__(self, name="uses"):
        super().__init__(name=name)
        self.a = L.Dense(3, name="a")

    def call(self, x):
        return keras.ops.matmul(self.a(x), self.a.kernel)

    def get_config(self):
        return {"name": self.name}


class Projection(L.Dense):
    def project(self, x):
        return keras.ops.matmul(x, self.kernel)


class CallsProject(L.Layer):
    """Calls a layer by another method than `call`."""

    def __init__(self, name="calls"):
        super().__init__(name=name)
        self.a = Projection(3, name="a")

    def build(self, shape):
        self.a.build(shape)

    def call(self, x):
        return self.a.project(x)

    def get_config(self):
        return {"name": self.name}


class Halved(L.Dense):
    def call(self, x):
        return 0.5 * super().call(x) + 1.0


class Shifted(L.Dense):
    def call(self, x):
        return super().call(x) + 2.0 * keras.ops.matmul(x, self.kernel)


class Normalized(L.Wrapper):
    """Changes the kernel of its layer in each call, as weight normalisation does."""

    def call(self, x):
        self.layer.kernel.assign(self.layer.kernel / keras.ops.norm(self.layer.kernel))
        return self.layer(x)


MISUSED = {
    "Keras's own LoRA": with_keras_lora,
    "int8": lambda: quantized("int8"),
    "int4": lambda: quantized("int4"),
    "a reversible embedding": reversible,
    "a table tied by hand": tied,
    "a kernel read by another layer": lambda: dense(UsesKernel()),
    "a method beside call": lambda: dense(CallsProject()),
    "a custom call": lambda: dense(Halved(4, name="a")),
    "weights changed in each call": lambda: dense(Normalized(L.Dense(4, name="a"))),
    "weights changed in training": lambda: dense(L.SpectralNormalization(L.Dense(4, name="a"))),
}


TABLES = ("a reversible embedding", "a table tied by hand")  # which IA3 does not take


@pytest.mark.parametrize(
    ("name", "method"),
    [(name, tfpeft.LoRA) for name in MISUSED]
    + [(name, tfpeft.IA3) for name in MISUSED if name not in TABLES],
)
def test_layers_that_cannot_be_merged_are_named_before_training(name, method):
    model = MISUSED[name]()
    before = model.get_weights()
    with pytest.raises(InputError, match=r"Received: '(\w+/)?a', with") as error:
        tfpeft.add_adapters(model, method(target="a"))
    assert "\n" not in str(error.value)
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


def test_the_reason_is_given():
    with pytest.raises(InputError, match="with Keras's own LoRA, which is merged in a model that"):
        tfpeft.add_adapters(with_keras_lora(), tfpeft.LoRA(2))
    with pytest.raises(InputError, match=r"weights that are quantized \(int8\)"):
        tfpeft.add_adapters(quantized("int8"), tfpeft.LoRA(2))


def test_an_adapter_that_is_added_later():
    adapted = tfpeft.add_adapters(with_keras_lora(), tfpeft.LoRA(2, target="top"))
    with pytest.raises(InputError, match="Received: 'a', with Keras's own LoRA"):
        adapted.add(tfpeft.LoRA(2, target="a"), "second")
    assert list(adapted.adapters) == [adapted.active] == ["default"]
    with pytest.raises(InputError, match="Received: 'a', with Keras's own LoRA"):
        tfpeft.add_adapters(adapted, tfpeft.LoRA(2, target="a"), name="second")


def shared_norm():
    norm, inputs = L.LayerNormalization(name="a"), keras.Input((3,))
    return keras.Model(inputs, norm(L.Dense(3)(norm(inputs))))


def of_strings():
    lookup = L.StringLookup(vocabulary=["x", "y"], output_mode="one_hot")  # integers
    return keras.Sequential([keras.Input((1,), dtype="string"), lookup, L.Dense(4, name="a")])


RIGHT = {
    "beside a tied table": (tied, tfpeft.LoRA(2, target="inner"), TOKENS),
    "the bias beside Keras's LoRA": (with_keras_lora, tfpeft.BitFit(target="a"), X),
    "a norm that is called twice": (shared_norm, tfpeft.NormTuning(), X),
    "inputs that are integers": (of_strings, tfpeft.LoRA(2), tf.constant([["x"], ["y"], ["z"]])),
    "integers, scaled": (of_strings, tfpeft.IA3(input_target="a"), tf.constant([["x"], ["z"]])),
}


@pytest.mark.parametrize("name", RIGHT)
def test_what_merges_is_taken(name):
    make, method, x = RIGHT[name]
    model = make()
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    adapted = tfpeft.add_adapters(model, method)
    for weight in adapted.trainable_variables:
        weight.assign(weight + rng.normal(size=weight.shape))
    merged = tfpeft.merge_adapters(adapted)
    assert np.abs(predict(adapted, x) - predict(model, x)).max() > 1e-2
    np.testing.assert_allclose(predict(merged, x), predict(adapted, x), rtol=1e-4, atol=1e-5)


def deep(policy, count=10):
    keras.utils.set_random_seed(0)
    layers = [L.Dense(64, activation="relu", name=f"d{i}", dtype=policy) for i in range(count)]
    return keras.Sequential([keras.Input((8,)), *layers, L.Dense(3, name="top", dtype=policy)])


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
@pytest.mark.parametrize("method", [tfpeft.LoRA, tfpeft.IA3])
def test_rounding_in_many_layers_is_no_reason(policy, method):
    model, x = deep(policy), rng.normal(size=(4, 8)).astype("float32")
    adapted = tfpeft.add_adapters(model, method())
    assert {layer.dtype_policy.name for layer in model.layers[1:]} == {policy}
    for weight in adapted.trainable_variables:
        weight.assign(weight + 0.05 * rng.normal(size=weight.shape))
    merged = tfpeft.merge_adapters(adapted)
    for each in (model, merged):
        assert {layer.compute_dtype for layer in each.layers} == {policy.removeprefix("mixed_")}
    with in_float32(adapted, merged) as was_mixed:
        assert was_mixed
        expected = predict(adapted, x)
        limit = 1e-4 * np.abs(expected).max()
        np.testing.assert_allclose(predict(merged, x), expected, rtol=0, atol=limit)


def test_layers_of_mixed_precision_that_cannot_be_merged_are_named():
    model = deep("mixed_bfloat16")
    model.add(Halved(4, name="halved", dtype="mixed_bfloat16"))
    with pytest.raises(InputError, match="Received: 'halved', with"):
        tfpeft.add_adapters(model, tfpeft.LoRA())


@pytest.mark.parametrize(("custom", "most"), [((5,), 10), (range(8), 14)])
def test_the_search_for_what_is_to_blame_is_short(custom, most, monkeypatch):
    kinds = [Shifted if i in custom else L.Dense for i in range(16)]
    layers = [kind(3, name=f"d{i}") for i, kind in enumerate(kinds)]
    calls, gap = [], mergeable._merge_gap
    monkeypatch.setattr(mergeable, "_merge_gap", lambda *args: calls.append(1) or gap(*args))
    names = ", ".join(f"'d{i}'" for i in custom[:3]) + (" and more" if len(custom) > 3 else "")
    with pytest.raises(InputError, match=f"Received: {names}, with"):
        tfpeft.add_adapters(dense(*layers), tfpeft.LoRA(2))
    assert len(calls) <= most


def test_lora_of_integers_by_hand():
    model = keras.Sequential([keras.Input((3,), dtype="int32"), L.Dense(2, name="a")])
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=1, alpha=2))
    part = adapted.adapters["default"].parts[0]
    part.a.assign([[0.5], [0.25], [1.0]])
    part.b.assign([[1.0, -0.5]])
    x = np.array([[1, 2, 3]])
    change = 2.0 * (x @ [[0.5], [0.25], [1.0]]) @ [[1.0, -0.5]]  # 2 * 4 * (1, -0.5)
    np.testing.assert_allclose(predict(adapted, x) - predict(model, x), change, rtol=1e-5)


class TooLarge(tfpeft.AdapterMethod):
    """A custom method whose merged kernel is off by a factor."""

    def build(self, part, layer):
        part.scale = part.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, part, layer, call, inputs, *args, **kwargs):
        return part.scale * call(inputs, *args, **kwargs)

    def merged(self, part, layer):
        return {"kernel": 2.0 * part.scale * layer.kernel, "bias": part.scale * layer.bias}


class Doubles(tfpeft.AdapterMethod):
    """A custom method that does not begin as the identity."""

    def build(self, part, layer):
        part.scale = part.add_weight(name="scale", shape=(), initializer="ones")

    def call(self, part, layer, call, inputs, *args, **kwargs):
        return (1.0 + part.scale) * call(inputs, *args, **kwargs)


def test_custom_methods_are_checked():
    model = dense(L.Dense(4, name="a"))
    with pytest.raises(InputError, match="TooLarge can be merged. Received: 'a', 'top'"):
        tfpeft.add_adapters(model, TooLarge())
    with pytest.raises(InputError, match="begins as the identity, or .*Doubles, with which"):
        tfpeft.add_adapters(model, Doubles())
    Doubles.starts_as_identity = False
    try:
        adapted = tfpeft.add_adapters(model, Doubles(target="top"))
    finally:
        Doubles.starts_as_identity = True
    np.testing.assert_allclose(predict(adapted, X), 2.0 * predict(model, X), rtol=1e-5)


def test_a_merged_model_is_compared(monkeypatch):
    adapted = tfpeft.add_adapters(dense(L.Dense(4, name="a")), tfpeft.LoRA(2))
    for weight in adapted.trainable_variables:
        weight.assign(rng.normal(size=weight.shape))
    delta = tfpeft.LoRA.kernel_delta
    monkeypatch.setattr(
        tfpeft.LoRA,
        "kernel_delta",
        lambda self, part, layer: delta(self, part, layer) * (0.5 if layer.name == "a" else 1.0),
    )
    with pytest.raises(InputError, match="LoRA can be merged. Received: 'a', with"):
        tfpeft.merge_adapters(adapted)
