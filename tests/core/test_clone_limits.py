"""What cannot be copied is named; random models, seeds, optimizers and metrics."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.core.layers_to_copy import Factor, L, on_top
from tfpeft.core import clone
from tfpeft.core.arguments import InputError


class Forgets(L.Layer):
    """A layer whose configuration lacks an argument."""

    def __init__(self, scale=1.0, **options):
        super().__init__(**options)
        self.scale, self.dense = scale, L.Dense(3)

    def call(self, x):
        return self.scale * self.dense(x)

    def get_config(self):
        return super().get_config()


class RandomTable(L.Layer):
    """A layer with random numbers beside its weights."""

    def build(self, shape):
        self.table = np.random.default_rng().normal(size=shape[-1])

    def call(self, x):
        return x * self.table


class Needs(L.Layer):
    """A layer with weights whose argument no configuration can hold."""

    def __init__(self, factor, **options):
        super().__init__(**options)
        self.value, self.dense = factor.value, L.Dense(3)

    def call(self, x):
        return self.dense(x) * self.value


class WritesAnObject(Needs):
    """A layer whose configuration cannot be written."""

    def get_config(self):
        return {**super(Needs, self).get_config(), "factor": Factor()}


def quantized():
    inputs = keras.Input((3, 4))
    outputs = L.MultiHeadAttention(1, 4, name="attention")(inputs, inputs)
    model = keras.Model(inputs, L.Dense(2, name="top")(outputs))
    model.quantize("int8")
    return model


def reads_a_table():
    table = L.Dense(3, name="table")
    tied = L.Lambda(lambda x: keras.ops.matmul(x, keras.ops.transpose(table.kernel)), name="tied")
    return keras.Sequential([keras.Input((3,)), table, tied])


@pytest.mark.parametrize(
    ("make", "match"),
    [
        (lambda: on_top(Forgets(3.0, name="f")), r"outputs of layer 'f' \(Forgets\) differ by up"),
        (lambda: on_top(RandomTable(name="r")), r"outputs of layer 'r' \(RandomTable\) differ by"),
        (lambda: on_top(Needs(Factor(), name="n")), r"rebuild 'n' \(Needs\).*non-serializable"),
        (
            lambda: keras.Sequential(
                [keras.Input((3,)), on_top(WritesAnObject(Factor(), name="w"))]
            ),
            r"rebuild 'w' \(WritesAnObject\).*Cannot serialize",
        ),
        (quantized, r"layer '\w+' \(EinsumDense\), which Keras quantized \(int8\)"),
        (reads_a_table, "layer 'tied', .*uses no weights.*'table', of layer 'table'"),
    ],
    ids=[
        *("an argument", "random numbers", "an object", "an object that cannot be written"),
        *("quantized", "another layer's weights"),
    ],
)
def test_what_cannot_be_copied_is_named_in_one_line(make, match):
    model = make()
    before = model.get_weights()
    for call in (clone.copy_model, lambda model: tfpeft.add_adapters(model, tfpeft.BitFit("top*"))):
        if match.startswith("layer 'tied'") and call is not clone.copy_model:
            continue  # it has no layer of that name
        with pytest.raises(InputError, match=match) as error:
            call(model)
        assert "\n" not in str(error.value)
        assert len(str(error.value)) < 500
    for weight, value in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(weight, value)


class MonteCarlo(L.Dropout):
    def call(self, x, training=None):
        return super().call(x, training=True)


class Noise(L.Layer):
    """Random numbers without a seed of Keras's."""

    def call(self, x):
        return x + tf.random.normal(tf.shape(x))


@pytest.mark.parametrize("layer", [lambda: MonteCarlo(0.5), Noise], ids=["Keras's", "TensorFlow's"])
def test_random_models_are_copied(layer):
    model = on_top(L.Dense(20), layer())
    copy = clone.copy_model(model)
    for weight, value in zip(copy.get_weights(), model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, value)
    merged = tfpeft.merge_adapters(tfpeft.add_adapters(model, tfpeft.LoRA(2)))
    assert len(merged.weights) == len(model.weights)


def test_a_wrong_copy_of_a_random_model_is_found():
    with pytest.raises(InputError, match=r"layer 'f' \(Forgets\)"):
        clone.copy_model(on_top(MonteCarlo(0.5), Forgets(3.0, name="f")))


def test_seeds_and_statistics_stay():
    model = on_top(L.BatchNormalization(), MonteCarlo(0.5))
    before = [np.copy(variable) for variable in model.variables]
    clone.copy_model(model)
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable, value)


class Rate(keras.optimizers.schedules.LearningRateSchedule):
    def __init__(self, rate):
        self.rate = rate

    def __call__(self, step):
        return self.rate / (1.0 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {"rate": self.rate}


class Half(keras.optimizers.SGD):
    pass


def test_optimizers_and_metrics_are_copied_by_class():
    copy = clone.copy_object(Half(Rate(0.5), momentum=0.9))
    assert type(copy) is Half
    assert copy.momentum == 0.9
    assert float(copy.learning_rate) == 0.5
    metric = keras.metrics.MeanMetricWrapper(lambda y, p: keras.ops.abs(y - p), name="gap")
    copy = clone.copy_object(metric)
    copy.update_state(np.array([1.0, 2.0]), np.array([2.0, 4.0]))
    assert (copy.name, float(copy.result())) == ("gap", 1.5)
    assert float(metric.result()) == 0.0


class Wanting(keras.metrics.Mean):
    def __init__(self, wanted):
        super().__init__()


class Raising(keras.metrics.Mean):
    def get_config(self):
        raise NotImplementedError("no config")


@pytest.mark.parametrize(
    ("metric", "match"),
    [
        (lambda: Wanting(3), "Cannot copy a Wanting, expected a `get_config`"),
        (Raising, "'mean' \\(Raising\\).*Received: no config"),
    ],
    ids=["an argument is missing", "get_config raises"],
)
def test_a_metric_that_cannot_be_copied(metric, match):
    with pytest.raises(InputError, match=match):
        clone.copy_object(metric())
