"""Models and files of several inputs and signatures."""

import flatbuffers
import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter

import tfpeft
from tests.evaluation.networks import X, Y, by_hand, net, rng, write
from tfpeft.export.tflite_file import TFLiteFile


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


def test_inputs_that_a_model_does_not_have_raise():
    inputs = {name: keras.Input((6,), name=name) for name in ("a", "b")}
    outputs = keras.layers.Dense(4)(keras.layers.add(list(inputs.values())))
    x = {name: X[:, 0, :, 0] for name in ("a", "c")}
    with pytest.raises(ValueError, match="`data`, expected 2 inputs, a, b.*Received: a, c"):
        tfpeft.evaluate(keras.Model(inputs, outputs), (x, Y))
