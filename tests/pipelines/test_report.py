"""pipelines.report, what a run keeps for it, and where file and teacher disagree."""

import json
import types

import keras
import numpy as np
import pytest

from pipelines import report
from pipelines.common import disagreements, report_facts, report_page, reports
from pipelines.common.flags import Flag, settings_of
from tests.pipelines.scripts import call
from tests.reports.runs import compress_run
from tfpeft.core.arguments import InputError
from tfpeft.evaluation.outputs import Outputs

_LAYER = (
    b'{"layer": "a", "type": "Dense", "kernel": [], "teacher": {"width": 0, "parameters": 0}, '
    b'"final": {"width": 1, "parameters": 1, "sparsity": 0.0}}'
)


@pytest.fixture
def folder(tmp_path):
    """The folder of a run that has ended; the data and the models are gone."""
    folder = tmp_path / "photos-compress"
    folder.mkdir()
    run, samples = compress_run()
    record = {"job": run.pop("job"), "flags": run["flags"]}
    run.pop("name")
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "report.json").write_text(json.dumps(run))
    np.savez(folder / report_page.SAMPLES, **samples)
    return folder


def test_both_pages_come_from_the_folder_alone(folder, capsys):
    assert call(report, f"--run={folder}") == 0
    assert capsys.readouterr().out == f"Report: {folder / 'report.html'}\n"
    run, samples = compress_run()
    assert (folder / "report.html").read_text() == report_page.report_html(run, samples)
    output = folder.parent / "card.md"
    assert call(report, f"--run={folder}", "--model_card", f"--output={output}") == 0
    assert output.read_text() == report_page.model_card(run)


def test_a_folder_without_samples_has_a_page(folder):
    (folder / report_page.SAMPLES).unlink()
    page = report_page.page("report.html", folder)
    assert "1 of 30 test samples" in page
    assert "<img" not in page


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"report.json": None}, "with run.json and report.json. Received: --run=.*, without repo"),
        ({"run.json": None, "report.json": None}, "without run.json and report.json"),
        ({"report.json": b"{}"}, "with rows or trials or recommendations"),
        ({"report.json": b'{"rows": {"a": {}}}'}, "expected a value for rows.a.notes"),
        ({"report.json": b'{"rows": {}, "stages": [{}]}'}, "expected the report of a run"),
        ({"report.json": b'{"rows": {}, "trials": [], "layers": [%s]}' % _LAYER}, "ZeroDivision"),
        ({"run.json": b"[]"}, "expected an object. Received: .*run.json"),
        ({"report_samples.npz": b"PK"}, "expected an .npz of arrays"),
    ],
)
def test_a_damaged_folder_is_one_line(change, message, folder):
    for name, content in change.items():
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)
    before = {path.name for path in folder.iterdir()}
    with pytest.raises(InputError, match=message):
        call(report, f"--run={folder}")
    assert {path.name for path in folder.iterdir()} == before


def test_a_run_is_needed():
    with pytest.raises(InputError, match="no --run"):
        call(report)


def test_a_part_that_cannot_be_made_becomes_a_line(capsys):
    with reports.optional("charts"):
        raise ZeroDivisionError("no points")
    assert capsys.readouterr().out == "The report is without charts: no points\n"
    with pytest.raises(OSError, match="full"), reports.optional("charts"):
        raise OSError("the disk is full")


def test_the_command_has_the_flags_that_were_given():
    flags = [
        Flag("dataset", str, "digits", ""),
        Flag("stages", list, None, ""),
        Flag("float16", bool, False, ""),
        Flag("compact", bool, True, ""),
        Flag("task", str, (), "", repeated=True),
        Flag("epochs", int, 30, ""),
    ]
    given = {
        **{"dataset": "my data.npz", "stages": ["prune", "quantize"], "float16": True},
        **{"compact": False, "task": ["a=b", "c=d"]},
    }
    assert report_facts.command("compress", settings_of(flags, given), ("task",)) == (
        "python -m pipelines.compress '--dataset=my data.npz' --stages=prune,quantize --float16 "
        "--nocompact --task=a=b --task=c=d"
    )


def test_settings_are_those_that_were_changed():
    flags = [Flag("epochs", int, 30, ""), Flag("alpha", float, 0.1, ""), Flag("name", str, "", "")]
    folder = types.SimpleNamespace(flags={"epochs": 30, "alpha": 0.5})
    assert report_facts.changed(flags, folder) == {"alpha": 0.5}


def test_layers_of_both_models():
    def model(width, name):
        return keras.Sequential(
            [
                keras.Input((8, 8, 2)),
                keras.layers.Conv2D(width, 3, name="conv"),
                keras.layers.DepthwiseConv2D(3, depth_multiplier=2, name="depthwise"),
                keras.layers.Reshape((-1, 2 * width)),
                keras.layers.LSTM(3, name="lstm"),
                keras.layers.Dense(4, name=name),
            ]
        )

    teacher, final = model(6, "before"), model(4, "after")
    kernel = final.get_layer("conv").kernel
    kernel.assign(np.where(np.arange(72).reshape(kernel.shape) < 18, 0.0, 1.0))
    found = {row["layer"]: row for row in report_facts.of_layers(teacher, final)}
    conv = found["conv"]
    assert (conv["type"], conv["kernel"]) == ("Conv2D", [3, 3, 2, 4])
    assert conv["final"] == {"width": 4, "parameters": 72, "sparsity": 0.25}
    assert (conv["teacher"]["width"], conv["teacher"]["parameters"]) == (6, 108)
    assert found["depthwise"]["final"]["width"] == 8  # two of each of four channels
    assert found["depthwise"]["teacher"]["width"] == 12
    assert found["lstm/lstm_cell (recurrent_kernel)"]["kernel"] == [3, 12]
    assert found["after"]["teacher"] is None
    assert found["before"]["final"] is None


def compared(task, kind, teacher, file, labels=None, names=()):
    """Returns the group and the arrays of outputs, whose inputs are their numbers."""
    found = disagreements.Compared(task, kind, names)
    teacher, file = np.asarray(teacher, "float32"), np.asarray(file, "float32")
    for part in (slice(0, 2), slice(2, None)):  # in two batches
        x = np.arange(len(teacher))[part, None].astype("float32")
        found.add(
            x, None if labels is None else np.asarray(labels)[part], teacher[part], file[part]
        )
    return found.group("out")


def numbers(group, arrays):
    """Returns the numbers of the samples that are shown, in their order."""
    return [int(arrays[item["inputs"][0]["array"]][0]) for item in group["shown"]]


def test_classes_that_differ():
    """0 is equal; of 1, 2 and 3 the surest come first: .6 + .9, .9 + .9 and .9 + .6."""
    kind = Outputs("softmax", 2)
    teacher = [[0.9, 0.1], [0.6, 0.4], [0.9, 0.1], [0.1, 0.9]]
    file = [[0.8, 0.2], [0.1, 0.9], [0.1, 0.9], [0.6, 0.4]]
    group, arrays = compared("classification", kind, teacher, file, [0, 0, 1, 1], ["cat", "dog"])
    assert numbers(group, arrays) == [2, 1, 3]
    assert group["summary"] == (
        "Teacher and file predict different classes for 3 of 4 test samples (75.0%). Of these the "
        "teacher is right in 2, the file in 1. Those of which both are surest:"
    )
    assert group["shown"][0]["facts"] == [
        ["label", "dog"],
        ["teacher", "cat (90.0%)"],
        ["file", "dog (90.0%)"],
    ]
    group, _ = compared("classification", kind, teacher, teacher)
    assert group["summary"] == "Teacher and file predict the same class for all 4 test samples."
    assert group["shown"] == []


def test_one_sigmoid_is_two_classes():
    kind = Outputs("logits", 1)
    group, arrays = compared("binary", kind, [[1.0], [-2.0], [3.0]], [[2.0], [2.0], [4.0]])
    assert numbers(group, arrays) == [1]
    assert group["shown"][0]["facts"] == [["teacher", "0 (88.1%)"], ["file", "1 (88.1%)"]]


def test_labels_that_differ():
    kind = Outputs("sigmoid", 3)
    teacher = [[0.9, 0.1, 0.9], [0.9, 0.9, 0.9], [0.1, 0.1, 0.1]]
    file = [[0.9, 0.1, 0.1], [0.1, 0.1, 0.9], [0.1, 0.1, 0.1]]
    labels = [[1, 0, 1]] * 3
    group, arrays = compared("multi_label", kind, teacher, file, labels, ["a", "b", "c"])
    assert numbers(group, arrays) == [1, 0]
    assert group["shown"][0]["facts"] == [["label", "a, c"], ["teacher", "a, b, c"], ["file", "c"]]
    assert "in a label or more for 2 of 3" in group["summary"]


def test_values_that_differ():
    """Root mean squares of 0, 5 and 1; the mean is 2."""
    kind = Outputs("values", 2)
    teacher, file = [[0, 0], [5, 5], [1, 2]], [[0, 0], [10, 0], [2, 1]]
    group, arrays = compared("regression", kind, teacher, file, [[0, 0], [5, 6], [1, 2]])
    assert numbers(group, arrays) == [1, 2]
    assert "teacher and file: 2 on average of 3 test samples" in group["summary"]
    assert group["shown"][0]["facts"] == [["label", "5, 6"], ["teacher", "5, 5"], ["file", "10, 0"]]


def test_maps_that_differ():
    """A quarter of the positions of one of three maps: a twelfth of all."""
    kind = Outputs("softmax", 2)
    teacher = np.zeros((3, 2, 2, 2))
    teacher[..., 0] = 1
    file = teacher.copy()
    file[1, 0, 0] = [0, 1]
    group, arrays = compared("segmentation", kind, teacher, file, np.zeros((3, 2, 2, 1)))
    assert numbers(group, arrays) == [1]
    assert "differ at 8.33% of the positions" in group["summary"]
    (item,) = group["shown"]
    assert item["facts"] == [["differ", "25.0% of the positions"]]
    shown = {each["name"]: arrays[each["array"]].tolist() for each in item["inputs"][1:]}
    assert shown == {
        "label": [[0, 0], [0, 0]],
        "teacher": [[0, 0], [0, 0]],
        "file": [[1, 0], [0, 0]],
    }


def test_images_that_differ_are_shown():
    kind = Outputs("values", 1)
    teacher = np.zeros((2, 8, 8, 1))
    file = teacher.copy()
    file[1, 0, 0] = 4.0
    group, arrays = compared("reconstruction", kind, teacher, file)
    (item,) = group["shown"]
    assert [(each["name"], each["kind"]) for each in item["inputs"][1:]] == [
        ("teacher", "image"),
        ("file", "image"),
    ]
    assert item["facts"] == [["difference", "0.5"]]  # 4 at one of 64 positions


def test_only_the_largest_differences_are_kept():
    kind = Outputs("values", 1)
    values = np.random.default_rng(0).permutation(20)[:, None] + 1.0
    group, arrays = compared("regression", kind, values, np.zeros((20, 1)))
    kept = [values[number, 0] for number in numbers(group, arrays)]
    assert kept == [20, 19, 18, 17, 16, 15, 14, 13]
