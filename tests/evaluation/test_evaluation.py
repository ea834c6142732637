"""Figures of models and files against NumPy, scikit-learn's definitions and counts by hand."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.evaluation.networks import X, Y, by_hand, net, rng, write
from tfpeft.export.tflite_file import TFLiteFile


@pytest.mark.parametrize("activation", [None, "softmax"])
def test_model_and_file_have_the_figures_of_numpy(activation, tmp_path):
    model, logits = net(activation), net().predict(X, verbose=0)
    path = tmp_path / "m.tflite"
    exported = tfpeft.export_tflite(model, path, representative_data=X)
    comparison = tfpeft.compare({"model": model, "file": path}, (X, Y))
    for name in ("model", "file"):
        for figure, expected in by_hand(logits, Y).items():
            assert getattr(comparison[name], figure) == pytest.approx(expected, abs=1e-5)
        assert comparison[name].macs == 16 * 3 * 18 + 48 * 4
        assert comparison[name].gzip_bytes == pytest.approx(exported.gzip_bytes, rel=0.02)
        assert 0 < comparison[name].latency_ms <= comparison[name].latency_p90_ms
        assert comparison[name].notes == ()
    assert comparison["file"].size_bytes == exported.size_bytes
    assert comparison["model"].size_bytes == pytest.approx(exported.size_bytes, rel=0.02)
    assert comparison["model"].parameters == model.count_params() == 57 + 12 + 196
    # Normalisation of zero mean and unit scale: 9 ones; biases and means are zeros.
    zeros = sum(int(np.sum(w.numpy() == 0)) for w in model.weights)
    assert comparison["model"].nonzero_parameters == model.count_params() - zeros


def test_accepts_one_hot_labels_datasets_and_paths(tmp_path):
    model = net()
    model.save(tmp_path / "m.keras")
    expected = tfpeft.evaluate(model, (X, Y))
    forms = [
        (X, np.eye(4)[Y]),
        (X, Y[:, None]),
        tf.data.Dataset.from_tensor_slices((X, Y)).batch(7),
    ]
    for form in forms:
        assert tfpeft.evaluate(model, form).loss == pytest.approx(expected.loss)
    loaded = tfpeft.evaluate(tmp_path / "m.keras", (X, Y))
    assert loaded.loss == pytest.approx(expected.loss)


def test_a_file_of_a_fixed_batch(tmp_path):
    model = keras.Sequential([keras.Input((72,)), keras.layers.Dense(4)])
    write(tmp_path / "m.tflite", {"serve": model}, [tf.TensorSpec([8, 72], "float32")])
    x = X.reshape(50, 72)
    comparison = tfpeft.compare({"model": model, "file": tmp_path / "m.tflite"}, (x, Y))
    assert comparison["file"].loss == pytest.approx(comparison["model"].loss, abs=1e-5)
    assert comparison["file"].macs == 72 * 4
    assert comparison["file"].latency_ms > 0


def test_probabilities_that_int8_rounds_away_from_one(tmp_path):
    x, classes = rng.normal(size=(200, 16)).astype("float32"), 100
    model = keras.Sequential([keras.Input((16,)), keras.layers.Dense(classes, "softmax")])
    y = np.argmax(model.predict(x, verbose=0), axis=1)
    path = tmp_path / "m.tflite"
    tfpeft.export_tflite(model, path, quantization="int8", representative_data=x)
    sums = TFLiteFile(path).predict(x).sum(axis=1)
    assert np.max(np.abs(sums - 1)) > 0.01
    loss = tfpeft.evaluate(path, (x, y)).loss
    assert loss == pytest.approx(tfpeft.evaluate(model, (x, y)).loss, abs=0.05)
    assert loss == tfpeft.evaluate(path, (x, y), from_logits=False).loss


def test_what_cannot_be_had_is_none_with_its_reason():
    inputs = keras.Input((12,))
    model = keras.Model(inputs, keras.layers.Dense(4)(keras.ops.erfinv(0.1 * inputs)))
    row = tfpeft.evaluate(model, (X.reshape(50, 72)[:, :12], Y))
    assert row.latency_ms is None
    assert any("Erfinv" in note for note in row.notes)


def test_a_recurrent_file_is_evaluated_sample_by_sample(tmp_path):
    model = keras.Sequential([keras.Input((6, 12)), keras.layers.LSTM(5), keras.layers.Dense(4)])
    x = X.reshape(50, 6, 12)
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=x)
    assert report.batch_size == 1
    assert "batch_size=1" in str(report)
    rows = tfpeft.compare({"model": model, "file": tmp_path / "m.tflite"}, (x, Y))
    assert rows["file"].accuracy == rows["model"].accuracy
    assert rows["file"].loss == pytest.approx(rows["model"].loss, abs=1e-5)
    assert rows["file"].latency_ms > 0
    assert rows["model"].macs is None
    assert any("loops" in note for note in rows["model"].notes)


def test_the_model_is_left_as_it_is():
    model = net()
    model.compile("adam", "mse")
    optimizer, before = model.optimizer, [w.numpy() for w in model.weights]
    tfpeft.evaluate(model, (X, Y))
    assert model.optimizer is optimizer
    for expected, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)


def test_tables_and_json():
    comparison = tfpeft.compare({"one": net(), "two": net("softmax")}, (X, Y))
    rows = json.loads(comparison.to_json())
    assert rows["one"]["accuracy"] == comparison["one"].accuracy
    table = str(comparison).splitlines()
    assert table[0].split()[:2] == ["accuracy", "%"]
    assert table[2].split()[:2] == ["one", f"{100 * comparison['one'].accuracy:.2f}"]
    assert len({len(line) for line in table[:4]}) == 1
    assert "two: accuracy " in table[4]
    markdown = comparison.to_markdown().splitlines()
    assert markdown[2].startswith("| one | ")
    assert len({line.count("|") for line in markdown[:4]}) == 1


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:0], Y[:0]), "with samples, one or more.*tuple without any"),
        ((X, Y[:10]), "as many samples as labels.*50 and 10"),
        ((X * np.nan, Y), "finite"),
        ((X, Y + 0.5), "whole numbers"),
        ((X, Y.astype(str)), "array of numbers for y.*Received: labels of type <U"),
        ((X.astype(str), Y), "numbers for .*Received: texts"),
        (({"a": X, "b": Y.astype(str)}, Y), "Received: a, b"),
        (([X, X[:10]], Y), "as many samples as labels.*50 and 10 and 50"),
        (({"a": X, "b": X[:0]}, Y), "as many samples as labels.*50 and 0 and 50"),
        (({}, Y), "a tuple without inputs"),
        (X, r"expected \(x, y\).*x alone"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(7).repeat(), "repeats without an end"),
        (
            tf.data.Dataset.from_tensor_slices((X, Y, -Y)).batch(7),
            "sample weights that are finite and >= 0.*from -3 to 0",
        ),
        ((X, Y, X), r"expected a sample weight per sample. Received: weights of shape \(6, 6, 2\)"),
        ((X, Y, Y * 0), "weights of which some are above 0"),
        (tf.data.Dataset.from_tensor_slices({"a": X}).batch(7), "has it. Received: a"),
        (tf.data.Dataset.from_tensor_slices((X, Y)), "expected batches, .*single samples"),
        (
            tf.data.Dataset.from_tensor_slices((X[:0], Y[:0])).batch(7),
            "a dataset without any",
        ),
        ((X, Y - 1), "whole numbers >= 0.*-1"),
        ((X, Y + 2), "labels from 0 to 3.*Received: the label 5"),
        ((X, np.eye(7)[Y]), "one-hot labels of 4 classes.*Received: rows of 7"),
        ((X + 1j, Y), "`data`, expected arrays of real numbers.*complex"),
    ],
)
def test_bad_data_raises(data, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.evaluate(net(), data)


@pytest.mark.parametrize("value", ["no", 2, float("nan")])
def test_from_logits_is_true_or_false(value):
    with pytest.raises(ValueError, match="`from_logits`, expected True or False"):
        tfpeft.evaluate(net(), (X, Y), from_logits=value)


def test_no_models_raise():
    for models in ({}, [net()], {3: net()}):
        with pytest.raises(ValueError, match="`models`"):
            tfpeft.compare(models, (X, Y))


def test_bad_models_raise(tmp_path):
    (tmp_path / "m.tflite").write_bytes(b"nothing of the kind")
    for model, message in [
        (tmp_path / "m.tflite", "m.tflite, which is something else"),
        (
            tmp_path / "none.keras",
            "`model`, expected a .keras or .h5 .*none.keras', which is not",
        ),
        (
            keras.Sequential([keras.Input((6, 6, 2)), keras.layers.Flatten()]),
            "Expected labels from 0",
        ),
    ]:
        data = (X, Y + 100)
        with pytest.raises(ValueError, match=message):
            tfpeft.evaluate(model, data)
    broken = net()
    broken.layers[-1].bias.assign(np.full(4, np.nan))
    with pytest.raises(ValueError, match="finite outputs"):
        tfpeft.evaluate(broken, (X, Y))
