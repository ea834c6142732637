"""Multiply-accumulate operations of models and files, against counts by hand."""

import keras
import pytest

import tfpeft
from tests.evaluation.networks import X, Y, rng
from tfpeft.export.tflite_file import TFLiteFile


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
