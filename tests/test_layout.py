"""The layout of the code: who imports whom, sizes, docstrings; and a wheel that holds all of it."""

import ast
import os
import pathlib
import shutil
import subprocess
import sys
import zipfile

import pytest

import tfpeft

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / "tfpeft"
ROWS = {  # a package imports from rows of a smaller number only
    "core": 1,
    "reports": 2,
    "distribution": 2,
    "export": 3,
    "adapters": 3,
    "sparsity": 3,
    "caching": 4,
    "quantization": 4,
    "evaluation": 4,
    "distillation": 5,
    "sharing": 5,
    "channels": 6,
    "automl": 7,
}
PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}
FOLDERS = ("tfpeft", "pipelines", "benchmarks")
SOURCES = sorted(path for folder in FOLDERS for path in (ROOT / folder).rglob("*.py"))


def imports(path):
    """Returns the modules of tfpeft that a file imports, inside functions too."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path} has a relative import"
            for alias in node.names:
                inner = f"{node.module}.{alias.name}"
                found.add(inner if inner in MODULES else node.module)
    return sorted(name for name in found if name.split(".")[0] == "tfpeft")


IMPORTS = {name: imports(path) for name, path in MODULES.items() if name != "tfpeft"}


def test_imports_come_from_rows_below():
    upward = []
    for name, imported in IMPORTS.items():
        package = name.split(".")[1]
        for other in imported:
            assert other in MODULES, f"{name} imports {other}, which is not there"
            assert other != "tfpeft", f"{name} imports tfpeft itself, which imports all packages"
            other_package = other.split(".")[1]
            if other_package != package and ROWS[other_package] >= ROWS[package]:
                upward.append(f"{name} imports {other}")
    assert upward == []


def test_no_circle_of_imports():
    finished, path = set(), []

    def visit(name):
        assert name not in path, " -> ".join([*path[path.index(name) :], name])
        if name not in finished:
            path.append(name)
            for other in IMPORTS[name]:
                visit(other)
            path.pop()
            finished.add(name)

    for name in IMPORTS:
        visit(name)


@pytest.mark.parametrize("package", PACKAGES)
def test_packages_say_what_is_in_them(package):
    tree = ast.parse((PACKAGE / package / "__init__.py").read_text())
    assert len(tree.body) == 1, "an __init__ is a docstring only"
    assert f"Row {ROWS[package]}." in ast.get_docstring(tree)
    assert (ROOT / "tests" / package / "__init__.py").is_file()


def test_no_package_hides_a_public_name():
    assert set(PACKAGES) & set(tfpeft.__all__) == set()


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_short_and_have_a_docstring(path):
    text = path.read_text()
    lines = text.count("\n")
    assert lines <= 400, "which two things live here?"
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring, "a module's docstring says what is in it"
    assert len(docstring.splitlines()[0]) <= 100


def test_a_wheel_holds_every_file_and_imports(tmp_path):
    """From another folder: an editable installation hides a package that setup.py misses."""
    sources = tmp_path / "sources"
    sources.mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, sources)
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("tfpeft", "pipelines"):
        shutil.copytree(ROOT / name, sources / name, ignore=ignored)
    pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", "--no-input"]
    offline = ["--no-index", "--no-deps"]
    build = [*pip, "wheel", *offline, "--no-build-isolation", "-w", str(tmp_path), str(sources)]
    subprocess.run(build, check=True, capture_output=True)
    (wheel,) = tmp_path.glob("*.whl")
    expected = {
        str(path.relative_to(sources))
        for name in ("tfpeft", "pipelines")
        for path in (sources / name).rglob("*")
        if path.is_file()
    }
    assert expected <= set(zipfile.ZipFile(wheel).namelist())

    target = tmp_path / "installed"
    install = [*pip, "install", *offline, "--target", str(target), str(wheel)]
    subprocess.run(install, check=True, capture_output=True)
    code = "import importlib, sys, tfpeft\nfor name in sys.argv[1:]: importlib.import_module(name)"
    code += "\nprint(tfpeft.__file__, tfpeft.__version__)"
    ran = subprocess.run(
        [sys.executable, "-c", code, *MODULES],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(target)},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.split() == [str(target / "tfpeft" / "__init__.py"), tfpeft.__version__]
