"""Adapters: formulas by hand, merging, switching, files, and what stays unchanged."""

import functools

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.core import weight_files
from tfpeft.core.graph import flatten_layers

rng = np.random.default_rng(0)
X = rng.normal(size=(16, 6, 8)).astype("float32")
Y = rng.integers(0, 3, 16)
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def transformer():
    inputs = keras.Input((6, 8))
    attention = keras.layers.MultiHeadAttention(2, 4, name="attention")(inputs, inputs)
    hidden = keras.layers.LayerNormalization(name="norm")(inputs + attention)
    dense = keras.layers.Dense(16, activation="gelu", name="feedforward_intermediate_dense")
    dense = keras.layers.Dense(8, name="feedforward_output_dense")(dense(hidden))
    dense = keras.layers.Dropout(0.5)(keras.layers.BatchNormalization()(dense))
    hidden = keras.layers.Conv1D(5, 3, padding="same", activation="relu", name="conv")(dense)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return transformer()


EVERYWHERE = ["attention", "conv", "head", "feedforward*"]
METHODS = {
    "lora": lambda: tfpeft.LoRA(rank=2),
    "lora everywhere": lambda: tfpeft.LoRA(rank=2, alpha=4, target=EVERYWHERE, dropout=0.3),
    "dora": lambda: tfpeft.DoRA(rank=2, target=EVERYWHERE),
    "ia3": lambda: tfpeft.IA3(),
    "ia3 everywhere": lambda: tfpeft.IA3(
        target=["attention", "conv", "head"], input_target="feedforward*"
    ),
    "bottleneck": lambda: tfpeft.BottleneckAdapter(size=3, activation="relu"),
    "bitfit": lambda: tfpeft.BitFit(),
    "norms": lambda: tfpeft.NormTuning(),
}
method = pytest.mark.parametrize("name", METHODS)


def trained(model, name, epochs=3, **options):
    keras.utils.set_random_seed(1)
    adapted = tfpeft.add_adapters(model, METHODS[name]())
    adapted.compile(keras.optimizers.Adam(0.05), HARD, **options)
    adapted.fit(X, Y, batch_size=16, epochs=epochs, verbose=0)
    return adapted


@pytest.fixture(scope="module")
def trained_once(model):
    """A function of a method's name that trains a model once for all tests; one trains it on."""
    return functools.cache(lambda name: trained(model, name))


def predict(model, x=X):
    """Returns outputs as an array, in eager code: `Model.predict` traces every model anew."""
    return np.asarray(model(x, training=False))


def randomized(adapted, seed=3):
    values = np.random.default_rng(seed)
    for variable in adapted.trainable_variables:
        variable.assign(variable + values.normal(0.0, 0.3, variable.shape))
    return adapted


@method
def test_trains_only_the_adapter_and_merges(name, model, trained_once):
    before = model.get_weights()
    flags = [layer.trainable for layer in flatten_layers(model)]
    expected = predict(model)
    untrained = tfpeft.add_adapters(model, METHODS[name]())
    np.testing.assert_allclose(predict(untrained), expected, atol=1e-6)

    adapted = trained_once(name)
    assert not any(v is w for v in adapted.trainable_variables for w in adapted.model.variables)
    for old, weight in zip(before, adapted.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, old)  # BatchNorm's statistics, too
    found = predict(adapted)
    assert np.abs(found - expected).max() > 1e-2
    for old, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, old)
    assert flags == [layer.trainable for layer in flatten_layers(model)]
    assert all("call" not in layer.__dict__ for layer in flatten_layers(adapted.model))

    if name == "bottleneck":
        with pytest.raises(ValueError, match="BottleneckAdapter, which cannot be merged"):
            tfpeft.merge_adapters(adapted)
        return
    merged = tfpeft.merge_adapters(adapted)
    np.testing.assert_allclose(predict(merged), found, atol=1e-5)
    assert [w.shape for w in merged.weights] == [w.shape for w in model.weights]
    assert len(merged.trainable_variables) == len(model.trainable_variables)
    np.testing.assert_array_equal(predict(adapted), found)


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


class TestSeveralAdapters:
    def test_the_active_adapter_makes_the_outputs(self, model, trained_once):
        first = trained_once("lora")
        outputs = {None: predict(model), "default": predict(first)}
        adapted = tfpeft.add_adapters(first, tfpeft.IA3(), name="second")
        adapted.compile(keras.optimizers.Adam(0.1), HARD)
        adapted.fit(X, Y, epochs=3, verbose=0)
        outputs["second"] = predict(adapted)
        for name in ("default", None, "second", "default"):
            adapted.use(name)
            np.testing.assert_array_equal(predict(adapted), outputs[name])
            np.testing.assert_allclose(adapted.predict(X, verbose=0), outputs[name], atol=1e-5)
        assert {v.path.split("/")[-1] for v in adapted.trainable_variables} == {
            "adapter_a",
            "adapter_b",
        }
        merged = tfpeft.merge_adapters(adapted, "second")
        np.testing.assert_allclose(predict(merged), outputs["second"], atol=1e-5)

    def test_a_further_adapter_leaves_the_model_as_it_is(self, trained_once):
        first = trained_once("lora everywhere")
        outputs, weights = predict(first), first.get_weights()
        flags = [layer.trainable for layer in flatten_layers(first)]
        second = tfpeft.add_adapters(first, tfpeft.BitFit(), name="second")
        assert (list(first.adapters), first.active) == (["default"], "default")
        assert (list(second.adapters), second.active) == (["default", "second"], "second")
        assert not {id(v) for v in first.variables} & {id(v) for v in second.variables}
        randomized(second)
        assert np.abs(predict(second) - outputs).max() > 1e-2
        second.use("default")
        randomized(second)
        np.testing.assert_array_equal(predict(first), outputs)
        assert flags == [layer.trainable for layer in flatten_layers(first)]
        for old, weight in zip(weights, first.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    @pytest.mark.parametrize("ending", ["weights.h5", "safetensors"])
    def test_files_hold_one_adapter(self, ending, model, trained_once, tmp_path):
        if ending == "safetensors":
            pytest.importorskip("safetensors", reason="the extra `text` brings it")
        path = tmp_path / f"task.{ending}"
        adapted = trained_once("dora")
        adapted.save_adapter(path)
        assert path.stat().st_size < 40_000
        other = tfpeft.add_adapters(model, tfpeft.LoRA())
        other.load_adapter(path, "task")
        np.testing.assert_array_equal(predict(other), predict(adapted))
        keras.utils.set_random_seed(5)
        stranger = tfpeft.add_adapters(transformer(), tfpeft.LoRA())
        with pytest.raises(ValueError, match="`path`.*adapter of this model"):
            stranger.load_adapter(path, "task")
        assert list(stranger.adapters) == ["default"]
        arrays, about = weight_files.read(path)
        arrays.popitem()
        weight_files.write(path, arrays, about)
        count = len(other.weights)
        with pytest.raises(ValueError, match="`path`.*whole file"):
            other.load_adapter(path, "third")
        assert len(other.weights) == count
        assert (list(other.adapters), other.active) == (["default", "task"], "task")
        path.write_bytes(b"no such file")
        with pytest.raises(ValueError, match="`path`.*save_adapter"):
            other.load_adapter(path, "third")

    @method
    def test_saved_and_resumed_is_the_same_run(self, name, trained_once, tmp_path):
        adapted = trained_once(name)
        adapted.save(tmp_path / "adapted.keras")
        loaded = keras.models.load_model(tmp_path / "adapted.keras")
        for run in (adapted, loaded):
            run.layers[0].training = False
            keras.utils.set_random_seed(2)
            run.fit(X, Y, batch_size=16, epochs=2, verbose=0)
        assert len(loaded.weights) == len(adapted.weights)
        if getattr(METHODS[name](), "dropout", 0.0):
            return  # the two runs draw other dropout masks
        for a, b in zip(adapted.weights, loaded.weights, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=0.2)


class TestComposition:
    def test_as_a_part_of_another_model(self, model):
        adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=2))
        inputs = keras.Input((6, 8))
        whole = keras.Model(inputs, keras.layers.Dense(3)(adapted(inputs)))
        assert len(whole.trainable_variables) == 2 + 4
        whole.compile("adam", HARD)
        before = [v.numpy() for v in adapted.trainable_variables]
        whole.fit(X, Y, epochs=2, verbose=0)
        changed = [
            np.any(a != b.numpy()) for a, b in zip(before, adapted.trainable_variables, strict=True)
        ]
        assert all(changed)

    def test_under_a_sparse_optimizer_and_in_a_distiller(self, model):
        adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=4))
        schedule = tfpeft.constant_sparsity(0.5, begin=0.0, end=1.0, total_steps=4, frequency=1)
        terms = [
            tfpeft.SoftLabels(),
            tfpeft.FeatureMatching(teacher_layer="conv", student_layer="conv"),
        ]
        distiller = tfpeft.Distiller(
            transformer(), adapted, distillation_losses=terms, student_from_logits=True
        )
        adam = keras.optimizers.Adam(0.01)
        pruning = tfpeft.MagnitudePruning(adam, schedule, include=["adapter_a", "adapter_b"])
        distiller.compile(pruning, HARD)
        distiller.fit(X, Y, batch_size=8, epochs=2, verbose=0)
        zeros = [np.mean(v.numpy() == 0) for v in adapted.trainable_variables]
        assert zeros == [0.5] * 4

    @pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
    @method
    def test_mixed_precision(self, policy, name):
        keras.config.set_dtype_policy(policy)
        try:
            # A graph for one of the policies: eager code takes a fifth of the time.
            is_eager = policy == "mixed_bfloat16"
            adapted = trained(transformer(), name, epochs=2, run_eagerly=is_eager)
        finally:
            keras.config.set_dtype_policy("float32")
        assert all(v.dtype == "float32" for v in adapted.trainable_variables)
        assert np.all(np.isfinite(adapted.predict(X, verbose=0)))


def test_summary(model):
    text = tfpeft.trainable_summary(tfpeft.add_adapters(model, tfpeft.IA3(target="head")))
    total = sum(int(np.prod(v.shape)) for v in model.variables) + 3
    assert text.startswith(f"3 of {total:,} parameters are trainable ({300 / total:.2f}%)\n")
    assert "ia3_scale  (3,)  3" in text


def test_paths_of_variables_tell_layers_and_adapters_apart():
    adapted = tfpeft.add_adapters(transformer(), tfpeft.LoRA(rank=2), name="first")
    adapted = tfpeft.add_adapters(adapted, tfpeft.LoRA(rank=2), name="second")
    paths = [v.path for adapter in adapted.adapters.values() for v in adapter.weights]
    assert len(set(paths)) == len(paths)
    assert {path.split("/")[0] for path in paths} == {"first", "second"}
    for path in adapted.adapters["second"].arrays():
        *layers, name = path.split("/")
        assert "/".join(["second", *layers[:-1], f"adapter_{layers[-1]}", name]) in paths


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: tfpeft.add_adapters(m, tfpeft.LoRA(target="qery")), "`target`.*query.*'qery'"),
        (lambda m: tfpeft.add_adapters(m, tfpeft.NormTuning("head")), "`target`.*norm.*'head'"),
        (lambda m: tfpeft.add_adapters(m, tfpeft.IA3(input_target="query")), "`input_target`"),
        (lambda m: tfpeft.add_adapters(m, "lora"), "`method`.*'lora'"),
        (lambda m: tfpeft.add_adapters("model", tfpeft.LoRA()), "`model`.*'model'"),
        (
            lambda m: tfpeft.add_adapters(tfpeft.add_adapters(m, tfpeft.LoRA()), tfpeft.IA3()),
            "`name`.*none of default.*'default'",
        ),
        (lambda m: tfpeft.add_adapters(m, tfpeft.LoRA()).use("other"), "`name`.*default.*'other'"),
        (lambda m: tfpeft.LoRA(rank=0), "`rank`.*0"),
        (lambda m: tfpeft.LoRA(alpha=-1), "`alpha`.*-1"),
        (lambda m: tfpeft.LoRA(dropout=1.0), "`dropout`.*1.0"),
        (lambda m: tfpeft.LoRA(target=3), "`target`.*3"),
        (lambda m: tfpeft.LoRA(target=[3]), "`target`.*3"),
        (lambda m: tfpeft.IA3(input_target=3), "`input_target`.*3"),
        (lambda m: tfpeft.BottleneckAdapter(size=0), "`size`.*0"),
        (lambda m: tfpeft.BottleneckAdapter(activation="rleu"), "`activation`.*'rleu'"),
        (lambda m: tfpeft.add_adapters(m, tfpeft.LoRA(), name=[]), "`name`.*\\[\\]"),
        (lambda m: tfpeft.AdaptedModel("model", {}), "`model`.*'model'"),
        (lambda m: tfpeft.AdaptedModel(m, tfpeft.LoRA()), "`adapters`.*{name: method}"),
        (lambda m: tfpeft.AdaptedModel(m, {"a": "lora"}), r"`adapters\['a'\]`.*'lora'"),
        (lambda m: tfpeft.AdaptedModel(m, {3: tfpeft.LoRA()}), "`adapters`.*texts"),
        (lambda m: tfpeft.AdaptedModel(m, {}, active="a"), "`active`.*'a'"),
        (lambda m: tfpeft.add_adapters(m, tfpeft.LoRA()).add("lora", "b"), "`method`.*'lora'"),
        (lambda m: tfpeft.add_adapters(m, tfpeft.LoRA()).use([]), "`name`.*default"),
        (lambda m: tfpeft.merge_adapters(m), "`model`.*AdaptedModel"),
        (
            lambda m: tfpeft.add_adapters(m, tfpeft.LoRA()).save_adapter("task.npz"),
            "`path`.*task.npz",
        ),
        (
            lambda m: tfpeft.add_adapters(m, tfpeft.LoRA()).load_adapter("none.weights.h5"),
            "`path`.*none.weights.h5",
        ),
    ],
)
def test_bad_input(call, message, model):
    with pytest.raises(ValueError, match=message):
        call(model)
