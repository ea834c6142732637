"""The stage prune_channels: its targets, the channels that it keeps, rounds; and default chains."""

import json
from fractions import Fraction

import keras
import numpy as np
import pytest
from sklearn.datasets import load_digits

import tfpeft
from pipelines import prune_channels
from pipelines.common import folders, splits
from pipelines.common.flags import settings_of
from pipelines.stages import STAGES, compression, distill
from pipelines.stages.stage import Inputs
from tests.pipelines import plain
from tfpeft.channels import iterative
from tfpeft.core.arguments import InputError

STAGE = STAGES["prune_channels"]


def model_of(units, activation=None):
    keras.utils.set_random_seed(0)
    hidden = keras.layers.Dense(16, activation="relu", name="hidden")
    head = keras.layers.Dense(units, activation, name="head")
    return keras.Sequential([keras.Input((64,)), hidden, head], name="net")


@pytest.fixture
def run_stage(tmp_path):
    """A function that runs the stage on a model and 150 digits; returns the result, and inputs."""

    def run(model, classes=10, **given):
        x, y = load_digits(return_X_y=True)
        pairs = [(x[a:b], y[a:b] % classes) for a, b in ((0, 135), (135, 150), (150, 180))]
        given = {"output_dir": str(tmp_path), "name": "run", "batch_size": 45, **given}
        flags = [*compression.RUN_FLAGS, *compression.ALL_FLAGS]
        settings = settings_of(flags, given)
        STAGE.check(settings)
        with folders.RunFolder("test", settings, flags) as folder:
            inputs = Inputs(splits.Data(*pairs, classes=classes), folder, model)
            return STAGE.run(settings, inputs), inputs

    return run


@pytest.mark.parametrize(("units", "classes"), [(1, 2), (3, 3)])
def test_half_of_the_channels_are_left_and_keep_their_weights(run_stage, tmp_path, units, classes):
    """Those with the largest |w| into and out of a unit; of sigmoids, which no softmax fits."""
    model = model_of(units, "sigmoid")
    first, bias, last, last_bias = model.get_weights()
    given = {"ratio": 0.5, "importance": "l1", "epochs": 1, "learning_rate": 1e-12}
    small, inputs = run_stage(model, classes, **given)
    scores = np.abs(first).sum(0) + np.abs(last).sum(1)
    kept = np.sort(np.argsort(scores)[8:])
    wanted = [first[:, kept], bias[kept], last[kept], last_bias]
    for weight, expected in zip(small.get_weights(), wanted, strict=True):
        np.testing.assert_allclose(weight, expected, atol=1e-6)
    report = (inputs.folder / "channels.md").read_text()
    assert "| hidden | 16 | 8 | 0.50 |" in report
    assert (inputs.folder / "channels.png").exists()
    small.save(tmp_path / "small.keras")
    loaded = keras.models.load_model(tmp_path / "small.keras")  # a plain model, not compiled
    assert not loaded.compiled


def test_the_teacher_is_the_model_before(run_stage, monkeypatch):
    """Whatever the flags of a `distill` before it say; the others are those of the stage."""
    received = []

    def record(*arguments):
        received.extend(arguments)
        raise InputError("recorded")

    monkeypatch.setattr(distill, "make_distiller", record)
    model, given = model_of(10), {"alpha": 0.3, "temperature": 2.0, "importance": "l1"}
    others = {"teacher": ["no_such.keras"], "soft_loss": "dist", "alpha_end": 1.0}
    with pytest.raises(InputError, match="recorded"):
        run_stage(model, **given, **others)
    tuning, inputs, teacher, student = received
    assert teacher is inputs.model is model
    assert student.layers[0].units == 8
    assert (tuning.alpha, tuning.temperature, tuning.epochs) == (0.3, 2.0, 30)
    assert (tuning.teacher, tuning.soft_loss, tuning.alpha_end) == ((), "soft_labels", None)


def test_rounds_end_at_the_targets_and_resume(run_stage, monkeypatch, capsys):
    given = {"ratio": 0.5, "channel_scope": "layer", "steps": 2, "epochs": 4}
    small, inputs = run_stage(model_of(10), **given)
    first = capsys.readouterr().out
    record = json.loads((inputs.folder / "channel_rounds/history.json").read_text())
    assert first.count(" - val_accuracy: ") == 2  # the epochs that two rounds of one leave
    monkeypatch.setattr(iterative, "compile_like", None)  # which a round that is not there calls
    monkeypatch.setattr(distill, "make_distiller", None)  # so far only
    with pytest.raises(TypeError, match="not callable"):
        run_stage(model_of(10), **given)
    for output in (first, capsys.readouterr().out):
        assert "| hidden | 16 | 8 | 0.50 |" in output
    assert [layer.units for layer in small.layers] == [8, 10]
    assert len(record["history"]) == 2


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({}, {"max_macs": 0.5}),
        ({"max_macs": "0.25"}, {"max_macs": 0.25}),
        ({"max_macs": "25%"}, {"max_macs": Fraction(1, 4)}),
        ({"max_macs": "1e6", "max_params": "1000"}, {"max_macs": 10**6, "max_params": 1000}),
        ({"max_size_bytes": "12.5%"}, {"max_size_bytes": Fraction(1, 8)}),
        ({"max_latency_ms": "0.5"}, {"max_latency_ms": 0.5}),
        ({"max_latency_ms": "50%"}, {"max_latency_ms": Fraction(1, 2)}),
        ({"ratio": 0.3}, {"ratio": 0.3}),
        ({"ratio": 0.3, "max_params": "0.9"}, {"ratio": 0.3, "max_params": 0.9}),
    ],
)
def test_targets_reach_the_library_as_it_takes_them(run_stage, monkeypatch, given, expected):
    received = {}

    def record(model, **arguments):
        received.update(arguments)
        raise InputError("recorded")

    monkeypatch.setattr(tfpeft, "prune_channels", record)
    others = {"importance": "fpgm", "channel_scope": "isomorphic", "round_to": 4, "seed": 3}
    others |= {"min_channels": 2, "max_ratio_per_layer": 0.7, "exclude": ["a"]}
    with pytest.raises(InputError, match="recorded"):
        run_stage(model_of(10), through_statistics=True, **others, **given)
    others["scope"] = others.pop("channel_scope")
    del received["data"]
    assert received == {**expected, **others, "through_statistics": True, "batch_size": 45}
    for name, value in expected.items():
        assert isinstance(received[name], Fraction) == isinstance(value, Fraction)


def test_a_model_without_a_graph_is_an_error_that_names_other_stages(run_stage):
    with pytest.raises(InputError, match="--stages=prune,quantize.*Received: a Net$"):
        run_stage(plain.Net())


def test_zeros_of_an_earlier_stage_stay(run_stage):
    model = model_of(10)
    kernel = model.layers[0].kernel.numpy()
    kernel[::2] = 0.0
    model.layers[0].kernel.assign(kernel)
    small, _ = run_stage(model, ratio=0.5, importance="l1", epochs=2, learning_rate=0.01)
    found = small.layers[0].kernel.numpy()
    np.testing.assert_array_equal(found == 0, np.tile(np.arange(64) % 2 == 0, (8, 1)).T)
    with pytest.raises(InputError, match="--steps, expected 1 for a model with zeros.*--steps=2"):
        run_stage(model, steps=2, name="rounds")


def test_a_budget_that_the_model_meets_is_an_error_that_names_it(run_stage):
    wanted = r"max_macs=1200\.0, of a model of 1,184 multiply-accumulates and 1,210 parameters"
    with pytest.raises(InputError, match=f"channel has to be removed. Received: {wanted}"):
        run_stage(model_of(10), max_macs="1200", importance="l1")


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        *(
            (f"--{name}={value}", f"--{name}, expected a whole number above 1, or a fraction of ")
            for name in ("max_macs", "max_params", "max_size_bytes")
            for value in ("1", "1.0", "1.5", "0", "-3", "100%", "0%", "-5%", "%", "half", "1/2")
        ),
        *(
            (f"--max_latency_ms={value}", "--max_latency_ms, expected a number above 0, or a fract")
            for value in ("0", "-1", "100%", "150%", "0%", "nan", "inf", "inf%", "5ms", "50 %%")
        ),
        ("--ratio=0", "--ratio, expected a number in (0, 1). Received: --ratio=0"),
        ("--ratio=50%", "--ratio, expected a number in (0, 1). Received: --ratio=50%"),
        ("--channel_scope=erk", "--channel_scope, expected one of global, layer, isomorphic."),
        ("--steps=30", "--epochs, expected more than --steps=30, as each round"),
        ("--scope=layer", "Received --scope, which this script does not read"),
    ],
)
def test_bad_flags_are_one_line(flag, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert prune_channels.SCRIPT.status([flag]) == 1
    errors = capsys.readouterr().err
    assert message in errors
    assert errors.startswith("error: ")
    assert errors.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "stages"),
    [
        ({}, "distill,prune,quantize"),
        ({"alpha": 0.5, "student": "0.25"}, "distill,prune,quantize"),
        ({"model": "m.keras"}, "tune,prune_channels,prune,quantize"),
        ({"model": "m.keras", "alpha": 0.5}, "tune,prune_channels,prune,quantize"),
        ({"model": "m.keras", "max_macs": "0.1"}, "tune,prune_channels,prune,quantize"),
        ({"model": "m.keras", "student": "0.5"}, "tune,distill,prune,quantize"),
        ({"model": "m.keras", "teacher": ["n.keras"]}, "tune,distill,prune,quantize"),
    ],
)
def test_the_default_chain(given, stages):
    flags = [*compression.RUN_FLAGS, *compression.ALL_FLAGS]
    chain = compression.default_stages(settings_of(flags, given))
    assert ",".join(chain) == stages
