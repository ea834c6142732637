"""pipelines.predict on folders that are damaged, and inputs that are no samples."""

import json

import keras
import numpy as np
import pytest

import tfpeft
from pipelines import predict
from tfpeft.core.arguments import InputError


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """What a run of pipelines.share on arrays leaves, as far as predict reads it."""
    path = tmp_path_factory.mktemp("run")
    backbone = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    tfpeft.export_tflite(tfpeft.SharedModel(backbone, {"a": 2, "b": 3}), path / "model.tflite")
    np.save(path / "x.npy", np.ones((2, 3)))
    np.save(path / "complex.npy", np.ones((2, 3)) + 1j)
    np.save(path / "text.npy", np.array([["a"]]))
    (path / "folder.npy").mkdir()
    return path


@pytest.mark.parametrize(
    ("classes", "input_file", "message"),
    [
        ("{", "x", "damaged file, expected JSON.*tasks.json"),
        ("[]", "x", "damaged file, expected an object.*tasks.json"),
        ('{"a": [1]}', "x", r"damaged file, expected a text for a\[0\].*tasks.json"),
        ("{}", "x", "a task or more. Received: none in .*tasks.json"),
        ('{"a": ["x"]}', "x", "the name of every class of a.*1 in .*tasks.json"),
        ('{"c": ["x"]}', "x", "one of .*'a', 'b'.*the tasks of .*c in .*tasks.json"),
        (None, "complex", "samples in a .npy file.*complex.npy, with something else"),
        (None, "text", "samples in a .npy file.*text.npy, with something else"),
        (None, "folder", "samples in a .npy file.*folder.npy"),
        (None, "none", "samples in a .npy file.*none.npy"),
    ],
)
def test_damage_is_one_line(folder, classes, input_file, message):
    good = json.dumps({"a": ["x", "y"], "b": ["0", "1", "2"]})
    (folder / "tasks.json").write_text(classes or good)
    with pytest.raises(InputError, match=message):
        predict.SCRIPT.call([f"--run={folder}", f"--input={folder}/{input_file}.npy"])


def test_the_only_task_has_the_name_that_the_file_has(folder, tmp_path):
    backbone = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4)])
    tfpeft.export_tflite(tfpeft.SharedModel(backbone, {"a": 2}), tmp_path / "model.tflite")
    (tmp_path / "tasks.json").write_text('{"b": ["x", "y"]}')
    with pytest.raises(InputError, match=r"one of \['a'\], the tasks of .*b in .*tasks.json"):
        predict.SCRIPT.call([f"--run={tmp_path}", f"--input={folder}/x.npy"])
