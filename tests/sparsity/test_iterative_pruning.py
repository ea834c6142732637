"""Pruning in rounds and layer sensitivity against NumPy and numbers worked by hand."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.networks import MODELS, X, Y, compiled, sequential, train, zeros
from tests.sparsity.rounds import (
    IN,
    OUT,
    _largest_first,
    plain_model,
    prune,
    sparsity,
    trained,
)
from tfpeft.core.arguments import InputError


@pytest.mark.parametrize("build", MODELS)
def test_rounds_reach_the_target_and_leave_the_model_alone(build):
    model = trained(build)
    optimizer = model.optimizer
    before, metrics = model.get_weights(), model.evaluate(X, Y, verbose=0, return_dict=True)
    pruned = prune(model, batch_size=8)
    assert pruned.reached
    assert pruned.monitor == "accuracy"
    assert pruned.baseline == pytest.approx(metrics["accuracy"])
    kernels = {id(w): w for w in model.trainable_weights if len(w.shape) > 1}
    size = sum(w.numpy().size for w in kernels.values())
    expected = [1 - round(size * kept) / size for kept in (0.8, 0.6, 0.4)]
    np.testing.assert_allclose([s["sparsity"] for s in pruned.history], expected)
    assert pruned.history[-1]["sparsity"] == pytest.approx(sparsity(pruned.model))
    result = pruned.model.evaluate(X, Y, verbose=0, return_dict=True)
    assert result["accuracy"] == pytest.approx(pruned.history[-1]["metric"])
    for old, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, old)
    assert model.optimizer is optimizer
    tfpeft.strip_pruning(pruned.model)
    assert f"| {100 * sparsity(pruned.model):.2f} |" in str(pruned)


@pytest.mark.parametrize("scope", ["layer", "global", "erk"])
def test_one_round_by_hand(scope):
    model = trained()
    kernels = [layer.kernel.numpy() for layer in model.layers]
    pruned = prune(
        model, target_sparsity=0.4, step=1.0, scope=scope, epochs_per_step=1, batch_size=32
    )
    if scope == "global":
        limit = np.sort(np.concatenate([np.abs(k).reshape(-1) for k in kernels]))[36]
        expected = [np.abs(k) >= limit for k in kernels]
    else:
        # erk: 54 weights, 16/60 and 13/30; scale = 54 / 29, densities .497 and .807
        kept = {"layer": (36, 18), "erk": (30, 24)}[scope]
        expected = [
            np.abs(k) >= np.sort(np.abs(k).reshape(-1))[-n]
            for k, n in zip(kernels, kept, strict=True)
        ]
    for layer, mask in zip(pruned.model.layers, expected, strict=True):
        np.testing.assert_array_equal(layer.kernel.numpy() != 0, mask)


@pytest.mark.parametrize("data", ["arrays", "dataset"])
def test_gradient_importance_of_a_linear_model_by_hand(data):
    """mse of x w: dL/dw = 2/n x^T (x w - y), and the mean of |w dL/dw| over batches."""
    keras.utils.set_random_seed(1)
    x, y = X, X[:, :2].copy()
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, use_bias=False)])
    model.compile(keras.optimizers.SGD(0.0), "mse")
    kernel = model.layers[0].kernel.numpy()
    scores = np.zeros_like(kernel)
    for batch in range(4):
        part = slice(8 * batch, 8 * batch + 8)
        gradient = 2 / 16 * x[part].T @ (x[part] @ kernel - y[part])
        scores += np.abs(kernel * gradient) / 4
    given = (x, y) if data == "arrays" else tf.data.Dataset.from_tensor_slices((x, y)).batch(8)
    pruned = tfpeft.prune_iteratively(
        model,
        given,
        (x, y),
        criterion="gradient",
        target_sparsity=0.5,
        step=0.5,
        tolerance=99.0,
        batch_size=8,
    )
    assert pruned.monitor == "loss"
    expected = scores >= np.sort(scores.reshape(-1))[6]
    np.testing.assert_array_equal(pruned.model.layers[0].kernel.numpy() != 0, expected)
    magnitudes = np.abs(kernel)
    assert np.any(expected != (magnitudes >= np.sort(magnitudes.reshape(-1))[6]))


def test_a_custom_criterion():
    model = trained()
    pruned = prune(model, criterion=lambda kernel: -np.abs(kernel.numpy()), target_sparsity=0.2)
    kernel = model.layers[0].kernel.numpy()
    gone = pruned.model.layers[0].kernel.numpy() == 0
    assert np.abs(kernel[gone]).min() > np.abs(kernel[~gone]).max()


def test_it_stops_where_the_metric_falls_and_returns_the_last_that_held():
    model = trained()
    calls = []

    def worthless_after_two(kernel):
        calls.append(kernel.path)
        return np.abs(kernel.numpy()) * (1 if len(calls) <= 4 else -1)

    pruned = prune(
        model, criterion=worthless_after_two, target_sparsity=0.9, step=0.25, tolerance=0.13
    )
    held = [step["held"] for step in pruned.history]
    assert held == [True] * (len(held) - 1) + [False]
    assert not pruned.reached
    kept = pruned.history[-2] if len(held) > 1 else {"sparsity": 0.0, "metric": pruned.baseline}
    np.testing.assert_allclose(sparsity(pruned.model), kept["sparsity"], atol=0.01)
    accuracy = pruned.model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"]
    assert accuracy == pytest.approx(kept["metric"])
    assert pruned.baseline - pruned.history[-1]["metric"] > 0.13


def test_loss_is_better_when_lower():
    model = trained()
    assert prune(model, monitor="loss", tolerance=50.0).reached
    strict = prune(model, monitor="loss", tolerance=0.0, step=0.6, criterion=_largest_first)
    assert not strict.reached
    assert strict.history[0]["metric"] > strict.baseline


def test_densities_share_the_sparsity_out():
    model = trained()
    pruned = prune(model, target_sparsity=0.5, step=0.5, densities={"hidden": 0.2, "head": 0.8})
    # 45 weights: 60 * .2 s + 30 * .8 s = 45 makes s = 1.25; densities .25 and 1.
    assert [zeros(layer.kernel) for layer in pruned.model.layers] == [45, 0]


def test_what_is_zero_stays_zero():
    model = trained()
    kernel = model.layers[0].kernel
    kernel.assign(kernel * (np.arange(60).reshape(6, 10) % 3 > 0))
    gone = kernel.numpy() == 0
    pruned = prune(model, target_sparsity=0.6, step=0.2, scope="layer")
    assert np.all(pruned.model.layers[0].kernel.numpy()[gone] == 0)
    np.testing.assert_allclose(
        [s["sparsity"] for s in pruned.history], [20 / 90 + 0.2, 0.6], rtol=1e-6
    )
    with pytest.raises(ValueError, match=r"`target_sparsity`.*\(0.222222, 1\).*0.2"):
        prune(model, target_sparsity=0.2)


def test_interrupted_it_goes_on_after_the_last_round(tmp_path):
    model, rounds = trained(), []

    def criterion(kernel):
        rounds.append(kernel.path)
        if len(rounds) == 5:  # two kernels a round: in the third
            raise InterruptedError
        return np.abs(kernel.numpy())

    with pytest.raises(InterruptedError):
        prune(model, criterion=criterion, directory=tmp_path / "rounds")
    (tmp_path / "rounds" / "partial.keras").write_text("cut off")
    done = len(rounds)
    pruned = prune(model, criterion=criterion, directory=tmp_path / "rounds")
    assert len(rounds) - done == 2
    np.testing.assert_allclose([s["sparsity"] for s in pruned.history], [0.2, 0.4, 0.6])
    again = prune(model, criterion=criterion, directory=tmp_path / "rounds")
    assert len(rounds) - done == 2
    assert again.history == pruned.history
    assert again.reached
    for expected, weight in zip(pruned.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, expected)
    with pytest.raises(ValueError, match="`directory`.*tolerance was 1.0 and is 0.5"):
        prune(model, criterion=criterion, directory=tmp_path / "rounds", tolerance=0.5)
    train(model, epochs=1)
    with pytest.raises(ValueError, match="`directory`.*weights was"):
        prune(model, criterion=criterion, directory=tmp_path / "rounds")


def test_the_result_can_be_saved_and_trained_on(tmp_path):
    pruned = prune(trained(optimizer=keras.optimizers.Adam(1e-2)), target_sparsity=0.4)
    assert isinstance(pruned.model.optimizer.inner_optimizer, keras.optimizers.Adam)
    pruned.model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    train(loaded)
    np.testing.assert_allclose(sparsity(loaded), 0.4, atol=0.01)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target_sparsity": 1.0}, "`target_sparsity`.*1.0"),
        ({"step": 0}, "`step`.*0"),
        ({"tolerance": -1}, "`tolerance`.*-1"),
        ({"epochs_per_step": 0}, "`epochs_per_step`.*0"),
        ({"criterion": "size"}, "`criterion`.*'size'"),
        ({"criterion": lambda kernel: np.full(kernel.shape, np.nan)}, "`criterion`.*finite.*nan"),
        ({"scope": "all"}, "`scope`.*'all'"),
        ({"densities": {"hidden": 0.5}}, "`densities`.*head/kernel"),
        ({"densities": {"hidden": 0.5, "head": 1, "tail": 1}}, "`densities`.*tail"),
        ({"densities": {"hidden": 0, "head": 1}}, "`densities`.*> 0"),
        ({"exclude": ["tail"]}, "`exclude`.*tail"),
        ({"exclude": "head"}, "`exclude`.*'head'"),
        ({"monitor": "recall"}, "`monitor`.*accuracy.*'recall'"),
    ],
)
def test_bad_input_names_the_argument(options, message):
    with pytest.raises(ValueError, match=message):
        prune(trained(), **options)


def test_bad_models_and_data_are_named():
    model = trained()
    with pytest.raises(ValueError, match="`model`.*compiled model"):
        prune(sequential())
    with pytest.raises(ValueError, match="`train`.*Dataset.*list"):
        tfpeft.prune_iteratively(model, [X, Y], (X, Y), target_sparsity=0.5)
    with pytest.raises(ValueError, match=r"`sparsities`.*\(0, 1\)"):
        tfpeft.layer_sensitivity(model, (X, Y), [])
    sparse = compiled(sequential(), tfpeft.StaticSparse(keras.optimizers.Adam(), 0.5))
    with pytest.raises(ValueError, match="`model`.*plain optimizer.*StaticSparse"):
        prune(sparse)


def test_the_history_has_the_zeros_that_there_are():
    model = trained()
    kernel = model.layers[0].kernel
    kernel.assign(np.where(np.arange(60).reshape(6, 10) < 55, 0, kernel))
    # 55 of 60 are zero already, and round(30 * .3) = 9 of 30 stay: 76 of 90.
    pruned = prune(model, target_sparsity=0.7, step=1.0, scope="layer")
    assert pruned.reached
    assert [round(90 * step["sparsity"]) for step in pruned.history] == [76]
    assert sparsity(pruned.model) == pytest.approx(76 / 90)


def test_it_resumes_models_that_cannot_be_loaded_by_themselves(tmp_path):
    class Own(keras.layers.Layer):
        def call(self, inputs):
            return -inputs

    def build():
        return keras.Sequential(
            [
                *(keras.Input((6,)), keras.layers.Lambda(lambda x: 2 * x), Own()),
                *(keras.layers.Dense(4), keras.layers.Dense(3)),
            ]
        )

    model = trained(build)
    first = prune(model, directory=tmp_path)
    again = prune(model, directory=tmp_path)
    assert again.history == first.history
    for expected, weight in zip(first.model.weights, again.model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())


def test_gradient_importance_with_lists_and_kernels_out_of_reach():
    class Stop(keras.layers.Layer):
        def call(self, inputs):
            return keras.ops.stop_gradient(inputs)

    inputs = [keras.Input((6,)), keras.Input((6,))]
    hidden = [keras.layers.Dense(4)(each) for each in inputs]
    model = keras.Model(inputs, keras.layers.Add()([hidden[0], Stop()(hidden[1])]))
    model.compile("sgd", "mse")
    data = ([X, X], X[:, :4])
    pruned = tfpeft.prune_iteratively(
        model, data, data, target_sparsity=0.5, step=0.5, tolerance=100.0, criterion="gradient"
    )
    # The kernel without a gradient is unimportant as a whole.
    assert sorted(zeros(w) for w in pruned.model.weights if len(w.shape) > 1) == [0, 24]


def test_a_step_too_small_to_remove_a_weight_raises():
    with pytest.raises(ValueError, match="`step`.*removes a weight.*0.001"):
        prune(trained(), step=0.001)


def test_rounds_of_an_older_version_are_continued(tmp_path):
    """Its history.json had the same fields, but for the settings that are new."""
    model = trained()
    first = prune(model, target_sparsity=0.4, directory=tmp_path)
    record = tmp_path / "history.json"
    saved = json.loads(record.read_text())
    del saved["settings"]["mode"]
    assert set(saved) == {"settings", "monitor", "baseline", "history"}
    record.write_text(json.dumps(saved, indent=2))
    again = prune(model, target_sparsity=0.4, directory=tmp_path)
    assert again.history == first.history
    for change, message in (
        (
            {"monitor": "nonsense"},
            "`directory`, expected rounds whose metric is accuracy.*nonsense",
        ),
        ({"baseline": float("nan")}, "`directory`.*history.json is damaged.*a finite number"),
        ({"baseline": float("inf")}, "`directory`.*history.json is damaged.*a finite number"),
    ):
        record.write_text(json.dumps({**saved, **change}))
        with pytest.raises(InputError, match=message):
            prune(model, target_sparsity=0.4, directory=tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="`directory`.*empty folder.*other files"):
        prune(model, directory=tmp_path / "other")


def prune_half(**arguments):
    data = (IN, OUT)
    return tfpeft.prune_iteratively(
        plain_model(), data, data, target_sparsity=0.5, step=0.5, **arguments
    )


@pytest.mark.parametrize(
    ("densities", "message"),
    [
        ({"hidden": np.inf, "head": 1.0}, r"`densities`.*finite number > 0.*inf"),
        ({"hidden": np.nan, "head": 1.0}, r"`densities`.*finite number > 0.*nan"),
        ({"hidden": 1.0, "head": -1.0}, r"`densities`.*finite number > 0.*-1"),
        ({"hidden": "1", "head": 1.0}, r"`densities`.*finite number > 0.*'1'"),
        ({"hidden": True, "head": 1.0}, r"`densities`.*finite number > 0.*True"),
        ({"hidden": 1.0, "head": 1.0, "tail": 1.0}, "`densities`.*names among.*tail"),
        ({"hidden": 1e308, "head": 1e308}, "`densities`.*numbers that give 50% zeros"),
    ],
)
def test_densities_that_are_no_numbers_or_do_not_give_the_sparsity(densities, message):
    with pytest.raises(InputError, match=message):
        prune_half(densities=densities)


@pytest.mark.parametrize(
    ("criterion", "message"),
    [
        (lambda: 0, "`criterion`.*which failed: TypeError"),
        (lambda v: np.full(v.shape, np.nan), "`criterion`.*finite scores.*nan or infinite"),
        (lambda v: np.ones(3), r"`criterion`.*\(3, 4\).*shape \(3,\)"),
        (lambda v: "abc", "`criterion`.*type <U3"),
    ],
)
def test_criteria_that_give_no_scores(criterion, message):
    with pytest.raises(InputError, match=message):
        prune_half(criterion=criterion)
