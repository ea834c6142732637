"""Files of layers that are shared, derived from Keras's, or called in unusual ways."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.quantization.networks import samples, shaken
from tests.quantization.test_integer_files import float_operators, relative
from tfpeft.quantization.placement import plan_of

layers = keras.layers


@keras.saving.register_keras_serializable("odd_models")
class Scaled(layers.Dense):
    """A Dense layer with a factor behind its activation."""

    def call(self, inputs):
        return super().call(inputs) * 3.0


def derived():
    inputs = keras.Input((8,))
    x = layers.BatchNormalization()(Scaled(8, activation="tanh")(inputs))
    return keras.Model(inputs, layers.Dense(3)(inputs=x))


def of_floats():
    inputs = keras.Input((6,))
    x = layers.Embedding(1000, 8)(layers.Reshape((2, 3))(inputs))
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def called_twice():
    inputs = keras.Input((6, 6, 4))
    relu, norm = layers.ReLU(), layers.BatchNormalization()
    x = relu(norm(layers.Conv2D(4, 3, padding="same")(inputs)))
    x = relu(norm(layers.Conv2D(4, 3, padding="same")(x)))
    return keras.Model(inputs, layers.Conv2D(3, 1)(x))


def dilated():
    inputs = keras.Input((8, 8, 3))
    x = layers.DepthwiseConv2D(3, dilation_rate=2)(inputs)
    x = layers.ReLU()(layers.BatchNormalization()(x))
    x = layers.SeparableConv2D(4, 3, dilation_rate=2, padding="same")(x)
    return keras.Model(inputs, layers.Dense(3)(layers.Flatten()(x)))


def merged():
    inputs = keras.Input((8,))
    first, second, third = (layers.Dense(8)(inputs) for _ in range(3))
    x = layers.ReLU()(layers.Add()([first, second, third]))
    x = layers.Multiply()([layers.Average()([x, first]), second, third])
    return keras.Model(inputs, layers.Dense(3)(x))


def of_the_larger():
    inputs = keras.Input((8,))
    first = layers.Dense(8)(inputs)
    larger = layers.Maximum()([layers.Dense(8, activation="relu")(inputs), first])
    return keras.Model(inputs, layers.Dense(3)(layers.Concatenate()([larger, first])))


def exported(model, path, **options):
    """Returns a quantise-aware copy of a model, samples, and the outputs of its file."""
    x = samples(model)
    x = np.floor(np.abs(x) * 40) if isinstance(model.layers[1], layers.Reshape) else x
    aware = tfpeft.quantize_aware(shaken(model), representative_data=x, **options)
    tfpeft.export_tflite(aware, path, quantization="int8")
    return aware, x, tfpeft.TFLiteFile(path).predict(x)


@pytest.mark.parametrize(
    "function", [derived, of_floats, called_twice, dilated, merged, of_the_larger]
)
def test_the_file_has_the_outputs_of_the_model(function, tmp_path):
    keras.utils.set_random_seed(0)
    aware, x, found = exported(function(), tmp_path / "model.tflite")
    assert relative(found, np.asarray(aware(x))) < 0.03
    assert relative(np.asarray(aware(x)), np.asarray(aware.model(x))) < 0.3
    if function in (dilated, merged):
        assert float_operators(tmp_path / "model.tflite") == []


def test_a_shared_relu_is_part_of_each_convolution():
    plan = plan_of(called_twice())
    rounded = {each.path for each in plan.placements if each.output}
    assert not any("batch_normalization" in path for path in rounded)


def test_four_bits_of_a_layer_that_is_called_twice(tmp_path):
    keras.utils.set_random_seed(0)
    inputs, dense = keras.Input((8,)), layers.Dense(8)
    x = dense(4.0 * layers.ReLU()(dense(inputs)))
    model = keras.Model(inputs, layers.Dense(3)(x))
    aware, x, found = exported(model, tmp_path / "model.tflite", weight_bits=4)
    assert relative(found, np.asarray(aware(x))) < 0.04


def test_a_table_of_unlike_columns_is_loaded_as_it_was(tmp_path):
    x = np.random.default_rng(0).normal(size=(64, 3)) * [1.0, 1000.0, 1.0]
    norm = layers.Normalization(name="norm")
    norm.adapt(x)
    model = keras.Sequential([keras.Input((3,)), norm, layers.Dense(4)])
    aware = tfpeft.quantize_aware(model, representative_data=x.astype("float32"))
    aware.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    assert loaded.in_float == aware.in_float == {"norm": "its columns are too unlike for 8 bits"}
    np.testing.assert_allclose(loaded(x), aware(x), atol=1e-6)


def test_a_frozen_model_keeps_its_ranges_and_is_called_in_other_models():
    model = keras.Sequential([keras.Input((3,)), layers.Dense(4)])
    x = np.ones((4, 3), "float32")
    aware = tfpeft.quantize_aware(model, representative_data=x)
    aware.trainable = False
    before = np.asarray(aware.quantizers["input_0"].high)
    inputs = keras.Input((3,))
    outer = keras.Model(inputs, [aware(inputs * 0.5), aware(inputs)])
    outer(2.0 * x, training=True)
    np.testing.assert_array_equal(aware.quantizers["input_0"].high, before)


def test_values_outside_of_the_range_of_sixteen_bits(tmp_path):
    inputs = keras.Input((8,))
    x = layers.Activation("sigmoid")(layers.Dense(8, activation="silu")(8.0 * inputs))
    model = shaken(keras.Model(inputs, layers.Dense(3, activation="sigmoid")(8.0 * x)))
    x, path = samples(model), tmp_path / "model.tflite"
    aware = tfpeft.quantize_aware(model, activation_bits=16, representative_data=x)
    tfpeft.export_tflite(aware, path, quantization="int16x8")
    found, expected = tfpeft.TFLiteFile(path).predict(2.0 * x), np.asarray(aware(2.0 * x))
    assert expected.max() > 255 / 256
    assert relative(found, expected) < 1e-3


def test_integers_that_a_subclassed_model_reads_are_not_rounded():
    @keras.saving.register_keras_serializable("odd_models")
    class Reader(keras.Model):
        def __init__(self, **options):
            super().__init__(**options)
            self.table, self.dense = layers.Embedding(1000, 4), layers.Dense(3)

        def call(self, inputs):
            return self.dense(keras.ops.mean(self.table(inputs), axis=1))

        def get_config(self):
            return {}

    keras.utils.set_random_seed(0)
    model, x = Reader(), np.random.default_rng(0).integers(0, 1000, (64, 6))
    expected = np.asarray(model(x))
    aware = tfpeft.quantize_aware(model, representative_data=x)
    assert relative(np.asarray(aware(x)), expected) < 0.2
