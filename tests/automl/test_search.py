"""What a search finds on tiny images: inside the budget, as it says, and read again."""

import json
import os
import shutil
import time

import keras
import numpy as np
import pytest

import tfpeft
from tests.automl import searches
from tfpeft.export.tflite_file import TFLiteFile

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """A search with Hyperband of images, and the folder of it."""
    folder = tmp_path_factory.mktemp("searched") / "search"
    return searches.search(folder, oracle="hyperband", max_trials=4), folder


def test_the_best_file_is_inside_the_budget_and_the_report_says_so(found):
    result, folder = found
    assert result.path.stat().st_size <= searches.LIMIT
    assert result.evaluation.size_bytes == result.path.stat().st_size
    assert result.evaluation.latency_ms <= result.evaluation.latency_p90_ms
    report = json.loads((folder / "report.json").read_text())
    assert (report["job"], report["metric"], report["best"]) == (
        *("search", "accuracy"),
        result.best.id,
    )
    by_id = {trial["id"]: trial for trial in report["trials"]}
    best = by_id[report["best"]]
    assert best["status"] == "completed"
    assert best["metric"] == max(
        trial["metric"] for trial in report["trials"] if trial["status"] == "completed"
    )
    low, high = best["interval"]
    assert low <= best["metric"] <= high
    for figure, front in report["front"].items():
        costs = [by_id[name]["figures"][figure] for name in front]
        metrics = [by_id[name]["metric"] for name in front]
        assert costs == sorted(costs)
        assert metrics == sorted(metrics)
    assert {"model.tflite", "best.keras", "pareto.png", "report.md"} <= set(os.listdir(folder))
    assert "Pareto fronts" in (folder / "report.html").read_text()
    assert "over budget" in result.to_markdown()


def test_points_over_the_budget_are_not_trained(found):
    result, folder = found
    rejected = [trial for trial in result.trials if trial.status == "over_budget"]
    assert rejected  # width 32 has more bytes
    for trial in rejected:
        assert trial.figures["size_bytes"] > searches.LIMIT
        assert "above max_size_bytes=5,000" in trial.reason
        assert (trial.epochs, trial.metric) == (0.0, None)
        assert not (folder / "files" / f"{trial.id}.tflite").exists()


def test_the_model_of_the_result_has_the_outputs_of_the_file(found):
    result, _ = found
    x, _ = searches.data(8)
    np.testing.assert_allclose(
        TFLiteFile(result.path).predict(x), result.model(x), atol=0.05, rtol=0.05
    )


def test_rungs_go_on_with_the_weights_of_the_rung_below(found):
    result, folder = found
    by_id = {trial.id: trial for trial in result.trials}
    # Of 12 steps, three trials have 4, and the best of them goes on to 12; then the best of all.
    assert [by_id[f"000{i}"].steps for i in range(4)] == [4, 4, 4, 8]
    assert by_id["0003"].parent == max(
        ("0000", "0001", "0002"), key=lambda name: by_id[name].metric
    )
    assert by_id["0003"].epochs == 3.0
    for name in ("0003", "final"):
        assert by_id[name].settings == by_id[by_id[name].parent].settings


def test_the_best_of_few_points_go_on(tmp_path):
    space = tfpeft.SmallCNN(**{**searches.SPACE, "width": (4, 6, 8)}, first_stride=(1,))
    options = {"oracle": "hyperband", "max_trials": None, "epochs": 9}
    result = searches.search(tmp_path / "s", space=space, **options)
    trained = [trial for trial in result.trials if trial.id.startswith("0")]
    # Of 36 steps, three points have 4, the best of them goes on to 12, and this one to all.
    assert [trial.steps for trial in trained] == [4, 4, 4, 8, 24]
    assert [trial.parent for trial in trained[3:]] == [
        max(trained[:3], key=lambda trial: trial.metric).id,
        trained[3].id,
    ]


def test_a_search_that_has_ended_is_read_from_its_folder(found):
    result, folder = found
    began = time.monotonic()
    again = searches.search(folder, oracle="hyperband", max_trials=4)
    assert time.monotonic() - began < 20
    assert again.as_dict()["trials"] == result.as_dict()["trials"]
    with pytest.raises(tfpeft.InputError, match="max_trials was 4 and is 5"):
        searches.search(folder, oracle="hyperband", max_trials=5)


def test_trials_have_equal_times(tmp_path, monkeypatch):
    def pace(self, model, settings):
        return 1e-4 * model.count_params()  # seconds of a step that nobody has to wait for

    monkeypatch.setattr("tfpeft.automl.trials.training.Training.pace", pace)
    monkeypatch.setattr("tfpeft.automl.trials.tuner._TIMED_FROM", 0.0)
    space = tfpeft.SmallCNN(**{**searches.SPACE, "width": (4, 8)}, first_stride=(1,))
    budget = tfpeft.Budget(max_macs=10**9)
    result = searches.search(
        tmp_path / "s", space=space, budget=budget, epochs=None, max_trials=2, minutes=0.5
    )
    plan = json.loads((tmp_path / "s" / "plan.json").read_text())
    trials = [trial for trial in result.trials if not trial.id.startswith("final")]
    # Two convolutions of 3x3 with BatchNormalization, and a Dense, of 8 and 4 channels.
    assert plan["pace"] == pytest.approx(1e-4 * 730)  # the largest comes first
    steps = {trial.settings["width"]: trial.steps for trial in trials}
    assert steps.keys() == {4, 8}
    assert steps[8] == plan["steps"]
    assert 0 <= steps[4] - round(plan["steps"] * 730 / 222) < 9  # whole ninths, which are watched


def test_a_search_that_has_ended_goes_on_with_more_minutes(found, tmp_path):
    result, folder = found
    longer = shutil.copytree(folder, tmp_path / "longer")
    again = searches.search(longer, oracle="hyperband", max_trials=4, minutes=3.5)
    before = {trial.id: trial for trial in result.trials}
    after = {trial.id: trial for trial in again.trials}
    assert after.keys() - before.keys() == {"final_3.5"}
    assert all(after[name] == before[name] for name in before)
    assert after["final_3.5"].epochs > before[after["final_3.5"].parent].epochs
    assert again.best.metric >= result.best.metric
    read = searches.search(longer, oracle="hyperband", max_trials=4, minutes=1)
    assert [trial.id for trial in read.trials] == [trial.id for trial in again.trials]


def test_a_folder_of_other_data_or_another_teacher_is_not_read(found, monkeypatch):
    _, folder = found
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    for argument, value in {"teacher": model, "mode": "max", "metrics": ["mae"]}.items():
        with pytest.raises(tfpeft.InputError, match=f"{argument} was None and is"):
            searches.search(folder, oracle="hyperband", max_trials=4, **{argument: value})
    loss = keras.losses.CategoricalFocalCrossentropy(from_logits=True)
    with pytest.raises(tfpeft.InputError, match="loss was .* and is .*Focal"):
        searches.search(folder, oracle="hyperband", max_trials=4, loss=loss)
    x, y = searches.data()
    monkeypatch.setattr(searches, "data", lambda: (x, 1 - y))
    with pytest.raises(tfpeft.InputError, match="holds other trials.*data and its order was"):
        searches.search(folder, oracle="hyperband", max_trials=4)


def test_a_latency_is_measured_again_in_the_end(tmp_path, monkeypatch):
    budget = tfpeft.Budget(max_latency_ms=1000.0)
    options = {"budget": budget, "max_trials": 2, "epochs": 1}
    result = searches.search(tmp_path / "s", **options)
    measured, found = [], []

    def latency(file, first, limit):  # as if the trials had run on a faster machine
        measured.append(file)
        found.append(2000.0 if len(measured) == 1 else 2.5)
        return found[-1], found[-1] + 0.25

    monkeypatch.setattr("tfpeft.automl.trials.tuner.latency_of", latency)
    again = searches.search(tmp_path / "s", **options)
    slow = next(trial for trial in again.trials if trial.id == result.best.id)
    assert (slow.status, slow.figures["latency_ms"]) == ("over_budget", 2000.0)
    assert "above max_latency_ms=1000" in slow.reason
    assert again.best.id != result.best.id
    assert (again.evaluation.latency_ms, again.evaluation.latency_p90_ms) == (2.5, 2.75)
    assert again.best.figures["latency_ms"] == 2.5


def test_what_is_returned_keeps_every_limit(tmp_path):
    budget = tfpeft.Budget(
        max_size_bytes=8_000, max_gzip_bytes=5_000, max_macs=12_000, max_latency_ms=100.0
    )
    result = searches.search(tmp_path / "s", budget=budget, max_trials=1, epochs=1, minutes=0.2)
    measured = tfpeft.evaluate(result.path, searches.data())
    figures = {name: getattr(measured, name) for name in ("size_bytes", "gzip_bytes", "macs")}
    assert budget.violations(figures) == budget.violations(result.best.figures) == []
