"""Files of Keras 3, damaged files, and files that are no models of Keras."""

import pickle
import zipfile

import h5py
import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.core.arguments import InputError
from tfpeft.core.model_files import damage_of
from tfpeft.loading.model_loading import load_model, open_model


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The paths of a model as .keras and .h5, and the model."""
    folder = tmp_path_factory.mktemp("saved")
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
    for name in ("a.keras", "a.h5"):
        model.save(folder / name)
    return folder, model


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
def test_models_are_loaded(saved, name):
    folder, model = saved
    assert damage_of(folder / name, whole=True) is None
    loaded = open_model(folder / name)
    x = np.ones((1, 3), "float32")
    np.testing.assert_array_equal(loaded(x), model(x))


@pytest.mark.parametrize("name", ["a.keras", "a.h5"])
@pytest.mark.parametrize("change", ["cut", "empty", "garbage", "missing", "folder"])
def test_damaged_models_are_named_as_damaged(saved, tmp_path, name, change):
    path, content = tmp_path / name, (saved[0] / name).read_bytes()
    changed = {"cut": content[: len(content) // 2], "empty": b"", "garbage": b"garbage" * 99}
    if change in changed:
        path.write_bytes(changed[change])
    elif change == "folder":
        path.mkdir()
    why = {"missing": "which is not there", "folder": "which is a folder"}
    with pytest.raises(InputError) as error:
        open_model(path, "--model")
    message = str(error.value)
    assert message.startswith("Received an invalid value for --model, expected a .keras or .h5 mod")
    assert f"--model={path}, {why.get(change, 'which is damaged: ')}" in message
    assert "\n" not in message


def test_a_changed_byte_is_found(saved, tmp_path):
    path, content = tmp_path / "a.keras", (saved[0] / "a.keras").read_bytes()
    with zipfile.ZipFile(saved[0] / "a.keras") as archive:
        weights = archive.read("model.weights.h5")
    at = content.index(weights) + weights.index(saved[1].layers[0].kernel.numpy().tobytes())
    path.write_bytes(content[:at] + b"\x7f" + content[at + 1 :])
    assert "model.weights.h5" in damage_of(path, whole=True)


def test_models_with_nan_and_with_code_are_not_loaded(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2, name="out")])
    model.layers[0].bias.assign([0.0, np.nan])
    model.save(tmp_path / "nan.keras")
    with pytest.raises(InputError, match="a model with finite weights.*NaN or infinity in .*bias"):
        open_model(tmp_path / "nan.keras")
    code = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x, name="twice")])
    for name in ("code.keras", "code.h5"):
        code.save(tmp_path / name)
        with pytest.raises(
            InputError, match=r"it has a Lambda layer, code.*\('twice'\): if.*safe_mode=False"
        ) as error:
            open_model(tmp_path / name)
        assert "\n" not in str(error.value)


def test_parts_that_are_compressed_too_much_are_not_read(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.keras", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("config.json", "0" * 10_000_000)
    with pytest.raises(InputError, match="config.json is compressed too much"):
        open_model(tmp_path / "a.keras")


OTHERS = {
    "m.pt": (b"PK\x03\x04", "which is a model of PyTorch"),
    "m.onnx": (b"\x08\x07\x12", "which is a model of ONNX"),
    "m.pkl": (pickle.dumps([1]), "which is a pickle, which runs code"),
    "m.h5": (pickle.dumps([1]), "which is a pickle, which runs code"),
    "saved_model.pb": (b"\x08\x01", "which is a graph of TensorFlow; give the folder"),
    "m.json": (b"{}", "which is a model without weights; `keras.models.model_from_json`"),
    "m.safetensors": (b"\x08", "which is weights without a model"),
    "m.tflite": (b"\x1c\0\0\0TFL3", "which is a .tflite file, which has no layers"),
    "renamed.h5": (b"\x1c\0\0\0TFL3", "which is a .tflite file, which has no layers"),
    "m.keras": (b"version https://git-lfs.github.com/spec/v1", "which is a pointer of Git LFS"),
    "page.h5": (b"<!DOCTYPE html><html>", "which is a web page"),
    "m.txt": (b"text", "which is not a model of Keras"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_files_of_others_are_named_with_the_way_out(tmp_path, name):
    content, words = OTHERS[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError) as error:
        load_model(tmp_path / name)
    message = str(error.value)
    assert message.startswith("Received an invalid value for `path`, expected a .keras or .h5 mod")
    assert f"{name}', {words}" in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("inside", "words"),
    [
        ("archive/data.pkl", "a model of PyTorch"),
        ("m/saved_model.pb", "a zip of a SavedModel; unpack it"),
        ("notes.txt", "a zip without config.json, with notes.txt"),
    ],
)
def test_zips_of_others(tmp_path, inside, words):
    with zipfile.ZipFile(tmp_path / "m.keras", "w") as archive:
        archive.writestr(inside, "")
    with pytest.raises(InputError, match=f"which is {words}"):
        load_model(tmp_path / "m.keras")


def test_a_file_of_weights_alone(saved, tmp_path):
    saved[1].save_weights(tmp_path / "m.weights.h5")
    with pytest.raises(InputError, match="it holds weights and no model; build the model"):
        load_model(tmp_path / "m.weights.h5")


def test_a_lambda_runs_where_it_is_allowed(tmp_path):
    code = keras.Sequential([keras.Input((3,)), keras.layers.Lambda(lambda x: 2 * x)])
    for name in ("code.keras", "code.h5"):
        code.save(tmp_path / name)
        loaded = tfpeft.load_model(tmp_path / name, safe_mode=False)
        np.testing.assert_array_equal(loaded(np.ones((1, 3))), [[2.0, 2.0, 2.0]])


@pytest.mark.parametrize("name", ["m.keras", "m.h5", "m.model"])
def test_what_keras_3_compiled_is_restored(tmp_path, name):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile(keras.optimizers.Adam(0.125), "mse", metrics=["mae"], run_eagerly=True)
    model.fit(np.ones((4, 3)), np.ones((4, 2)), verbose=0)
    model.save(tmp_path / ("m.h5" if name == "m.model" else name))
    if name == "m.model":
        (tmp_path / "m.h5").rename(tmp_path / name)
    loaded = load_model(tmp_path / name)
    assert float(loaded.optimizer.learning_rate) == 0.125
    assert int(loaded.optimizer.iterations) == (name == "m.keras")  # it alone keeps the states
    loaded.run_eagerly = True
    figures = loaded.evaluate(np.ones((4, 3)), np.ones((4, 2)), verbose=0, return_dict=True)
    assert set(figures) == {"loss", "mae"}
    assert not open_model(tmp_path / name).compiled


def my_loss(y_true, y_pred):
    return keras.ops.mean(keras.ops.abs(y_true - y_pred), -1)


@pytest.mark.parametrize("name", ["m.keras", "m.h5"])
def test_a_loss_that_is_not_there_is_a_warning(tmp_path, name):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    model.compile("sgd", my_loss)
    model.save(tmp_path / name)
    with pytest.warns(UserWarning, match="The model is not compiled.*my_loss"):
        assert not load_model(tmp_path / name).compiled
    assert load_model(tmp_path / name, {"my_loss": my_loss}).loss is my_loss


@pytest.mark.parametrize("arguments", [{"safe_mode": 1}, {"custom_objects": ["Net"]}])
def test_bad_arguments(saved, arguments):
    with pytest.raises(InputError, match=f"`{next(iter(arguments))}`"):
        load_model(saved[0] / "a.keras", **arguments)


def test_weights_of_an_old_file_that_are_not_finite(saved, tmp_path):
    content = (saved[0] / "a.h5").read_bytes()
    (tmp_path / "a.h5").write_bytes(content)
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        file.attrs["keras_version"] = "2.9.0"
        assert np.all(np.isfinite(load_model(tmp_path / "a.h5").get_weights()[0]))
    with h5py.File(tmp_path / "a.h5", "r+") as file:
        kernel = next(name for name in file["model_weights/out"].attrs["weight_names"])
        file[f"model_weights/out/{kernel.decode() if isinstance(kernel, bytes) else kernel}"][
            0, 0
        ] = np.nan
    with pytest.raises(InputError, match="a model with finite weights.*NaN or infinity in"):
        load_model(tmp_path / "a.h5")
