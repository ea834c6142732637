"""SavedModel and ONNX files: other readers' outputs against the model, names, what is kept."""

import importlib.util
import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.core import files
from tfpeft.export import onnx, saved_model

RNG = np.random.default_rng(0)
LEFT, RIGHT = (RNG.normal(size=(6, width)).astype("float32") for width in (4, 3))


@pytest.fixture(scope="module")
def model():
    """Two inputs in a dict, one of which has a name that TensorFlow does not take; two outputs."""
    keras.utils.set_random_seed(0)
    right, left = keras.Input((3,), name="right"), keras.Input((4,), name="left side")
    inputs = {"right": right, "left side": left}
    # The mean and the variance are no weights, but tensors of the layer.
    scaled = keras.layers.Normalization(mean=[1.0, 2.0, 3.0], variance=[4.0, 4.0, 4.0])
    joined = keras.layers.Concatenate()([left, scaled(right)])
    return keras.Model(
        inputs,
        {"sum": keras.layers.Dense(2, name="a")(joined), "top": keras.layers.Dense(1)(joined)},
        name="joined",
    )


@pytest.fixture(scope="module")
def expected(model):
    """Worked out by hand: what the two layers make of the data."""
    joined = np.concatenate([LEFT, (RIGHT - [1, 2, 3]) / 2], axis=1)
    return {
        name: joined @ layer.kernel.numpy() + layer.bias.numpy()
        for name, layer in zip(("sum", "top"), model.layers[-2:], strict=True)
    }


def data():
    return {"left side": LEFT, "right": RIGHT}


@pytest.fixture(scope="module")
def shared():
    backbone = keras.Sequential([keras.Input((4,), name="x"), keras.layers.Dense(3)])
    return tfpeft.SharedModel(backbone, {"shape": 3, "colour": 2})


@pytest.fixture(scope="module")
def folder(model, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "joined" / "1"
    return path, tfpeft.export_saved_model(model, path, representative_data=data())


def test_a_saved_model_predicts_as_the_model_does(folder, model, expected):
    path, report = folder
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    outputs = serve(left_side=tf.constant(LEFT), right=tf.constant(RIGHT))
    assert set(outputs) == {"sum", "top"}
    for name, output in outputs.items():
        np.testing.assert_allclose(output, expected[name], atol=1e-5)
    sizes = [p.stat().st_size for p in path.rglob("*") if p.is_file()]
    assert (report.path, report.size_bytes) == (str(path), sum(sizes))
    assert report.inputs == {
        "left_side": ("float32", (None, 4)),
        "right": ("float32", (None, 3)),
    }
    assert report.outputs == {"serving_default": ("sum", "top")}
    assert report.compared_samples == 6
    assert report.max_deviation < 1e-6
    assert "left_side (float32, free, 4), right (float32, free, 3)" in str(report)


def test_weights_are_in_a_saved_model_once(folder, model):
    path, _ = folder
    saved = tf.train.load_checkpoint(str(path / "variables/variables"))
    shapes = saved.get_variable_to_shape_map()
    shapes.pop("_CHECKPOINTABLE_OBJECT_GRAPH")
    assert sorted(map(tuple, shapes.values())) == sorted(tuple(w.shape) for w in model.weights)


def test_tasks_are_signatures_of_a_saved_model(shared, tmp_path):
    report = tfpeft.export_saved_model(shared, tmp_path / "tasks")
    loaded = tf.saved_model.load(str(tmp_path / "tasks"))
    assert report.signatures == ("shape", "colour")
    for task in report.signatures:
        output = loaded.signatures[task](x=tf.constant(LEFT))["output_0"]
        np.testing.assert_allclose(output, shared.task(task)(LEFT), atol=1e-6)


def test_texts_are_inputs_of_a_saved_model(tmp_path):
    words = keras.layers.TextVectorization(output_sequence_length=3, vocabulary=["good", "bad"])
    table = keras.layers.Embedding(4, 1, embeddings_initializer=keras.initializers.Constant(0.0))
    inputs = keras.Input((), dtype="string", name="review")
    outputs = keras.layers.GlobalAveragePooling1D()(table(words(inputs)))
    table.embeddings.assign([[0.0], [1.0], [3.0], [-6.0]])  # nothing, unknown, good, bad
    model = keras.Model(inputs, outputs)
    path = tmp_path / "texts"
    texts = np.array(["good", "good film", "so bad"])
    tfpeft.export_saved_model(model, path, representative_data=texts)
    serve = tf.saved_model.load(str(path)).signatures["serving_default"]
    found = serve(review=tf.constant(["good good film", "bad"]))["output_0"]
    np.testing.assert_allclose(found, [[7 / 3], [-2.0]], atol=1e-6)
    if importlib.util.find_spec("tf2onnx"):
        with pytest.raises(tfpeft.ExportError, match="Received: .*StringSplitV2 .layers: text"):
            tfpeft.export_onnx(model, tmp_path / "texts.onnx")
        assert os.listdir(tmp_path) == ["texts"]


def test_a_saved_model_of_other_outputs_is_not_kept(model, folder, monkeypatch):
    path, _ = folder
    before = {p: p.read_bytes() for p in path.rglob("*") if p.is_file()}
    other = keras.models.clone_model(model)
    write = saved_model.write_saved_model
    monkeypatch.setattr(
        saved_model,
        "write_saved_model",
        lambda m, models, *rest: write(other, {"serving_default": other}, *rest),
    )
    with pytest.raises(tfpeft.ExportError, match="differ from 'joined', expected a deviation of"):
        tfpeft.export_saved_model(model, path, representative_data=data())
    assert {p: p.read_bytes() for p in path.rglob("*") if p.is_file()} == before
    assert os.listdir(path.parent) == ["1"]


def test_folders_of_other_files_stay(model, tmp_path):
    (tmp_path / "notes.txt").write_text("of the user")
    with pytest.raises(tfpeft.InputError, match="or one of a SavedModel.*which holds notes.txt"):
        tfpeft.export_saved_model(model, tmp_path)
    with pytest.raises(tfpeft.InputError, match="notes.txt', which is a file"):
        tfpeft.export_saved_model(model, tmp_path / "notes.txt")
    assert os.listdir(tmp_path) == ["notes.txt"]


def test_a_folder_stays_if_the_new_one_cannot_be_renamed(tmp_path, monkeypatch):
    earlier = tmp_path / "folder"
    earlier.mkdir()
    (earlier / "a").write_text("earlier")
    rename = os.replace

    def fail(source, target):
        if target == earlier and "earlier" not in source.name:
            raise PermissionError(1, "not permitted")
        rename(source, target)

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="not permitted"), files.replacing(earlier) as partial:
        partial.mkdir()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder", "a"]
    monkeypatch.undo()
    with files.replacing(earlier) as partial:
        partial.mkdir()
    assert [p.name for p in tmp_path.rglob("*")] == ["folder"]


class TestOnnx:
    @pytest.fixture(autouse=True)
    def _packages(self):
        for name in ("onnx", "onnxruntime", "tf2onnx"):
            pytest.importorskip(name)

    def test_a_file_predicts_as_the_model_does(self, model, expected, tmp_path):
        import onnxruntime

        path = tmp_path / "deep" / "joined.onnx"
        report = tfpeft.export_onnx(model, path, representative_data=data())
        session = onnxruntime.InferenceSession(path)
        assert [each.name for each in session.get_inputs()] == ["left_side", "right"]
        outputs = session.run(["sum", "top"], {"left_side": LEFT, "right": RIGHT})
        for output, name in zip(outputs, ("sum", "top"), strict=True):
            np.testing.assert_allclose(output, expected[name], atol=1e-5)
        assert report.outputs == {"serving_default": ("sum", "top")}
        assert report.size_bytes == path.stat().st_size
        assert report.max_deviation < 1e-5
        assert os.listdir(path.parent) == ["joined.onnx"]

    def test_tasks_are_outputs(self, shared, tmp_path):
        import onnxruntime

        report = tfpeft.export_onnx(shared, tmp_path / "tasks.onnx")
        assert report.outputs == {"serving_default": ("colour", "shape")}
        session = onnxruntime.InferenceSession(tmp_path / "tasks.onnx")
        for task in ("shape", "colour"):
            (output,) = session.run([task], {"x": LEFT})
            np.testing.assert_allclose(output, shared.task(task)(LEFT), atol=1e-6)

    def test_operators_that_onnx_lacks_are_named_with_their_layer(self, tmp_path):
        path = tmp_path / "m.onnx"
        path.write_bytes(b"an earlier file")
        inverse = keras.layers.Lambda(keras.ops.erfinv, output_shape=(4,), name="inverse")
        built = keras.Sequential([keras.Input((4,)), inverse])
        with pytest.raises(tfpeft.ExportError, match=r"Received: Erfinv \(layers: inverse\)$"):
            tfpeft.export_onnx(built, path)
        assert path.read_bytes() == b"an earlier file"
        assert os.listdir(tmp_path) == ["m.onnx"]

    def test_states_are_no_part_of_a_file(self, tmp_path):
        lstm = keras.layers.LSTM(2, stateful=True, name="steps")
        built = keras.Sequential([keras.Input(batch_shape=(2, 3, 1)), lstm])
        with pytest.raises(tfpeft.ExportError, match="stateful=True in steps"):
            tfpeft.export_onnx(built, tmp_path / "m.onnx")


def test_missing_packages_are_named(model, tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(tfpeft.InputError, match=r"`pip install tfpeft\[onnx\]` .*no onnx, onnxr"):
        tfpeft.export_onnx(model, tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "m.keras"}, "`model`, expected a keras.Model. Received: model='m.keras'"),
        ({"path": "m.tflite"}, "`path`, expected .* ends in .onnx. Received: path='.*m.tflite'"),
        ({"representative_data": LEFT}, "`representative_data`, expected a dict of right, left"),
        (
            {"representative_data": {"left side": LEFT, "right": RIGHT * np.nan}},
            "`representative_data`, expected finite inputs",
        ),
    ],
)
def test_bad_input_names_the_argument(model, tmp_path, monkeypatch, options, message):
    # Also where the packages are missing: nothing is converted.
    monkeypatch.setattr(onnx, "check_packages", lambda *names: None)
    path = tmp_path / options.pop("path", "m.onnx")
    with pytest.raises(tfpeft.InputError, match=message):
        tfpeft.export_onnx(**{"model": model, "path": path, **options})
    assert not list(tmp_path.iterdir())
