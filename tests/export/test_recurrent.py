"""Recurrent layers, batches that are fixed, and sides that are free."""

import keras
import numpy as np
import pytest

import tfpeft

rng = np.random.default_rng(0)
X = rng.normal(size=(40, 6, 5)).astype("float32")
layers = keras.layers

RECURRENT = {
    "LSTM": lambda: [keras.Input((6, 5)), layers.LSTM(4)],
    "GRU of a free length": lambda: [
        keras.Input((None, 5)),
        layers.GRU(4, return_sequences=True),
    ],
    "Bidirectional": lambda: [keras.Input((6, 5)), layers.Bidirectional(layers.LSTM(3))],
    "masked": lambda: [keras.Input((6, 5)), layers.Masking(), layers.SimpleRNN(4)],
    "cells": lambda: [
        keras.Input((6, 5)),
        layers.RNN([layers.LSTMCell(3), layers.GRUCell(2)]),
    ],
}


@pytest.mark.parametrize("name", RECURRENT)
def test_recurrent_layers_run_sample_by_sample(tmp_path, name):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(RECURRENT[name]())
    x = X.copy()
    x[::2, 4:] = 0.0
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=x)
    assert report.batch_size == 1
    file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
    np.testing.assert_allclose(file.predict(x), model.predict(x, verbose=0), atol=1e-5)
    if model.input_shape[1] is None:
        longer = np.concatenate([x, x], axis=1)
        expected = model.predict(longer, verbose=0)
        np.testing.assert_allclose(file.predict(longer), expected, atol=1e-5)


def test_loops_stay_in_float_in_int8(tmp_path):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((6, 5)), layers.Dense(4), layers.GRU(4, name="memory"), layers.Dense(3)]
    )
    path = tmp_path / "m.tflite"
    report = tfpeft.export_tflite(model, path, quantization="int8", representative_data=X)
    assert report.notes == ("loops in float32: memory",)
    assert report.batch_size == 1
    found, expected = tfpeft.TFLiteFile(path).predict(X), model.predict(X, verbose=0)
    assert np.corrcoef(found.ravel(), expected.ravel())[0, 1] > 0.99


def test_states_begin_anew_and_come_back(tmp_path):
    model = keras.Sequential(
        [keras.Input(batch_shape=(1, 6, 5)), layers.LSTM(4, stateful=True, name="memory")]
    )
    model(X[:1])
    before = [state.numpy() for state in model.layers[0].states]
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=X)
    assert report.max_deviation < 1e-5
    for state, value in zip(model.layers[0].states, before, strict=True):
        np.testing.assert_array_equal(state, value)
    model.layers[0].reset_state()
    expected = np.concatenate([model(X[i : i + 1]) for i in range(5)])
    found = tfpeft.TFLiteFile(tmp_path / "m.tflite").predict(X[:5])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_batch_that_the_model_fixes(tmp_path):
    model = keras.Sequential([keras.Input(batch_shape=(4, 6, 5)), layers.Dense(2)])
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=X[:10])
    assert report.batch_size == 4
    found = tfpeft.TFLiteFile(tmp_path / "m.tflite").predict(X[:6])
    np.testing.assert_allclose(found[:4], model(X[:4]), atol=1e-5)
    assert found.shape == (6, 6, 2)


def convolutions(size):
    inputs = keras.Input((None, None, 2))
    hidden = layers.Conv2D(3, size, strides=2)(inputs)
    return keras.Model(inputs, layers.GlobalAveragePooling2D()(hidden))


@pytest.mark.parametrize("quantization", ["none", "int8"])
def test_free_sides_are_tried_at_the_size_of_the_samples(tmp_path, quantization):
    """A kernel of 5 has no output at the 1x1 that a free side counts as."""
    keras.utils.set_random_seed(0)
    model, x = convolutions(5), rng.normal(size=(40, 9, 9, 2)).astype("float32")
    report = tfpeft.export_tflite(
        model, tmp_path / "m.tflite", quantization=quantization, representative_data=x
    )
    assert report.batch_size is None
    file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
    for size in ((9, 9), (13, 21)):
        x = rng.normal(size=(3, *size, 2)).astype("float32")
        expected = model.predict(x, verbose=0)
        np.testing.assert_allclose(file.predict(x), expected, atol=0.02)


def test_without_samples_free_sides_grow_until_the_model_takes_them(tmp_path):
    model = convolutions(40)
    report = tfpeft.export_tflite(model, tmp_path / "m.tflite")
    assert report.max_deviation < 1e-5


def test_samples_of_several_lengths(tmp_path):
    model = keras.Sequential(
        [keras.Input((None, 5)), layers.Conv1D(3, 2), layers.GlobalAveragePooling1D()]
    )
    batches = [X[:20], X[20:, :4]]
    report = tfpeft.export_tflite(
        model,
        tmp_path / "m.tflite",
        quantization="int8",
        representative_data=lambda: iter(batches),
    )
    assert report.relative_error < 0.1


def test_sides_that_cannot_be_free_are_an_error_of_one_line(tmp_path):
    inputs = keras.Input((None, None, 2))
    model = keras.Model(inputs, layers.UpSampling2D(interpolation="bilinear")(inputs))
    with pytest.raises(tfpeft.ExportError, match="None, None, 2.*UpSampling2D") as error:
        tfpeft.export_tflite(model, tmp_path / "m.tflite")
    assert "\n" not in str(error.value)
    assert not list(tmp_path.iterdir())
