"""The inputs of files: named as the model's, matched by name or position, in the model's order."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import tfpeft
from tfpeft.export.tflite_signature import file_names

rng = np.random.default_rng(0)
DATA = {
    "price": (50 * rng.random((60, 1))).astype("float32"),
    "age": rng.random((60, 1)).astype("float32"),
    "city": rng.integers(0, 5, (60, 1)).astype("int32"),
}
SHUFFLED = {name: DATA[name] for name in ("city", "price", "age")}
LISTED = list(DATA.values())
Y = (DATA["price"][:, 0] > 25).astype("int64")


def backbone():
    keras.utils.set_random_seed(0)
    price, age = keras.Input((1,), name="price"), keras.Input((1,), name="age")
    city = keras.Input((1,), name="city", dtype="int32")
    embedded = keras.layers.Flatten()(keras.layers.Embedding(5, 4)(city))
    hidden = keras.layers.Concatenate()([price * 0.1, age, embedded])
    return keras.Model([price, age, city], keras.layers.Dense(6)(hidden))


@pytest.fixture(scope="module")
def model():
    inner = backbone()
    return keras.Model(inner.inputs, keras.layers.Dense(2)(inner.output))


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("names") / "m.tflite"
    tfpeft.export_tflite(model, path, representative_data=SHUFFLED)
    return tfpeft.TFLiteFile(path)


def test_a_file_has_the_names_and_the_order_of_the_model(file):
    assert list(file.signature().inputs) == ["price", "age", "city"]
    interpreter = Interpreter(model_path=str(file.path))
    names = [details["name"] for details in interpreter.get_input_details()]
    assert [name.split("_")[-1].split(":")[0] for name in names] == ["price", "age", "city"]


def test_columns_that_are_no_inputs_are_left_out(model, file):
    names = np.array([f"row {i}" for i in range(60)])
    more = {"name": names, "missing": np.full(60, np.nan), **DATA}
    expected = np.mean(model.predict(DATA, verbose=0).argmax(-1) == Y)
    for data in ((more, Y), tf.data.Dataset.from_tensor_slices((more, Y)).batch(16)):
        assert tfpeft.evaluate(file.path, data).accuracy == expected
    for path in (model, file.path):
        with pytest.raises(tfpeft.InputError, match="numbers for age.*Received: texts"):
            tfpeft.evaluate(path, ({**DATA, "age": names}, Y))


@pytest.mark.parametrize("x", [DATA, SHUFFLED, LISTED, tuple(LISTED)])
def test_a_dict_goes_by_name_and_a_list_by_position(model, file, x):
    expected = model.predict(DATA, verbose=0)
    np.testing.assert_allclose(file.predict(x), expected, atol=1e-5)
    for path in (model, file.path):
        assert tfpeft.evaluate(path, (x, Y)).accuracy == np.mean(expected.argmax(-1) == Y)
    assert file.macs(keras.tree.map_structure(lambda array: array[:1], x)) == 6 * 6 + 6 * 2


@pytest.mark.parametrize(
    ("x", "message"),
    [
        ({"price": DATA["price"]}, "expected 3 inputs, price, age, city, as .*Received: price$"),
        ({"price": DATA["price"], "aged": DATA["age"], "city": DATA["city"]}, "Received: .*aged"),
        (LISTED[:2], "Received: 2 inputs$"),
        ([*LISTED[:2], np.zeros((60, 3), "int32")], r"city of shape \(1,\)"),
        ([LISTED[0], LISTED[1], LISTED[2] + 0.5], "whole numbers of int32 for city"),
    ],
)
def test_other_inputs_raise_one_line(model, file, tmp_path, x, message):
    with pytest.raises(tfpeft.InputError, match=message):
        file.predict(x)
    with pytest.raises(tfpeft.InputError, match="`representative_data`.*" + message):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=x)
    assert not list(tmp_path.iterdir())


def test_numbers_beyond_a_table_are_an_error_of_one_line(file):
    with pytest.raises(tfpeft.InputError, match="can run on.*the error gather index") as error:
        file.predict({**DATA, "city": DATA["city"] + 9})
    assert "\n" not in str(error.value)


def test_signatures_of_a_shared_model_in_int8(tmp_path):
    shared = tfpeft.SharedModel(backbone(), {"a": 2, "b": 3})
    path = tmp_path / "s.tflite"
    tfpeft.export_tflite(shared, path, quantization="int8", representative_data=SHUFFLED)
    file, expected = tfpeft.TFLiteFile(path), shared.predict(DATA, verbose=0)
    for task in ("a", "b"):
        assert list(file.signature(task).inputs) == ["price", "age", "city"]
        by_name, by_place = file.predict(SHUFFLED, task), file.predict(LISTED, task)
        np.testing.assert_array_equal(by_name, by_place)
        assert np.corrcoef(by_name.ravel(), expected[task].ravel())[0, 1] > 0.99


def test_names_that_tensorflow_does_not_take(tmp_path):
    names = ["my price", "_age", "class", "größe"]
    inputs = [keras.Input((2,), name=name) for name in names]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    tfpeft.export_tflite(model, tmp_path / "m.tflite")
    file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
    assert list(file.signature().inputs) == ["my_price", "input_age", "class_", "gr__e"]
    x = {name: np.full((3, 2), i, "float32") for i, name in enumerate(names)}
    expected = [[0, 0, 1, 1, 2, 2, 3, 3]] * 3
    for given in (x, dict(zip(file_names(x), x.values(), strict=True)), list(x.values())):
        np.testing.assert_array_equal(file.predict(given), expected)


@pytest.mark.parametrize(
    ("names", "in_file"),
    [
        (["input_1", "input_0"], ["input_1", "input_0"]),
        (["image-left", "image_left"], ["image-left_1", "image_left"]),
        (["a b", "a_b", "a.b", "A_B"], ["a_b_2", "a_b_1", "a.b_3", "A_B"]),
    ],
)
def test_names_that_are_alike_for_tensorflow(tmp_path, names, in_file):
    inputs = [keras.Input((2,), name=name) for name in names]
    model = keras.Model(inputs, keras.layers.Concatenate()(inputs))
    x = {name: np.full((3, 2), i, "float32") for i, name in enumerate(names)}
    for options in ({}, {"quantization": "int8", "representative_data": x}):
        tfpeft.export_tflite(model, tmp_path / "m.tflite", **options)
        file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
        assert list(file.signature().inputs) == in_file
        expected = model.predict(x, verbose=0)
        for given in (x, dict(reversed(x.items())), list(x.values())):
            np.testing.assert_allclose(file.predict(given), expected, atol=0.02)


def test_a_file_of_numbered_inputs_says_what_it_takes(tmp_path):
    path = tmp_path / "m.tflite"
    inputs = [keras.Input((2,), name=f"input_{i}") for i in range(2)]
    tfpeft.export_tflite(keras.Model(inputs, inputs[0] - inputs[1]), path)
    # As files of 0.1, which do not have the order of the model.
    path.write_bytes(path.read_bytes().replace(b"MLIR, in order.", b"MLIR Converted."))
    file, one, zero = tfpeft.TFLiteFile(path), np.ones((3, 2), "float32"), np.zeros((3, 2))
    for given in ([one, zero], {"input_1": zero, "input_0": one}):
        np.testing.assert_array_equal(file.predict(given), one)
    message = "a list of 2 arrays.*sorted keys.*dict of input_0, input_1, .*Received: mask, tok$"
    with pytest.raises(tfpeft.InputError, match=message):
        file.predict({"tok": one, "mask": zero})


class ByKey(keras.Model):
    def call(self, x):
        return x["left"] + 10.0 * x["right"]["up"]


def test_nested_dicts_of_a_subclassed_model(tmp_path):
    model = ByKey()
    x = {"right": {"up": np.ones((4, 2), "float32")}, "left": np.zeros((4, 2), "float32")}
    model(x)
    tfpeft.export_tflite(model, tmp_path / "m.tflite", representative_data=x)
    file = tfpeft.TFLiteFile(tmp_path / "m.tflite")
    assert set(file.signature().inputs) == {"left", "right.up"}
    np.testing.assert_array_equal(file.predict(x), np.full((4, 2), 10.0))


def test_a_file_of_one_input_without_a_signature_of_ours(tmp_path):
    model = keras.Sequential([keras.Input((3,), name="x"), keras.layers.Dense(2)])
    function = tf.function(model).get_concrete_function(tf.TensorSpec([None, 3], "float32"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([function], model)
    (tmp_path / "m.tflite").write_bytes(converter.convert())
    file, x = tfpeft.TFLiteFile(tmp_path / "m.tflite"), np.ones((2, 3), "float32")
    (name,) = file.signature().inputs
    for given in (x, [x], {name: x}):
        assert file.predict(given).shape == (2, 2)
    with pytest.raises(tfpeft.InputError, match="Received: y$"):
        file.predict({"y": x})
