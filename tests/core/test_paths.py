"""Paths that users give: checked before any work, with errors that name the argument."""

import os
import pathlib
import re

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.core.arguments import InputError
from tfpeft.core.paths import as_path, file_to_read, file_to_write, folder_to_write

CHECKS = (file_to_read, file_to_write, folder_to_write)


class BytesPath:
    def __fspath__(self):
        return b"model.tflite"


@pytest.mark.parametrize("check", CHECKS)
@pytest.mark.parametrize(
    "path", [None, 3, 1.5, b"a", ["a"], BytesPath(), "", "  ", "\n", "a\0b", "\ud800", "~nobody-/a"]
)
def test_what_is_no_path_raises(check, path, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="^Received an invalid value for `path`, expected a"):
        check(path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("check", CHECKS)
def test_names_that_are_too_long_and_circles_of_links(check, tmp_path):
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path, why in (("a" * 300, "too long"), ("circle", "symbolic links")):
        with pytest.raises(InputError, match=why):
            check(tmp_path / path)


def test_files_and_folders_in_the_place_of_the_other(tmp_path):
    (tmp_path / "file").write_text("a")
    os.mkfifo(tmp_path / "pipe")
    for check, name, why in [
        (file_to_read, "", "which is a folder"),
        (file_to_read, "none", "which is not there"),
        (file_to_read, "file/none", "which is not there"),
        (file_to_read, "pipe", "which is a device or a pipe"),
        (file_to_write, "", "which is a folder"),
        (file_to_write, "pipe", "which is a device or a pipe"),
        (file_to_write, "file/deep/a", "file is a file"),
        (folder_to_write, "file", "which is a file"),
        (folder_to_write, "file/deep", "file is a file"),
    ]:
        with pytest.raises(InputError, match=why):
            check(tmp_path / name)
    with pytest.raises(InputError, match="which is the name of a folder"):
        file_to_write(f"{tmp_path}/a/")
    with pytest.raises(InputError, match="which is a device or a pipe"):
        file_to_write("/dev/null")


def test_paths_that_can_be_used(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("a")
    (tmp_path / "link").symlink_to(tmp_path / "none")
    for path in (tmp_path / "file", str(tmp_path / "file")):
        assert file_to_read(path) == file_to_write(path) == tmp_path / "file"
    for name in ("new", "deep/er/new", "link", "with space", "e" * 250):
        assert file_to_write(tmp_path / name) == tmp_path / name
    for name in (".", "new/", "deep/er"):
        assert folder_to_write(f"{tmp_path}/{name}") == tmp_path / name
    monkeypatch.setenv("HOME", str(tmp_path))
    assert as_path("~/a") == tmp_path / "a"
    assert as_path(pathlib.Path("~/a")) == tmp_path / "a"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "link"]


def test_a_folder_that_is_read_only_is_found_early(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    with pytest.raises(PermissionError, match=f"Cannot write .*a.txt .*: {tmp_path} is read-only"):
        file_to_write(tmp_path / "deep" / "a.txt")


def test_the_argument_is_named_as_the_user_wrote_it():
    with pytest.raises(InputError) as error:
        file_to_read("none.keras", "--model", "a .keras model")
    assert str(error.value) == (
        "Received an invalid value for --model, expected a .keras model. "
        "Received: --model=none.keras, which is not there"
    )
    with pytest.raises(InputError) as error:
        file_to_read(pathlib.Path("none"), "`directory`")
    assert str(error.value).endswith("Received: directory='none', which is not there")


@pytest.fixture(scope="module")
def public():
    """Public name -> a function of a path that reads or writes there."""
    x, y = np.ones((4, 6), "float32"), np.arange(4) % 3
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(3, name="out")])
    model.compile("adam", "sparse_categorical_crossentropy")
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(target="out", rank=1))
    shared = tfpeft.SharedModel(
        keras.Sequential([keras.Input((6,)), keras.layers.Dense(2)]), {"a": 2}
    )
    sensitivity = tfpeft.layer_sensitivity(model, (x, y), (0.5,))
    pruning = {"target_sparsity": 0.5, "tolerance": 9.0}
    return {
        "export_tflite": lambda path: tfpeft.export_tflite(model, path),
        "export_onnx": lambda path: tfpeft.export_onnx(model, path),
        "export_saved_model": lambda path: tfpeft.export_saved_model(model, path),
        "TFLiteFile": tfpeft.TFLiteFile,
        "save_adapter": adapted.save_adapter,
        "load_adapter": adapted.load_adapter,
        "save_task": lambda path: shared.save_task("a", path),
        "load_task": shared.load_task,
        "plot": sensitivity.plot,
        "precompute": lambda path: tfpeft.precompute(model, x, path),
        "prune_iteratively": lambda path: tfpeft.prune_iteratively(
            model, (x, y), (x, y), directory=path, **pruning
        ),
        "evaluate": lambda path: tfpeft.evaluate(path, (x, y)),
        "compare": lambda path: tfpeft.compare({"a": path}, (x, y)),
        "Distiller": lambda path: tfpeft.Distiller(path, model),
    }


@pytest.mark.parametrize(
    "name",
    ["export_tflite", "TFLiteFile", "save_adapter", "load_adapter", "save_task", "load_task"]
    + [
        "export_onnx",
        "export_saved_model",
        "plot",
        "precompute",
        "prune_iteratively",
        "evaluate",
        "compare",
        "Distiller",
    ],
)
def test_public_functions_name_a_bad_path_and_write_nothing(public, name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_text("mine")
    for path in (b"a", BytesPath(), 3, "", " ", "a\0b", "folder", "file/a", "a" * 300, "\ud800"):
        with pytest.raises(InputError) as error:
            public[name](path)
        argument = "directory" if name == "prune_iteratively" else "(path|model|teacher|models)"
        assert re.search(f"for `{argument}`|invalid `{argument}`", str(error.value)), error.value
        assert "\n" not in str(error.value)
        written = sorted(str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*"))
        assert written == ["file", "folder", "folder/file"]
