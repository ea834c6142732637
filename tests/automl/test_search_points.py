"""Which points a search tries, and which trial is the best one."""

import numpy as np
import pytest

import tfpeft
from tfpeft.automl.trials.objective import Objective
from tfpeft.automl.trials.oracles import make_oracle
from tfpeft.automl.trials.techniques import TechniqueSpace
from tfpeft.evaluation.tasks import TASKS

keras_tuner = pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")


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
