"""Channel pruning in rounds: targets, tolerance, resumption, distillation."""

import json

import keras
import numpy as np
import pytest

import tfpeft
from tests.channels.models import classifier, images

TRAIN, VALIDATION = images(48), images(24, seed=1)


@pytest.fixture(scope="module")
def model():
    """A classifier that was trained for a few epochs."""
    keras.utils.set_random_seed(0)
    model = classifier()
    model.fit(*TRAIN, epochs=6, batch_size=16, verbose=0)
    return model


def rounds(model, **options):
    options = {"max_macs": 0.4, "steps": 2, "tolerance": 1.0, "batch_size": 16, **options}
    keras.utils.set_random_seed(1)
    return tfpeft.prune_channels_iteratively(model, TRAIN, VALIDATION, **options)


@pytest.fixture(scope="module")
def result(model):
    before = model.get_weights()
    result = rounds(model)
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    return result


def test_each_round_goes_an_equal_part_of_the_way(model, result):
    own = result.report.macs[0]
    assert len(result.history) == 2
    assert result.history[0]["macs"] <= 0.7 * own < result.history[0]["macs"] * 1.15
    assert result.history[1]["macs"] <= 0.4 * own
    assert result.reached
    assert all(step["held"] for step in result.history)
    assert "removed" not in result.history[0]


def test_the_report_is_of_all_rounds(model, result):
    report, small = result.report, result.model
    assert report.params == (model.count_params(), small.count_params())
    assert report.macs[1] == result.history[-1]["macs"]
    for name, before in (("first", 6), ("second", 8), ("head", 3)):
        layer = small.get_layer(name)
        assert report.widths[name] == (before, getattr(layer, "filters", None) or layer.units)


def test_the_metric_is_the_one_of_the_model_that_is_returned(model, result):
    values = result.model.evaluate(*VALIDATION, return_dict=True, verbose=0)
    assert result.monitor == "accuracy"
    assert result.history[-1]["metric"] == pytest.approx(values["accuracy"])
    assert result.baseline == pytest.approx(
        model.evaluate(*VALIDATION, return_dict=True, verbose=0)["accuracy"]
    )
    assert type(result.model.optimizer) is type(model.optimizer)


def test_a_table(result):
    lines = str(result).splitlines()
    assert len(lines) == 2 + 1 + len(result.history)
    assert "multiply-accumulates" in lines[0]
    assert "accuracy" in lines[0]
    assert "unpruned" in lines[2]
    assert lines[-1].rstrip(" |").endswith("yes")


def test_rounds_of_a_ratio_multiply_to_it(model):
    options = {"max_macs": None, "ratio": 0.5, "scope": "layer", "epochs_per_step": 1}
    report = rounds(model, **options, importance="l2").report
    assert report.widths["first"] == (6, 3)
    assert report.widths["second"] == (8, 4)


def test_rounds_without_a_channel_are_passed_over(model):
    options = {"max_macs": None, "ratio": 0.25, "scope": "layer", "importance": "l1", "steps": 6}
    result = rounds(model, **options)
    # Of 8 channels 2 go, of 6 one: at 1/8, 1/6 and 1/4.
    assert len(result.history) == 3
    assert result.reached
    assert [result.report.widths[name][1] for name in ("first", "second")] == [5, 6]
    with pytest.raises(tfpeft.InputError, match="for which a channel has to be removed"):
        rounds(model, **{**options, "ratio": 0.01})


def test_it_stops_where_the_metric_falls_and_returns_the_last_model_that_held(model):
    still = keras.models.clone_model(model)
    still.set_weights(model.get_weights())
    still.compile(keras.optimizers.SGD(0.0), model.loss, metrics=["accuracy"])
    options = {"monitor": "loss", "importance": "l1", "steps": 3}
    stopped = rounds(still, max_macs=0.15, tolerance=0.0, **options)
    assert (stopped.reached, len(stopped.history)) == (False, 1)
    assert stopped.model is still
    assert stopped.report is None
    assert str(stopped).splitlines()[-1].rstrip(" |").endswith("no")
    gaps = [
        step["metric"] - stopped.baseline
        for step in rounds(still, max_macs=0.15, tolerance=100.0, **options).history
    ]
    limit = (min(gaps) + max(gaps)) / 2
    stopped = rounds(still, max_macs=0.15, tolerance=limit, **options)
    held = [gap <= limit for gap in gaps]
    last = held.index(False)
    assert [step["held"] for step in stopped.history] == held[: last + 1]
    if last:
        assert stopped.report.macs[1] == stopped.history[last - 1]["macs"]
    else:
        assert stopped.model is still


def test_the_limit_per_layer_is_of_the_first_model(model):
    options = {"max_macs": None, "ratio": 0.5, "scope": "layer", "importance": "l1"}
    report = rounds(model, **options, max_ratio_per_layer=0.5).report
    assert report.widths["first"][1] == 3
    with pytest.raises(tfpeft.BudgetError):
        rounds(model, max_macs=0.1, max_ratio_per_layer=0.3, importance="l1")


def test_the_original_teaches(model):
    plain = rounds(model, steps=1, importance="l1").model.get_weights()
    before = model.get_weights()
    taught = rounds(model, steps=1, importance="l1", teacher=model, alpha=0.1, temperature=2.0)
    assert any(
        not np.array_equal(a, b) for a, b in zip(plain, taught.model.get_weights(), strict=True)
    )
    for now, then in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(now, then)
    assert [layer.trainable for layer in model.layers] == [True] * len(model.layers)
    assert set(taught.model.evaluate(*VALIDATION, return_dict=True, verbose=0)) == {
        "loss",
        "accuracy",
    }


class Interrupted(Exception):
    """What stands for the end of the process."""


def interrupted(model, monkeypatch, folder, **options):
    """Runs rounds that end in the training of the second one."""
    fits, fit = [], keras.Model.fit

    def counted(self, *args, **kwargs):
        fits.append(1)
        if len(fits) == 2:
            raise Interrupted
        return fit(self, *args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(keras.Model, "fit", counted)
        with pytest.raises(Interrupted):
            rounds(model, directory=folder, **options)


def test_interrupted_it_goes_on_after_the_last_round(model, monkeypatch, tmp_path):
    options = {"steps": 3, "importance": "l1"}
    interrupted(model, monkeypatch, tmp_path, **options)
    record = json.loads((tmp_path / "history.json").read_text())
    assert len(record["history"]) == 1
    first = record["history"][0]
    resumed = rounds(model, directory=tmp_path, **options)
    assert len(resumed.history) == 3
    assert resumed.history[0]["metric"] == first["metric"]
    assert resumed.report.widths["second"][0] == 8
    assert resumed.report.params == (model.count_params(), resumed.model.count_params())
    again = rounds(model, directory=tmp_path, **options)  # it only reads
    assert again.history == resumed.history
    for ours, theirs in zip(again.model.get_weights(), resumed.model.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    with pytest.raises(tfpeft.InputError, match="`directory`.*steps was 3 and is 4"):
        rounds(model, directory=tmp_path, **{**options, "steps": 4})
    other = keras.models.clone_model(model)
    other.compile("adam", model.loss, metrics=["accuracy"])
    with pytest.raises(tfpeft.InputError, match="`directory`.*weights was"):
        rounds(other, directory=tmp_path, **options)


@pytest.mark.parametrize("damage", ["record", "model", "removed", "missing"])
def test_a_folder_that_is_damaged(model, monkeypatch, tmp_path, damage):
    interrupted(model, monkeypatch, tmp_path, importance="l1")
    record, (file,) = tmp_path / "history.json", tmp_path.glob("round_*.keras")
    if damage == "record":
        record.write_text(record.read_text()[:40])
    elif damage == "model":
        file.write_bytes(file.read_bytes()[:-200])
    elif damage == "missing":
        file.unlink()
    else:
        content = json.loads(record.read_text())
        content["history"][0]["removed"] = [10_000]
        record.write_text(json.dumps(content))
    with pytest.raises(tfpeft.InputError, match="directory") as error:
        rounds(model, directory=tmp_path, importance="l1")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_macs": None}, "a budget"),
        ({"max_macs": 1}, "`max_macs`"),
        ({"max_macs": 0.001}, "`max_macs`, expected at least"),
        ({"steps": 0}, "`steps`, expected an integer of at least 1"),
        ({"epochs_per_step": 0.5}, "`epochs_per_step`"),
        ({"tolerance": -1}, "`tolerance`"),
        ({"importance": "all"}, "`importance`"),
        ({"monitor": "f1"}, "`monitor`"),
        ({"mode": "up"}, "`mode`"),
        ({"verbose": 5}, "`verbose`"),
        ({"directory": ""}, "`directory`"),
        ({"exclude": ["nothing"]}, "`exclude`"),
        ({"teacher": "the model"}, "teacher"),
        ({"teacher": True}, "teacher"),
        ({"alpha": 2.0}, "alpha"),
        ({"temperature": 0}, "temperature"),
    ],
)
def test_input_that_is_not_of_its_kind(model, options, message):
    if "alpha" in options or "temperature" in options:
        options = {**options, "teacher": model}
    with pytest.raises(tfpeft.InputError, match=message):
        rounds(model, importance=options.pop("importance", "l1"), **options)


def test_models_and_data_that_are_not_of_their_kind(model):
    with pytest.raises(tfpeft.InputError, match="`model`.*compiled"):
        rounds(classifier(compiled=False))
    for name, data in (("train", (images(0), VALIDATION)), ("validation", (TRAIN, "images"))):
        with pytest.raises(tfpeft.InputError, match=f"`{name}`"):
            tfpeft.prune_channels_iteratively(model, *data, max_macs=0.5)
