"""Figures of models and files against NumPy, scikit-learn's definitions and counts by hand."""

import json

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tfpeft
from tfpeft.evaluation.tables import plot_accuracy_size
from tfpeft.export.tflite_file import TFLiteFile

rng = np.random.default_rng(0)
X = rng.normal(size=(50, 6, 6, 2)).astype("float32")
Y = rng.integers(0, 4, 50)


def net(activation=None):
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [
            keras.Input((6, 6, 2)),
            keras.layers.Conv2D(3, 3, activation="relu"),
            keras.layers.BatchNormalization(),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation=activation),
        ]
    )


def by_hand(logits, y):
    logits = logits.astype("float64")
    p = np.exp(logits - logits.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    predictions = p.argmax(1)
    precision, recall, f1 = [], [], []
    for c in range(p.shape[1]):
        hits = np.sum((predictions == c) & (y == c))
        predicted, there = np.sum(predictions == c), np.sum(y == c)
        precision.append(hits / predicted if predicted else 0.0)
        recall.append(hits / there if there else 0.0)
        total = precision[-1] + recall[-1]
        f1.append(2 * precision[-1] * recall[-1] / total if total else 0.0)
    return {
        "accuracy": np.mean(predictions == y),
        "precision": np.mean(precision),
        "recall": np.mean(recall),
        "f1": np.mean(f1),
        "loss": -np.mean(np.log(p[np.arange(len(y)), y])),
    }


def write(path, models, specs):
    """Writes a file of a signature a model, without `export_tflite`."""
    archive = keras.export.ExportArchive()
    for name, model in models.items():
        archive.track(model)
        archive.add_endpoint(name, model, input_signature=specs)
    archive.write_out(path.with_suffix(""), verbose=False)
    converter = tf.lite.TFLiteConverter.from_saved_model(
        str(path.with_suffix("")), signature_keys=list(models)
    )
    path.write_bytes(converter.convert())


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


class Attention(keras.Model):
    """MACs by hand: 4 projections of 5x8 by 8x(2*3), scores and values of 2 heads, a head of 8."""

    def __init__(self):
        super().__init__()
        self.attention = keras.layers.MultiHeadAttention(num_heads=2, key_dim=3)
        self.head = keras.layers.Dense(4)

    def call(self, inputs):
        return self.head(keras.ops.mean(self.attention(inputs, inputs), axis=1))


def test_macs_of_a_subclassed_model_agree_with_its_file(tmp_path):
    x = rng.normal(size=(50, 5, 8)).astype("float32")
    model = Attention()
    model(x)
    tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=x)
    comparison = tfpeft.compare({"model": model, "file": tmp_path / "m.tflite"}, (x, Y))
    expected = 4 * 5 * 8 * 6 + 2 * (2 * 5 * 5 * 3) + 8 * 4
    assert [comparison[name].macs for name in ("model", "file")] == [expected, expected]


def test_other_operators_count_the_same_in_model_and_file(tmp_path):
    inputs = keras.Input((6, 6, 2))
    hidden = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(inputs)
    hidden = keras.layers.Conv2DTranspose(3, 2, strides=2)(hidden)
    hidden = keras.layers.SeparableConv2D(5, 3)(hidden)
    hidden = keras.layers.Dense(4)(keras.layers.GlobalAveragePooling2D()(hidden))
    model = keras.Model(inputs, hidden)
    tfpeft.export_tflite(model, tmp_path / "m.tflite")
    comparison = tfpeft.compare({"model": model, "file": tmp_path / "m.tflite"}, (X, Y))
    expected = 16 * 4 * 9 + 16 * 4 * 3 * 4 + 36 * 3 * 9 + 36 * 3 * 5 + 5 * 4
    assert [comparison[name].macs for name in ("model", "file")] == [expected, expected]


def test_sides_that_follow_from_a_free_batch_count_in_full(tmp_path):
    """Dense on a sequence is run as (batch * 36, 2), a dilated convolution as more batches."""
    x = X.reshape(50, 36, 2)
    model = keras.Sequential(
        [
            keras.Input((36, 2)),
            keras.layers.Dense(5),
            keras.layers.EinsumDense("...x,xy->...y", output_shape=(3,)),
            keras.layers.Conv1D(4, 3, dilation_rate=2, padding="same"),
            keras.layers.GlobalAveragePooling1D(),
        ]
    )
    expected = 36 * 2 * 5 + 36 * 5 * 3 + 36 * 3 * 3 * 4
    for quantization in ("none", "float16", "int8"):
        path = tmp_path / f"{quantization}.tflite"
        tfpeft.export_tflite(model, path, quantization=quantization, representative_data=x)
        assert TFLiteFile(path).macs() == expected
    assert tfpeft.evaluate(model, (x, Y)).macs == expected


def test_texts_of_a_free_length(tmp_path):
    tokens = rng.integers(0, 20, (50, 7))
    model = keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            keras.layers.Embedding(20, 8),
            keras.layers.Dense(6),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(4),
        ]
    )
    tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=tokens)
    assert TFLiteFile(tmp_path / "m.tflite").macs() is None
    comparison = tfpeft.compare({"model": model, "file": tmp_path / "m.tflite"}, (tokens, Y))
    for row in comparison.rows.values():
        assert row.macs == 7 * 8 * 6 + 6 * 4
        assert row.latency_ms > 0
    with pytest.raises(ValueError, match=r"of shape \(None,\) per sample"):
        tfpeft.evaluate(tmp_path / "m.tflite", (X, Y))


def text_models():
    """Returns two that share a trunk: of 3 classes as probabilities, of 4 as logits.

    The trunk: embeddings (20, 4) of tokens and (2, 4) of segments, Dense(5) on each place, and
    the mean over the places that the mask does not hide.
    """
    types = {"token_ids": "int32", "segment_ids": "int64", "padding_mask": "bool"}
    inputs = {name: keras.Input((None,), dtype=dtype, name=name) for name, dtype in types.items()}
    hidden = keras.layers.Embedding(20, 4)(inputs["token_ids"])
    hidden = hidden + keras.layers.Embedding(2, 4)(inputs["segment_ids"])
    hidden = keras.layers.Dense(5, activation="relu")(hidden)
    hidden = keras.layers.GlobalAveragePooling1D()(hidden, mask=inputs["padding_mask"])
    sentiment = keras.Model(inputs, keras.layers.Dense(3, activation="softmax")(hidden))
    hidden = keras.layers.Dense(6, activation="relu")(hidden)
    topic = keras.Model(inputs, keras.layers.Dense(4)(hidden))
    # Biases of zeros would be left out of a file, or shared.
    weights = np.random.default_rng(1)
    for model in (sentiment, topic):
        model.set_weights([weights.normal(size=weight.shape) for weight in model.weights])
    return sentiment, topic


TEXTS = {
    "token_ids": rng.integers(0, 20, (50, 7)),
    "segment_ids": rng.integers(0, 2, (50, 7)),
    "padding_mask": np.arange(7) < rng.integers(1, 8, (50, 1)),
}
TRUNK, TRUNK_MACS = 20 * 4 + 2 * 4 + 4 * 5 + 5, 7 * 4 * 5


def logits_of(model):
    """Of NumPy, for TEXTS, without a softmax."""
    tokens, segments, kernel, bias, *heads = model.get_weights()
    hidden = tokens[TEXTS["token_ids"]] + segments[TEXTS["segment_ids"]]
    hidden = np.maximum(hidden @ kernel + bias, 0)
    mask = TEXTS["padding_mask"][..., None]
    hidden = np.sum(hidden * mask, axis=1) / np.sum(mask, axis=1)
    for kernel, bias in zip(heads[:-2:2], heads[1:-2:2], strict=True):
        hidden = np.maximum(hidden @ kernel + bias, 0)
    return hidden @ heads[-2] + heads[-1]


def test_several_inputs_in_every_form(tmp_path):
    _, model = text_models()
    path = tmp_path / "m.tflite"
    tfpeft.export_tflite(model, path)
    listed = Interpreter(model_path=str(path)).get_input_details()
    assert [details["dtype"] for details in listed] == [np.bool_, np.int64, np.int32]
    expected = by_hand(logits_of(model), Y)
    flat = [TEXTS[name] for name in sorted(TEXTS)]
    rows = {
        **tfpeft.compare({"model": model, "file": path}, (TEXTS, Y)).rows,
        "list": tfpeft.evaluate(path, (flat, Y)),
        "dataset": tfpeft.evaluate(path, tf.data.Dataset.from_tensor_slices((TEXTS, Y)).batch(20)),
    }
    for row in rows.values():
        for figure, value in expected.items():
            assert getattr(row, figure) == pytest.approx(value, abs=1e-5)
        assert row.macs == TRUNK_MACS + 5 * 6 + 6 * 4
        assert row.nonzero_parameters == TRUNK + 5 * 6 + 6 + 6 * 4 + 4
        assert row.latency_ms > 0
        assert row.notes == ()
    assert TFLiteFile(path).macs() is None
    for x in (flat[:2], TEXTS["token_ids"], {**TEXTS, "token_ids": X}):
        with pytest.raises(ValueError, match=r"expected .*, as .*m.tflite has it"):
            tfpeft.evaluate(path, (x, Y))


def test_a_pair_of_inputs_of_a_subclassed_model():
    class Pair(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(4)

        def call(self, inputs):
            return self.dense(inputs[0]) * inputs[1]

    model, x = Pair(), (X[:, 0, :, 0], X[:, 0, :1, 1])
    row = tfpeft.evaluate(model, (x, Y))
    kernel, bias = model.get_weights()
    assert row.loss == pytest.approx(by_hand((x[0] @ kernel + bias) * x[1], Y)["loss"], abs=1e-5)
    assert (row.macs, row.notes) == (6 * 4, ())


def test_inputs_of_a_file_made_elsewhere_go_by_their_names(tmp_path):
    specs = {
        "b": tf.TensorSpec([None, 3], "float32", name="b"),
        "a": tf.TensorSpec([None, 3], "float32", name="a"),
    }
    inputs = {name: keras.Input((3,), name=name) for name in specs}
    hidden = keras.layers.Dense(4)(inputs["a"]) - keras.layers.Dense(4)(inputs["b"])
    model = keras.Model(inputs, hidden)
    write(tmp_path / "m.tflite", {"serve": model}, [specs])
    x = {name: rng.normal(size=(50, 3)) for name in specs}
    comparison = tfpeft.compare({"model": model, "file": tmp_path / "m.tflite"}, (x, Y))
    assert comparison["file"].loss == pytest.approx(comparison["model"].loss, abs=1e-5)
    assert comparison["file"].macs == comparison["model"].macs == 2 * 3 * 4
    with pytest.raises(ValueError, match=r"expected a dict of a, b, as .*m.tflite has them"):
        tfpeft.evaluate(tmp_path / "m.tflite", ([x["a"], x["b"]], Y))


def test_a_file_without_signatures(tmp_path):
    model = net()
    tfpeft.export_tflite(model, tmp_path / "named.tflite")
    content = schema.ModelT.InitFromPackedBuf((tmp_path / "named.tflite").read_bytes())
    content.signatureDefs = None
    builder = flatbuffers.Builder()
    builder.Finish(content.Pack(builder), b"TFL3")
    path = tmp_path / "m.tflite"
    path.write_bytes(builder.Output())
    assert TFLiteFile(path).signatures == ()
    comparison = tfpeft.compare({"model": model, "file": path}, (X, Y))
    assert comparison["file"].loss == pytest.approx(comparison["model"].loss, abs=1e-5)
    assert comparison["file"].macs == comparison["model"].macs
    with pytest.raises(ValueError, match=r"expected .*, as .*m.tflite has it. Received: 2 inputs"):
        tfpeft.evaluate(path, ([X, X], Y))


def test_signatures_of_one_file(tmp_path):
    models = dict(zip(("sentiment", "topic"), text_models(), strict=True))
    shared, single = tmp_path / "shared.tflite", tmp_path / "single.tflite"
    names = {"padding_mask": "bool", "segment_ids": "int64", "token_ids": "int32"}
    specs = {name: tf.TensorSpec([None, None], dtype, name) for name, dtype in names.items()}
    write(shared, models, [specs])
    write(single, {"topic": models["topic"]}, [specs])
    heads = {"sentiment": (5 * 3, 3), "topic": (5 * 6 + 6 * 4, 6 + 4)}
    for name, model in models.items():
        y = Y % 3
        row = tfpeft.evaluate(shared, (TEXTS, y), signature=name)
        for figure, value in by_hand(logits_of(model), y).items():
            assert getattr(row, figure) == pytest.approx(value, abs=1e-5)
        assert row.macs == TRUNK_MACS + heads[name][0]
        assert row.nonzero_parameters == TRUNK + sum(map(sum, heads.values()))
        assert row.size_bytes == shared.stat().st_size
        assert row.latency_ms > 0
        assert TFLiteFile(shared).is_softmax(name) == (name == "sentiment")
    for figure in (TFLiteFile(shared).macs, TFLiteFile(shared).is_softmax):
        with pytest.raises(ValueError, match=r"`signature`.*\['sentiment', 'topic'\].*None"):
            figure()
    # Those that have no choice run as they are.
    everything = {"model": models["topic"], "shared": shared, "single": single}
    rows = tfpeft.compare(everything, (TEXTS, Y), signature="topic").rows
    for row in rows.values():
        assert row.loss == pytest.approx(by_hand(logits_of(models["topic"]), Y)["loss"], abs=1e-5)
    for evaluated, signature, message in [
        (shared, None, r"expected one of \['sentiment', 'topic'\], which .*shared.tflite has"),
        (shared, "tone", r"`signature`.*\['sentiment', 'topic'\].*'tone'"),
        (single, "sentiment", r"`signature`.*\['topic'\].*'sentiment'"),
        (models["topic"], "topic", r"`signature`.*a \.tflite file has: \[\].*'topic'"),
    ]:
        with pytest.raises(ValueError, match=message):
            tfpeft.evaluate(evaluated, (TEXTS, Y), signature=signature)


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


def test_inputs_that_a_model_does_not_have_raise():
    inputs = {name: keras.Input((6,), name=name) for name in ("a", "b")}
    outputs = keras.layers.Dense(4)(keras.layers.add(list(inputs.values())))
    x = {name: X[:, 0, :, 0] for name in ("a", "c")}
    with pytest.raises(ValueError, match="`data`, expected 2 inputs, a, b.*Received: a, c"):
        tfpeft.evaluate(keras.Model(inputs, outputs), (x, Y))


def test_the_model_is_left_as_it_is():
    model = net()
    model.compile("adam", "mse")
    optimizer, before = model.optimizer, [w.numpy() for w in model.weights]
    tfpeft.evaluate(model, (X, Y))
    assert model.optimizer is optimizer
    for expected, weight in zip(before, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected)


def test_tables_json_and_plot(tmp_path):
    comparison = tfpeft.compare({"one": net(), "two": net("softmax")}, (X, Y))
    rows = json.loads(comparison.to_json())
    assert rows["one"]["accuracy"] == comparison["one"].accuracy
    table = str(comparison).splitlines()
    assert table[0].split()[:2] == ["accuracy", "%"]
    assert table[2].split()[:2] == ["one", f"{100 * comparison['one'].accuracy:.2f}"]
    assert len({len(line) for line in table}) == 1
    markdown = comparison.to_markdown().splitlines()
    assert markdown[2].startswith("| one | ")
    assert len({line.count("|") for line in markdown}) == 1
    plot_accuracy_size(rows, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    assert [p.name for p in tmp_path.iterdir()] == ["plot.png"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((X[:0], Y[:0]), "with samples, one or more.*tuple without any"),
        ((X, Y[:10]), "as many samples as labels.*50 and 10"),
        ((X * np.nan, Y), "finite"),
        ((X, Y + 0.5), "whole numbers"),
        ((X, np.full((50, 4), 0.25)), "one-hot"),
        ((X, Y.astype(str)), "array of numbers for y.*Received: labels of type <U"),
        ((X.astype(str), Y), "numbers for .*Received: texts"),
        (({"a": X, "b": Y.astype(str)}, Y), "Received: a, b"),
        (([X, X[:10]], Y), "as many samples as labels.*50 and 10 and 50"),
        (({"a": X, "b": X[:0]}, Y), "as many samples as labels.*50 and 0 and 50"),
        (({}, Y), "a tuple without inputs"),
        (X, r"expected \(x, y\).*x alone"),
        (tf.data.Dataset.from_tensor_slices((X, Y)).batch(7).repeat(), "repeats without an end"),
        (tf.data.Dataset.from_tensor_slices((X, Y, Y)).batch(7), r"expected \(x, y\).*weights"),
        (tf.data.Dataset.from_tensor_slices({"a": X}).batch(7), r"expected \(x, y\).*x alone"),
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
