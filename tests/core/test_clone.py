"""Copies: classes, functions, vocabularies and states of a model, and the comparison with it."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.core.layers_to_copy import Factor, L, on_top
from tfpeft.core import clone

rng = np.random.default_rng(0)
X = rng.normal(size=(4, 3)).astype("float32")
WORDS = tf.constant([["the good film"], ["a bad one"], ["unknown"]])


def predict(model, x):
    return np.asarray(model(x, training=False))


def block(scale):
    """A class `Block` for each scale, all of one name."""

    class Block(L.Layer):
        def __init__(self, units, **options):
            super().__init__(**options)
            self.units, self.dense = units, L.Dense(units)

        def call(self, x):
            return scale * self.dense(x)

        def get_config(self):
            return {**super().get_config(), "units": self.units}

    return Block


class Dense(L.Dense):
    """A custom layer of the name of Keras's."""

    def call(self, x):
        return 0.5 * super().call(x)


def half_relu(x):
    return 0.5 * keras.ops.relu(x)


half_relu.__name__ = "relu"  # a custom function of the name of Keras's


class Ones(keras.initializers.Initializer):
    def __call__(self, shape, dtype=None):
        return keras.ops.ones(shape)


class NoConfig(keras.regularizers.Regularizer):
    def __call__(self, weight):
        return keras.ops.sum(weight)


class TimesFactor(L.Layer):
    """A layer without weights whose argument no configuration can hold."""

    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def call(self, x):
        return x * self.factor.value


class Shifted(L.Layer):
    """A layer without `get_config`, which keeps its arguments."""

    def __init__(self, table, function, factor, inner, bias=True, **options):
        super().__init__(**options)
        self.table, self.function, self.factor, self.inner = table, function, factor, inner
        self.dense = L.Dense(3, use_bias=bias)

    def call(self, x):
        return self.function(self.dense(self.inner(x))) * self.factor.value + self.table


class Holder(L.Layer):
    """A layer that contains another one, which several can share."""

    def __init__(self, inner, **options):
        super().__init__(**options)
        self.inner = inner

    def call(self, x):
        return self.inner(x) + 1.0

    def get_config(self):
        return {**super().get_config(), "inner": keras.saving.serialize_keras_object(self.inner)}

    @classmethod
    def from_config(cls, config):
        inner = keras.saving.deserialize_keras_object(config.pop("inner"))
        return cls(inner, **config)


class KeepsAnObject(L.Layer):
    """A layer with a configuration, and a record of its shapes, that cannot be written."""

    def __init__(self, factor=None, **options):
        super().__init__(**options)
        self.factor = factor

    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale * self.factor.value

    def get_config(self):
        return {**super().get_config(), "factor": object()}

    def get_build_config(self):
        return {"shape": object()}


class Repeated(L.Layer):
    """A layer that makes several layers of one."""

    def __init__(self, template, **options):
        super().__init__(**options)
        self.template = template
        config = keras.saving.serialize_keras_object(template)
        self.blocks = [keras.saving.deserialize_keras_object(config) for _ in range(2)]

    def call(self, x):
        return self.blocks[1](self.blocks[0](x))

    def get_config(self):
        template = keras.saving.serialize_keras_object(self.template)
        return {**super().get_config(), "template": template}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config.pop("template")), **config)


class Cell(L.Layer):
    """A cell whose layers have no weights before the first call."""

    def __init__(self, **options):
        super().__init__(**options)
        self.state_size = 3
        self.dense = L.Dense(3)

    def call(self, x, states):
        new = keras.ops.tanh(self.dense(x) + states[0])
        return new, [new]


class WithoutConfig(keras.Model):
    def __init__(self, units=2):
        super().__init__()
        self.table, self.dense = L.Embedding(20, 4), L.Dense(units)

    def call(self, x):
        return self.dense(self.table(x))


def without_config():
    model = WithoutConfig()
    model(np.array([[3, 7]]))
    return model


def shared_inner():
    inner, inputs = L.Dense(3), keras.Input((3,))
    return keras.Model(inputs, Holder(inner)(Holder(inner)(inputs)))


def with_closure():
    variable = keras.Variable(np.array([[1.0], [2.0], [3.0]], "float32"))
    return on_top(L.Lambda(lambda x: keras.ops.matmul(x, variable)))


def operations():
    inputs = keras.Input((3,))
    hidden = keras.ops.where(inputs > 0, inputs, tf.constant([0.1, 0.2, 0.3]) * inputs)
    return keras.Model({"x": inputs}, {"y": L.Dense(2)(hidden * np.arange(3.0, dtype="float32"))})


COPIED = {
    "two classes of one name": lambda: on_top(block(1.0)(4), block(-1.0)(4)),
    "a class of the name of Keras's": lambda: on_top(Dense(4), L.Dense(4)),
    "functions of the name of Keras's": lambda: on_top(L.Dense(4, activation=half_relu)),
    "two functions of one name": lambda: on_top(
        L.Lambda(lambda x: x * 2.0), L.Activation(lambda x: x - 1.0)
    ),
    "globals of a lambda": lambda: on_top(L.Lambda(lambda x: tf.nn.silu(x) * Factor.value)),
    "a partial function": lambda: on_top(
        L.Lambda(functools.partial(keras.ops.multiply, 3.0), output_shape=(3,))
    ),
    "a closure over a variable": with_closure,
    "arguments and functions of a Lambda": lambda: on_top(
        L.Lambda(
            lambda x, k: x * k,
            output_shape=lambda shape: shape,
            arguments={"k": np.array([1.0, 2.0, 3.0])},
        )
    ),
    "custom objects, registered nowhere": lambda: on_top(
        L.Dense(3, bias_initializer=Ones(), kernel_regularizer=NoConfig())
    ),
    "a layer that no configuration can hold": lambda: on_top(L.Dense(3), TimesFactor(Factor())),
    "arguments that a layer keeps": lambda: on_top(
        Shifted(np.array([1.0, 2.0, 3.0]), lambda x: 2.0 * x, Factor(), L.Dense(3))
    ),
    "an inner layer of two layers": shared_inner,
    "a configuration that cannot be written": lambda: on_top(KeepsAnObject(Factor())),
    "a template of several layers": lambda: on_top(Repeated(L.Dense(3))),
    "a cell built in its first call": lambda: on_top(L.RNN(Cell()), shape=(5, 3)),
    "operations with arrays and tensors": operations,
    "a subclassed model without get_config": without_config,
    "a fixed batch and its state": lambda: keras.Sequential(
        [keras.Input(batch_shape=(4, 5, 3)), L.LSTM(2, stateful=True)]
    ),
}


def inputs_of(name, model):
    if name == "a subclassed model without get_config":
        return np.array([[3, 7], [0, 19]])
    if name == "operations with arrays and tensors":
        return {"x": X}
    return X if len(model.input_shape) == 2 else rng.normal(size=(4, 5, 3)).astype("float32")


@pytest.mark.parametrize("name", COPIED)
def test_a_copy_has_the_outputs_of_its_model(name):
    keras.utils.set_random_seed(0)
    model = COPIED[name]()
    for weight in model.weights:
        weight.assign(rng.normal(size=weight.shape))
    x = inputs_of(name, model)
    seeds = [np.copy(variable) for variable in model.variables]
    copy = clone.copy_model(model)
    for variable, seed in zip(model.variables, seeds, strict=False):
        if len(seeds) == len(model.variables):  # but for weights of the first call
            np.testing.assert_array_equal(variable, seed)
    for expected, output in zip(
        keras.tree.flatten(model(x)), keras.tree.flatten(copy(x)), strict=True
    ):
        np.testing.assert_array_equal(output, expected)
    assert not any(weight is other for weight in copy.weights for other in model.weights)
    assert [weight.shape for weight in copy.weights] == [weight.shape for weight in model.weights]
    assert all("get_config" not in vars(layer) for layer in (model, *model.layers))


def test_functions_keep_their_names():
    model = on_top(L.Dense(4, activation=half_relu), L.Lambda(lambda x: x))
    clone.copy_model(model)
    assert half_relu.__name__ == "relu"
    assert model.layers[1].function.__name__ == "<lambda>"


LOOKUPS = {
    "TextVectorization": lambda: (L.TextVectorization(output_mode="multi_hot"), WORDS[:2]),
    "TextVectorization of tf_idf": lambda: (L.TextVectorization(output_mode="tf_idf"), WORDS[:2]),
    "TextVectorization of tf_idf, padded": lambda: (
        L.TextVectorization(output_mode="tf_idf", max_tokens=12, pad_to_max_tokens=True),
        WORDS[:2],
    ),
    "IntegerLookup of tf_idf, padded": lambda: (
        L.IntegerLookup(output_mode="tf_idf", max_tokens=9, pad_to_max_tokens=True),
        np.array([[10], [20]]),
    ),
    "StringLookup": lambda: (L.StringLookup(output_mode="one_hot"), WORDS[:2]),
    "IntegerLookup": lambda: (L.IntegerLookup(output_mode="one_hot"), np.array([[10], [20]])),
    "Discretization": lambda: (L.Discretization(num_bins=3, output_mode="one_hot"), X[:, :1]),
    "Normalization": lambda: (L.Normalization(), 5.0 * X[:, :1] + 2.0),
}


@pytest.mark.parametrize("name", LOOKUPS)
def test_what_a_layer_learned_from_data_is_copied(name):
    layer, data = LOOKUPS[name]()
    layer.adapt(data)
    dtype = keras.backend.standardize_dtype(data.dtype)
    model = on_top(layer, dtype=dtype, shape=(1,))
    expected = predict(model, data)
    assert np.ptp(expected, axis=0).max() > 0
    np.testing.assert_array_equal(predict(clone.copy_model(model), data), expected)
