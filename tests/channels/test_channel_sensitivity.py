"""The metric that is left without channels of one layer."""

import keras
import numpy as np
import pytest
from keras import layers

import tfpeft
from tests.channels.models import classifier, functional, images

DATA = images(24)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = classifier()
    model.fit(*images(48, seed=1), epochs=4, batch_size=16, verbose=0)
    return model


@pytest.fixture(scope="module")
def sensitivity(model):
    before = model.get_weights()
    found = tfpeft.channel_sensitivity(model, DATA, (0.75, 0.5), importance="l2")
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    return found


def test_each_row_is_what_pruning_and_evaluating_say(model, sensitivity):
    others = {"first": ["second"], "second": ["first"]}
    assert [(r["layers"], r["channels"], r["ratio"]) for r in sensitivity.rows] == [
        *(("first", 6, 0.5), ("first", 6, 0.75), ("second", 8, 0.5), ("second", 8, 0.75))
    ]
    for row in sensitivity.rows:
        small = tfpeft.prune_channels(
            model,
            ratio=row["ratio"],
            scope="layer",
            importance="l2",
            exclude=others[row["layers"]],
        )
        expected = small.evaluate(*DATA, return_dict=True, verbose=0)["accuracy"]
        assert row["metric"] == pytest.approx(expected)
    expected = model.evaluate(*DATA, return_dict=True, verbose=0)["accuracy"]
    assert sensitivity.baseline == pytest.approx(expected)
    assert (sensitivity.monitor, sensitivity.mode) == ("accuracy", "max")


def test_a_table_and_a_plot(sensitivity, tmp_path):
    lines = str(sensitivity).splitlines()
    assert "accuracy" in lines[0]
    assert "50%" in lines[0]
    assert "75%" in lines[0]
    assert [line.split("|")[1].strip() for line in lines[2:]] == ["first", "second"]
    sensitivity.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes()[1:4] == b"PNG"


def test_sums_over_channels_are_measured_on_smaller_models():
    def build(x):
        a, b = layers.Dense(4, name="a")(x), layers.Dense(4, name="b")(x)
        x = layers.Concatenate()([layers.Dot(1)([a, b]), layers.Dense(6, name="c")(x)])
        return layers.Dense(2, name="head")(x)

    model = functional((5,), build)
    model.compile("sgd", "mse")
    rng = np.random.default_rng(0)
    data = rng.normal(size=(16, 5)).astype("float32"), rng.normal(size=(16, 2)).astype("float32")
    found = tfpeft.channel_sensitivity(model, data, [0.5], importance="l1")
    assert found.mode == "min"
    for row, exclude in zip(found.rows, (["c"], ["a", "b"]), strict=True):
        small = tfpeft.prune_channels(
            model, ratio=0.5, scope="layer", importance="l1", exclude=exclude
        )
        assert row["metric"] == pytest.approx(small.evaluate(*data, verbose=0), rel=1e-4)


def test_taylor_reads_the_same_data(model):
    rows = tfpeft.channel_sensitivity(model, DATA, [0.25], monitor="loss").rows
    assert [row["layers"] for row in rows] == ["first", "second"]
    assert all(np.isfinite(row["metric"]) for row in rows)


@pytest.mark.parametrize("ratios", [[0.0], [1.0], [0.5, 2], [], "0.5", 0.5, [True], None])
def test_ratios_that_are_none(model, ratios):
    with pytest.raises(tfpeft.InputError, match="`ratios`"):
        tfpeft.channel_sensitivity(model, DATA, ratios)


def test_input_that_is_not_of_its_kind(model):
    with pytest.raises(tfpeft.InputError, match="`model`.*compiled"):
        tfpeft.channel_sensitivity(classifier(compiled=False), DATA)
    with pytest.raises(tfpeft.InputError, match="`data`"):
        tfpeft.channel_sensitivity(model, images(0))
    with pytest.raises(tfpeft.InputError, match="`monitor`"):
        tfpeft.channel_sensitivity(model, DATA, monitor="f1")
    with pytest.raises(tfpeft.InputError, match="`importance`"):
        tfpeft.channel_sensitivity(model, DATA, importance="l3")
    with pytest.raises(tfpeft.NoMatchError):
        tfpeft.channel_sensitivity(model, DATA, exclude=["nothing"])
