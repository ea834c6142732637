"""The classes of errors, their two sentences, and the checks of single arguments."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.core import arguments


@pytest.mark.parametrize("name", ["NoMatchError", "ExportError", "BudgetError"])
def test_every_class_is_an_input_error_and_a_value_error(name):
    error = getattr(arguments, name)
    assert issubclass(error, arguments.InputError)
    assert issubclass(error, ValueError)
    assert error is not arguments.InputError


def test_an_invalid_argument_is_named_with_its_value():
    error = arguments.invalid("alpha", "a number in [0, 1]", "x", error=arguments.BudgetError)
    assert type(error) is arguments.BudgetError
    assert str(error) == (
        "Received an invalid value for `alpha`, expected a number in [0, 1]. Received: alpha='x'"
    )
    assert type(arguments.invalid("alpha", "a number", 1)) is arguments.InputError


def test_where_no_argument_is_wrong_the_sentence_has_none():
    error = arguments.unexpected("a file", "a folder", error=arguments.ExportError)
    assert type(error) is arguments.ExportError
    assert str(error) == "Expected a file. Received: a folder"
    assert type(arguments.unexpected("a file", "a folder")) is arguments.InputError


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        ("check_sparsity", [0, 0.5, np.float32(0.5)], [1.0, -0.1, math.nan, "0.5", None]),
        ("check_rate", [0.5, 1, 1.0], [0.0, 1.1, math.nan, "0.5", None]),
        ("check_positive", [1e-9, 3, np.float64(2)], [0, -1.0, math.inf, math.nan, "1", None]),
        ("check_positive_integer", [1, np.int64(7)], [0, -1, 1.0, True, "1", None]),
        ("check_seed", [0, -5, 2**31 - 1, np.int32(3)], [2**31, -(2**31), 0.0, True, None]),
    ],
)
def test_checks_of_numbers(check, good, bad):
    check = getattr(arguments, check)
    for value in good:
        check("value", value)
    for value in bad:
        with pytest.raises(arguments.InputError, match="`value`, expected .*Received: value="):
            check("value", value)


def test_checks_of_names():
    arguments.check_exclude(["head"])
    arguments.check_exclude(())
    for exclude in ("head", [1], None):
        with pytest.raises(arguments.InputError, match="`exclude`, expected a list or tuple"):
            arguments.check_exclude(exclude)
    arguments.check_choice("scope", "global", ("layer", "global"))
    with pytest.raises(arguments.InputError, match="expected one of 'layer', 'global'.*'all'"):
        arguments.check_choice("scope", "all", ("layer", "global"))


def test_unknown_sides_agree_with_any():
    assert arguments.compatible_shapes((None, 3), (5, 3))
    assert arguments.compatible_shapes((), ())
    assert not arguments.compatible_shapes((None, 3), (5, 4))
    assert not arguments.compatible_shapes((None, 3), (None, 3, 1))


def test_functions_of_the_library_raise_them():
    with pytest.raises(arguments.InputError, match="`target_sparsity`"):
        tfpeft.constant_sparsity(1.5, begin=0.0, total_steps=100)


def keras_error(call):
    """The text of the exception that a call of Keras raises."""
    with pytest.raises(Exception) as error:  # noqa: PT011
        call()
    return error.value


class Custom(keras.layers.Layer):
    def __init__(self, units):
        super().__init__()


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (
            lambda: keras.layers.Reshape((3, 3))(keras.Input((4,))),
            "Reshape: The total size of the tensor must be unchanged. "
            "Received: input_shape=(4,), target_shape=(3, 3)",
        ),
        (
            lambda: Custom.from_config({"name": "custom"}),
            "Custom.__init__() got an unexpected keyword argument 'name'",
        ),
        (
            lambda: keras.layers.Dense(2)(np.ones((1, 2)) @ tf.ones((3, 1), tf.float64)),
            "Matrix size-incompatible: In[0]: [1,2], In[1]: [3,1]",
        ),
    ],
)
def test_the_last_cause_in_one_line(call, expected):
    assert arguments.last_cause(keras_error(call)).removeprefix("Dense: ") == expected


def test_the_cause_after_a_trace_of_the_graph():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(tf.errors.InvalidArgumentError) as error:
        model.fit(np.zeros((4, 2)), np.full(4, 7), verbose=0)
    cause = arguments.last_cause(error.value)
    assert cause.startswith(
        "Received a label value of 7 which is outside the valid range of [0, 3)"
    )
    assert "node" not in cause


def test_what_is_short_already():
    assert arguments.last_cause(KeyError()) == "KeyError"
    assert arguments.last_cause(ValueError("one\ntwo\n\nthree.")) == "one two"
    assert len(arguments.last_cause(ValueError("long " * 100))) == 300
    error = arguments.invalid("x", "y " * 200, 3)
    assert arguments.last_cause(error) == str(error)


def test_values_in_one_line():
    error = arguments.invalid("x", "a number", np.zeros((100, 100)))
    assert "\n" not in str(error)
    assert len(str(error)) < 1100


def test_objects_of_tf_keras_are_called_so():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(3, input_shape=(4,))])
    message = r"model=Sequential of tf_keras \(Keras 2\); tfpeft takes those of Keras 3$"
    for call in (
        lambda: tfpeft.export_tflite(model, "never.tflite"),
        lambda: tfpeft.add_adapters(model, tfpeft.LoRA()),
        lambda: tfpeft.scale_width(model, 0.5),
    ):
        with pytest.raises(arguments.InputError, match=message):
            call()
