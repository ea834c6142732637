"""Importing tfpeft: what it leaves alone, and what it leaves for later."""

import ast
import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Packages that only some calls need are imported by those calls. Keras itself imports a part of
# scikit-learn and of matplotlib where they are installed.
LAST = """
import sys
import tensorflow as tf
import keras
before = set(sys.modules)
import tfpeft
heavy = ("tensorflow_model_optimization", "sklearn", "matplotlib")
early = [name for name in set(sys.modules) - before if name.split(".")[0] in heavy]
assert not early, early
"""


def run(script, legacy=None):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    if legacy is not None:
        environment["TF_USE_LEGACY_KERAS"] = legacy
    result = subprocess.run(
        [sys.executable, "-c", script], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr


# In which order things are imported matters to `tf.keras`, and not to the environment, which is
# read and restored in one place: a value in it is tried once.
@pytest.mark.parametrize(
    ("imports", "legacy"),
    [
        ("import tfpeft; import tensorflow as tf; import keras", "0"),
        ("import tfpeft; import tensorflow as tf; import keras", None),
        (LAST, None),
        ("import keras, tfpeft, tensorflow_model_optimization; import tensorflow as tf", None),
        ("import tensorflow as tf; tf.keras; import tfpeft; import keras", None),
    ],
    ids=["environment", "first", "last", "before_tfmot", "touched"],
)
def test_import_changes_neither_tf_keras_nor_the_environment(imports, legacy):
    lines = [
        imports,
        "import os",
        "assert tf.keras.Model is keras.Model",
        f"assert os.environ.get('TF_USE_LEGACY_KERAS') == {legacy!r}",
    ]
    run("\n".join(lines), legacy)


def test_modules_import_no_heavy_package():
    """In files, not in a process: Keras imports scikit-learn and matplotlib where they are."""
    heavy = {"tensorflow_model_optimization", "tf_keras", "sklearn", "matplotlib"}
    for path in (ROOT / "tfpeft").rglob("*.py"):
        for node in ast.parse(path.read_text()).body:
            names = [alias.name for alias in getattr(node, "names", [])]
            names = [node.module] if isinstance(node, ast.ImportFrom) else names
            is_import = isinstance(node, (ast.Import, ast.ImportFrom))
            assert not is_import or not heavy & {name.split(".")[0] for name in names}, path
