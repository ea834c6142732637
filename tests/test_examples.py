"""The examples of README.md, docs/, the notebooks and the docstrings run as they stand."""

import importlib.util
import inspect
import os
import pathlib
import re
import subprocess
import sys

import keras
import nbformat
import numpy as np
import pytest
import tensorflow as tf

import tfpeft

ROOT = pathlib.Path(__file__).parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
NOTEBOOKS = sorted((ROOT / "docs/notebooks").glob("*.ipynb"))
BLOCK = re.compile(r"```python\n(.*?)```", re.DOTALL)
README = "\n".join(BLOCK.findall((ROOT / "README.md").read_text()))
DOCS = {name: inspect.getdoc(getattr(tfpeft, name)) or "" for name in tfpeft.__all__}
EXAMPLES = {
    name: inspect.cleandoc(found[1]) for name, doc in DOCS.items() for found in BLOCK.finditer(doc)
}


@pytest.mark.parametrize("name", DOCS)
def test_public_names_have_an_example_or_name_another_that_has_one(name):
    """By "see `X`" anywhere, or `X` before the arguments, as in "What `compare` returns"."""
    first, *_ = re.split(r"\n(?:Args|Attributes):", DOCS[name])
    seen = re.findall(r"[Ss]ee `(\w+)", DOCS[name]) + re.findall(r"`(\w+)`", first)
    assert name in EXAMPLES or set(seen) & set(EXAMPLES)


@pytest.mark.parametrize("name", EXAMPLES)
def test_docstring(name, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(EXAMPLES[name], {"__name__": "example"})
    if name == "MagnitudePruning":
        assert capsys.readouterr().out == "0.5\n"
    if name == "scale_width":
        assert capsys.readouterr().out == "8\n"


@pytest.fixture
def tiny_preset(tmp_path):
    """A preset that is smaller than those of the examples, and need not be downloaded."""
    pytest.importorskip("keras_hub")
    from tests.pipelines.tiny_bert import save_tiny

    save_tiny(tmp_path / "tiny")
    return str(tmp_path / "tiny")


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_page(page, tmp_path, monkeypatch, request, capsys):
    monkeypatch.chdir(tmp_path)
    text = page.read_text()
    if page.name == "getting_started.md":
        assert text.count("bert_small_en_uncased") == 1
        text = text.replace("bert_small_en_uncased", request.getfixturevalue("tiny_preset"))
        text = text.replace("sequence_length=64", "sequence_length=32")
    names = {"__name__": "example"}
    for block in BLOCK.findall(text):
        exec(block, names)
    if page.name == "getting_started.md":
        assert names["shared"].tasks == ("sentiment", "topic")
        assert (tmp_path / "topic.weights.h5").exists()
        assert (tmp_path / "tasks.tflite").exists()
    if page.name == "architecture.md":
        assert capsys.readouterr().out.endswith("144\n0.75\n")
    if page.name == "from_tfmot.md":
        assert capsys.readouterr().out.endswith("0.5\n")
    if page.name == "sparsity.md":
        assert names["pruned"].reached
        assert np.mean(names["final"].layers[0].kernel == 0) > 0.8
        assert (tmp_path / "sensitivity.png").exists()
    if page.name == "clustering.md":
        (accuracy, size), (clustered_accuracy, clustered_size) = names["before"], names["after"]
        assert clustered_accuracy > accuracy - 0.02
        assert clustered_size < size / 3
        assert np.mean(names["both"].layers[0].kernel == 0) >= 0.8
    if page.name == "channel_pruning.md":
        before, after = names["small"].channel_report.macs
        assert after <= before / 2
        assert names["tiny"].channel_report.widths["first"] == (16, 16)
        assert names["rounds"].reached
        assert 0 < names["dense"].channel_report.widths["second"][1] < 32
        assert {"channels.png", "sensitivity.png"} <= {path.name for path in tmp_path.iterdir()}
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
        logs = {"attention_transfer", "feature_matching", "hard_loss", "loss", "soft_labels"}
        assert set(names["history"]) == logs
        assert (tmp_path / "outputs" / "00000").is_dir()
        logits = names["student"].predict(names["test"][0], verbose=0)
        assert np.mean(logits.argmax(-1) == names["test"][1]) > 0.3  # three epochs, 10 classes


@pytest.mark.as_users_run
@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebook(path, tmp_path, monkeypatch, capsys):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert path.stat().st_size < 50_000
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "notebook"}
    for cell in notebook.cells:
        if cell.cell_type == "code":
            exec(cell.source, names)
    if path.stem == "digits":
        rows = names["comparison"].rows
        assert rows["digits.tflite"].accuracy > 0.85
        assert rows["digits.tflite"].size_bytes < rows["teacher"].size_bytes / 10
    if path.stem == "bert_two_tasks":
        assert names["measured"].accuracy > 0.9
        assert capsys.readouterr().out.count("'topic': 'sport'") >= 1
    if path.stem == "sparse_training":
        accuracies = {
            name: model.evaluate(*names["test"], verbose=0, return_dict=True)["accuracy"]
            for name, model in names["models"].items()
        }
        assert accuracies["static"] < accuracies["RigL"] < accuracies["dense"]


def check_readme(output):
    rows = [line.split() for line in output.splitlines()]
    accuracies = {
        row[0]: float(row[1]) for row in rows if row and row[0] in ("teacher", "small", "half")
    }
    assert accuracies["teacher"] > 90
    assert min(accuracies["small"], accuracies["half"]) > accuracies["teacher"] - 5


@pytest.mark.as_users_run
def test_readme(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exec(README, {"__name__": "example"})
    check_readme(capsys.readouterr().out)
    assert tf.keras.Model is keras.Model


def test_readme_where_tfmot_came_first(tmp_path):
    """Then `tf.keras` is tf_keras for the whole process, and tfpeft works all the same."""
    check = "import tensorflow as tf\nassert tf.keras.Model is not keras.Model"
    quick = re.sub(r"epochs=\d+", "epochs=1", README.replace("30 * 44", "44"))
    text = ["import tensorflow_model_optimization", quick, check]
    (tmp_path / "example.py").write_text("\n".join(text))
    result = subprocess.run(
        [sys.executable, "example.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    assert {"teacher", "small", "half"} <= set(result.stdout.split())


def test_the_translation_has_the_same_code_and_links():
    def parts(name):
        text = (ROOT / name).read_text()
        fenced = re.findall(r"```.*?```", text, re.DOTALL)
        commands = [line.split("#")[0] for line in re.findall(r"(?m)^    \w.*$", text)]
        links = re.findall(r"\]\(([^)]*)\)", re.sub(r"```.*?```", "", text, flags=re.DOTALL))
        headings = len(re.findall(r"(?m)^## ", text))
        return fenced, commands, links[1:], headings, text.count("\n|")

    english, chinese = parts("README.md"), parts("README.zh-CN.md")
    assert english == chinese
    assert all((ROOT / link).exists() for link in english[2])


@pytest.mark.parametrize("page", ["docs/architecture.md", "CONTRIBUTING.md"])
def test_files_that_a_page_names_exist(page):
    found = re.findall(r"`([\w./]+(?:\.py|\.md|\.txt|/))`", (ROOT / page).read_text())
    assert found
    folders = [ROOT, ROOT / "tfpeft", ROOT / "tfpeft/core", ROOT / "pipelines"]
    missing = [name for name in found if not any((folder / name).exists() for folder in folders)]
    assert not missing


def test_the_api_reference_has_every_public_name():
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs/pages.py")
    pages = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pages)
    api = pages.api_pages()
    names = re.findall(r"(?m)^::: tfpeft\.(\w+)$", "\n".join(api.values()))
    assert sorted(names) == sorted(tfpeft.__all__)
    navigation = (ROOT / "mkdocs.yml").read_text()
    assert all(f"- {page}" in navigation for page in api)
