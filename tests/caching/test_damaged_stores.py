"""A folder of `precompute` when it is damaged."""

import json

import numpy as np
import pytest

import tfpeft
from tfpeft.core.arguments import InputError

X = np.arange(12.0, dtype="float32").reshape(4, 3)


def twice(x):
    return 2.0 * x


def change_structure(structure):
    def change(folder):
        about = json.loads((folder / "about.json").read_text())
        (folder / "about.json").write_text(json.dumps({**about, "structure": structure}))

    return change


def write(name, content):
    def change(folder):
        if isinstance(content, bytes):
            (folder / name).write_bytes(content)
        else:
            np.save(folder / name, content)

    return change


@pytest.mark.parametrize(
    "change",
    [
        *(write("about.json", content) for content in (b"", b"{", b"[]", b"3", b"\xff")),
        *(change_structure(structure) for structure in (5, None, {}, {"outputs": [7]})),
        change_structure({"outputs": [7], "features": {}}),
        change_structure({"outputs": [0, 1], "features": {}}),
        *(write("00000/1.npy", content) for content in (b"", b"garbage", b"\x93NUMPY")),
        *(write("00000/0.npy", array) for array in (np.zeros(3, "uint32"), np.zeros((4, 1)))),
        write("00000/0.npy", np.zeros(4)),
        write("00000/1.npy", X[:3]),
        write("00000/1.npy", np.float32(1)),
        lambda folder: (folder / "00000" / "1.npy").unlink(),
    ],
)
def test_it_is_one_line_that_names_the_file(tmp_path, change):
    tfpeft.precompute(twice, X, tmp_path)
    change(tmp_path)
    with pytest.raises(InputError, match=r"`path`.*(about.json|\d.npy) is damaged.*remove the fol"):
        tfpeft.precompute(twice, X, tmp_path)
    np.testing.assert_array_equal(tfpeft.precompute(twice, X).outputs, 2 * X)


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((4, 7), "float32"),
        np.zeros((4, 1), "float32"),  # which NumPy would broadcast
        np.zeros((4, 3, 1), "float32"),
        np.full((4, 3), "a"),
        np.zeros((4, 3), "complex64"),
        np.zeros((4, 3), "int32"),
        np.full((4, 3), np.nan, "float32"),
    ],
)
def test_outputs_of_another_form_are_one_line_that_names_the_path(tmp_path, array):
    tfpeft.precompute(twice, X, tmp_path)
    np.save(tmp_path / "00000" / "1.npy", array)
    with pytest.raises(InputError, match=r"`path`, expected an empty folder, or one of outputs"):
        tfpeft.precompute(twice, X, tmp_path)


def test_it_is_whole_and_free_after_each_call(tmp_path):
    for _ in range(2):
        np.testing.assert_array_equal(tfpeft.precompute(twice, X, tmp_path).outputs, 2 * X)
        assert sorted(path.name for path in tmp_path.iterdir()) == ["00000", "about.json"]
