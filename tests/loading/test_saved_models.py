"""SavedModel folders: frozen models, teachers, exported files, and graphs that reach out."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.core.arguments import InputError, NoMatchError
from tfpeft.loading import saved_models
from tfpeft.loading.model_loading import load_model

X = np.random.default_rng(0).normal(size=(8, 6)).astype("float32")


@pytest.fixture(scope="module")
def network():
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((6,), name="x"), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    )


@pytest.fixture(scope="module")
def folder(network, tmp_path_factory):
    """A SavedModel of `Model.export`, in which there is no configuration of Keras."""
    folder = tmp_path_factory.mktemp("exported") / "saved"
    network.export(folder, verbose=False)
    return folder


@pytest.fixture(scope="module")
def frozen(folder):
    return load_model(folder)


def test_a_graph_is_a_frozen_model(network, frozen):
    assert (frozen.name, frozen.input_shape, frozen.output_shape) == (
        "frozen",
        (None, 6),
        (None, 3),
    )
    np.testing.assert_allclose(frozen(X), network(X), atol=1e-6)
    np.testing.assert_allclose(frozen.predict(X, verbose=0), network(X), atol=1e-6)
    assert frozen.count_params() == network.count_params()
    assert frozen.trainable_weights == []


def test_it_teaches_and_is_evaluated(frozen, network):
    student = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3)])
    distiller = tfpeft.Distiller(frozen, student, teacher_from_logits=True)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    distiller.compile("sgd", loss, run_eagerly=True)
    labels = np.argmax(network(X), -1)
    before = [weight.numpy() for weight in frozen.weights]
    distiller.fit(X, labels, verbose=0)
    for weight, old in zip(frozen.weights, before, strict=True):
        np.testing.assert_array_equal(weight, old)
    figures = tfpeft.evaluate(frozen, (X, labels), from_logits=True)
    assert (figures.accuracy, figures.parameters) == (1.0, network.count_params())


def test_it_is_exported(frozen, network, tmp_path):
    tfpeft.export_tflite(frozen, tmp_path / "m.tflite")
    outputs = tfpeft.TFLiteFile(tmp_path / "m.tflite").predict(X)
    np.testing.assert_allclose(outputs, network(X), atol=1e-5)


def test_it_has_nothing_to_prune(frozen):
    with pytest.raises(
        NoMatchError, match="channels can be removed. Received: 'frozen', which has no layers"
    ):
        tfpeft.prune_channels(frozen, ratio=0.5)
    with pytest.raises(NoMatchError, match="to quantize. Received: 'frozen', without any"):
        tfpeft.quantize_aware(frozen)
    with pytest.raises(NoMatchError, match="expected names or patterns of layers"):
        tfpeft.add_adapters(frozen, tfpeft.LoRA(2))


def test_it_is_saved_with_the_path_of_the_folder(frozen, network, tmp_path):
    frozen.save(tmp_path / "m.keras")
    np.testing.assert_allclose(load_model(tmp_path / "m.keras")(X), network(X), atol=1e-6)


class Two(tf.Module):
    """A module of TensorFlow, of two inputs and outputs with names, and a fixed batch."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable([2.0, 3.0])

    @tf.function(
        input_signature=[
            tf.TensorSpec((4, 2), tf.float32, "left"),
            tf.TensorSpec((4, 2), tf.int32, "right"),
        ]
    )
    def serve(self, left, right):
        return {"sum": left + tf.cast(right, tf.float32), "scaled": left * self.scale}


def test_inputs_and_outputs_have_names(tmp_path):
    module = Two()
    tf.saved_model.save(module, tmp_path / "m", signatures={"only": module.serve})
    loaded = load_model(tmp_path / "m")
    assert {t.name: (t.shape, t.dtype) for t in loaded.inputs} == {
        "left": ((4, 2), "float32"),
        "right": ((4, 2), "int32"),
    }
    outputs = loaded({"left": np.ones((4, 2), "float32"), "right": np.full((4, 2), 5, "int32")})
    np.testing.assert_array_equal(outputs["sum"], np.full((4, 2), 6.0))
    np.testing.assert_array_equal(outputs["scaled"], np.tile([2.0, 3.0], (4, 1)))


def module_of(function, **signatures):
    module = tf.Module()
    spec = tf.TensorSpec((None, 2), tf.float32, "x")
    made = tf.function(function, input_signature=[spec])
    module.f = made
    return module, {name: made for name in signatures or {"serving_default": 0}}


def reads(x):
    return x + tf.cast(tf.strings.length(tf.io.read_file("/etc/hostname")), tf.float32)


def test_a_graph_that_reads_files_is_not_loaded(tmp_path):
    module, signatures = module_of(reads)
    tf.saved_model.save(module, tmp_path / "m", signatures=signatures)
    with pytest.raises(
        InputError, match="`path`.*reads or writes files.*ReadFile.*safe_mode=False"
    ):
        load_model(tmp_path / "m")
    assert load_model(tmp_path / "m", safe_mode=False).output_shape == (None, 2)


def test_several_functions_and_none_that_is_the_default(tmp_path):
    module, signatures = module_of(lambda x: 2 * x, one=1, two=2)
    tf.saved_model.save(module, tmp_path / "m", signatures=signatures)
    with pytest.raises(InputError, match="signature serving_default, or one alone.*one, two"):
        load_model(tmp_path / "m")
    layer = saved_models.SavedModelLayer(str(tmp_path / "m"), signature="two")
    np.testing.assert_array_equal(layer({"x": np.ones((1, 2), "float32")}), [[2.0, 2.0]])


@pytest.mark.parametrize("damage", ["empty", "cut", "no variables"])
def test_damaged_folders(folder, tmp_path, damage):
    import shutil

    shutil.copytree(folder, tmp_path / "m")
    graph = tmp_path / "m/saved_model.pb"
    content = graph.read_bytes()
    if damage == "no variables":
        shutil.rmtree(tmp_path / "m/variables")
    else:
        graph.write_bytes(content[: len(content) // 2] if damage == "cut" else b"")
    with pytest.raises(
        InputError, match="`path`, expected a .keras.*, which cannot be used"
    ) as error:
        load_model(tmp_path / "m")
    assert "\n" not in str(error.value)


def test_a_folder_of_other_things(tmp_path):
    with pytest.raises(InputError, match="a folder without saved_model.pb or config.json"):
        load_model(tmp_path)


def test_a_model_that_cannot_be_rebuilt_is_frozen_with_the_reason(tmp_path):
    tf_keras = pytest.importorskip("tf_keras", reason="Keras 2 is not installed")
    inputs = tf_keras.Input((4, 4, 1))
    hidden = tf_keras.layers.LocallyConnected2D(2, 3, name="local")(inputs)
    model = tf_keras.Model(inputs, tf_keras.layers.Flatten()(hidden))
    model.compile("adam", "mse", ["mae"])
    model.save(tmp_path / "m")
    with pytest.warns(UserWarning, match=r"frozen model.*local \(LocallyConnected2D"):
        loaded = load_model(tmp_path / "m")
    x = np.random.default_rng(0).normal(size=(2, 4, 4, 1)).astype("float32")
    np.testing.assert_allclose(loaded(x), model(x), atol=1e-6)
    loaded.run_eagerly = True
    figures = loaded.evaluate(x, np.zeros((2, 8)), verbose=0, return_dict=True)
    assert set(figures) == {"loss", "mae"}
