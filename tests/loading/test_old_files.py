"""Files of Keras 2, made by tf_keras: the loaded models have its outputs."""

import json

import h5py
import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.core.arguments import InputError
from tfpeft.loading.model_loading import load_model, open_model

tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed")
models = pytest.importorskip("tests.loading.tf_keras_models")


_FILES = {make: ("m.h5", "m.keras", "m") for make in models.MODELS}
_FILES[models.operations] = ("m.h5", "m")  # Keras 2 cannot write an ellipsis into the other
_FILES[models.recurrent] = ("m.h5", "m.keras")  # a SavedModel takes Keras 2 a minute


@pytest.fixture(scope="module", params=models.MODELS, ids=lambda make: make.__name__)
def original(request, tmp_path_factory):
    """The model of tf_keras, a folder with its files, a batch and its outputs."""
    model = models.randomize(request.param())
    folder = tmp_path_factory.mktemp("files")
    for name in _FILES[request.param]:
        model.save(folder / name)
    x = models.batch(model)
    return model, folder, x, model(x, training=False)


def assert_equal(outputs, expected):
    if isinstance(expected, dict):
        assert outputs.keys() == expected.keys()
    pairs = zip(keras.tree.flatten(outputs), keras.tree.flatten(expected), strict=True)
    for output, each in pairs:
        np.testing.assert_allclose(output, each, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ["m.h5", "m.keras", "m"])
def test_outputs_are_those_of_the_original(original, name):
    model, folder, x, expected = original
    if not (folder / name).exists():
        pytest.skip("not saved in this form")
    loaded = load_model(folder / name)
    assert loaded.name != "frozen"  # the SavedModel is rebuilt, and not frozen
    assert_equal(loaded(x, training=False), expected)
    assert loaded.count_params() == model.count_params()
    names = [weight.trainable for weight in loaded.weights]
    assert sum(names) == len(model.trainable_weights)


def test_a_loaded_model_is_saved_and_loaded_by_keras(original, tmp_path):
    _, folder, x, expected = original
    load_model(folder / "m.h5").save(tmp_path / "new.keras")
    assert_equal(keras.models.load_model(tmp_path / "new.keras")(x, training=False), expected)


def rewritten(path, edit, *, attribute="model_config"):
    """Writes an .h5 file again with an edited configuration."""
    with h5py.File(path, "r+") as file:
        value = json.loads(file.attrs[attribute])
        file.attrs[attribute] = json.dumps(edit(value) or value)


def sequential(path):
    model = tf_keras.Sequential(
        [
            tf_keras.layers.Conv1D(3, 2, input_shape=(5, 2)),
            tf_keras.layers.GRU(4, reset_after=False),
            tf_keras.layers.Dense(2, activation="softmax", name="head"),
        ]
    )
    model.compile("adam", "categorical_crossentropy", ["accuracy"])
    models.randomize(model).save(path)
    x = np.random.default_rng(0).normal(size=(3, 5, 2)).astype("float32")
    return x, model(x).numpy()


def as_keras_2_0(config):
    """The form before Keras 2.2.3: a list of layers, without an input layer or `reset_after`."""
    layers = config["config"]["layers"][1:]
    layers[0]["config"]["batch_input_shape"] = [None, 5, 2]
    layers[1]["config"].pop("reset_after")
    layers[2]["class_name"] = "Dense"
    return {"class_name": "Sequential", "config": layers}


def test_a_sequential_model_as_a_list_of_layers(tmp_path):
    x, expected = sequential(tmp_path / "m.h5")
    rewritten(tmp_path / "m.h5", as_keras_2_0)
    loaded = load_model(tmp_path / "m.h5")
    assert loaded.input_shape == (None, 5, 2)
    np.testing.assert_allclose(loaded(x), expected, atol=1e-6)
    assert loaded.loss == "categorical_crossentropy" or loaded.loss.__name__.endswith("entropy")
    loaded.run_eagerly = True
    assert set(loaded.evaluate(x, expected, verbose=0, return_dict=True)) == {"accuracy", "loss"}


def test_a_sequential_model_is_rebuilt_of_a_saved_model(tmp_path):
    model = tf_keras.Sequential([tf_keras.layers.Dense(2, input_shape=(3,), name="head")])
    models.randomize(model).save(tmp_path / "m")
    loaded = load_model(tmp_path / "m")
    assert [layer.name for layer in loaded.layers] == ["head"]
    np.testing.assert_allclose(loaded(np.ones((1, 3))), model(np.ones((1, 3))), atol=1e-6)


def test_a_frozen_model_of_which_layers_are_said_to_train(tmp_path):
    """Its file lists the weights of these layers first."""
    layers = tf_keras.layers
    inputs = tf_keras.Input((3,))
    hidden = layers.BatchNormalization()(layers.Dense(3)(inputs))
    base = tf_keras.Model(inputs, layers.Dense(3)(hidden))
    base.trainable = False
    base.layers[-1].trainable = True
    model = models.randomize(tf_keras.Sequential([base, layers.Dense(2)]))
    model.save(tmp_path / "m.h5")
    x = np.random.default_rng(0).normal(size=(3, 3)).astype("float32")
    loaded = load_model(tmp_path / "m.h5")
    np.testing.assert_allclose(loaded(x, training=False), model(x, training=False), atol=1e-6)
    assert len(loaded.trainable_weights) == len(model.trainable_weights) == 2


@pytest.mark.parametrize("name", ["old.hdf5", "old.keras", "old"])
def test_the_content_decides_not_the_name(tmp_path, name):
    x, expected = sequential(tmp_path / "m.h5")
    (tmp_path / "m.h5").rename(tmp_path / name)
    np.testing.assert_allclose(load_model(tmp_path / name)(x), expected, atol=1e-6)


def test_weights_of_layers_in_another_order(tmp_path):
    x, expected = sequential(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        names = file["model_weights"].attrs["layer_names"]
        file["model_weights"].attrs["layer_names"] = names[::-1]
    np.testing.assert_allclose(load_model(tmp_path / "m.h5")(x), expected, atol=1e-6)


def test_weights_under_other_names_are_taken_in_order(tmp_path):
    x, expected = sequential(tmp_path / "m.h5")

    def edit(config):
        for number, layer in enumerate(config["config"]["layers"][1:]):
            layer["config"]["name"] = f"renamed_{number}"

    rewritten(tmp_path / "m.h5", edit)
    np.testing.assert_allclose(load_model(tmp_path / "m.h5")(x), expected, atol=1e-6)


def test_cudnn_layers_become_usual_ones(tmp_path):
    """By hand: cuDNN's kernels are transposed per gate, and it has two biases."""
    x, expected = sequential(tmp_path / "m.h5")
    lstm = tf_keras.Sequential([tf_keras.layers.LSTM(2, input_shape=(5, 2), name="rnn")])
    models.randomize(lstm).save(tmp_path / "lstm.h5")
    kernel, recurrent, bias = lstm.get_weights()

    def edit(config):
        layer = config["config"]["layers"][1]
        layer["class_name"] = "CuDNNLSTM"
        for key in ("activation", "recurrent_activation", "implementation", "unroll"):
            layer["config"].pop(key)

    rewritten(tmp_path / "lstm.h5", edit)
    with h5py.File(tmp_path / "lstm.h5", "r+") as file:
        group = file["model_weights/rnn"]
        names = group.attrs["weight_names"]
        gates = [part.reshape(2, 2, order="C").T for part in np.hsplit(kernel, 4)]
        gates = [np.ascontiguousarray(part).reshape(2, 2, order="C") for part in gates]
        new = [np.hstack(gates), np.hstack([part.T for part in np.hsplit(recurrent, 4)])]
        new.append(np.concatenate([bias * 0.25, bias * 0.75]))
        for name, array in zip(names, new, strict=True):
            del group[name]
            group[name] = array
    np.testing.assert_allclose(load_model(tmp_path / "lstm.h5")(x), lstm(x), atol=1e-6)


def test_what_cannot_be_translated_is_named_layer_by_layer(tmp_path):
    inputs = tf_keras.Input((6, 6, 2))
    hidden = tf_keras.layers.LocallyConnected2D(2, 3, name="local")(inputs)
    hidden = tf_keras.layers.Lambda(lambda t: 2 * t, name="twice")(hidden)
    tf_keras.Model(inputs, hidden).save(tmp_path / "m.h5")
    with pytest.raises(
        InputError, match=r"local \(LocallyConnected2D: .*; twice \(Lambda: it"
    ) as e:
        open_model(tmp_path / "m.h5", "--model")
    assert "\n" not in str(e.value)
    assert "--model=" in str(e.value)
    assert "safe_mode=False" in str(e.value)


def test_a_lambda_runs_where_it_is_allowed(tmp_path):
    inputs = tf_keras.Input((2,))
    tf_keras.Model(inputs, tf_keras.layers.Lambda(lambda t: 3 * t)(inputs)).save(tmp_path / "m.h5")
    loaded = load_model(tmp_path / "m.h5", safe_mode=False)
    np.testing.assert_array_equal(loaded(np.ones((1, 2))), [[3.0, 3.0]])


class Doubled(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs


def test_custom_layers_are_given_by_name(tmp_path):
    class Mine(tf_keras.layers.Layer):
        def call(self, inputs):
            return 2 * inputs

    inputs = tf_keras.Input((2,))
    tf_keras.Model(inputs, Mine(name="mine")(inputs)).save(tmp_path / "m.h5")
    with pytest.raises(InputError, match=r"mine \(Mine: Keras 3 has no layer Mine"):
        load_model(tmp_path / "m.h5")
    loaded = tfpeft.load_model(tmp_path / "m.h5", {"Mine": Doubled})
    np.testing.assert_array_equal(loaded(np.ones((1, 2))), [[2.0, 2.0]])


def test_weights_that_are_missing_or_of_another_shape_are_named(tmp_path):
    sequential(tmp_path / "m.h5")
    with h5py.File(tmp_path / "m.h5", "r+") as file:
        del file["model_weights/head/head/bias:0"]
        file["model_weights/head/head/bias:0"] = np.zeros(3, "float32")
    with pytest.raises(InputError, match=r"head \(Dense\): shapes .*\(3,\)\], expected .*\(2,\)\]"):
        load_model(tmp_path / "m.h5")


class TestCompiled:
    @pytest.fixture(scope="class")
    def path(self, tmp_path_factory):
        path = tmp_path_factory.mktemp("compiled") / "m.h5"
        models.several().save(path)
        return path

    def test_losses_and_metrics_of_each_output(self, path):
        loaded = load_model(path)
        assert type(loaded.optimizer) is keras.optimizers.SGD
        assert float(loaded.optimizer.learning_rate) == 0.25
        x = {name: np.ones((2, 3, 4), "float32") for name in ("a", "b")}
        y = {"x": np.eye(2, dtype="float32"), "y": np.ones((2, 2), "float32")}
        loaded.run_eagerly = True
        figures = loaded.evaluate(x, y, verbose=0, return_dict=True)
        assert set(figures) == {"loss", "x_loss", "y_loss", "x_acc", "y_mae"}

    def test_not_where_a_model_is_only_opened(self, path):
        assert not open_model(path).compiled

    @pytest.mark.parametrize(
        ("key", "value", "compiled", "warning"),
        [
            ("loss", "my_loss", False, "not compiled.*its loss is not there: .*my_loss"),
            ("metrics", ["my_metric"], True, "Metrics are left out: .*my_metric"),
        ],
    )
    def test_what_is_not_there_is_a_warning(self, tmp_path, key, value, compiled, warning):
        sequential(tmp_path / "m.h5")
        rewritten(
            tmp_path / "m.h5", lambda config: {**config, key: value}, attribute="training_config"
        )
        with pytest.warns(UserWarning, match=warning):
            assert load_model(tmp_path / "m.h5").compiled is compiled

    def test_an_optimizer_that_keras_3_lacks_is_adam_of_its_learning_rate(self, tmp_path):
        sequential(tmp_path / "m.h5")
        saved = {"class_name": "Addons>LAMB2", "config": {"lr": 0.125}}
        rewritten(
            tmp_path / "m.h5",
            lambda config: {**config, "optimizer_config": saved},
            attribute="training_config",
        )
        optimizer = load_model(tmp_path / "m.h5").optimizer
        assert type(optimizer) is keras.optimizers.Adam
        assert float(optimizer.learning_rate) == 0.125
