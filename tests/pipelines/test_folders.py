"""Folders of runs: one run at a time, and files that are damaged."""

import json
import os
import socket
import types

import keras
import numpy as np
import pytest

from pipelines.common.flags import Flag
from pipelines.common.folders import RECORD, RunFolder
from tfpeft.core import weight_files
from tfpeft.core.arguments import InputError
from tfpeft.core.files import PARTIAL
from tfpeft.core.locks import LOCK

FLAGS = [Flag("dataset", str, None, ""), Flag("alpha", float, 0.1, "")]


def open_folder(path, alpha=0.1, name="run"):
    settings = types.SimpleNamespace(
        output_dir=str(path), name=name, dataset="data.npz", alpha=alpha
    )
    return RunFolder("test", settings, FLAGS)


def test_another_run_leaves_the_folder_of_one_that_has_just_begun(tmp_path):
    """Before its first stage has ended, with its first file in progress."""
    with open_folder(tmp_path) as folder:
        lock = json.loads((folder / LOCK).read_text())
        assert (lock["host"], lock["process"]) == (socket.gethostname(), os.getpid())
        (folder / LOCK).write_text(json.dumps({**lock, "process": os.getppid(), "started": None}))
        (folder / f"{PARTIAL}teacher.keras").write_text("in progress")
        before = {path.name: path.read_bytes() for path in folder.path.iterdir()}
        for alpha in (0.1, 0.5):
            with pytest.raises(InputError, match=f"--name.* in use.*process {os.getppid()} on"):
                open_folder(tmp_path, alpha)
        assert {path.name: path.read_bytes() for path in folder.path.iterdir()} == before
        (folder / LOCK).write_text(json.dumps(lock))
    assert sorted(folder.names()) == [RECORD]
    with open_folder(tmp_path, alpha=0.5):  # no stage has ended
        assert json.loads((folder / RECORD).read_text())["flags"]["alpha"] == 0.5
        assert {path.name for path in folder.path.iterdir()} == {RECORD, LOCK}


@pytest.mark.parametrize("name", ["../run", "/tmp/run", "a/../../b"])
def test_a_run_stays_in_its_output_dir(tmp_path, name):
    with pytest.raises(InputError, match="--name, expected the name of a folder in --output_dir"):
        open_folder(tmp_path / "deep", name=name)
    assert list(tmp_path.iterdir()) == []


def write_good(path):
    if path.suffix == ".keras":
        keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)]).save(path)
    elif path.suffix == ".json":
        path.write_text('{"a": ["x"]}')
    else:
        weight_files.write(path, {"kernel": np.ones((50, 50), "float32")}, {})


@pytest.mark.parametrize("name", ["teacher.keras", "tasks.json", "a.weights.h5"])
def test_damaged_files_are_removed_and_said(tmp_path, capsys, name):
    with open_folder(tmp_path) as folder:
        path = folder / name
        assert not folder.has(name)
        write_good(path)
        assert folder.has(name, {str: [str]})
        assert capsys.readouterr().out == ""
        content = path.read_bytes()
        for damaged in (content[: len(content) // 2], b"", b"garbage" * 99):
            path.write_bytes(damaged)
            assert not folder.has(name, {str: [str]})
            assert not path.exists()
            output = capsys.readouterr().out
            assert output.startswith(f"{path} is damaged, so what it holds is computed again: ")
            assert output.count("\n") == 1
        path.mkdir()
        with pytest.raises(InputError, match=f"{name}, which is a folder: remove it"):
            folder.has(name)


def test_json_of_another_form_is_damaged(tmp_path):
    with open_folder(tmp_path) as folder:
        for content in ("[]", "3", '{"a": [1]}', '{"a": "x"}', "null"):
            (folder / "tasks.json").write_text(content)
            assert not folder.has("tasks.json", {str: [str]})


def test_a_file_that_is_no_model_is_damaged(tmp_path):
    with open_folder(tmp_path) as folder:
        for content in (b"", b"garbage", b"\0\0\0\0TFL3" + b"\xff" * 99):
            (folder / "model.tflite").write_bytes(content)
            assert not folder.has("model.tflite")


def test_the_record_says_what_to_do_when_it_is_damaged(tmp_path):
    with open_folder(tmp_path) as folder:
        (folder / "teacher.keras").write_text("of a run")
    for content in ("{", "[]", "3", "", "null"):
        (folder / RECORD).write_text(content)
        with pytest.raises(InputError, match="run.json is damaged: remove the folder, or name ano"):
            open_folder(tmp_path)
    assert sorted(folder.names()) == [RECORD, "teacher.keras"]


def test_flags_may_change_until_their_files_are_written(tmp_path):
    def open_with(alpha):
        settings = types.SimpleNamespace(
            output_dir=str(tmp_path), name="run", dataset="data.npz", alpha=alpha
        )
        return RunFolder("test", settings, FLAGS, files={"alpha": ["last.json"]})

    with open_with(0.1) as folder:
        folder.write("first.json", "{}")
    with open_with(0.5) as folder:
        assert json.loads((folder / RECORD).read_text())["flags"]["alpha"] == 0.5
        folder.write("last.json", "{}")
    with pytest.raises(InputError, match="--alpha was 0.5 and is 0.1"):
        open_with(0.1)
    with open_with(0.5):
        pass


def test_a_flag_that_is_new_changes_nothing_where_it_asks_for_nothing(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.write("first.json", "{}")
    settings = types.SimpleNamespace(
        output_dir=str(tmp_path), name="run", dataset="data.npz", alpha=0.1, more=()
    )
    with RunFolder("test", settings, [*FLAGS, Flag("more", list, (), "")]) as folder:
        assert folder.has("first.json")


def test_models_that_were_trained_on_scaled_pixels_are_not_given_others(tmp_path):
    with open_folder(tmp_path) as folder:
        folder.write("first.json", "{}")
        record = json.loads((folder / RECORD).read_text())
        del record["pixels"]  # as of 0.1.0
        (folder / RECORD).write_text(json.dumps(record))
    for _ in range(2):
        with pytest.raises(InputError, match="of a version that scaled pixels: remove it"):
            open_folder(tmp_path)
