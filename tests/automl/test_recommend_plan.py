"""Which chains are tried in which order, for trials whose results are given."""

import json

from tfpeft.automl.advice import goals
from tfpeft.automl.advice.chains import Chain, quantize
from tfpeft.automl.advice.plan import Planner


class Given:
    """Trials whose results are given: those named in `bad` lose too much, others hold."""

    def __init__(self, device, bad=(), failed=(), factors=None, losses=None, short=None, times=1):
        self.device, self.names, self._losses = device, [], losses or {}
        self._results, self.times = short.done() if short else [], times
        self.base = Chain((quantize("int8"),) if device.is_integer else ())
        self._bad, self._failed, self._factors = bad, failed, factors or {}

    def run(self, chain):
        self.names.append(chain.name)
        factor = self._factors.get(chain.name, 2.0)
        loss = self._losses.get(chain.name, 0.5 if chain.name in self._bad else 0.0)
        found = {
            "name": chain.name,
            "error": "cannot" if chain.name in self._failed else None,
            "gain": {"factor": factor, "interval": [factor, factor]},
            "loss": {"relative": loss, "relative_interval": [loss, loss]},
            "updates": len(self._results),
            "is_short": self.times == 1,
            "times": self.times,
            "steps": [[step.stage, step.settings] for step in chain.steps],
        }
        self._results.append(json.loads(json.dumps(found)))
        return found

    def done(self):
        return self._results


def tried(goal, kind, techniques=goals.TECHNIQUES, *, exclude=(), gap=None, skipped=(), **given):
    """Returns the names of the trials that a plan runs, in their order."""
    device = {
        "this machine": goals.Device(None, kind, takes_sparse=True),
        "ethos-u": goals.Device("ethos-u55-32", kind, is_integer=True, batch_size=1),
    }[kind]
    trials = Given(device, **given)
    goal = goals.TABLE[goal, kind]
    skipped = dict.fromkeys(skipped, "why")
    options = {"exclude": exclude, "gap": gap, "skipped": skipped}
    Planner(trials, goal, 0.01, techniques, **options).run()
    return trials.names


def test_quantizations_then_each_technique_then_bolder_or_milder_then_pairs():
    names = tried(
        "download",
        "this machine",
        ("quantize", "prune", "cluster", "prune_channels"),
        bad={"cluster-16", "prune-0.9", "prune_channels-0.25+prune-0.8"},
        factors={"quantize-int8": 3.0},
    )
    assert names == [
        *("quantize-int8", "quantize-dynamic_range", "quantize-float16", "tune"),
        *("prune-0.8", "prune-0.8+quantize-int8", "cluster-16"),
        *("prune_channels-0.5", "prune_channels-0.5+quantize-int8"),
        *("prune-0.9", "cluster-64", "cluster-64+quantize-int8"),
        *("prune_channels-0.25", "prune_channels-0.25+quantize-int8"),
        *("prune_channels-0.25+prune-0.8", "prune_channels-0.5+prune-0.8"),
        "prune_channels-0.5+prune-0.8+quantize-int8",
        *("prune-0.8+cluster-64", "prune-0.8+cluster-64+quantize-int8"),
        "prune_channels-0.25+cluster-64",
        "prune_channels-0.25+cluster-64+quantize-int8",
    ]


def test_int8_that_loses_too_much_is_tried_with_options_and_training():
    names = tried("latency", "this machine", ("quantize", "quantize_aware"), bad={"quantize-int8"})
    options = "quantize-int8-equalize-correct_bias"
    assert names == ["quantize-int8", options, "quantize-dynamic_range"]
    bad = {"quantize-int8", options}
    names = tried("latency", "this machine", ("quantize", "quantize_aware"), bad=bad)
    assert names[2] == "quantize_aware-8+quantize-int8"
    assert "quantize_aware" not in str(tried("latency", "this machine", ("quantize",), bad=bad))


def test_zeros_are_left_out_of_files_of_int8_where_size_counts():
    names = tried("size", "this machine", ("quantize", "prune"), exclude=("head",))
    assert "prune-0.8+quantize-none-sparse_encoding" in names
    assert "prune-0.8+quantize-int8-sparse_encoding" in names


def test_an_npu_has_int8_in_every_trial():
    names = tried("size", "ethos-u", ("quantize", "prune", "cluster"))
    assert names[:3] == ["quantize-int8", "tune+quantize-int8", "prune-0.8+quantize-int8"]
    assert "prune-0.9+cluster-8+quantize-int8" in names
    assert all(name.endswith("quantize-int8") for name in names)


def test_where_int8_needs_training_it_trains_after_other_techniques_too():
    options = "quantize-int8-equalize-correct_bias"
    techniques = ("quantize", "quantize_aware", "prune", "cluster")
    bad, aware = {"quantize-int8", options}, "quantize_aware-8+quantize-int8"
    names = tried("size", "ethos-u", techniques, bad=bad)
    assert names[:3] == ["quantize-int8", options, aware]
    assert names[3:5] == [f"prune-0.8+{aware}", f"cluster-16+{aware}"]
    assert f"prune-0.9+cluster-8+{aware}" in names
    assert tried("size", "ethos-u", techniques, bad={*bad, aware})[3] == f"prune-0.8+{aware}"
    names = tried("latency", "this machine", (*techniques, "distill"), bad=bad)
    assert names[-2:] == ["distill-0.25", f"distill-0.25+{aware}"]
    names = tried("size", "this machine", techniques, bad=bad)
    assert "tune" in names
    assert f"prune-0.8+{aware}-sparse_encoding" in names


def test_few_values_stay_few_in_a_file():
    """Equalization multiplies the rows of a kernel, each by a number."""
    names = tried("size", "ethos-u", ("quantize", "cluster"), bad={"quantize-int8"})
    assert names[1:3] == [
        "quantize-int8-equalize-correct_bias",
        "cluster-16+quantize-int8-correct_bias",
    ]


def test_a_model_that_overfits_gets_a_student_first():
    both = ("prune_channels", "distill")
    assert tried("latency", "this machine", both)[:2] == ["tune", "prune_channels-0.5"]
    assert tried("latency", "this machine", both, gap=0.1)[:2] == ["tune", "distill-0.5"]


def test_what_failed_or_has_nothing_to_do_is_not_tried_again():
    names = tried("latency", "this machine", ("distill",), failed={"distill-0.5"})
    assert names == ["tune", "distill-0.5"]
    assert tried("latency", "this machine", skipped=("quantize", "distill", "prune_channels")) == []


def longer(first, *then, techniques=("quantize", "prune_channels", "distill"), **more):
    """Returns the names of longer trials, by the losses of short and of longer ones.

    Args:
        first: {chain: what short trials lose}.
        *then: The same of longer trials.
        techniques: Those that are tried.
        **more: "factors" of further chains.
    """
    factors = {
        **{"quantize-int8": 2.0, "prune_channels-0.5": 1.5, "prune_channels-0.25": 3.0},
        "prune_channels-0.75": 1.02,
        **{"distill-0.5": 1.6, "distill-0.25": 4.0, "distill-0.75": 1.02},
        **{"prune_channels-0.5+quantize-int8": 3.0, "distill-0.5+quantize-int8": 3.2},
        **more.get("factors", {}),
    }
    device, goal = goals.Device(None, "this machine"), goals.TABLE["latency", "this machine"]
    short = Given(device, losses=first, factors=factors)
    levels = [
        Given(device, losses=losses, factors=factors, short=short, times=4 ** (number + 1))
        for number, losses in enumerate(then)
    ]
    options = {"exclude": (), "gap": None, "skipped": {}}
    Planner(short, goal, 0.01, techniques, **options).run(levels)
    return [name for level in levels for name in level.names]


def test_what_may_be_better_trains_for_longer_and_what_follows_from_it():
    first = {"prune_channels-0.5": 0.1, "prune_channels-0.75": 0.1, "distill-0.5": 0.2}
    first["distill-0.75"] = 0.2
    # With int8 both may gain 3 times and more; the best so far is int8, which gains 2.
    assert longer(first, first) == ["prune_channels-0.5", "distill-0.5"]
    then = {"distill-0.5": 0.2, "prune_channels-0.25": 0.2}
    assert longer(first, then) == [
        *("prune_channels-0.5", "prune_channels-0.5+quantize-int8"),
        "prune_channels-0.25",  # bolder
        "distill-0.5",
    ]


def test_a_gain_with_quantization_is_estimated_only_where_it_was_not_tried():
    first = {"prune_channels-0.5": 0.1, "prune_channels-0.75": 0.1, "distill-0.25": 0.1}
    techniques = ("quantize", "distill")
    assert longer(first, {}, techniques=techniques) == [
        "distill-0.25",
        "distill-0.25+quantize-int8",
    ]
    first = {"distill-0.5": 0.015, "distill-0.25": 0.6}
    for factor in (1.9, 1.0):  # of int8 alone: 2
        factors = {"distill-0.5+quantize-int8": factor, "distill-0.25": 1.8}
        assert longer(first, {}, techniques=techniques, factors=factors) == []


def test_quantise_aware_training_that_holds_when_it_is_longer_is_taken_for_what_follows():
    bad = dict.fromkeys(("quantize-int8", "quantize-int8-equalize-correct_bias"), 0.3)
    bad["quantize_aware-8+quantize-int8"] = 0.2
    first = {**bad, "prune_channels-0.5": 0.25, "prune_channels-0.75": 0.25}
    techniques = ("quantize", "quantize_aware", "prune_channels")
    factors = {"quantize_aware-8+quantize-int8": 2.5}  # of a dynamic range: 2
    names = longer(first, {}, techniques=techniques, factors=factors)
    assert names[:3] == [
        "quantize_aware-8+quantize-int8",
        *("prune_channels-0.5", "prune_channels-0.5+quantize_aware-8+quantize-int8"),
    ]


def test_what_holds_is_not_trained_again_unless_its_loss_counted_half():
    names = longer({"distill-0.5": 0.6}, {}, techniques=("prune_channels", "distill"))
    assert names == []  # a loss of more than half is hopeless, all others hold
    first = {"prune_channels-0.25": 0.015, "distill-0.5": 0.6}
    names = longer(first, {}, techniques=("prune_channels", "distill"))
    assert names == ["prune_channels-0.25"]


def test_the_bolder_student_trains_where_the_first_one_gains_too_little():
    first = {"prune_channels-0.25": 0.0, "distill-0.5": 0.1}
    names = longer(first, {}, techniques=("prune_channels", "distill"))
    assert names == ["distill-0.25"]


def test_what_still_loses_a_little_trains_for_longer_once_more():
    first = {"prune_channels-0.5": 0.1, "prune_channels-0.75": 0.1, "distill-0.5": 0.2}
    first["distill-0.75"] = 0.2
    then = {"prune_channels-0.5": 0.05, "distill-0.5": 0.15}
    names = longer(first, then, {"prune_channels-0.25": 0.2})
    assert names[:2] == ["prune_channels-0.5", "distill-0.5"]
    assert names[2:] == [
        *("prune_channels-0.5", "prune_channels-0.5+quantize-int8"),
        "prune_channels-0.25",  # bolder; the student lost more than a tenth
    ]
