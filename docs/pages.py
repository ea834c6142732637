"""Writes the pages of the site to build/pages; `make docs` calls it, then MkDocs.

    python docs/pages.py

They are the files of docs/, README.md and its translation, CONTRIBUTING.md, CHANGELOG.md,
benchmarks/README.md, a page for each notebook, and the API reference: a page for each package,
with every public name. Their links are turned into links between pages.
"""

import ast
import json
import pathlib
import re
import shutil

ROOT = pathlib.Path(__file__).parent.parent
PAGES = {  # file of the repository -> page of the site; files of docs/ keep their names
    "README.md": "index.md",
    "README.zh-CN.md": "README.zh-CN.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "benchmarks/README.md": "benchmarks.md",
}
PACKAGES = {  # package -> title of its page in the API reference
    "distillation": "Distillation",
    "caching": "Precomputed inputs",
    "channels": "Channel pruning",
    "sparsity": "Pruning and sparse training",
    "quantization": "Quantization and clustering",
    "adapters": "Adapters",
    "sharing": "Several tasks on one backbone",
    "distribution": "Several machines",
    "export": "Export",
    "evaluation": "Evaluation",
    "automl": "Recommendations and search",
    "reports": "Reports",
    "loading": "Models from files",
    "core": "Errors",
}
LINK = re.compile(r"\]\((?!https?://|#)([^)#\s]+)")


def main():
    folder = ROOT / "build/pages"
    shutil.rmtree(folder, ignore_errors=True)
    for name, text in {**repository_pages(), **api_pages()}.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    for image in (ROOT / "docs").glob("*.png"):
        shutil.copy(image, folder)


def repository_pages():
    """Returns {page: Markdown} of files that people write."""
    pages = {}
    for path in [ROOT / name for name in PAGES] + sorted((ROOT / "docs").rglob("*.*")):
        if path.suffix == ".md":
            pages[page_of(path)] = with_links_of_pages(path.read_text(), path)
        elif path.suffix == ".ipynb":
            pages[page_of(path)] = with_links_of_pages(notebook_text(path), path)
    return pages


def page_of(path):
    """Returns the page that a file of the repository becomes."""
    name = path.relative_to(ROOT).as_posix()
    return PAGES.get(name, name.removeprefix("docs/").replace(".ipynb", ".md"))


def with_links_of_pages(text, path):
    """Returns the text of a file with links to files turned into links to pages."""
    up = "../" * page_of(path).count("/")

    def link(found):
        target = (path.parent / found[1]).resolve()
        # What is no file is a mistake, which MkDocs reports, or no link at all, but code.
        return f"]({up}{page_of(target)}" if target.is_file() else found[0]

    return LINK.sub(link, text)


def notebook_text(path):
    """Returns the Markdown of a notebook."""
    parts = []
    for cell in json.loads(path.read_text())["cells"]:
        text = "".join(cell["source"])
        parts.append(text if cell["cell_type"] == "markdown" else f"```python\n{text}\n```")
    name = path.relative_to(ROOT).as_posix()
    return "\n\n".join([*parts, f"This page is the notebook `{name}`."])


def api_pages():
    """Returns {page: Markdown} of the API reference."""
    pages, index = {}, ["# API", "Every public name of `tfpeft`, by package."]
    for package, names in public_names().items():
        title = PACKAGES[package]
        blocks = [f"::: tfpeft.{name}" for name in names]
        pages[f"api/{package}.md"] = "\n\n".join([f"# {title}", *blocks])
        links = ", ".join(f"[`{name}`]({package}.md#tfpeft.{name})" for name in names)
        index += [f"## [{title}]({package}.md)", links]
    return {"api/index.md": "\n\n".join(index), **pages}


def public_names():
    """Returns {package: its public names}, in the order of `PACKAGES`; read, not imported."""
    tree = ast.parse((ROOT / "tfpeft/__init__.py").read_text())
    names = {package: [] for package in PACKAGES}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom):
            names[node.module.split(".")[1]] += [alias.name for alias in node.names]
    return names


if __name__ == "__main__":
    main()
