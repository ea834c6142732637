"""Adapters: formulas by hand, merging, switching, files, and what stays unchanged."""

import functools

import keras
import numpy as np
import pytest

import tfpeft
from tests.adapters.models import HARD, X, Y, predict, randomized, transformer
from tfpeft.core import weight_files
from tfpeft.core.graph import flatten_layers


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
    adapted.compile(keras.optimizers.SGD(0.5, momentum=0.9), HARD, **options)
    adapted.fit(X, Y, batch_size=16, epochs=epochs, verbose=0)
    return adapted


@pytest.fixture(scope="module")
def trained_once(model):
    """A function of a method's name that trains a model once for all tests; one trains it on."""
    return functools.cache(lambda name: trained(model, name))


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
        loaded.run_eagerly = name != "lora everywhere"  # a fifth of the time that a graph takes
        for run in (adapted, loaded):
            for state in run.variables:  # that of dropout is not saved
                if "seed_generator" in state.path:
                    state.assign([0, 0])
            run.fit(X, Y, batch_size=16, epochs=2, shuffle=False, verbose=0)
        for a, b in zip(adapted.weights, loaded.weights, strict=True):
            np.testing.assert_allclose(a.numpy(), b.numpy(), atol=1e-5)


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
            # A graph for two of the methods, under one of the policies: eager code takes a fifth
            # of the time, and in float32 all of them have been trained in graphs.
            is_eager = policy == "mixed_bfloat16" or name not in ("lora everywhere", "bottleneck")
            adapted = trained(transformer(), name, epochs=2, run_eagerly=is_eager)
        finally:
            keras.config.set_dtype_policy("float32")
        assert all(v.dtype == "float32" for v in adapted.trainable_variables)
        assert np.all(np.isfinite(predict(adapted)))


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
