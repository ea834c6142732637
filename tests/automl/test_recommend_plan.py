"""Which chains are tried in which order, for trials whose results are given."""

from tfpeft.automl.advice import goals
from tfpeft.automl.advice.chains import Chain, quantize
from tfpeft.automl.advice.plan import Planner


class Given:
    """Trials whose results are given: those named in `bad` lose too much, others hold."""

    def __init__(self, device, bad=(), failed=(), factors=None):
        self.device, self.names = device, []
        self.base = Chain((quantize("int8"),) if device.is_integer else ())
        self._bad, self._failed, self._factors = bad, failed, factors or {}

    def run(self, chain):
        self.names.append(chain.name)
        factor, loss = self._factors.get(chain.name, 2.0), 0.5 if chain.name in self._bad else 0.0
        return {
            "error": "cannot" if chain.name in self._failed else None,
            "gain": {"factor": factor, "interval": [factor, factor]},
            "loss": {"relative": loss, "relative_interval": [loss, loss]},
        }


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
    assert names[:2] == ["tune+quantize-int8", "prune-0.8+quantize-int8"]
    assert "prune-0.9+cluster-8+quantize-int8" in names
    assert all(name.endswith("+quantize-int8") for name in names)


def test_a_model_that_overfits_gets_a_student_first():
    both = ("prune_channels", "distill")
    assert tried("latency", "this machine", both)[:2] == ["tune", "prune_channels-0.5"]
    assert tried("latency", "this machine", both, gap=0.1)[:2] == ["tune", "distill-0.5"]


def test_what_failed_or_has_nothing_to_do_is_not_tried_again():
    names = tried("latency", "this machine", ("distill",), failed={"distill-0.5"})
    assert names == ["tune", "distill-0.5"]
    assert tried("latency", "this machine", skipped=("quantize", "distill", "prune_channels")) == []
