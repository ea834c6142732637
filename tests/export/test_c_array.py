"""A file as C: read back, and compiled where there is a compiler."""

import shutil
import subprocess

import pytest

import tfpeft
from tfpeft.core.arguments import InputError
from tfpeft.export.c_array import parse_c_array

CONTENT = b"\x1c\0\0\0TFL3" + bytes(range(256))  # not opened as a model
MAIN = """
#include <stdint.h>
#include <stdio.h>
#include "{header}"
int main(void) {{
  if ((uintptr_t){name} % 16 != 0) return 1;
  return fwrite({name}, 1, {name}_len, stdout) != {name}_len;
}}
"""


@pytest.fixture(autouse=True)
def _file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model.tflite").write_bytes(CONTENT)


def test_names_and_bytes(tmp_path):
    source, header = tfpeft.export_c_array("my-model.tflite")
    assert (source.name, header.name) == ("my-model.cc", "my-model.h")
    assert parse_c_array(source.read_text(), "my_model") == CONTENT
    assert "alignas(16) const unsigned char my_model[] = {\n    0x1c, 0x00," in source.read_text()
    assert f"my_model_len = {len(CONTENT)};" in source.read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        *("my-model.cc", "my-model.h", "my-model.tflite")
    ]


@pytest.mark.parametrize(("ending", "compiler"), [(".c", "gcc"), (".cc", "g++"), (".cpp", "g++")])
def test_it_compiles_and_is_aligned(ending, compiler, tmp_path):
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    source, header = tfpeft.export_c_array("my-model.tflite", f"out/m{ending}", name="g_model")
    main = tmp_path / f"out/main{'.c' if ending == '.cc' else ending}"  # C code links with C++ code
    main.write_text(MAIN.format(header=header.name, name="g_model"))
    standard = "-std=c11" if ending == ".c" else "-std=c++11"
    objects = []
    for path in (source, main):
        objects.append(path.with_suffix(".o"))
        options = [standard] if path.suffix == ending else []
        command = ["gcc", "-Wall", "-Werror", *options, "-c", str(path), "-o", str(objects[-1])]
        subprocess.run(command, check=True)
    subprocess.run([compiler, *map(str, objects), "-o", "out/program"], check=True)
    assert subprocess.run(["out/program"], check=True, capture_output=True).stdout == CONTENT


@pytest.mark.parametrize("name", ["1st", "a-b", "", "int", "class", 3, "ä"])
def test_names_that_are_no_identifiers(name):
    with pytest.raises(InputError, match="`name`, expected an identifier of C"):
        tfpeft.export_c_array("my-model.tflite", name=name)


def test_names_are_made_of_those_of_files(tmp_path):
    for stem, name in (("1 m", "model_1_m"), ("int", "model_int"), ("ä", "_")):
        (tmp_path / f"{stem}.tflite").write_bytes(CONTENT)
        source, _ = tfpeft.export_c_array(f"{stem}.tflite")
        assert parse_c_array(source.read_text(), name) == CONTENT


def test_bad_paths_leave_older_files(tmp_path):
    source, header = tfpeft.export_c_array("my-model.tflite")
    before = source.read_bytes(), header.read_bytes()
    (tmp_path / "text.tflite").write_text("text")
    for path, c_path in (
        *(("text.tflite", source), ("no.tflite", source), ("my-model.tflite", "m.txt")),
        *(("my-model.tflite", "m.h"), ("my-model.tflite", 3), ("my-model.tflite", "folder/")),
    ):
        with pytest.raises(InputError):
            tfpeft.export_c_array(path, c_path)
    assert (source.read_bytes(), header.read_bytes()) == before
