"""The process of the converter: kept, replaced, lost; and the layer that stops a conversion."""

import os
import signal
import threading

import keras
import pytest
import tensorflow as tf
from tensorflow.compiler.mlir.lite.python import wrap_converter

import tfpeft
from tfpeft.export import conversion, converter

layers = keras.layers


class Betainc(layers.Layer):
    def call(self, inputs):
        return tf.raw_ops.Betainc(a=inputs, b=inputs, x=inputs)


def process():
    return converter._converter._process


def crash(monkeypatch):
    """Makes a call during which the process ends."""
    converter.start_converter()
    process()._process.kill()
    process()._process.wait()
    with monkeypatch.context() as context:
        context.setattr(converter._Process, "is_usable", lambda self: True)
        converter.quantize(b"")


def model(*inner):
    return keras.Sequential([keras.Input((4,)), *inner, layers.Dense(2, name="after")], name="net")


def test_exports_share_a_process_that_survives_an_error_and_is_replaced_after_a_crash(
    tmp_path, monkeypatch
):
    tfpeft.export_tflite(model(), tmp_path / "m.tflite")
    first = process()
    with pytest.raises(Exception, match="Invalid model"):
        converter.quantize(b"no file")
    assert process() is first
    with pytest.raises(Exception, match="ended its process with SIGKILL"):
        crash(monkeypatch)
    tfpeft.export_tflite(model(), tmp_path / "m.tflite")
    assert process() is not first
    # Also one that something else ended between two exports.
    process()._process.kill()
    process()._process.wait()
    tfpeft.export_tflite(model(), tmp_path / "m.tflite")


def test_a_process_is_replaced_after_some_calls(monkeypatch):
    converter.start_converter()
    first = process()
    monkeypatch.setattr(converter, "_CALLS", first._calls)
    converter.start_converter()
    assert process() is not first
    assert first._process.returncode is not None


def test_ctrl_c_within_a_call_ends_the_process_and_the_next_call_works(tmp_path, monkeypatch):
    converter.start_converter()
    first = process()

    def interrupt():
        raise KeyboardInterrupt

    monkeypatch.setattr(first._connection, "recv", interrupt, raising=False)
    path = tmp_path / "m.tflite"
    path.write_bytes(b"an earlier file")
    with pytest.raises(KeyboardInterrupt):
        tfpeft.export_tflite(model(), path)
    assert first._process.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"an earlier file"
    assert list(tmp_path.iterdir()) == [path]
    assert tfpeft.export_tflite(model(), path).max_deviation < 1e-6
    # The process itself leaves Ctrl-C to this one.
    os.kill(process()._process.pid, signal.SIGINT)
    before = process()
    tfpeft.export_tflite(model(), path)
    assert process() is before


def test_threads_take_turns(tmp_path):
    models = [model(layers.Dense(i + 1)) for i in range(2)]
    reports = {}

    def export(i):
        reports[i] = tfpeft.export_tflite(models[i], tmp_path / f"{i}.tflite")

    threads = [threading.Thread(target=export, args=(i,)) for i in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(2):
        assert reports[i].max_deviation < 1e-6
        assert tfpeft.TFLiteFile(tmp_path / f"{i}.tflite").macs() == 4 * (i + 1) + (i + 1) * 2


def test_tensorflow_keeps_its_own_functions():
    before = wrap_converter._pywrap_converter_api
    with pytest.raises(Exception, match="Invalid model"):
        converter.quantize(b"no file")
    assert wrap_converter._pywrap_converter_api is before


def test_the_layers_of_operators_that_tflite_lacks_are_named(tmp_path):
    inner = keras.Sequential([layers.Dense(4), Betainc(name="beta")], name="inner")
    inputs = keras.Input((4,))
    outputs = layers.Dense(2)(keras.ops.erfinv(Betainc(name="outer")(inner(inputs))))
    path = tmp_path / "m.tflite"
    path.write_bytes(b"an earlier file")
    with pytest.raises(tfpeft.ExportError, match=r"Betainc.* \(layers: inner/beta, outer\); use "):
        tfpeft.export_tflite(keras.Model(inputs, outputs), path)
    assert path.read_bytes() == b"an earlier file"
    assert list(tmp_path.iterdir()) == [path]


def test_the_layer_that_ends_the_process_is_found(tmp_path, monkeypatch):
    """The process crashes where a part of the model has the layer."""
    convert, parts = conversion.convert_saved_model, []

    def crashing(folder, *names, **flags):
        with open(f"{folder}/saved_model.pb", "rb") as file:
            parts.append(b"Betainc" in file.read())
        if parts[-1]:
            crash(monkeypatch)
        return convert(folder, *names, **flags)

    monkeypatch.setattr(conversion, "convert_saved_model", crashing)
    net = model(*(layers.Dense(4) for _ in range(3)), Betainc(name="beta"), layers.Dense(4))
    expected = r"ended its process with SIGKILL \(layers: beta\)"
    with pytest.raises(tfpeft.ExportError, match=expected) as error:
        tfpeft.export_tflite(net, tmp_path / "m.tflite", batch_size=1)
    assert "\n" not in str(error.value)
    assert len(parts) <= 4  # the whole model, and half of six layers, of three, of one
    assert set(parts) == {True, False}
    assert not list(tmp_path.iterdir())
