"""SharedModel: outputs by hand, independent tasks, files, export, bad input."""

import keras
import numpy as np
import pytest

import tfpeft
from tests import networks
from tests.shared_tasks import (
    HARD,
    LABELS,
    X,
    assert_same_weights,
    backbone,
    compiled,
    fitted,
    predict,
    pretrained,
    randomized,
    rng,
    shared_model,
)
from tfpeft.core import weight_files
from tfpeft.core.arguments import InputError
from tfpeft.export.tflite_file import TFLiteFile


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


class TestFiles:
    @pytest.mark.parametrize("suffix", [".weights.h5", ".safetensors"])
    def test_tasks_by_file(self, tmp_path, suffix):
        if suffix == ".safetensors":
            pytest.importorskip("safetensors")
        methods = {"zoo": tfpeft.DoRA(2, target="hidden"), "age": None}
        shared = randomized(shared_model(adapters=methods))
        other = randomized(shared_model({"age": 2}), seed=9)
        age = predict(other)["age"]
        for task in shared.tasks:
            shared.save_task(task, tmp_path / f"{task}{suffix}")
        assert other.load_task(tmp_path / f"zoo{suffix}") == "zoo"
        assert other.load_task(tmp_path / f"age{suffix}", "renamed") == "renamed"
        expected, outputs = predict(shared), predict(other)
        np.testing.assert_array_equal(outputs["zoo"], expected["zoo"])
        np.testing.assert_array_equal(outputs["renamed"], expected["age"])
        np.testing.assert_array_equal(outputs["age"], age)
        other.load_task(tmp_path / f"age{suffix}")  # in the place of its own
        np.testing.assert_array_equal(predict(other)["age"], expected["age"])
        assert other.tasks == ("age", "zoo", "renamed")
        fitted(compiled(other, run_eagerly=True), y={**LABELS, "renamed": LABELS["age"]})

    def test_a_file_for_another_backbone_raises_and_nothing_changes(self, tmp_path):
        shared = shared_model(adapters=tfpeft.BitFit())
        shared.save_task("zoo", tmp_path / "zoo.weights.h5")
        before = predict(shared)
        keras.utils.set_random_seed(5)
        other = tfpeft.SharedModel(backbone(), {"age": 2})
        with pytest.raises(ValueError, match=r"`path`, expected a task of this backbone.*zoo.wei"):
            other.load_task(tmp_path / "zoo.weights.h5")
        assert other.tasks == ("age",)
        content = (tmp_path / "zoo.weights.h5").read_bytes()
        (tmp_path / "cut.weights.h5").write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match="`path`, expected a file of"):
            shared.load_task(tmp_path / "cut.weights.h5")
        with pytest.raises(ValueError, match="`path`, expected a name that ends in"):
            shared.save_task("zoo", tmp_path / "zoo.bin")
        with pytest.raises(ValueError, match="`path`, expected a file of"):
            shared.load_task(tmp_path / "nothing.weights.h5")
        adapted = tfpeft.add_adapters(pretrained(), tfpeft.BitFit())
        adapted.save_adapter(tmp_path / "adapter.weights.h5")
        with pytest.raises(ValueError, match="`path`, expected a file of `save_task`"):
            shared.load_task(tmp_path / "adapter.weights.h5")
        first = tfpeft.SharedModel(
            keras.Sequential([keras.Input((3, 4)), keras.layers.Dense(2)]), {"a": 2}, pooling="mean"
        )
        first.save_task("a", tmp_path / "a.weights.h5")
        backbone_ = first.encoder.backbone
        last = tfpeft.SharedModel(backbone_, {"b": 2}, pooling="first")
        with pytest.raises(ValueError, match="`path`, expected a task of pooling='first'"):
            last.load_task(tmp_path / "a.weights.h5")
        for task, output in before.items():
            np.testing.assert_array_equal(predict(shared)[task], output)
        assert sorted(path.name for path in tmp_path.iterdir()) == [
            "a.weights.h5",
            "adapter.weights.h5",
            "cut.weights.h5",
            "zoo.weights.h5",
        ]

    def test_the_state_of_an_adapted_head_is_in_the_file(self, tmp_path):
        normalization = keras.layers.Normalization()
        normalization.adapt(rng.normal(5.0, 3.0, (50, 5)))
        head = keras.Sequential([keras.Input((5,)), normalization, keras.layers.Dense(3)])
        shared, other = shared_model({"zoo": head}), shared_model({"age": 2})
        shared.save_task("zoo", tmp_path / "zoo.weights.h5")
        other.load_task(tmp_path / "zoo.weights.h5")
        np.testing.assert_array_equal(predict(other)["zoo"], predict(shared)["zoo"])

    def test_a_damaged_file_leaves_the_task_as_it_is(self, tmp_path):
        shared = randomized(shared_model(adapters=tfpeft.BitFit()))
        shared.save_task("zoo", tmp_path / "zoo.weights.h5")
        arrays, about = weight_files.read(tmp_path / "zoo.weights.h5")
        arrays.popitem()
        weight_files.write(tmp_path / "zoo.weights.h5", arrays, about)
        before = predict(shared)
        with pytest.raises(ValueError, match="`path`, expected a whole file"):
            shared.load_task(tmp_path / "zoo.weights.h5")
        assert shared.tasks == ("zoo", "age")
        for task, output in before.items():
            np.testing.assert_array_equal(predict(shared)[task], output)

    @pytest.mark.parametrize(
        "options",
        [
            {"adapters": {"age": tfpeft.LoRA(2, target="hidden")}, "learn_task_weights": True},
            {"unfreeze": ["last"]},
        ],
    )
    def test_saved_and_resumed_is_the_same_run(self, options, tmp_path):
        model = networks.sequential()  # no dropout: its draws are not saved
        options = {**options, "unfreeze": ["head"]} if "unfreeze" in options else options
        shared = tfpeft.SharedModel(model, {"zoo": 3, "age": 2}, **options)
        weights = None if "learn_task_weights" in options else {"zoo": 2.0, "age": 1.0}
        compiled(shared, metrics=["accuracy"], loss_weights=weights)
        fitted(shared)
        shared.save(tmp_path / "half.keras")
        fitted(shared)
        resumed = keras.models.load_model(tmp_path / "half.keras")
        assert resumed.tasks == shared.tasks
        fitted(resumed)
        assert_same_weights(shared, resumed)
        found, expected = (
            each.evaluate(X, LABELS, verbose=0, return_dict=True) for each in (resumed, shared)
        )
        assert found == expected
        loaded = keras.models.load_model(tmp_path / "half.keras", compile=False)
        assert set(predict(loaded)) == {"zoo", "age"}

    def test_one_task_is_saved_as_a_model(self, tmp_path):
        shared = randomized(shared_model(adapters=tfpeft.LoRA(2)))
        shared.task("zoo").save(tmp_path / "zoo.keras")
        loaded = keras.models.load_model(tmp_path / "zoo.keras")
        np.testing.assert_array_equal(predict(loaded), predict(shared)["zoo"])


class TestExport:
    @pytest.fixture(scope="class")
    def shared(self):
        keras.utils.set_random_seed(0)
        inputs = {"a": keras.Input((64,)), "b": keras.Input((64,))}
        hidden = keras.layers.Concatenate()(list(inputs.values()))
        for name in ("one", "two", "three"):
            hidden = keras.layers.Dense(256, activation="gelu", name=name)(hidden)
        model = keras.Model(inputs, hidden)
        methods = {"zoo": tfpeft.LoRA(2, target="one"), "age": tfpeft.IA3(target="two")}
        heads = {"zoo": 3, "age": 2, "plain": 2}
        return randomized(tfpeft.SharedModel(model, heads, adapters=methods))

    @pytest.fixture(scope="class")
    def data(self):
        return {key: rng.normal(size=(20, 64)).astype("float32") for key in ("a", "b")}

    def test_a_signature_per_task_and_one_backbone(self, shared, data, tmp_path):
        report = tfpeft.export_tflite(shared, tmp_path / "m.tflite", representative_data=data)
        one = tfpeft.export_tflite(shared.task("zoo"), tmp_path / "one.tflite")
        assert report.signatures == ("zoo", "age", "plain")
        assert one.signatures == ("serving_default",)
        assert "signatures zoo, age, plain" in str(report)
        assert report.max_deviation < 1e-4
        assert report.size_bytes < 1.05 * one.size_bytes
        file = TFLiteFile(tmp_path / "m.tflite")
        for task, expected in predict(shared, data).items():
            np.testing.assert_allclose(file.predict(data, task), expected, atol=1e-4)

    @pytest.mark.parametrize(
        "method",
        [
            tfpeft.NormTuning(),
            tfpeft.IA3(target="one", input_target="two"),
            tfpeft.DoRA(2, target="two"),
        ],
        ids=lambda method: type(method).__name__,
    )
    def test_no_adapter_is_folded_into_a_copy_of_a_kernel(self, method, tmp_path):
        hidden = inputs = keras.Input((64,))
        for name in ("one", "two"):
            hidden = keras.layers.Dense(256, name=name)(hidden)
            hidden = keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))
        model = keras.Model(inputs, hidden)
        shared = tfpeft.SharedModel(model, {"a": 3, "b": 2, "c": 2}, adapters=method)
        randomized(shared)
        report = tfpeft.export_tflite(shared, tmp_path / "m.tflite")
        one = tfpeft.export_tflite(shared.task("a"), tmp_path / "one.tflite")
        assert report.max_deviation < 1e-4
        assert report.size_bytes < 1.2 * one.size_bytes

    @pytest.mark.parametrize("quantization", ["dynamic_range", "int8"])
    def test_quantized(self, shared, data, tmp_path, quantization):
        report = tfpeft.export_tflite(
            shared, tmp_path / "m.tflite", quantization=quantization, representative_data=data
        )
        assert report.size_bytes < 0.4 * 4 * shared.count_params()
        file = TFLiteFile(tmp_path / "m.tflite")
        for task, expected in predict(shared, data).items():
            spread = np.ptp(expected)
            assert np.abs(file.predict(data, task) - expected).mean() < 0.05 * spread


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


class TestBadInput:
    @pytest.fixture(scope="class")
    def shared(self):
        return compiled(shared_model())

    @pytest.mark.parametrize("bad", [None, 3, "encoder"])
    def test_a_task_model_of_other_parts(self, shared, bad):
        with pytest.raises(ValueError, match="`encoder`, expected the `encoder` of a SharedModel"):
            tfpeft.TaskModel(bad, next(iter(shared.parts.values())))
        with pytest.raises(ValueError, match="`part`, expected one of the `parts`"):
            tfpeft.TaskModel(shared.encoder, bad)

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"backbone": "bert"}, "`backbone`, expected a keras.Model that is built"),
            ({"backbone": keras.Sequential([keras.layers.Dense(2)])}, "`backbone`, expected"),
            ({"heads": {}}, "`heads`, expected {task: layer, model or number of classes}"),
            ({"heads": {"zoo": None}}, r"heads\['zoo'\]`, expected a layer, a model, or a number"),
            ({"heads": {"zoo": 0}}, r"heads\['zoo'\]`, expected a layer"),
            ({"heads": {"a/b": 2}}, "`task`, expected a name of letters"),
            ({"heads": {"größe": 2}}, "`task`, expected a name of letters"),
            ({"adapters": "lora"}, "`adapters`, expected LoRA"),
            ({"adapters": {"hue": tfpeft.BitFit()}}, "`adapters`.*zoo.*Received.*hue"),
            ({"adapters": tfpeft.LoRA(target="hiden")}, "`target`.*such as hidden.*'hiden'"),
            ({"unfreeze": "lost"}, "`unfreeze`, expected names or patterns.*last.*'lost'"),
            ({"pooling": "max"}, "`pooling`, expected one of None, 'mean', 'first'"),
            ({"pooling": "mean"}, r"`pooling`, expected None for a backbone with outputs \(None"),
            ({"output": "pooled"}, "`output`, expected None, as there is one"),
        ],
    )
    def test_construction(self, arguments, message):
        arguments = {"backbone": pretrained(), "heads": {"zoo": 3}, **arguments}
        with pytest.raises(ValueError, match=message):
            tfpeft.SharedModel(arguments.pop("backbone"), arguments.pop("heads"), **arguments)

    def test_one_head_for_two_tasks(self):
        head = keras.layers.Dense(2)
        with pytest.raises(ValueError, match=r"heads\['b'\]`, expected a head that no other"):
            shared_model({"a": head, "b": head})

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"loss": {"zoo": HARD}}, "`loss`, expected a value for each of the tasks zoo, age"),
            ({"loss": {"zoo": HARD, "age": None}}, "`loss`, expected a loss for the task age"),
            ({"loss": [HARD, HARD]}, "`loss`, expected a loss for the task zoo"),
            ({"loss_weights": {"zoo": 1.0}}, "`loss_weights`, expected a value for each"),
            ({"metrics": {"hue": ["accuracy"]}}, "`metrics`, expected keys among.*'hue'"),
        ],
    )
    def test_compilation(self, options, message):
        with pytest.raises(ValueError, match=message):
            shared_model().compile("adam", **{"loss": HARD, **options})

    def test_two_ways_to_weigh(self):
        with pytest.raises(ValueError, match="`loss_weights`, expected None with learn_task"):
            compiled(shared_model(learn_task_weights=True), loss_weights={"zoo": 1, "age": 1})

    @pytest.mark.parametrize(
        ("labels", "message"),
        [
            ({"zoo": LABELS["zoo"]}, "labels of every task, a dict of zoo, age. Received: zoo"),
            (LABELS["zoo"], "labels of every task, a dict of zoo, age"),
            ({**LABELS, "hue": LABELS["zoo"]}, "labels of every task.*Received: zoo, age, hue"),
            ({**LABELS, "age": LABELS["zoo"]}, "expected 0 to 1 for the task age. .*0 to 2"),
            ({**LABELS, "zoo": LABELS["zoo"] - 2}, "expected 0 to 2 for the task zoo. .*-2 to 0"),
        ],
    )
    def test_data(self, shared, labels, message):
        before = shared.get_weights()
        with pytest.raises(ValueError, match=message):
            shared.fit(X, labels, batch_size=24, verbose=0)
        with pytest.raises(ValueError, match=message):
            shared.evaluate(X, labels, batch_size=24, verbose=0)
        for old, weight in zip(before, shared.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    @pytest.mark.parametrize(
        "options",
        [{"run_eagerly": True}, {"jit_compile": "auto"}, {"steps_per_execution": 2}],
    )
    def test_labels_are_checked_however_it_runs(self, options):
        shared = compiled(shared_model(), **options)
        assert not shared.jit_compile  # XLA cannot compile the check
        before = shared.get_weights()
        message = "expected 0 to 1 for the task age. Received: 5 to 6$"
        with pytest.raises(InputError, match=message):
            shared.fit(X, {**LABELS, "age": LABELS["age"] + 5}, batch_size=12, verbose=0)
        for old, weight in zip(before, shared.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    def test_labels_are_checked_on_every_replica(self, mirrored):
        with mirrored.scope():
            shared = compiled(shared_model(), keras.optimizers.SGD(0.1))
        before = shared.get_weights()
        labels = {**LABELS, "age": np.where(np.arange(24) < 20, LABELS["age"], 7)}
        with pytest.raises(InputError, match="for the task age. Received: [01] to 7$"):
            shared.fit(X, labels, batch_size=24, verbose=0)  # the second replica's
        for old, weight in zip(before, shared.get_weights(), strict=True):
            np.testing.assert_array_equal(weight, old)

    def test_a_model_trains_after_bad_data(self):
        shared = compiled(shared_model())
        for labels in ({"zoo": LABELS["zoo"]}, {**LABELS, "age": LABELS["zoo"]}):
            with pytest.raises(InputError):
                shared.fit(X, labels, batch_size=24, verbose=0)
        fitted(shared, batch_size=24)

    def test_xla_trains_without_the_check(self):
        shared = compiled(shared_model(), jit_compile=True)
        before = [variable.numpy() for variable in shared.trainable_variables]
        fitted(shared, batch_size=24)
        for values, variable in zip(before, shared.trainable_variables, strict=True):
            assert np.all(np.isfinite(variable))
            assert np.any(variable.numpy() != values)

    def test_one_of_several_outputs_must_be_named(self):
        inputs = keras.Input((4, 6))
        hidden = keras.layers.Dense(5)(inputs)
        model = keras.Model(inputs, {"sequence_output": hidden, "pooled_output": hidden[:, 0]})
        with pytest.raises(ValueError, match="`pooling`, expected .* among .*'pooled_output'"):
            tfpeft.SharedModel(model, {"a": 2})
        shared = tfpeft.SharedModel(model, {"a": np.int64(2)}, output="pooled_output")
        with pytest.raises(ValueError, match=r"Expected a model of one output.*shared.task"):
            tfpeft.evaluate(shared, (np.zeros((2, 4, 6), "float32"), np.zeros(2, int)))

    def test_a_task_without_data_in_a_mix(self, shared):
        mixed = tfpeft.mix_tasks({"zoo": (X, LABELS["zoo"])})
        with pytest.raises(ValueError, match="of every task, a dict of zoo, age. Received: zoo"):
            shared.fit(mixed, verbose=0)

    def test_binary_labels_out_of_range(self):
        shared = shared_model({"age": keras.layers.Dense(1)})
        shared.compile("sgd", keras.losses.BinaryCrossentropy(from_logits=True))
        with pytest.raises(ValueError, match="expected 0 to 1 for the task age.*0 to 2"):
            shared.fit(X, {"age": LABELS["zoo"]}, batch_size=24, verbose=0)

    @pytest.mark.parametrize(
        "weights",
        [{"hue": {0: 1.0}}, {0: 2.0}, [1.0], {"zoo": {"2": 1.0}}, {"zoo": {0: -1.0}}],
    )
    def test_class_weights(self, shared, weights):
        with pytest.raises(ValueError, match="`class_weight`, expected {task: {class number: we"):
            fitted(shared, class_weight=weights)

    def test_unknown_tasks_and_names_that_are_taken(self, tmp_path):
        shared = shared_model()
        with pytest.raises(ValueError, match="`task`, expected one of zoo, age. .*'hue'"):
            shared.task("hue")
        with pytest.raises(ValueError, match="`task`, expected one of zoo, age. .*'hue'"):
            shared.save_task("hue", tmp_path / "hue.weights.h5")
        with pytest.raises(ValueError, match="`task`, expected a new name, none of zoo, age"):
            shared.add_task("zoo", 2)
        with pytest.raises(ValueError, match="`target`"):
            shared.add_task("hue", 2, adapter=tfpeft.LoRA(target="nothing"))
        assert shared.tasks == ("zoo", "age")
        assert not list(tmp_path.iterdir())

    def test_a_loss_is_needed(self):
        shared = shared_model()
        shared.compile("adam")
        with pytest.raises(ValueError, match="Expected a `loss` in compile"):
            fitted(shared)
