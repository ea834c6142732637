"""search on tiny images: inside the budget, after a kill, in two workers; and bad input."""

import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import time

import keras
import numpy as np
import pytest

import tfpeft
from tests.automl import searches
from tfpeft.automl.trials.objective import Objective
from tfpeft.automl.trials.oracles import make_oracle
from tfpeft.automl.trials.techniques import TechniqueSpace
from tfpeft.evaluation.tasks import TASKS
from tfpeft.export.tflite_file import TFLiteFile

keras_tuner = pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")
ROOT = pathlib.Path(__file__).parent.parent.parent


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
    assert "over budget" in result.to_markdown()


def test_points_over_the_budget_are_not_trained(found):
    result, folder = found
    rejected = [trial for trial in result.trials if trial.status == "over_budget"]
    assert rejected  # width 16 has more bytes
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
    with pytest.raises(tfpeft.InputError, match="teacher was None and is"):
        searches.search(folder, oracle="hyperband", max_trials=4, teacher=model)
    x, y = searches.data()
    monkeypatch.setattr(searches, "data", lambda: (x, 1 - y))
    with pytest.raises(tfpeft.InputError, match="holds other trials.*data was"):
        searches.search(folder, oracle="hyperband", max_trials=4)


def start(folder, log, **environment):
    """Starts a search in a process."""
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.automl.searches", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(condition, process, log):
    """Waits until a condition holds, while a process runs."""
    while not condition():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)


def test_a_search_resumes_after_a_kill(tmp_path):
    folder, log = tmp_path / "search", tmp_path / "log"
    process = start(folder, log)
    trials = folder / "trials"
    # Within the second trial: the first one has its record.
    wait_for(lambda: (folder / "oracle/trial_0001").exists(), process, log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = (trials / "0000.json").read_text()
    assert not (folder / "report.json").exists()
    result = searches.search(folder)
    assert (trials / "0000.json").read_text() == first
    trained = [trial for trial in result.trials if trial.metric is not None]
    assert [trial.id for trial in trained] == ["0000", "0001", "0002", "final"]
    assert len({json.dumps(trial.settings) for trial in trained[:3]}) == 3


def test_two_workers_share_the_trials(tmp_path):
    folder = tmp_path / "search"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    logs = {name: tmp_path / name for name in ("chief", "worker0", "worker1")}
    processes = [
        start(folder, log, **variables, KERASTUNER_TUNER_ID=name) for name, log in logs.items()
    ]
    try:
        for process, log in zip(processes, logs.values(), strict=True):
            assert process.wait(200) == 0, log.read_text()
    finally:
        for process in processes:
            process.kill()
    texts = {name: log.read_text() for name, log in logs.items()}
    assert "result Budget: max_size_bytes=5,000" in texts["chief"]
    assert "result None" in texts["worker0"]
    assert [sum(f"Trial 000{i}: " in texts[name] for i in range(2)) for name in logs] == [0, 1, 1]
    report = json.loads((folder / "report.json").read_text())
    assert {"0000", "0001", "final"} <= {trial["id"] for trial in report["trials"]}


def test_what_is_returned_keeps_every_limit(tmp_path):
    budget = tfpeft.Budget(
        max_size_bytes=8_000, max_gzip_bytes=5_000, max_macs=12_000, max_latency_ms=1.0
    )
    result = searches.search(tmp_path / "s", budget=budget, max_trials=1, epochs=1, minutes=0.2)
    measured = tfpeft.evaluate(result.path, searches.data())
    figures = {name: getattr(measured, name) for name in ("size_bytes", "gzip_bytes", "macs")}
    assert budget.violations(figures) == budget.violations(result.best.figures) == []


def random_trial(rng, number):
    """Returns a trial of random figures, which says of itself that it is inside the budget."""
    figures = {name: int(rng.integers(1, 100)) for name in ("size_bytes", "gzip_bytes", "macs")}
    figures["latency_ms"] = float(rng.random())
    return tfpeft.SearchTrial(
        str(number),
        {},
        rng.choice(["completed", "over_budget", "stopped", "failed"]),
        metric=float(rng.random()),
        figures=figures,
        evaluation={},
    )


@pytest.mark.parametrize("seed", range(50))
def test_the_best_trial_is_the_best_of_those_inside_any_budget(seed):
    rng = np.random.default_rng(seed)
    names = rng.permutation(["size_bytes", "gzip_bytes", "macs"])[: rng.integers(1, 4)]
    limits = {f"max_{name}": int(rng.integers(1, 100)) for name in names}
    if seed % 2:
        limits["min_metric"] = float(rng.random())
    budget = tfpeft.Budget(**limits)
    trials = [random_trial(rng, number) for number in range(20)]
    best = Objective(TASKS["classification"], None, budget).best(trials)
    inside = [
        trial
        for trial in trials
        if trial.status == "completed"
        and all(trial.figures[name] <= limits[f"max_{name}"] for name in names)
        and trial.metric >= limits.get("min_metric", 0.0)
    ]
    assert (best is None) == (not inside)
    assert best is None or (best in inside and best.metric == max(t.metric for t in inside))


def test_with_a_metric_alone_the_smallest_file_is_the_best():
    budget = tfpeft.Budget(min_metric=0.9)
    objective = Objective(TASKS["classification"], None, budget)
    rows = [("a", 0.99, 9000), ("b", 0.91, 2000), ("c", 0.95, 3000), ("d", 0.89, 100)]
    trials = [
        tfpeft.SearchTrial(name, {}, "completed", metric=metric, figures={"size_bytes": size})
        for name, metric, size in rows
    ]
    assert objective.best(trials).id == "b"
    scores = {trial.id: objective.score(trial) for trial in trials}
    assert scores["d"] == 0.89 < 0.9 < scores["a"] < scores["c"] < scores["b"]


def test_points_near_the_best_trial_differ_from_it_in_two_choices():
    hp = keras_tuner.HyperParameters()
    for name in ("space", "width", "depth", "rate", "kernel"):
        hp.Choice(name, ["one", "two"] if name == "space" else [1.0, 2.0, 4.0])
    oracle = make_oracle(
        "random",
        **{"units": 9, "seed": 0, "candidates": None, "clock": None},
        **{"seconds_of": None, "trial_limit": None},
    )
    oracle.hyperparameters = hp
    for number in range(9):
        assert (oracle._near_the_best() is None) == (number < 8)
        trial = keras_tuner.engine.trial.Trial(hp.copy(), str(number), "COMPLETED")
        trial.hyperparameters.values |= {"tuner/epochs": 9, "kernel": 4.0 if number == 3 else 1.0}
        trial.score = 0.9 if number == 3 else -1e9 if number == 8 else 0.1 * number
        oracle.trials[trial.trial_id] = trial
    best = {name: value for name, value in hp.values.items()} | {"kernel": 4.0}
    found = [oracle._near_the_best() for _ in range(20)]
    for values in found:
        assert values.keys() == best.keys()
        assert values["space"] == "one"
        assert sum(values[name] != best[name] for name in best) == 2
    assert len({str(values) for values in found}) > 5


@pytest.mark.parametrize("limit", ["max_size_bytes", "max_gzip_bytes", "min_metric"])
def test_no_float_file_is_tried_where_bytes_decide(limit):
    budget = tfpeft.Budget(**{limit: 1})
    space = TechniqueSpace(tfpeft.Techniques(), budget, has_teacher=False, is_trained=False)
    assert "int8" in space.values["quantization"]
    assert not {"none", "float16"} & set(space.values["quantization"])


@pytest.mark.parametrize(
    ("limits", "has_four_bits"),
    [
        (("max_size_bytes",), True),
        (("max_gzip_bytes", "max_latency_ms"), True),
        (("max_size_bytes", "max_arena_bytes"), False),
        (("max_latency_ms",), False),
    ],
)
def test_weights_of_four_bits_are_tried_where_a_limit_gains_from_them(limits, has_four_bits):
    budget = tfpeft.Budget(**dict.fromkeys(limits, 1))
    space = TechniqueSpace(tfpeft.Techniques(), budget, has_teacher=False, is_trained=False)
    assert ("quantize_aware_int4" in space.values["quantization"]) == has_four_bits
    assert space.quantizations[0] == ("quantize_aware_int4" if has_four_bits else "int8")


def test_an_impossible_budget_is_found_before_training(tmp_path):
    with pytest.raises(tfpeft.BudgetError, match=r"smallest has size_bytes=[23],\d{3}. Received: "):
        searches.search(tmp_path / "s", budget=tfpeft.Budget(max_size_bytes=1000))
    assert not list((tmp_path / "s" / "trials").glob("0*.json"))


def test_a_metric_that_is_not_reached_is_an_error(tmp_path):
    budget = tfpeft.Budget(max_size_bytes=searches.LIMIT, min_metric=1.01)
    with pytest.raises(tfpeft.BudgetError, match="below min_metric=1.01"):
        searches.search(tmp_path / "s", budget=budget, max_trials=1, epochs=1, minutes=0.15)
    with pytest.raises(tfpeft.BudgetError, match="allow more `minutes`, or other"):
        searches.search(tmp_path / "s", budget=budget, max_trials=1, epochs=1, minutes=0.3)
    assert (tmp_path / "s" / "trials" / "final_0.3.json").is_file()


def test_a_space_without_a_valid_point():
    def fails(hp):
        return keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 9)])

    with pytest.raises(tfpeft.InputError, match="model_or_space|space"):
        searches.search(None, space=lambda hp: 3)
    with pytest.raises(tfpeft.InputError, match="space"):
        searches.search(None, space=fails)


@pytest.mark.parametrize(("width", "smallest"), [(8, 4 * (18 + 2)), (None, 4 * 128)])
def test_a_model_of_few_channels_is_cut_as_far_as_it_can_be(width, smallest):
    # Two channels of eight stay; a layer of outputs alone loses none.
    layers = [keras.layers.Conv2D(width, 3), keras.layers.GlobalAveragePooling2D()] if width else []
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Flatten()])
    model.add(keras.layers.Dense(2))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("adam", loss)
    none, budget = tfpeft.Techniques(quantization=("none",)), tfpeft.Budget(max_size_bytes=1)
    with pytest.raises(tfpeft.BudgetError, match="the smallest") as error:
        searches.search(None, space=model, budget=budget, techniques=none)
    size = re.search(r"smallest has size_bytes=([\d,]+)", str(error.value))[1]
    assert smallest < int(size.replace(",", "")) < smallest + 2_000
    with pytest.raises(tfpeft.InputError, match="channel_ratio.*at most 0"):
        searches.search(None, space=model, techniques=tfpeft.Techniques(channel_ratio=(0.9,)))


def test_a_trained_model_is_cut_by_measured_figures(tmp_path):
    x, y = searches.data()
    keras.utils.set_random_seed(0)
    layers = [
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.Conv2D(8, 3, activation="relu"),
        keras.layers.GlobalAveragePooling2D(),
    ]
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers, keras.layers.Dense(2)])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    weights = [weight.numpy() for weight in model.weights]
    budget = tfpeft.Budget(max_macs=9_000)  # of 11,824
    result = searches.search(
        tmp_path / "s", space=model, oracle="netadapt", budget=budget, epochs=1, techniques=None
    )
    assert result.evaluation.macs <= 9_000
    rounds = [trial for trial in result.trials if trial.id.startswith("round")]
    assert all(trial.settings["removed"] > 0 for trial in rounds)
    assert result.rows["model"].macs == 36 * 9 * 8 + 16 * 9 * 8 * 8 + 8 * 2
    for before, after in zip(weights, model.weights, strict=True):
        np.testing.assert_array_equal(before, after)


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(tfpeft.InputError, match=r"pip install tfpeft\[search\]"):
        searches.search(None)
