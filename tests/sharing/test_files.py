"""Tasks and shared models in files: those of weights, `.keras` and TFLite."""

import keras
import numpy as np
import pytest

import tfpeft
from tests import networks
from tests.shared_tasks import (
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
from tfpeft.export.tflite_file import TFLiteFile


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
        adam = keras.optimizers.Adam(0.05)
        compiled(shared, adam, metrics=["accuracy"], loss_weights=weights)
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
