"""The parts of `recommend` by hand: gains, losses, the rule, layers, the clock."""

import keras
import numpy as np
import pytest

from tfpeft.automl.advice import goals
from tfpeft.automl.advice.adapters import training_bytes
from tfpeft.automl.advice.chains import Chain, Step, first_step, next_step, quantize, zeros_of
from tfpeft.automl.advice.figures import Gain, Metric, counted_figure
from tfpeft.automl.advice.layers import layer_rows
from tfpeft.automl.advice.ranking import LEAST_GAIN, loss_is, ranked
from tfpeft.automl.advice.result import further_training
from tfpeft.automl.advice.words import limits_of
from tfpeft.core.arguments import InputError
from tfpeft.core.data import Batch
from tfpeft.core.macs import count_macs
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile


def trial(technique, factor, loss=(0.0, 0.0), low=None):
    """Returns a trial as its JSON file has it."""
    return {
        "name": technique,
        "technique": technique,
        "error": None,
        "gain": {"factor": factor, "interval": [low or factor, factor]},
        "loss": {"relative": sum(loss) / 2, "relative_interval": list(loss)},
    }


def names(trials, most=0.01):
    return [found["name"] for found in ranked(trials, most)]


def test_the_rule_is_gain_among_those_whose_loss_is_allowed():
    trials = [
        trial("small", 1.2, loss=(0.0, 0.02)),
        trial("unclear", 3.0, loss=(0.005, 0.2)),
        trial("too much", 9.0, loss=(0.011, 0.2)),
        trial("large", 2.0, loss=(-0.1, 0.0)),
    ]
    assert names(trials) == ["large", "small", "unclear", "too much"]
    assert [loss_is(found, 0.01) for found in trials] == [
        *("allowed", "unclear", "too much", "allowed")
    ]
    assert names(trials, most=0.02) == ["large", "small", "too much", "unclear"]
    short = {**trial("prune", 3.0, loss=(0.019, 0.019)), "is_short": True}
    assert loss_is(short, 0.01) == "allowed"  # half of it counts
    assert loss_is(short, 0.01, short=1.0) == "too much"
    assert loss_is({**short, "is_short": False}, 0.01) == "too much"


def test_of_a_chain_that_trained_twice_the_longer_trial_counts():
    def at(updates, loss):
        found = trial("prune", 3.0, loss=(loss, loss))
        return {**found, "name": f"prune@{updates}", "steps": [["prune", []]], "updates": updates}

    assert names([at(10, 0.0), at(40, 0.2), trial("quantize", 2.0)]) == ["quantize", "prune@40"]
    assert names([at(40, 0.0), at(10, 0.2), trial("quantize", 2.0)]) == ["prune@40", "quantize"]


def test_what_gains_less_than_five_percent_or_failed_is_no_recommendation():
    trials = [trial("a", LEAST_GAIN), trial("b", 1.2, low=1.0), trial("c", 1.06)]
    trials.append({**trial("d", 4.0), "error": "cannot", "gain": None, "loss": None})
    assert names(trials) == ["c"]


def test_several_techniques_count_where_they_gain_over_one_alone():
    alone = trial("quantize", 2.0)
    assert names([alone, trial("prune+quantize", 2.09)]) == ["quantize"]
    assert names([alone, trial("prune+quantize", 2.2)]) == ["prune+quantize", "quantize"]
    too_much = trial("quantize", 2.0, loss=(0.5, 0.6))
    assert names([too_much, trial("prune+quantize", 2.0)])[0] == "prune+quantize"


def test_what_training_alone_wins_is_said_where_it_is_clear():
    tuned = {**trial("tune+quantize", 1.0), "updates": 1600}
    tuned["loss"] |= {"metric": "accuracy", "before": 0.9, "after": 0.92, "interval": [0.01, 0.03]}
    (sentence,) = further_training([trial("prune", 2.0), tuned])
    assert "for 1,600 updates, changes accuracy by +0.02 (95%: +0.01 to +0.03)" in sentence
    tuned["loss"]["interval"] = [-0.01, 0.05]
    assert further_training([tuned]) == further_training([{**tuned, "error": "cannot"}]) == []


def test_the_gain_of_times_by_hand():
    times = np.array([[4.0, 4.0, 4.0, 100.0], [2.0, 2.0, 2.0, 50.0]])
    found = Gain.timed("latency_ms", times)
    assert (found.before, found.after, found.factor) == (4.0, 2.0, 2.0)
    assert found.interval == (2.0, 2.0)  # rounds are resampled in pairs
    assert Gain.counted("size_bytes", 300, 100).interval == (3.0, 3.0)


def linear(kernel):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, use_bias=False)])
    model.set_weights([np.array(kernel, "float32")])
    return model


def test_the_loss_of_an_accuracy_and_of_an_error_by_hand():
    x = np.eye(2, dtype="float32")[[0, 0, 1, 1]]
    right, wrong = linear([[1, 0], [0, 1]]), linear([[1, 0], [1, 0]])
    metric = Metric(right, Batch(x, np.array([0, 0, 1, 1])), "classification", True)
    loss = metric.loss(wrong)
    assert (loss.metric, loss.before, loss.after, loss.relative) == ("accuracy", 1.0, 0.5, 0.5)
    assert loss.relative_interval[0] <= 0.5 <= loss.relative_interval[1] <= 1.0
    y = x + np.float32([[0.5, 0.0]])
    metric = Metric(right, Batch(x, y), "regression")
    loss = metric.loss(linear([[1, 0], [0, 0]]))
    errors = np.array([[0.5, 0.0]] * 2 + [[0.5, 1.0]] * 2)
    before, after = np.sqrt(0.125), np.sqrt(np.mean(errors**2))
    assert loss.metric == "rmse"
    assert loss.relative == pytest.approx((after - before) / before)


def test_the_macs_of_layers_are_those_of_the_model():
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3, strides=2, padding="same")(inputs)
    hidden = keras.layers.DepthwiseConv2D(3, depth_multiplier=2)(hidden)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.Conv2DTranspose(3, 2, strides=2)(hidden)
    hidden = keras.layers.EinsumDense("bhwc,cd->bhwd", (4, 4, 5), name="einsum")(hidden)
    hidden = keras.layers.SeparableConv2D(6, 3)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Flatten()(hidden)))
    x = np.zeros((1, 8, 8, 3), "float32")
    rows = {row["layer"]: row for row in layer_rows(model, x)}
    rows.pop(next(name for name in rows if "separable" in name))
    whole = count_macs(model, x)
    separable = 2 * 2 * 5 * 9 + 2 * 2 * 5 * 6
    assert sum(row["macs"] for row in rows.values()) + separable == whole
    assert sum(row["share_of_bytes"] for row in rows.values()) < 1.0


def test_zeros_that_xnnpack_skips_are_not_computed(tmp_path):
    layers = [
        keras.layers.ZeroPadding2D(1),
        keras.layers.Conv2D(8, 3, strides=2, activation="relu"),
        keras.layers.Conv2D(32, 1, activation="relu", name="pointwise"),
        keras.layers.GlobalAveragePooling2D(),
        keras.layers.Dense(2),
    ]
    model = keras.Sequential([keras.Input((8, 8, 3)), *layers])
    kernel = model.get_layer("pointwise").kernel
    mask = np.zeros(8 * 32)
    mask[:16] = 1.0
    kernel.assign(kernel * mask.reshape(kernel.shape))
    export_tflite(model, tmp_path / "model.tflite", sparse=True)
    file = TFLiteFile(tmp_path / "model.tflite")
    macs = 16 * 27 * 8 + 16 * 8 * 32 + 32 * 2
    assert counted_figure("macs", file, goals.device_of(None)) == macs
    assert counted_figure("macs", file, goals.device_of("xnnpack")) == macs - 16 * (256 - 16)


def test_zeros_and_bytes_of_training_by_hand():
    model = linear([[0, 1], [2, 3]])
    assert zeros_of(model) == 0.25
    assert training_bytes(model) == 4 * (4 + 3 * 4)  # weights; gradients and two moments
    model.trainable = False
    assert training_bytes(model) == 16


def test_chains_are_named_and_read_from_json():
    chain = Chain((first_step("prune", ("head",)), quantize("int8", sparse_encoding=True)))
    assert chain.name == "prune-0.8+quantize-int8-sparse_encoding"
    assert chain.quantization == {"quantization": "int8", "sparse_encoding": True}
    assert chain.trained.stages == ("prune",)
    stored = [[step.stage, [list(pair) for pair in step.settings]] for step in chain.steps]
    assert Chain.read(
        [[s, [[k, list(v) if k == "exclude" else v] for k, v in p]] for s, p in stored]
    )
    assert Chain.read(stored) == chain
    assert chain.steps[0].exclude == ("head",)
    assert chain.steps[0].excluding(()) == first_step("prune")
    assert next_step(chain.steps[0], held=True).exclude == ("head",)
    assert next_step(first_step("distill"), held=True) == Step("distill", (("student", 0.25),))
    assert next_step(first_step("distill"), held=False).value == 0.75


def test_limits_are_those_of_the_device():
    chain = Chain((first_step("prune"), quantize("int8")))
    here = limits_of(chain, goals.Device(None, "this machine"), is_short=True)
    assert here.startswith("Zeros make no dense kernel faster")
    assert "only on processors with instructions" in here
    there = limits_of(chain, goals.Device("ethos-u55-128", "ethos-u", is_integer=True), False)
    assert there.startswith("Zeros shrink what the NPU reads")
    assert here.endswith("training in full usually loses less.")
    assert "short" not in there


@pytest.mark.parametrize("key", goals.TABLE)
def test_each_technique_is_tried_or_has_a_reason(key):
    goal, kind = key
    if goal in ("training_cost", "tasks"):
        return
    found = goals.TABLE[key]
    with_int8 = {"quantize_aware"}  # which is tried where int8 loses too much
    covered = {*found.techniques, *found.reasons, *(["quantize"] if found.quantizations else [])}
    assert covered | with_int8 == set(goals.TECHNIQUES)
    assert not set(found.techniques) & set(found.reasons)
    assert kind == "ethos-u" or found.figure != "inference_ms"


def test_memory_needs_a_device_and_training_none():
    with pytest.raises(InputError, match="target"):
        goals.goal_on("memory", goals.device_of(None))
    with pytest.raises(InputError, match="target"):
        goals.goal_on("training_cost", goals.device_of("xnnpack"))
