"""Files of Keras 1, written by hand: names, arguments and the order of weights of that time."""

import json

import h5py
import keras
import numpy as np
import pytest

from tfpeft.core.arguments import InputError
from tfpeft.loading.keras1_layers import as_keras_2
from tfpeft.loading.model_loading import load_model
from tfpeft.loading.old_layers import translated

RNG = np.random.default_rng(0)


def write(path, config, weights, *, version=b"1.2.2", backend=b"tensorflow"):
    """Writes a model file as Keras 1.2 did: {layer: {name of a weight: array}}."""
    with h5py.File(path, "w") as file:
        file.attrs["model_config"] = json.dumps(config).encode()
        if version:
            file.attrs["keras_version"] = version
        group = file.create_group("model_weights")
        group.attrs["backend"] = backend
        group.attrs["layer_names"] = [name.encode() for name in weights]
        for name, arrays in weights.items():
            layer = group.create_group(name)
            layer.attrs["weight_names"] = [each.encode() for each in arrays]
            for each, array in arrays.items():
                layer[each] = array


def layer(class_name, name, inputs=None, **config):
    new = {"class_name": class_name, "config": {"name": name, "trainable": True, **config}}
    if inputs is not None:
        new |= {"name": name, "inbound_nodes": [[[each, 0, 0] for each in inputs]] * bool(inputs)}
    return new


def random(*shape):
    return RNG.normal(size=shape).astype("float32")


CONV = {"nb_filter": 4, "nb_row": 3, "nb_col": 2, "init": "glorot_uniform", "border_mode": "same"}
CONV |= {"subsample": [1, 1], "activation": "relu", "bias": True, "W_constraint": None}
CONV |= {"W_regularizer": {"name": "WeightRegularizer", "l1": 0.0, "l2": 0.25}}


def convolution(path, ordering, kernel, **options):
    config = [
        layer(
            "Convolution2D",
            "conv",
            **CONV,
            dim_ordering=ordering,
            batch_input_shape=[None, 5, 6, 3],
        ),
        layer("Dropout", "drop", p=0.5),
        layer("Flatten", "flat"),
        layer("Dense", "head", output_dim=2, init="uniform", activation="softmax", bias=True),
    ]
    head = {"head_W": 0.02 * random(120, 2), "head_b": random(2)}
    weights = {"conv": {"conv_W": kernel, "conv_b": np.ones(4, "float32")}, "head": head}
    write(path, {"class_name": "Sequential", "config": config}, weights, **options)
    return head


def expected_outputs(x, kernel, head):
    """The same network, written in Keras 3."""
    new = keras.Sequential(
        [
            keras.Input((5, 6, 3)),
            keras.layers.Conv2D(4, (3, 2), padding="same", activation="relu"),
            keras.layers.Flatten(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    new.set_weights([kernel, np.ones(4), *head.values()])
    return new(x)


@pytest.mark.parametrize("version", [b"1.2.2", None])
def test_a_convolution(tmp_path, version):
    kernel, x = random(3, 2, 3, 4), random(2, 5, 6, 3)
    head = convolution(tmp_path / "m.h5", "tf", kernel, version=version)
    loaded = load_model(tmp_path / "m.h5")
    np.testing.assert_allclose(loaded(x), expected_outputs(x, kernel, head), rtol=1e-5, atol=1e-6)
    assert loaded.get_layer("conv").kernel_regularizer.l2 == 0.25
    assert not loaded.compiled


def test_theano_convolves_where_others_correlate(tmp_path):
    kernel, x = random(3, 2, 3, 4), random(2, 5, 6, 3)
    head = convolution(tmp_path / "m.h5", "tf", kernel, backend=b"theano")
    expected = expected_outputs(x, kernel[::-1, ::-1], head)
    np.testing.assert_allclose(load_model(tmp_path / "m.h5")(x), expected, rtol=1e-5, atol=1e-6)


GATES = {"lstm": "icfo", "gru": "zrh"}


@pytest.mark.parametrize("kind", GATES)
def test_weights_of_each_gate_are_joined(tmp_path, kind):
    """By hand: one step from a state of zeros."""
    rnn = layer(
        kind.upper(),
        "rnn",
        output_dim=2,
        init="glorot_uniform",
        inner_init="orthogonal",
        activation="tanh",
        inner_activation="hard_sigmoid",
        W_regularizer=None,
        dropout_W=0.0,
        dropout_U=0.0,
        consume_less="cpu",
        return_sequences=False,
        go_backwards=False,
        stateful=False,
        unroll=False,
        input_dim=3,
        input_length=1,
        batch_input_shape=[None, 1, 3],
        **({"forget_bias_init": "one"} if kind == "lstm" else {}),
    )
    arrays = {}
    for gate in GATES[kind]:
        arrays |= {f"rnn_W_{gate}": random(3, 2), f"rnn_U_{gate}": random(2, 2)}
        arrays[f"rnn_b_{gate}"] = random(2)
    write(tmp_path / "m.h5", {"class_name": "Sequential", "config": [rnn]}, {"rnn": arrays})
    x = random(4, 1, 3)

    def gate(name, function):
        return function(x[:, 0] @ arrays[f"rnn_W_{name}"] + arrays[f"rnn_b_{name}"])

    def hard_sigmoid(value):
        return np.clip(0.2 * value + 0.5, 0, 1)

    if kind == "lstm":
        cell = gate("i", hard_sigmoid) * gate("c", np.tanh)
        expected = gate("o", hard_sigmoid) * np.tanh(cell)
    else:
        expected = (1 - gate("z", hard_sigmoid)) * gate("h", np.tanh)
    np.testing.assert_allclose(load_model(tmp_path / "m.h5")(x), expected, atol=1e-6)


def test_merges_of_a_functional_model(tmp_path):
    layers = [
        layer("InputLayer", "a", [], batch_input_shape=[None, 3], input_dtype="float32"),
        layer("InputLayer", "b", [], batch_input_shape=[None, 3], input_dtype="float32"),
        layer("Merge", "sum", ["a", "b"], mode="sum"),
        layer("Merge", "both", ["sum", "a"], mode="concat", concat_axis=-1),
    ]
    for number, each in enumerate(layers[:2]):
        each["config"] = {k: v for k, v in each["config"].items() if k != "trainable"}
        assert each["name"] == "ab"[number]
    config = {"name": "m", "layers": layers, "input_layers": [["a", 0, 0], ["b", 0, 0]]}
    config["output_layers"] = [["both", 0, 0]]
    write(tmp_path / "m.h5", {"class_name": "Model", "config": config}, {})
    a, b = random(2, 3), random(2, 3)
    outputs = load_model(tmp_path / "m.h5")([a, b])
    np.testing.assert_array_equal(outputs, np.concatenate([a + b, a], -1))


@pytest.mark.parametrize(
    ("class_name", "config", "why"),
    [
        ("Highway", {}, "no layer Highway"),
        ("Merge", {"mode": "cos"}, "no Merge with mode='cos'"),
        ("BatchNormalization", {"mode": 1}, "mode=1"),
        ("Embedding", {"input_dim": 3, "output_dim": 2, "dropout": 0.5}, "Embedding with dropout"),
        ("LSTM", {"output_dim": 2, "time_major": True}, "no argument time_major=True"),
    ],
)
def test_what_keras_3_lacks(class_name, config, why):
    with pytest.raises(InputError, match=why):
        translated(class_name, {"name": "a", **config}, "1.2.2")


@pytest.mark.parametrize(
    ("class_name", "config", "new"),
    [
        ("MaxPooling1D", {"pool_length": 2, "stride": 1}, {"pool_size": 2, "strides": 1}),
        ("GaussianNoise", {"sigma": 0.5}, {"stddev": 0.5}),
        ("UpSampling1D", {"length": 3}, {"size": 3}),
        ("Convolution1D", {"nb_filter": 2, "filter_length": 3}, {"filters": 2, "kernel_size": 3}),
        (
            "Embedding",
            {"input_dim": 5, "output_dim": 2, "init": "uniform", "W_regularizer": None},
            {"input_dim": 5, "output_dim": 2, "embeddings_regularizer": None},
        ),
        (
            "Dense",
            {"output_dim": 2, "W_constraint": {"name": "MaxNorm", "m": 2, "axis": 0}},
            {
                "units": 2,
                "kernel_constraint": {
                    "class_name": "MaxNorm",
                    "config": {"max_value": 2, "axis": 0},
                },
            },
        ),
    ],
)
def test_arguments_are_renamed(class_name, config, new):
    assert new.items() <= as_keras_2(class_name, config)[1].items()
    keras_class, arguments = translated(class_name, {"name": "a", **config}, "1.2.2")
    assert getattr(keras.layers, keras_class).from_config(arguments).name == "a"


def test_a_dense_layer_of_each_step(tmp_path):
    config = [layer("TimeDistributedDense", "td", output_dim=2, batch_input_shape=[None, 4, 3])]
    kernel, bias, x = random(3, 2), random(2), random(5, 4, 3)
    weights = {"td": {"td_W": kernel, "td_b": bias}}
    write(tmp_path / "m.h5", {"class_name": "Sequential", "config": config}, weights)
    np.testing.assert_allclose(load_model(tmp_path / "m.h5")(x), x @ kernel + bias, rtol=1e-5)
