"""Files of some weights, and of models: what they may hold, checked before it is read."""

import json
import zipfile

import h5py
import keras
import numpy as np
import pytest

from tfpeft.core import weight_files
from tfpeft.core.arguments import InputError
from tfpeft.core.model_files import damage_of

SECRET = b"a secret of this machine, in float32 ...."


@pytest.mark.parametrize("name", ["a.weights.h5", "a.safetensors"])
def test_files_keep_arrays_and_metadata(tmp_path, name):
    arrays = {"dense/kernel": np.arange(6.0).reshape(2, 3), "bias": np.ones(3, "float16").T}
    weight_files.write(tmp_path / name, arrays, {"task": "a", "rank": 2})
    found, about = weight_files.read(tmp_path / name)
    assert about == {"task": "a", "rank": 2}
    assert set(found) == set(arrays)
    for key, array in arrays.items():
        np.testing.assert_array_equal(found[key], array)
        assert found[key].dtype == array.dtype
    assert [file.name for file in tmp_path.iterdir()] == [name]


def test_files_that_cannot_be_used(tmp_path):
    with pytest.raises(InputError, match=r"`path`, expected a name that ends in .*a\.bin"):
        weight_files.write(tmp_path / "deep" / "a.bin", {}, {})
    assert list(tmp_path.iterdir()) == []
    for name in ("a.weights.h5", "a.safetensors"):
        with pytest.raises(InputError, match="`path`, expected a file of `save_adapter`"):
            weight_files.read(tmp_path / name)
        (tmp_path / name).write_bytes(b"something else")
        with pytest.raises(InputError, match=r"`path`, expected a file of .* damaged \(\w+: "):
            weight_files.read(tmp_path / name)


def external_storage(file, tmp_path):
    file.create_dataset("a", (10,), "float32", external=[(str(tmp_path / "secret"), 0, 40)])


def external_link(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["a"] = np.ones(10, "float32")
    file["a"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/a")


def virtual(file, tmp_path):
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other["a"] = np.ones(10, "float32")
    layout = h5py.VirtualLayout((10,), "float32")
    layout[:] = h5py.VirtualSource(str(tmp_path / "other.h5"), "a", (10,))
    file.create_virtual_dataset("a", layout)


def soft_link(file, tmp_path):
    file["group/b"] = np.ones(10, "float32")
    file["a"] = h5py.SoftLink("/group/b")


def twice(file, tmp_path):
    file["b"] = np.ones(10, "float32")
    file["a"] = file["b"]


def circle(file, tmp_path):
    file["group/self"] = file


def larger_than_the_file(file, tmp_path):
    file.create_dataset("a", (10**6, 10**6), "float32", chunks=(1024, 1024))


def objects(file, tmp_path):
    file["a"] = ["a", "b"]


def compound(file, tmp_path):
    file["a"] = np.zeros(3, [("x", "float32"), ("y", "int32")])


def references(file, tmp_path):
    file["b"] = np.ones(3)
    file["a"] = np.array([file["b"].ref], h5py.ref_dtype)


HOSTILE = [external_storage, external_link, virtual, soft_link, twice, circle]
HOSTILE += [larger_than_the_file, objects, compound, references]


@pytest.mark.parametrize("hostile", HOSTILE)
def test_nothing_beside_the_file_is_read_and_nothing_that_grows(tmp_path, hostile):
    (tmp_path / "secret").write_bytes(SECRET)
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        file.attrs["tfpeft"] = json.dumps({"task": "a"})
        hostile(file, tmp_path)
    with pytest.raises(InputError, match=r"`path`.*save_adapter.*damaged \(ValueError: "):
        weight_files.read(path)
    whole = tmp_path / "model.h5"
    path.rename(whole)
    assert damage_of(whole)
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("config.json", "{}")
        archive.write(whole, "model.weights.h5")
    assert damage_of(tmp_path / "model.keras")


@pytest.mark.parametrize("name", ["a.weights.h5", "a.safetensors"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path, name, value):
    arrays = {"kernel": np.ones(3, "float32"), "bias": np.array([0, value], "float32")}
    with pytest.raises(InputError, match="finite weights.*NaN or infinity in bias"):
        weight_files.write(tmp_path / name, arrays, {})
    assert list(tmp_path.iterdir()) == []
    if name.endswith("h5"):
        with h5py.File(tmp_path / name, "w") as file:
            file.attrs["tfpeft"] = "{}"
            file["bias"] = arrays["bias"]
    else:
        from safetensors.numpy import save_file

        save_file(arrays, tmp_path / name, metadata={"tfpeft": "{}"})
    with pytest.raises(InputError, match="`path`, expected finite weights.*in bias"):
        weight_files.read(tmp_path / name)


@pytest.mark.parametrize("name", ["a.weights.h5", "a.safetensors"])
def test_a_value_that_changed_on_the_disk_is_found(tmp_path, name):
    array = np.arange(1.0, 9.0, dtype="float32")
    weight_files.write(tmp_path / name, {"a": array, "scalar": np.float32(1)}, {})
    content = (tmp_path / name).read_bytes()
    at = content.index(array.tobytes())
    (tmp_path / name).write_bytes(content[:at] + b"\x01" + content[at + 1 :])
    with pytest.raises(InputError, match="damaged .ValueError: its arrays have another checksum"):
        weight_files.read(tmp_path / name)


@pytest.mark.parametrize("metadata", [None, "{", "[]", "3"])
def test_metadata_of_another_form(tmp_path, metadata):
    path = tmp_path / "a.weights.h5"
    with h5py.File(path, "w") as file:
        if metadata is not None:
            file.attrs["tfpeft"] = metadata
    with pytest.raises(InputError, match=r"`path`, .*a.weights.h5', which is damaged"):
        weight_files.read(path)


@pytest.mark.parametrize(
    ("arrays", "why"),
    [
        ({}, "without a"),
        ({"a": np.zeros((2, 3)), "b": np.zeros(1)}, "with another array, b"),
        ({"a": np.zeros((3, 2))}, r"a of shape \(2, 3\).*has shape \(3, 2\)"),
        ({"a": np.zeros((2, 3), "int32")}, "type int32"),
        ({"a": np.zeros((2, 3), "complex64")}, "type complex64"),
        ({"a": np.zeros((2, 3), "S1")}, r"type \|S1"),
    ],
)
def test_arrays_of_other_names_shapes_and_types_are_not_assigned(arrays, why):
    variable = keras.Variable(np.ones((2, 3)), dtype="float32")
    with pytest.raises(InputError, match=f"`path`, expected a whole file of `save_it`.*{why}"):
        weight_files.assign({"a": variable}, arrays, "path", "save_it")
    np.testing.assert_array_equal(variable, np.ones((2, 3)))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("name", ["a.weights.h5", "a.safetensors"])
def test_floats_of_all_sizes_are_assigned(tmp_path, name, dtype):
    values = np.array([[0.5, -2.0, 3.0]])
    variable = keras.Variable(values, dtype=dtype)
    weight_files.write(tmp_path / name, {"a": variable.numpy()}, {})
    variable.assign(np.zeros((1, 3)))
    arrays, _ = weight_files.read(tmp_path / name)
    weight_files.assign({"a": variable}, arrays, tmp_path / name, "save_it")
    np.testing.assert_array_equal(keras.ops.cast(variable, "float64"), values)
