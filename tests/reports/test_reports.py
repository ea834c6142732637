"""Tables letter by letter, and plots that are PNG files."""

import pytest

from tfpeft.reports.plots import line_plot, path_plot
from tfpeft.reports.tables import markdown_table, text_table

HEADER = ["", "size", "why"]
ROWS = [["one", "1,000", "large"], ["a longer name", "2", ""]]


def test_text():
    assert text_table(HEADER, ROWS).splitlines() == [
        "                size    why",
        "---------------------------",
        "one            1,000  large",
        "a longer name      2",
    ]
    left = text_table(HEADER, ROWS, align=("left", "right", "left")).splitlines()
    assert left[:2] == ["                size  why", "-" * 27]
    assert text_table(None, [["a", "b"], ["cc", "d"]], align=("left",) * 2) == "a   b\ncc  d"
    assert text_table(None, []) == ""


def test_markdown():
    assert markdown_table(HEADER, ROWS).splitlines() == [
        "| | size | why |",
        "|---|---:|---:|",
        "| one | 1,000 | large |",
        "| a longer name | 2 | |",
    ]
    aligned = markdown_table(["a", "b"], [["1", "2"]], align=("right", "left"))
    assert aligned == "| a | b |\n|---:|---|\n| 1 | 2 |"
    with pytest.raises(ValueError, match="zip"):
        text_table(HEADER, [["too", "few"]])


def test_plots_are_whole_files(tmp_path):
    labels = {"x_label": "sparsity, %", "y_label": "accuracy"}
    lines = {"kernel": ([10, 50, 90], [0.9, 0.8, 0.3])}
    line_plot(tmp_path / "lines.png", lines, **labels, baseline=("unpruned", 0.95))
    path_plot(tmp_path / "points.png", {"a": (1.0, 2.0), "b": (10.0, 1.0)}, **labels)
    path_plot(tmp_path / "none.png", {}, **labels)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["lines.png", "none.png", "points.png"]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in tmp_path.iterdir())
