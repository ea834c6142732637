"""Formulas of adapters by hand: one layer, and NumPy."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.adapters.models import X, predict, randomized, rng


class TestFormulas:
    """Outputs of one layer, by NumPy, once the adapter's weights are no longer the first ones."""

    def outputs(self, layer, shape, adapter, x):
        inputs = keras.Input(shape)
        built = keras.Model(inputs, layer(inputs))
        for weight in built.weights:
            weight.assign(rng.normal(size=weight.shape))
        adapted = randomized(tfpeft.add_adapters(built, adapter))
        part = adapted.adapters["default"].parts[0]
        return (
            predict(adapted, x),
            part,
            [w.astype("float64") for w in built.get_weights()],
        )

    @pytest.mark.parametrize("kind", ["lora", "dora"])
    def test_dense(self, kind):
        x = rng.normal(size=(4, 5)).astype("float32")
        adapter = {"lora": tfpeft.LoRA, "dora": tfpeft.DoRA}[kind](rank=2, alpha=3.0)
        layer = keras.layers.Dense(7, activation="tanh")
        found, part, (w, b) = self.outputs(layer, (5,), adapter, x)
        w = w + 1.5 * part.a.numpy() @ part.b.numpy()
        if kind == "dora":
            w = part.magnitude.numpy() * w / np.linalg.norm(w, axis=0)
        np.testing.assert_allclose(found, np.tanh(x @ w + b), rtol=1e-5, atol=1e-5)

    def test_the_first_a(self):
        """Uniform within 1 / sqrt(fan_in), as the authors' Kaiming with a = sqrt(5)."""
        model = keras.Sequential([keras.Input((25,)), keras.layers.Dense(7, name="head")])
        adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=40, target="head"))
        a, b = (w.numpy() for w in adapted.trainable_weights)
        assert a.shape == (25, 40)
        assert 0.19 < np.abs(a).max() <= 0.2
        np.testing.assert_allclose(a.std(), 0.2 / np.sqrt(3), rtol=0.1)
        assert not np.any(b)

    @pytest.mark.parametrize("kind", ["lora", "dora"])
    @pytest.mark.parametrize(
        ("equation", "bias_axes", "output_shape", "input_axes"),
        [("btd,dnh->btnh", "nh", (6, 2, 4), (0,)), ("...d,de->...e", "e", (6, 4), (0,))],
    )
    def test_einsum(self, kind, equation, bias_axes, output_shape, input_axes):
        adapter = {"lora": tfpeft.LoRA, "dora": tfpeft.DoRA}[kind](rank=3, alpha=3.0)
        layer = keras.layers.EinsumDense(equation, output_shape, bias_axes=bias_axes)
        found, part, (w, b) = self.outputs(layer, (6, 8), adapter, X)
        w = w + np.tensordot(part.a.numpy(), part.b.numpy(), 1)
        if kind == "dora":
            w = part.magnitude.numpy() * w / np.linalg.norm(w, axis=0)
        expected = np.einsum(equation, X.astype("float64"), w) + b
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def test_einsum_that_sums_two_axes(self):
        x = rng.normal(size=(4, 6, 2, 3)).astype("float32")
        layer = keras.layers.EinsumDense("btnh,nhd->btd", (6, 5), bias_axes="d")
        found, part, (w, b) = self.outputs(layer, (6, 2, 3), tfpeft.LoRA(rank=3, alpha=6.0), x)
        w = w + 2.0 * np.einsum("nhr,rd->nhd", part.a.numpy(), part.b.numpy())
        expected = np.einsum("btnh,nhd->btd", x, w) + b
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    @pytest.mark.parametrize("kind", ["lora", "dora"])
    def test_convolution(self, kind):
        x = rng.normal(size=(2, 7, 6, 3)).astype("float32")
        adapter = {"lora": tfpeft.LoRA, "dora": tfpeft.DoRA}[kind](rank=2, alpha=2.0)
        layer = keras.layers.Conv2D(4, 3, strides=2, padding="same")
        found, part, (w, b) = self.outputs(layer, (7, 6, 3), adapter, x)
        w = w + part.a.numpy() @ part.b.numpy()
        if kind == "dora":
            w = part.magnitude.numpy() * w / np.sqrt(np.sum(w**2, axis=(0, 1, 2)))
        expected = keras.ops.conv(x, w.astype("float32"), 2, "same") + b
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)

    def test_embedding(self):
        x = rng.integers(0, 9, (4, 5))
        adapter = tfpeft.LoRA(rank=2, alpha=2.0, target="words")
        layer = keras.layers.Embedding(9, 4, name="words")
        found, part, (table,) = self.outputs(layer, (5,), adapter, x)
        expected = (table + part.a.numpy() @ part.b.numpy())[x]
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_ia3(self):
        x = rng.normal(size=(4, 5)).astype("float32")
        layer = keras.layers.Dense(7, activation="tanh")
        found, part, (w, b) = self.outputs(layer, (5,), tfpeft.IA3(), x)
        expected = np.tanh(part.scale.numpy() * (x @ w + b))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        layer = keras.layers.Dense(7, activation="tanh", name="second")
        adapter = tfpeft.IA3(input_target="second")
        found, part, (w, b) = self.outputs(layer, (5,), adapter, x)
        assert part.scale.shape == (5,)
        expected = np.tanh((part.scale.numpy() * x) @ w + b)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_bottleneck(self):
        x = rng.normal(size=(4, 5)).astype("float32")
        adapter = tfpeft.BottleneckAdapter(size=3, activation="relu")
        layer = keras.layers.Dense(7, activation="tanh")
        found, part, (w, b) = self.outputs(layer, (5,), adapter, x)
        down, down_bias, up, up_bias = (w.numpy() for w in part.weights)
        h = np.tanh(x @ w + b)
        expected = h + np.maximum(h @ down + down_bias, 0.0) @ up + up_bias
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)

    def test_bias_and_norm(self):
        x = rng.normal(size=(4, 5)).astype("float32")
        layer = keras.layers.Dense(7, activation="tanh")
        found, part, (w, b) = self.outputs(layer, (5,), tfpeft.BitFit(), x)
        expected = np.tanh(x @ w + b + part.shift.numpy())
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
        layer = keras.layers.LayerNormalization(epsilon=1e-5)
        found, part, (gamma, beta) = self.outputs(layer, (5,), tfpeft.NormTuning(), x)
        n = (x - x.mean(1, keepdims=True)) / np.sqrt(x.var(1, keepdims=True) + 1e-5)
        expected = part.gain.numpy() * (gamma * n + beta) + part.shift.numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
