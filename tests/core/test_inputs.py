"""Data matched to the inputs of a model: a dict by name, a list by position, the rest raises."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.core.inputs import arrange, model_inputs

PRICE, AGE = np.full((2, 1), 3.0, "float32"), np.full((2, 1), 4.0, "float32")
CITY = np.full((2, 1), 5, "int32")


def _inputs():
    return [keras.Input((1,), name="price"), keras.Input((1,), name="age")]


def _outputs(inputs):
    return keras.layers.Concatenate()([inputs[0], 10 * inputs[1]])


def _functional():
    inputs = [*_inputs(), keras.Input((1,), name="city", dtype="int32")]
    return keras.Model(
        inputs, keras.layers.Concatenate()([*inputs[:2], keras.ops.cast(inputs[2], "float32")])
    )


@keras.saving.register_keras_serializable(package="tests")
class _ByKey(keras.Model):
    def call(self, x):
        return keras.ops.concatenate([x["price"], x["age"]], -1)


class _ByPosition(keras.Model):
    def call(self, x):
        return keras.ops.concatenate(list(x), -1)


GIVEN = {
    "dict in the model's order": {"price": PRICE, "age": AGE, "city": CITY},
    "dict in another order": {"city": CITY, "age": AGE, "price": PRICE},
    "list": [PRICE, AGE, CITY],
    "tuple": (PRICE, AGE, CITY),
    "vectors": {"price": PRICE[:, 0], "age": AGE[:, 0], "city": CITY[:, 0]},
    "one side too many": [PRICE[..., None], AGE, CITY],
    "whole numbers as floats": [PRICE, AGE, CITY.astype("float64")],
    "more keys": {"id": CITY, "city": CITY, "age": AGE, "name": "x", "price": PRICE},
    "tensors": {"city": tf.constant(CITY), "age": tf.constant(AGE), "price": tf.constant(PRICE)},
}


@pytest.mark.parametrize("x", GIVEN.values(), ids=GIVEN)
def test_matches(x):
    model = _functional()
    found = arrange(model, x)
    assert isinstance(found, list)
    assert [np.shape(array) for array in found] == [(2, 1)] * 3
    np.testing.assert_array_equal(model(found), [[3, 4, 5]] * 2)


NOT = {
    "missing": ({"price": PRICE, "age": AGE}, "expected 3 inputs, price, age, city, as 'm' has"),
    "misspelt": ({"price": PRICE, "age": AGE, "town": CITY, "id": CITY}, "price, age, town, id$"),
    "other": ({"a": PRICE, "b": AGE, "c": CITY}, "Received: a, b, c$"),
    "count": ([PRICE, AGE], "Received: 2 inputs$"),
    "one array": (PRICE, r"Received: an array of shape \(2, 1\)$"),
    "size": ([PRICE, np.zeros((2, 3)), CITY], r"age of shape \(1,\) per sample.*shape \(3,\)$"),
    "rank": ([PRICE, AGE, np.zeros((2, 1, 4))], r"city of shape \(1,\) per sample"),
    "fractions": ([PRICE, AGE, CITY + 0.5], "whole numbers of int32 for city"),
    "too large": ([PRICE, AGE, CITY.astype("int64") + 2**40], "whole numbers of int32 for city"),
    "texts": ([PRICE.astype(str), AGE, CITY], "numbers for price.*texts$"),
    "text tensors": ([PRICE, AGE, tf.constant([["a"], ["b"]])], "numbers for city.*texts$"),
    "NaN": ([PRICE, AGE, CITY * np.nan], "whole numbers of int32 for city"),
    "nested": ({"price": PRICE, "age": [AGE], "city": [CITY, CITY]}, "Received: 2 inputs$"),
}


@pytest.mark.parametrize(("x", "message"), NOT.values(), ids=NOT)
def test_raises(x, message):
    model = _functional()
    model.name = "m"
    with pytest.raises(tfpeft.InputError, match=message) as error:
        arrange(model, x, "representative_data")
    assert "`representative_data`" in str(error.value)
    assert "\n" not in str(error.value)


def test_a_dict_of_inputs_has_the_order_of_its_names():
    price, age = _inputs()
    model = keras.Model({"price": price, "age": age}, _outputs([price, age]))
    np.testing.assert_array_equal(model(arrange(model, {"age": AGE, "price": PRICE}))[0], [3, 40])
    # Keras sorts the names, the caller may not.
    with pytest.raises(tfpeft.InputError, match="a dict of price, age"):
        arrange(model, [PRICE, AGE])
    model = keras.Model({"age": age, "price": price}, _outputs([price, age]))
    np.testing.assert_array_equal(model(arrange(model, [AGE, PRICE]))[0], [3, 40])


def test_keys_of_a_dict_that_are_not_the_names_of_the_inputs():
    price, age = _inputs()
    with pytest.warns(UserWarning, match="must match the names"):
        model = keras.Model({"p": price, "a": age}, _outputs([price, age]))
    for x in ({"a": AGE, "p": PRICE}, {"age": AGE, "price": PRICE}, {"a": AGE, "p": PRICE, "i": 1}):
        np.testing.assert_array_equal(model(arrange(model, x))[0], [3, 40])
    with pytest.raises(tfpeft.InputError, match="2 inputs, .* Received: a, p, price$"):
        arrange(model, {"a": AGE, "p": PRICE, "price": AGE})  # two names of one input


def test_nested_inputs():
    price, age = _inputs()
    city = keras.Input((1,), name="city")
    model = keras.Model([{"price": price, "age": age}, city], _outputs([price, age]))
    found = arrange(model, ({"age": AGE, "price": PRICE}, PRICE))
    np.testing.assert_array_equal(model(found)[0], [3, 40])
    deep = keras.Model({"car": {"price": price, "age": age}, "at": city}, _outputs([price, age]))
    names = [leaf.name for leaf in keras.tree.flatten(model_inputs(deep))]
    assert names == ["at", "car.age", "car.price"]
    with pytest.raises(tfpeft.InputError, match="price, .*Received: price$|age, price"):
        arrange(deep, {"at": PRICE, "car": {"price": PRICE}})


@pytest.mark.parametrize("x", [PRICE, [PRICE], {"price": PRICE}, PRICE[:, 0]])
def test_one_input(x):
    price = _inputs()[0]
    for model in (
        keras.Model(price, 2 * price),
        keras.Sequential([keras.Input((1,), name="price"), keras.layers.Dense(1)]),
        keras.Model([price], price),
    ):
        assert keras.tree.flatten(arrange(model, x))[0].shape == (2, 1)
        assert keras.tree.flatten(arrange(model, {"id": CITY, "price": PRICE})) == [PRICE]
        with pytest.raises(tfpeft.InputError, match="expected price, as"):
            arrange(model, {"cost": PRICE, "id": CITY})


def test_names_of_the_process_are_names_too():
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    for name in (model.inputs[0].name, model_inputs(model).name):
        assert arrange(model, {name: PRICE}) is PRICE


def test_subclassed_models_have_what_they_were_built_with():
    by_key, by_position = _ByKey(), _ByPosition()
    assert arrange(by_key, [PRICE]) == [PRICE]  # not built: not known
    by_key({"price": PRICE, "age": AGE})
    by_position([PRICE, AGE])
    np.testing.assert_array_equal(by_key(arrange(by_key, {"age": AGE, "price": PRICE}))[0], [3, 4])
    np.testing.assert_array_equal(by_position(arrange(by_position, (PRICE, AGE)))[0], [3, 4])
    with_others = {"age": AGE, "price": PRICE, "mask": CITY}  # the model may use a mask
    for model, x in (
        (by_key, {"age": AGE}),
        (by_key, with_others),
        (by_position, {"age": AGE, "price": PRICE}),
    ):
        with pytest.raises(tfpeft.InputError, match="2 inputs"):
            arrange(model, x)


def test_inside_a_graph():
    model = _functional()

    @tf.function
    def run(x):
        return model(arrange(model, x))

    np.testing.assert_array_equal(run({"city": CITY, "age": AGE, "price": PRICE})[0], [3, 4, 5])
    symbolic = {name: keras.Input((1,)) for name in ("city", "age", "price")}
    assert arrange(model, symbolic)[0] is symbolic["price"]


def test_shared_models_have_the_inputs_of_their_backbone():
    inputs = _inputs()
    shared = tfpeft.SharedModel(keras.Model(inputs, _outputs(inputs)), {"a": 2, "b": 2})
    for model in (shared, shared.task("a")):
        assert arrange(model, {"age": AGE, "price": PRICE}) == [PRICE, AGE]
