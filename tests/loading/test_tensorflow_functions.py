"""TensorFlow's functions as operations of Keras 3: each one's result is TensorFlow's."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf
from google.protobuf import json_format

from tfpeft.core.arguments import InputError
from tfpeft.loading import tensorflow_ops, tensorflow_symbols
from tfpeft.loading.tensorflow_function import TensorFlowFunction, is_pure
from tfpeft.loading.tensorflow_symbols import FUNCTIONS, Shape, apply

X = np.random.default_rng(0).uniform(0.2, 0.8, (2, 3, 4)).astype("float32")
ARGUMENTS = {  # of functions that need more than one tensor, or are not of floats
    "cast": {"dtype": "int32"},
    "clip_by_value": {"clip_value_min": 0.3, "clip_value_max": 0.5},
    "concat": {"axis": -1},
    "expand_dims": {"axis": 1},
    "math.cumsum": {"axis": 1},
    "one_hot": {"depth": 3},
    "pad": {"paddings": [[0, 0], [1, 2], [0, 1]], "constant_values": 2.0},
    "reshape": {"shape": [-1, 6]},
    "split": {"num_or_size_splits": [1, 3], "axis": 2},
    "tile": {"multiples": [1, 2, 1]},
    "transpose": {"perm": [0, 2, 1]},
    "unstack": {"axis": 1},
    "where": {"x": 1.0, "y": [1.0, 2.0, 3.0, 4.0]},
    "__operators__.getitem": {"slice_spec": [..., slice(1, None, 2)]},
}
_LOGICAL = [name for name in FUNCTIONS if "logical" in name] + ["where"]
_ROW = [0.5, 0.25, 0.75, 1.5]


def arguments_of(name):
    if name in ARGUMENTS:
        return ARGUMENTS[name]
    binary = FUNCTIONS[name].__code__.co_varnames[: FUNCTIONS[name].__code__.co_argcount]
    if "y" in binary:
        return {"y": X > 0.5 if name in _LOGICAL else _ROW}
    if "b" in binary:
        return {"b": np.ones((2, 4, 5), "float32")}
    return {}


@pytest.mark.parametrize("name", sorted(set(FUNCTIONS) - {"shape"}))
def test_it_computes_what_tensorflow_does(name):
    first = X > 0.5 if name in _LOGICAL else X
    kwargs = arguments_of(name)
    if name == "math.scalar_mul":
        first, kwargs = 2.5, {"x": X}
    if name == "one_hot":
        first = (X > 0.5).astype("int32")
    if name == "squeeze":
        first = X[:, :1]
        kwargs = {"axis": [1]}
    symbolic = keras.Input(
        batch_shape=X.shape if name != "squeeze" else first.shape,
        dtype=getattr(first, "dtype", np.dtype("float32")).name,
    )
    inputs = [symbolic, symbolic] if name in ("concat", "stack") else symbolic
    values = [first, first] if name in ("concat", "stack") else first
    layer = {"class_name": "TFOpLambda", "name": "f", "config": {"function": name}}
    if name == "math.scalar_mul":
        outputs = apply(layer, first, {"x": symbolic}, "f")
        model = keras.Model(symbolic, outputs)
        np.testing.assert_allclose(model(X), 2.5 * X)
        return
    outputs = apply(layer, inputs, {**kwargs, "name": None}, "f")
    model = keras.Model(symbolic, outputs)
    if name == "__operators__.getitem":
        expected = X[..., 1::2]
    elif name == "__operators__.add":
        expected = X + np.array(_ROW)
    elif name == "convert_to_tensor":
        expected = X
    else:
        function = tf
        for part in name.split("."):
            function = getattr(function, part)
        expected = function(values, **kwargs)
    pairs = zip(keras.tree.flatten(model(first)), tf.nest.flatten(expected), strict=True)
    for output, each in pairs:
        assert output.dtype == tf.convert_to_tensor(each).dtype or name == "__operators__.add"
        np.testing.assert_allclose(output, each, rtol=1e-5, atol=1e-6)


def test_the_sides_of_a_shape_are_numbers_but_for_the_batch():
    tensor = keras.Input((4, 6))

    def call(name, inputs, **kwargs):
        return tensorflow_symbols.apply(
            {"class_name": "TFOpLambda", "name": name, "config": {"function": name}},
            inputs,
            kwargs,
            name.replace(".", "_"),
        )

    shape = call("compat.v1.shape", tensor)
    assert shape == Shape((None, 4, 6))
    batch = call("__operators__.getitem", shape, slice_spec=0)
    area = call("math.multiply", call("__operators__.getitem", shape, slice_spec=[1]), y=6)
    assert (batch, area, call("math.multiply", batch, y=4)) == (None, 24, None)
    assert call("reshape", tensor, shape=[batch, area]).shape == (None, 24)
    assert call("reshape", tensor, shape=[batch, -1, 3]).shape == (None, 8, 3)
    with pytest.raises(InputError, match="as often as a batch decides"):
        call("tile", tensor, multiples=[batch, 1, 1])


@pytest.mark.parametrize(
    "symbol",
    [
        "io.read_file",
        "py_function",
        "io.write_file",
        "print",
        "random.normal",
        "numpy_function",
        "raw_ops.ReadFile",
    ],
)
def test_functions_that_do_more_than_compute_are_an_error(symbol):
    assert not is_pure(symbol)
    layer = {"class_name": "TFOpLambda", "name": "f", "config": {"function": symbol}}
    with pytest.raises(InputError, match=f"no operation for tf.{symbol}"):
        apply(layer, keras.Input((2,)), {}, "f")
    with pytest.raises(InputError, match="a function of tensors"):
        TensorFlowFunction(symbol)


def test_what_keras_lacks_is_a_layer_of_tensorflow(tmp_path):
    inputs = keras.Input((4, 4, 2))
    layer = {"class_name": "TFOpLambda", "name": "f", "config": {"function": "image.flip_up_down"}}
    model = keras.Model(inputs, apply(layer, inputs, {}, "flipped"))
    assert [each.name for each in model.layers][1:] == ["flipped"]
    model.save(tmp_path / "m.keras")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 2)).astype("float32")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "m.keras")(x), x[:, ::-1])


def node(function, *arrays):
    """Returns the last operator of a function's graph, as TensorFlow 2.0 noted it in a layer."""
    specs = [tf.TensorSpec(array.shape, array.dtype) for array in arrays]
    graph = tf.function(function).get_concrete_function(*specs).graph
    operator = [each for each in graph.get_operations() if each.type not in _OTHERS][-1]
    constants = {
        str(place): tf.get_static_value(tensor).tolist()
        for place, tensor in enumerate(operator.inputs)
        if tensor.op.type == "Const"
    }
    return json_format.MessageToJson(operator.node_def), constants


_OTHERS = ("Const", "Placeholder", "Identity", "NoOp")
OPERATORS = [
    lambda x: x + 2.0,
    lambda x: 2.0 - x,
    lambda x: x[:, 1:, ::2],
    lambda x: x[..., tf.newaxis, 0],
    lambda x: tf.reduce_mean(x, [1, 2], keepdims=True),
    lambda x: tf.reshape(x, [-1, 12]),
    lambda x: tf.transpose(x, [0, 2, 1]),
    lambda x: tf.matmul(x, x, transpose_b=True),
    lambda x: tf.concat([x, x], 2),
    lambda x: tf.expand_dims(x, 1),
    lambda x: tf.nn.leaky_relu(x - 0.5, 0.3)[0:] if False else tf.nn.softmax(x),
    lambda x: tf.tile(x, [1, 2, 1]),
]


@pytest.mark.parametrize("number", range(len(OPERATORS)))
def test_operators_of_tensorflow_2_0(number):
    text, constants = node(OPERATORS[number], X)
    config = {"name": "tf_op_layer", "node_def": text, "constants": constants}
    symbolic = keras.Input(batch_shape=X.shape)
    count = len(json.loads(text)["input"]) - len(constants)
    inputs = [symbolic] * count if count > 1 else symbolic
    layer = {"class_name": "TensorFlowOpLayer", "name": "tf_op_layer", "config": config}
    outputs = apply(layer, inputs, {}, "tf_op_layer")
    np.testing.assert_allclose(
        keras.Model(symbolic, outputs)(X), OPERATORS[number](X), rtol=1e-5, atol=1e-6
    )


def test_an_operator_that_is_not_in_the_table_is_named():
    text, constants = node(lambda x: tf.math.lgamma(x), X)
    with pytest.raises(InputError, match="no operation for TensorFlow's Lgamma"):
        tensorflow_ops.from_node_def({"node_def": text, "constants": constants}, keras.Input((2,)))
