"""The examples of the README and of the docstrings run as they stand."""

import inspect
import os
import pathlib
import re
import subprocess
import sys

import numpy as np
import pytest

import tfpeft

ROOT = pathlib.Path(__file__).parent.parent
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
EXAMPLES = {"README": BLOCK.search((ROOT / "README.md").read_text())[1]}
for name in tfpeft.__all__:
    for found in BLOCK.finditer(inspect.getdoc(getattr(tfpeft, name)) or ""):
        EXAMPLES[name] = inspect.cleandoc(found[1])


def test_what_needs_an_example_has_one():
    assert set(EXAMPLES) >= {
        "README",
        "Distiller",
        "DistillationTerm",
        "MagnitudePruning",
        "compare",
        "evaluate",
        "export_tflite",
        "precompute",
        "scale_width",
    }
    assert all((getattr(tfpeft, name).__doc__ or "").strip() for name in tfpeft.__all__)


@pytest.mark.parametrize("name", [name for name in EXAMPLES if name != "README"])
def test_docstring(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[name], {"__name__": "example"})
    if name == "MagnitudePruning":
        assert capsys.readouterr().out == "0.5\n"
    if name == "scale_width":
        assert capsys.readouterr().out == "8\n"


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("*.md")), ids=lambda page: page.name)
def test_page(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "example"}
    for block in BLOCK.findall(page.read_text()):
        exec(block, names)
    if page.name == "sparsity.md":
        assert names["pruned"].reached
        assert np.mean(names["final"].layers[0].kernel == 0) > 0.8
        assert (tmp_path / "sensitivity.png").exists()
    if page.name == "adapters.md":
        tested = (1.0 - names["test"][0], names["test"][1])
        accuracies = []
        for model in (names["model"], names["adapted"]):
            logits = model.predict(tested[0], verbose=0)
            accuracies.append(np.mean(logits.argmax(-1) == tested[1]))
        assert accuracies[0] < 0.5 < 0.8 < accuracies[1]
        assert (tmp_path / "inverted.weights.h5").stat().st_size < 40_000
    if page.name == "sharing.md":
        x, digit = 1.0 - names["x"][names["test"]], names["digit"][names["test"]]
        outputs = names["other"].predict(x, verbose=0)
        assert np.mean(outputs["inverted"].argmax(-1) == digit) > 0.8
        assert names["report"].signatures == ("parity", "inverted", "size")
        assert (tmp_path / "inverted.weights.h5").stat().st_size < 40_000
    if page.name == "distillation.md":
        terms = {"attention_transfer", "feature_matching", "hard_loss", "loss", "soft_labels"}
        assert set(names["history"]) == terms
        assert (tmp_path / "answers" / "00000").is_dir()
        logits = names["student"].predict(names["test"][0], verbose=0)
        assert np.mean(logits.argmax(-1) == names["test"][1]) > 0.3  # three epochs, 10 classes


@pytest.mark.parametrize("first", ["tfpeft", "tensorflow_model_optimization"])
def test_readme(tmp_path, first):
    check = "import tensorflow as tf\nassert (tf.keras.Model is keras.Model) == "
    text = [f"import {first}", EXAMPLES["README"], check + str(first == "tfpeft")]
    (tmp_path / "example.py").write_text("\n".join(text))
    result = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    rows = [line.split() for line in result.stdout.splitlines()]
    accuracies = {row[0]: float(row[1]) for row in rows if row and row[0] in ("teacher", "small")}
    assert accuracies["teacher"] > 90
    assert accuracies["small"] > accuracies["teacher"] - 5


def test_readme_on_a_preset(tmp_path, monkeypatch):
    """As it stands, but for a preset that is smaller, and need not be downloaded."""
    pytest.importorskip("keras_hub")
    from test_share import save_tiny

    monkeypatch.chdir(tmp_path)
    save_tiny(tmp_path / "tiny")
    _, example = BLOCK.findall((ROOT / "README.md").read_text())
    assert "keras_hub" in example
    assert example.count("bert_small_en_uncased") == 1
    example = example.replace("bert_small_en_uncased", str(tmp_path / "tiny")).replace("64", "32")
    names = {"__name__": "example"}
    exec(example, names)
    assert names["shared"].tasks == ("sentiment", "topic")
    assert (tmp_path / "topic.weights.h5").exists()
    assert (tmp_path / "tasks.tflite").exists()


# In which order things are imported matters to `tf.keras`, and not to the environment, which is
# read and put back in one place: a value in it is tried once.
@pytest.mark.parametrize(
    ("imports", "legacy"),
    [
        ("import tfpeft; import tensorflow as tf; import keras", None),
        ("import tfpeft; import tensorflow as tf; import keras", "0"),
        ("import tensorflow as tf; import keras; import tfpeft", None),
        ("import keras, tfpeft, tensorflow_model_optimization; import tensorflow as tf", None),
        ("import tensorflow as tf; tf.keras; import tfpeft; import keras", None),
    ],
)
def test_import_changes_neither_tf_keras_nor_the_environment(imports, legacy):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("TF_USE_LEGACY_KERAS", None)
    if legacy is not None:
        environment["TF_USE_LEGACY_KERAS"] = legacy
    check = (
        f"import os; {imports}; assert tf.keras.Model is keras.Model; "
        f"assert os.environ.get('TF_USE_LEGACY_KERAS') == {legacy!r}"
    )
    result = subprocess.run(
        [sys.executable, "-c", check], env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
