"""Importing tfpeft: what it leaves alone, and what it leaves for later."""

import ast
import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest

import tfpeft

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
        (LAST, None),
        ("import tfpeft, keras, tensorflow_model_optimization; import tensorflow as tf", None),
        ("import tensorflow as tf; tf.keras; import tfpeft; import keras", None),
    ],
    ids=["first", "last", "before_tfmot", "touched"],
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


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("DistillationTerm", tfpeft.DistillationLoss),
        ("IterativePruning", tfpeft.IterativePruningResult),
        ("Sensitivity", tfpeft.LayerSensitivity),
        ("Taught", tfpeft.PrecomputedInputs),
    ],
)
def test_old_names_warn(old, new):
    with pytest.warns(DeprecationWarning, match=f"{old} is called tfpeft.{new.__name__}"):
        assert getattr(tfpeft, old) is new
    with pytest.raises(AttributeError, match="no_such_name"):
        tfpeft.no_such_name  # noqa: B018


def test_files_are_predicted_by_the_name_of_before(tmp_path):
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    tfpeft.export_tflite(model, tmp_path / "model.tflite")
    x = np.ones((2, 3), "float32")
    with pytest.warns(DeprecationWarning, match="TFLiteFile"):
        outputs = tfpeft.tflite.predict(tmp_path / "model.tflite", x)
    np.testing.assert_allclose(outputs, model.predict(x, verbose=0), atol=1e-6)
