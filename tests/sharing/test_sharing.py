"""SharedModel: outputs by hand, independent tasks, files, export, bad input."""

import keras
import numpy as np
import pytest

import tfpeft
from tests import networks
from tests.shared_tasks import (
    LABELS,
    X,
    assert_same_weights,
    compiled,
    fitted,
    predict,
    pretrained,
    randomized,
    rng,
    shared_model,
)


class TestOutputs:
    def test_heads_on_the_outputs_of_the_backbone(self):
        shared = shared_model()
        outputs, features = predict(shared), predict(pretrained())
        assert set(outputs) == {"zoo", "age"}
        for task, part in shared.parts.items():
            kernel, bias = part.head.get_weights()
            np.testing.assert_allclose(outputs[task], features @ kernel + bias, atol=1e-5)

    def test_adapters_by_hand(self):
        methods = {"zoo": tfpeft.LoRA(rank=2, alpha=6, target="hidden"), "age": None}
        shared = randomized(shared_model(adapters=methods))
        w, b, gamma, beta, mean, variance, w_last, b_last = pretrained().get_weights()
        lora_a, lora_b = (v.numpy() for v in shared.parts["zoo"].adapter.arrays().values())
        for task, kernel in (("zoo", w + 6 / 2 * lora_a @ lora_b), ("age", w)):
            hidden = np.maximum(X @ kernel + b, 0.0)
            hidden = gamma * (hidden - mean) / np.sqrt(variance + 1e-3) + beta
            head, head_bias = shared.parts[task].head.get_weights()
            expected = (hidden @ w_last + b_last) @ head + head_bias
            for found in (predict(shared)[task], predict(shared.task(task))):
                np.testing.assert_allclose(found, expected, atol=1e-5)
            np.testing.assert_allclose(shared.predict(X, verbose=0)[task], expected, atol=1e-5)

    def test_tasks_without_adapters_share_one_pass(self):
        @keras.saving.register_keras_serializable(package="tests")
        class Counter(keras.layers.Layer):
            def build(self, shape):
                self.passes = self.add_weight(shape=(), initializer="zeros", trainable=False)

            def call(self, x):
                self.passes.assign_add(1.0)
                return x

        heads = {"a": 2, "b": 3, "c": 4, "d": 2}
        adapters = {"d": tfpeft.BitFit()}
        with_bias = keras.Sequential(
            [keras.Input((6,)), Counter(name="counter"), keras.layers.Dense(4)]
        )
        for given, expected in ((None, 1), (adapters, 2)):
            shared = tfpeft.SharedModel(with_bias, heads, adapters=given)
            passes = shared.encoder.backbone.get_layer("counter").passes
            passes.assign(0.0)
            predict(shared)
            assert float(passes) == expected

    @pytest.mark.parametrize("build", networks.MODELS)
    def test_any_kind_of_backbone(self, build):
        model = build()
        before = model.get_weights()
        shared = compiled(tfpeft.SharedModel(model, {"zoo": 3, "age": 2}, adapters=tfpeft.LoRA(2)))
        fitted(shared)
        for old, weight in zip(before, model.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)  # the caller's model stays as it is
        assert all(layer.trainable for layer in model._flatten_layers())
        assert set(predict(shared)) == {"zoo", "age"}

    def test_heads_are_numbers_layers_or_models(self):
        inputs = keras.Input((5,))
        model = keras.Model(inputs, keras.layers.Dense(4)(keras.layers.Dense(7)(inputs)))
        heads = {"a": 2, "b": keras.layers.Dense(1, activation="sigmoid"), "c": model}
        shapes = {task: each.shape for task, each in predict(shared_model(heads)).items()}
        assert shapes == {"a": (24, 2), "b": (24, 1), "c": (24, 4)}

    def test_pooling_by_hand(self):
        x = rng.integers(1, 9, (4, 6))
        x[:, 4:] = 0
        x[0, 2:] = 0
        inputs = keras.Input((6,), dtype="int32")
        embedded = keras.layers.Embedding(9, 5, mask_zero=True)(inputs)
        outputs = {"other": embedded[:, 0], "sequence_output": embedded}
        masked = keras.Model(inputs, embedded)
        named = keras.Model(
            {"token_ids": inputs, "padding_mask": keras.Input((6,), dtype="int32")}, outputs
        )
        features, mask = predict(masked, x), (x != 0)[..., None]
        by_name = {"token_ids": x, "padding_mask": mask[..., 0]}
        mean = (features * mask).sum(axis=1) / mask.sum(axis=1)
        for model, given in ((masked, x), (named, by_name)):
            shared = tfpeft.SharedModel(model, {"a": 2}, pooling="mean")
            np.testing.assert_allclose(predict(shared.encoder, given), mean, atol=1e-6)
            shared = tfpeft.SharedModel(model, {"a": 2}, pooling="first")
            np.testing.assert_allclose(predict(shared.encoder, given), features[:, 0])
        shared = tfpeft.SharedModel(named, {"a": 2}, output="other")
        np.testing.assert_allclose(predict(shared.encoder, by_name), features[:, 0])
        tokens = tfpeft.SharedModel(masked, {"tags": 4})  # a label per token
        assert predict(tokens, x)["tags"].shape == (4, 6, 4)
        images = keras.Sequential([keras.Input((3, 2, 6)), keras.layers.Dense(5)])
        shared = tfpeft.SharedModel(images, {"a": 2}, pooling="mean")
        x = rng.normal(size=(4, 3, 2, 6)).astype("float32")
        np.testing.assert_allclose(
            predict(shared.encoder, x), predict(images, x).mean(axis=(1, 2)), atol=1e-6
        )


class TestIndependence:
    @pytest.mark.parametrize("adapters", [None, tfpeft.LoRA(2, target="hidden"), tfpeft.BitFit()])
    def test_a_task_trains_the_same_alone_and_beside_others(self, adapters):
        both = compiled(shared_model(adapters=adapters))
        alone = shared_model({"zoo": 3}, adapters=adapters)
        for mine, yours in zip(
            alone.parts["zoo"].arrays().values(), both.parts["zoo"].arrays().values(), strict=True
        ):
            mine.assign(yours)
        compiled(alone)
        data = {"zoo": (X[:16], LABELS["zoo"][:16]), "age": (X, LABELS["age"])}
        mixed = tfpeft.mix_tasks(data, batch_size=8).take(3).cache()  # the same batches for both
        list(mixed)

        def only_zoo(inputs, labels):
            return tfpeft.TaskInputs({"zoo": inputs.by_task["zoo"]}), {"zoo": labels["zoo"]}

        both.fit(mixed, epochs=2, verbose=0)
        alone.fit(mixed.map(only_zoo), epochs=2, verbose=0)
        # A dropout layer draws as often as the backbone is run, so it is left to what is frozen.
        if adapters is None:
            assert_same_weights(alone.parts["zoo"], both.parts["zoo"])
        untrained = shared_model({"zoo": 3}, adapters=adapters).parts["zoo"].get_weights()
        trained = both.parts["zoo"].get_weights()
        assert any(np.any(a != b) for a, b in zip(untrained, trained, strict=True))

    def test_with_adapters_and_no_dropout_too(self):
        model = networks.sequential()
        methods = {"zoo": tfpeft.LoRA(2), "age": tfpeft.IA3()}
        both = compiled(tfpeft.SharedModel(model, {"zoo": 3, "age": 2}, adapters=methods))
        alone = tfpeft.SharedModel(model, {"zoo": 3}, adapters={"zoo": tfpeft.LoRA(2)})
        for mine, yours in zip(alone.parts["zoo"].weights, both.parts["zoo"].weights, strict=True):
            mine.assign(yours)
        fitted(both, epochs=2)
        fitted(compiled(alone), y={"zoo": LABELS["zoo"]}, epochs=2)
        assert_same_weights(alone.parts["zoo"], both.parts["zoo"])

    def test_training_one_task_leaves_the_others_bit_by_bit(self):
        shared = randomized(shared_model(adapters=tfpeft.LoRA(2, target="hidden")))
        before, frozen = predict(shared), shared.encoder.get_weights()
        task = shared.task("zoo")
        assert len(task.trainable_variables) == 4
        fitted(compiled(task, run_eagerly=True), y=LABELS["zoo"], epochs=3)
        after = predict(shared)
        np.testing.assert_array_equal(after["age"], before["age"])
        assert np.any(after["zoo"] != before["zoo"])
        np.testing.assert_array_equal(after["zoo"], predict(task))
        for old, weight in zip(frozen, shared.encoder.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    def test_a_task_that_is_added_leaves_the_others_bit_by_bit(self):
        shared = fitted(compiled(shared_model(adapters={"zoo": tfpeft.LoRA(2)})))
        before = predict(shared)
        shared.add_task("third", 4, adapter=tfpeft.BitFit())
        after = predict(shared)
        assert after["third"].shape == (24, 4)
        for task in before:
            np.testing.assert_array_equal(after[task], before[task])
        with pytest.raises(ValueError, match="compile"):
            fitted(shared)
        fitted(compiled(shared, run_eagerly=True), y={**LABELS, "third": LABELS["zoo"]})

    def test_frozen_layers_stay_and_unfrozen_layers_learn(self):
        shared = shared_model(adapters=tfpeft.BitFit(), unfreeze="last")
        compiled(shared, run_eagerly=True)
        before = {layer.name: layer.get_weights() for layer in shared.encoder.backbone.layers}
        fitted(shared)
        for layer in shared.encoder.backbone.layers:
            for old, weight in zip(before[layer.name], layer.get_weights(), strict=True):
                assert np.array_equal(old, weight) == (layer.name != "last")

    def test_an_unfrozen_norm_updates_its_statistics(self):
        shared = compiled(shared_model(unfreeze=["norm"]), run_eagerly=True)
        before = shared.encoder.backbone.get_layer("norm").get_weights()
        fitted(shared)
        after = shared.encoder.backbone.get_layer("norm").get_weights()
        assert all(np.any(old != new) for old, new in zip(before, after, strict=True))


def test_the_summary_names_task_and_layer():
    text = tfpeft.trainable_summary(shared_model(adapters=tfpeft.LoRA(rank=2, target="hidden")))
    for task in ("zoo", "age"):
        assert f"  {task}/adapter/adapter_hidden/adapter_a  (6, 2)  12" in text


class TestPrecomputed:
    def test_heads_learn_the_same_from_precomputed_outputs(self):
        live, computed = compiled(shared_model()), compiled(shared_model())
        data = tfpeft.precompute(computed.encoder, (X, LABELS)).join((X, LABELS))
        fitted(live, epochs=2)
        computed.fit(*data, batch_size=8, shuffle=False, epochs=2, verbose=0)
        for a, b in zip(live.get_weights(), computed.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-6)
        mixed = tfpeft.mix_tasks(
            {task: (data[0], labels) for task, labels in LABELS.items()}, batch_size=8
        )
        computed.fit(mixed, verbose=0)

    def test_raises_where_a_mask_would_be_lost(self):
        inputs = keras.Input((6,), dtype="int32")
        model = keras.Model(inputs, keras.layers.Embedding(9, 5, mask_zero=True)(inputs))
        x, y = rng.integers(0, 9, (8, 6)), {"a": rng.integers(0, 2, 8)}
        shared = compiled(tfpeft.SharedModel(model, {"a": 2}, pooling="mean"))
        shared.fit(*tfpeft.precompute(shared.encoder, (x, y)).join((x, y)), verbose=0)
        y = {"a": rng.integers(0, 2, (8, 6))}
        shared = compiled(tfpeft.SharedModel(model, {"a": 2}))
        data = tfpeft.precompute(shared.encoder, (x, y)).join((x, y))
        with pytest.raises(ValueError, match="Expected inputs of the backbone: .* no mask"):
            shared.fit(*data, verbose=0)

    @pytest.mark.parametrize("options", [{"adapters": tfpeft.BitFit()}, {"unfreeze": "last"}])
    def test_raises_where_the_outputs_change(self, options):
        shared = compiled(shared_model(**options))
        data = tfpeft.precompute(shared.encoder, (X, LABELS)).join((X, LABELS))
        with pytest.raises(ValueError, match="Expected inputs of the backbone: .*Received: its"):
            shared.fit(*data, verbose=0)


class TestComposition:
    def test_sparse_optimizers(self):
        shared = shared_model(adapters=tfpeft.LoRA(2, target="hidden"))
        schedule = tfpeft.polynomial_decay(0.5, begin=0.0, end=0.5, total_steps=6)
        adapters = ["adapter_a", "adapter_b"]
        adam = keras.optimizers.Adam(0.05)
        optimizer = tfpeft.MagnitudePruning(adam, schedule, include=adapters)
        fitted(compiled(shared, optimizer), epochs=2)
        kernels = [v for v in shared.trainable_variables if len(v.shape) == 2]
        assert len(kernels) == 6
        for kernel in kernels:
            assert np.mean(kernel.numpy() == 0.0) == pytest.approx(0.5, abs=0.1)

    def test_a_task_learns_from_a_teacher(self):
        shared = shared_model(adapters=tfpeft.LoRA(2, target="hidden"))
        before = predict(shared)
        teacher = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
        distiller = tfpeft.Distiller(teacher, shared.task("zoo"), student_from_logits=True)
        fitted(compiled(distiller), y=LABELS["zoo"])
        after = predict(shared)
        assert np.any(after["zoo"] != before["zoo"])
        np.testing.assert_array_equal(after["age"], before["age"])

    def test_mixed_precision(self):
        keras.config.set_dtype_policy("mixed_float16")
        try:
            model = networks.sequential()
            shared = tfpeft.SharedModel(model, {"zoo": 3, "age": 2}, adapters=tfpeft.LoRA(2))
            compiled(shared, metrics=["accuracy"])
        finally:
            keras.config.set_dtype_policy("float32")
        assert isinstance(shared.optimizer, keras.optimizers.LossScaleOptimizer)
        before = shared.get_weights()
        fitted(shared, epochs=2)
        outputs = predict(shared)
        assert all(a.dtype == "float32" and np.all(np.isfinite(a)) for a in outputs.values())
        assert any(np.any(a != b) for a, b in zip(before, shared.get_weights(), strict=True))

    def test_steps_per_execution(self):
        model = networks.sequential()
        runs = []
        for steps in (1, 3):
            keras.utils.set_random_seed(2)
            shared = tfpeft.SharedModel(model, {"zoo": 3, "age": 2}, adapters=tfpeft.LoRA(2))
            runs.append(fitted(compiled(shared, steps_per_execution=steps)))
        for a, b in zip(*(each.get_weights() for each in runs), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-5)

    def test_mirrored_strategy_matches_one_device(self, mirrored):
        model = networks.sequential()
        data = {"zoo": (X[:16], LABELS["zoo"][:16]), "age": (X, LABELS["age"])}

        def trained():
            keras.utils.set_random_seed(2)
            options = {"adapters": tfpeft.LoRA(2), "learn_task_weights": True}
            shared = tfpeft.SharedModel(model, {"zoo": 3, "age": 2}, **options)
            compiled(shared, keras.optimizers.SGD(0.1), metrics=["accuracy"])
            mixed = tfpeft.mix_tasks(data, sampling=None, batch_size=10)  # 4 and 6
            return shared, shared.fit(mixed, verbose=0, epochs=2).history

        one, history = trained()
        with mirrored.scope():
            two, history_of_two = trained()
        for key, values in history.items():
            np.testing.assert_allclose(history_of_two[key], values, atol=1e-3, err_msg=key)
        for a, b in zip(one.get_weights(), two.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)
