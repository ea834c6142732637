"""Budgets, alone and together, and input that is not of its kind."""

import fractions

import keras
import numpy as np
import pytest
from keras import layers

import tfpeft
from tests.channels.models import classifier, functional, images
from tfpeft.channels.selection import smallest_count


def build(x):
    x = layers.Dense(20, "relu", name="a")(x)
    return layers.Dense(2, name="head")(layers.Dense(10, "relu", name="b")(x))


@pytest.fixture(scope="module")
def model():
    """8 -> 20 -> 10 -> 2: 380 multiply-accumulates, 412 parameters."""
    return functional((8,), build)


def prune(model, **options):
    return tfpeft.prune_channels(model, **{"importance": "l2", **options})


def widths(small):
    return [small.channel_report.widths[name][1] for name in "ab"]


def macs(a, b):
    return 8 * a + a * b + 2 * b


def params(a, b):
    return 9 * a + (a + 1) * b + 2 * b + 2


@pytest.mark.parametrize(
    ("option", "limit"),
    [
        ({"max_macs": 0.5}, 190),
        ({"max_macs": 190}, 190),
        ({"max_macs": 190.0}, 190),
        ({"max_macs": np.int64(190)}, 190),
        ({"max_macs": fractions.Fraction(1, 2)}, 190),
        ({"max_params": 0.5}, 206),
        ({"max_params": 206}, 206),
        ({"max_params": fractions.Fraction(1, 2)}, 206),
        ({"max_macs": 0.99}, 376),
        ({"max_macs": 2.0}, None),
    ],
)
def test_a_budget_is_a_number_or_a_fraction_and_as_little_goes_as_it_allows(model, option, limit):
    (name,) = option
    if limit is None:  # 2 is a number: too few
        with pytest.raises(tfpeft.BudgetError, match=rf"`{name}`.*at least"):
            prune(model, **option)
        return
    small = prune(model, **option)
    cost = macs if name == "max_macs" else params
    found = widths(small)
    assert cost(*found) <= limit
    # One channel more, wherever it was removed last, is above the limit.
    assert any(cost(*np.add(found, more)) > limit for more in ((1, 0), (0, 1)))
    report = small.channel_report
    assert report.macs == (380, macs(*found))
    assert report.params == (412, params(*found)) == (model.count_params(), small.count_params())


def test_all_targets_hold_together(model):
    alone = {
        name: prune(model, **{name: value}).channel_report
        for name, value in (("max_macs", 0.6), ("max_params", 0.5), ("ratio", 0.1))
    }
    both = prune(model, ratio=0.1, max_macs=0.6, max_params=0.5).channel_report
    assert both.macs[1] == min(each.macs[1] for each in alone.values())
    assert both.params[1] == min(each.params[1] for each in alone.values())
    assert prune(model, ratio=0.7, max_macs=0.9).channel_report.widths == (
        prune(model, ratio=0.7).channel_report.widths
    )


@pytest.mark.parametrize("ratio", [0.1, 0.3, 0.5, np.float32(0.5)])
def test_a_ratio_is_of_all_channels(model, ratio):
    assert sum(widths(prune(model, ratio=ratio))) == 30 - round(30 * float(ratio))
    assert widths(prune(model, ratio=ratio, scope="layer")) == [
        20 - int(20 * ratio + 1e-9),
        10 - int(10 * ratio + 1e-9),
    ]


def test_an_impossible_budget_gives_the_least_that_is_possible(model):
    with pytest.raises(tfpeft.BudgetError, match="`max_macs`, expected at least") as error:
        prune(model, max_macs=0.01)
    least = float(str(error.value).split("at least ")[1].split(" ")[0])
    assert least == macs(2, 1)  # max_ratio_per_layer is 0.9
    assert macs(*widths(prune(model, max_macs=int(least)))) == least
    with pytest.raises(tfpeft.BudgetError, match="max_macs"):
        prune(model, max_macs=int(least) - 1)
    with pytest.raises(tfpeft.BudgetError, match="max_params") as error:
        prune(model, max_params=10, min_channels=4)
    assert f"at least {params(4, 4)} " in str(error.value)


def test_an_impossible_ratio_gives_the_largest_that_is_possible(model):
    with pytest.raises(tfpeft.BudgetError, match="`ratio`, expected at most") as error:
        prune(model, ratio=0.95)
    largest = float(str(error.value).split("at most ")[1].split(",")[0])
    assert largest == 0.9
    assert widths(prune(model, ratio=largest)) == [2, 1]
    with pytest.raises(tfpeft.BudgetError, match="at most 0.5"):
        prune(model, ratio=0.6, scope="layer", max_ratio_per_layer=0.5)


@pytest.mark.parametrize(
    "options", [{"ratio": 0.0}, {"ratio": 0.01}, {"max_macs": 380}, {"max_params": 10_000}]
)
def test_targets_that_remove_nothing_are_an_error(model, options):
    with pytest.raises(tfpeft.InputError, match="for which a channel has to be removed"):
        prune(model, **options)


@pytest.mark.parametrize("name", ["max_macs", "max_params", "max_size_bytes"])
@pytest.mark.parametrize(
    "value",
    [1, 1.0, 0, 0.0, -1, 1.5, True, "half", np.nan, np.inf, [0.5], fractions.Fraction(3, 2)],
)
def test_budgets_that_are_no_number_or_could_be_either(model, name, value):
    expected = "a fraction in .0, 1. of the model's own, or a whole number above 1"
    with pytest.raises(tfpeft.InputError, match=f"`{name}`, expected {expected}"):
        prune(model, **{name: value})


@pytest.mark.parametrize("value", [0, -1.0, "fast", True, np.inf, fractions.Fraction(1, 1)])
def test_latencies_that_are_none(model, value):
    with pytest.raises(tfpeft.InputError, match="`max_latency_ms`, expected milliseconds above 0"):
        prune(model, max_latency_ms=value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "a budget"),
        ({"ratio": 1}, "`ratio`, expected a number in .0, 1."),
        ({"ratio": 1.0}, "`ratio`"),
        ({"ratio": -0.1}, "`ratio`"),
        ({"ratio": "0.5"}, "`ratio`"),
        ({"ratio": True}, "`ratio`"),
        ({"ratio": 0.5, "importance": "L1"}, "`importance`, expected one of 'taylor'"),
        ({"ratio": 0.5, "importance": None}, "`importance`"),
        ({"ratio": 0.5, "importance": "taylor"}, "`data`, expected samples with labels"),
        ({"ratio": 0.5, "importance": "hessian"}, "`data`"),
        ({"ratio": 0.5, "importance": "bn_scale"}, "BatchNormalization"),
        ({"ratio": 0.5, "scope": "all"}, "`scope`, expected one of 'global'"),
        ({"ratio": 0.5, "aggregate": "median"}, "`aggregate`"),
        ({"ratio": 0.5, "normalize": "sum"}, "`normalize`"),
        ({"ratio": 0.5, "round_to": 0}, "`round_to`, expected an integer of at least 1"),
        ({"ratio": 0.5, "round_to": 1.5}, "`round_to`"),
        ({"ratio": 0.5, "min_channels": 0}, "`min_channels`"),
        ({"ratio": 0.5, "max_ratio_per_layer": 1}, "`max_ratio_per_layer`, expected a number in"),
        ({"ratio": 0.5, "max_ratio_per_layer": 0}, "`max_ratio_per_layer`"),
        ({"ratio": 0.5, "exclude": "a"}, "`exclude`, expected a list or tuple"),
        ({"ratio": 0.5, "exclude": ["nothing"]}, "`exclude`.*nothing"),
        ({"ratio": 0.5, "exclude": ["*"]}, "of which channels can be removed"),
        ({"ratio": 0.5, "through_statistics": 1}, "`through_statistics`"),
        ({"ratio": 0.5, "verify": "yes"}, "`verify`"),
        ({"ratio": 0.5, "batch_size": 0}, "`batch_size`"),
        ({"ratio": 0.5, "seed": 0.5}, "`seed`"),
    ],
)
def test_input_that_is_not_of_its_kind(model, options, message):
    with pytest.raises(tfpeft.InputError, match=message) as error:
        prune(model, **options)
    assert "\n" not in str(error.value)


def test_patterns_that_match_nothing_and_models_without_channels_are_a_kind_of_their_own(model):
    for options in ({"exclude": ["nothing"]}, {"exclude": ["*"]}, {"importance": "bn_scale"}):
        with pytest.raises(tfpeft.NoMatchError):
            prune(model, ratio=0.5, **options)


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.hidden, self.head = layers.Dense(8), layers.Dense(2)

    def call(self, x):
        return self.head(self.hidden(x))


def unbuilt():
    return keras.Sequential([layers.Dense(4), layers.Dense(2)])


@pytest.mark.parametrize("make", [Subclassed, unbuilt, lambda: layers.Dense(3), lambda: "m.keras"])
def test_what_has_no_graph(make):
    with pytest.raises(tfpeft.InputError, match="`model`.*keras.Model.inputs, model.call"):
        prune(make(), ratio=0.5)


def test_a_subclassed_model_becomes_a_functional_one_as_the_error_says():
    model = Subclassed()
    inputs = keras.Input((5,))
    functional_model = keras.Model(inputs, model.call(inputs))
    small = prune(functional_model, ratio=0.5)
    assert small.count_params() < functional_model.count_params()


def test_scores_of_the_loss_need_a_compiled_model_with_labels(model):
    x = np.zeros((4, 8), "float32")
    with pytest.raises(tfpeft.InputError, match="`model`, expected a model compiled with a loss"):
        prune(model, ratio=0.5, importance="taylor", data=(x, x[:, :2]))
    compiled = classifier()
    with pytest.raises(tfpeft.InputError, match="data"):
        prune(compiled, ratio=0.5, importance="taylor", data=images(0))
    with pytest.raises(tfpeft.InputError):
        prune(compiled, ratio=0.5, importance="taylor", data="images")
    x, y = images(4)
    x[0] = np.nan
    with pytest.raises(tfpeft.InputError, match="NaN|finite"):
        prune(compiled, ratio=0.5, importance="taylor", data=(x, y))


def test_bytes_and_milliseconds_are_measured_in_the_file():
    wide = functional((16,), lambda x: layers.Dense(2)(layers.Dense(400, "relu", name="a")(x)))
    small = prune(wide, max_size_bytes=0.5, max_latency_ms=1e6)
    before, after = small.channel_report.measured["size_bytes"]
    assert after <= 0.5 * before
    assert small.channel_report.widths["a"][1] > 100  # no more than needed, but for a few steps
    assert set(small.channel_report.measured) == {"size_bytes", "latency_ms"}
    assert "bytes of the .tflite file" in str(small.channel_report)


@pytest.mark.parametrize(("low", "high", "first"), [(0, 0, 0), (0, 9, 0), (0, 9, 9), (3, 9, 5)])
def test_the_smallest_count_is_found(low, high, first):
    assert smallest_count(lambda count: count >= first, low, high) == first
    assert smallest_count(lambda count: False, low, high) is None
