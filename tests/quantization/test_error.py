"""Which layers lose most in int8: on a model whose layers are good and bad by construction."""

import math

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.export.layer_errors import decibels, powers, recording_layer_errors

rng = np.random.default_rng(0)
layers = keras.layers


@pytest.fixture(scope="module")
def model():
    """Layer `unlike` makes a large channel, which nothing reads, beside small ones that count."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((6,))])
    model.add(layers.Dense(8, activation="relu", name="first"))
    model.add(layers.Dense(8, name="unlike"))
    model.add(layers.Dense(3, name="head"))
    unlike, head = model.get_layer("unlike"), model.get_layer("head")
    unlike.kernel.assign(unlike.kernel * np.where(np.arange(8) == 0, 300.0, 1.0))
    head.kernel.assign(head.kernel * np.where(np.arange(8) == 0, 0.0, 1.0)[:, None])
    return model


@pytest.fixture(scope="module")
def data():
    return rng.normal(size=(300, 6)).astype("float32")


@pytest.fixture(scope="module")
def error(model, data):
    return tfpeft.quantization_error(model, data)


def test_decibels_by_hand():
    """Signal 1 + 9 = 10, noise 0.1: a ratio of 100."""
    sums = powers(np.array([1.0, 3.0], "float32"), np.array([1.1, 3.3]))
    np.testing.assert_allclose(sums, [10.0, 0.1], rtol=1e-6)
    assert decibels(*sums) == pytest.approx(20.0)
    assert decibels(1.0, 0.0) == math.inf


def test_the_layer_that_loses_most_is_found(error):
    assert [row["layer"] for row in error.rows] == ["first", "unlike", "head"]
    # `head` reads the tensor that `unlike` makes, in 8 bits where one of them is in int8.
    assert set(error.worst()[:2]) == {"unlike", "head"}
    alone = {row["layer"]: row["output_snr_db"] for row in error.rows}
    assert max(alone["unlike"], alone["head"]) < alone["first"] - 10
    # The outputs of the whole file are little better than with this layer alone, and no better.
    assert alone["unlike"] - 3 < error.output_snr_db < alone["unlike"] + 1


def test_ratios_are_those_of_exported_files(error, model, data, tmp_path):
    expected = model.predict(data, verbose=0)

    def ratio(**options):
        path = tmp_path / "m.tflite"
        tfpeft.export_tflite(
            model,
            path,
            quantization="int8",
            representative_data=data,
            allow_deviation=99.0,
            **options,
        )
        return decibels(*powers(expected, tfpeft.TFLiteFile(path).predict(data)))

    alone = {row["layer"]: row["output_snr_db"] for row in error.rows}
    with recording_layer_errors() as recorded:
        assert error.output_snr_db == pytest.approx(ratio(), abs=1.0)
    # Of fewer samples, and of the very file that was written.
    within = {row["layer"]: row["snr_db"] for row in error.rows}
    assert recorded == pytest.approx(within, abs=1.0)
    assert list(recorded) == ["first", "unlike", "head"]
    assert alone["first"] == pytest.approx(ratio(float_layers=["unlike", "head"]), abs=2.5)
    assert error.rows[-1]["snr_db"] == pytest.approx(error.output_snr_db, abs=0.01)


def test_table_and_plot(error, tmp_path):
    lines = str(error).splitlines()
    assert len(lines) == 2 + 3 + 1
    assert lines[3].startswith("| unlike | ")
    error.plot(tmp_path / "error.png")
    assert (tmp_path / "error.png").read_bytes()[1:4] == b"PNG"


def test_bad_arguments(model, data):
    with pytest.raises(tfpeft.InputError, match="`model`, expected a keras.Model"):
        tfpeft.quantization_error("model", data)
    with pytest.raises(tfpeft.InputError, match="`data`, expected typical inputs"):
        tfpeft.quantization_error(model, None)
    with pytest.raises(tfpeft.InputError, match=r"`data`, expected .*shape \(6,\)"):
        tfpeft.quantization_error(model, data[:, :4])
    inputs = keras.Input((4,))
    with pytest.raises(tfpeft.NoMatchError, match="layers that can be in int8"):
        tfpeft.quantization_error(keras.Model(inputs, inputs * 2.0 + 1.0), data[:, :4])
