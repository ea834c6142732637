"""Pruning in rounds and layer sensitivity against NumPy and numbers worked by hand."""

import json

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.networks import MODELS, X, Y, compiled, sequential, train, zeros
from tfpeft.core.arguments import InputError

_trained = {}  # build -> weights


def trained(build=sequential, optimizer=None):
    """Returns a compiled model that was trained, the first time; its weights are kept."""
    keras.utils.set_random_seed(0)
    model = compiled(build(), optimizer or keras.optimizers.Adam(1e-2), metrics=["accuracy"])
    if build not in _trained:
        train(model, epochs=5)
        _trained.setdefault(build, model.get_weights())
    model.set_weights(_trained[build])
    keras.utils.set_random_seed(0)
    return model


def prune(model, **options):
    options = {"target_sparsity": 0.6, "step": 0.2, "tolerance": 1.0, **options}
    return tfpeft.prune_iteratively(model, (X, Y), (X, Y), **options)


def sparsity(model):
    kernels = {id(w): w.numpy() for w in model.trainable_weights if len(w.shape) > 1}
    return sum(np.sum(k == 0) for k in kernels.values()) / sum(k.size for k in kernels.values())


@pytest.mark.parametrize("build", MODELS)
def test_rounds_reach_the_target_and_leave_the_model_alone(build):
    model = trained(build)
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
    assert isinstance(model.optimizer, keras.optimizers.Adam)
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


def _largest_first(kernel):
    return -np.abs(kernel.numpy())


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
    pruned = prune(trained(), target_sparsity=0.4)
    pruned.model.save(tmp_path / "pruned.keras")
    loaded = keras.models.load_model(tmp_path / "pruned.keras")
    train(loaded)
    np.testing.assert_allclose(sparsity(loaded), 0.4, atol=0.01)


def test_sensitivity_is_what_pruning_and_evaluating_say():
    model = trained()
    before = model.get_weights()
    result = tfpeft.layer_sensitivity(model, (X, Y), [0.9, 0.5], batch_size=8)
    assert [(row["kernel"].split("/")[1], row["sparsity"]) for row in result.rows] == [
        ("hidden", 0.5),
        ("hidden", 0.9),
        ("head", 0.5),
        ("head", 0.9),
    ]
    for row in result.rows:
        kernel = next(w for w in model.weights if w.path == row["kernel"])
        values = kernel.numpy()
        limit = np.sort(np.abs(values).reshape(-1))[round(values.size * row["sparsity"])]
        kernel.assign(values * (np.abs(values) >= limit))
        expected = model.evaluate(X, Y, verbose=0, return_dict=True)["accuracy"]
        assert row["metric"] == pytest.approx(expected)
        assert row["weights"] == values.size
        kernel.assign(values)
    for old, weight in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(weight, old)


def test_sensitivity_gives_densities_a_table_and_a_plot(tmp_path):
    rows = [
        {"kernel": kernel, "weights": 10, "sparsity": sparsity, "metric": metric}
        for kernel, metrics in {"a": (0.9, 0.89, 0.5), "b": (0.8, 0.7, 0.6)}.items()
        for sparsity, metric in zip((0.5, 0.7, 0.9), metrics, strict=True)
    ]
    result = tfpeft.LayerSensitivity(0.9, "accuracy", rows)
    assert result.densities(0.01) == {"a": pytest.approx(0.3), "b": 1.0}
    assert result.densities(0.1) == {"a": pytest.approx(0.3), "b": 0.5}
    assert result.densities(1.0) == {"a": pytest.approx(0.1), "b": pytest.approx(0.1)}
    assert "| a | 10 | 0.9000 | 0.8900 | 0.5000 |" in str(result).splitlines()
    result.plot(tmp_path / "plot.png")
    assert (tmp_path / "plot.png").read_bytes().startswith(b"\x89PNG")
    model = trained()
    found = tfpeft.layer_sensitivity(model, (X, Y), [0.3, 0.6])
    assert prune(model, densities=found.densities(0.1), target_sparsity=0.3).reached


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


def test_sensitivity_leaves_what_an_optimizer_promised():
    late = tfpeft.constant_sparsity(0.5, begin=0.5, total_steps=100)
    model = compiled(sequential(), tfpeft.MagnitudePruning(keras.optimizers.SGD(), late))
    train(model)
    compiled(model, keras.optimizers.SGD())
    tfpeft.layer_sensitivity(model, (X, Y), [0.5])
    with pytest.raises(ValueError, match="expected the zeros"):
        tfpeft.strip_pruning(model)


def test_kernels_of_one_path_raise():
    def part(units):
        inputs = keras.Input((6,))
        return keras.Model(inputs, keras.layers.Dense(units, name="same")(inputs))

    inputs = keras.Input((6,))
    model = keras.Model(inputs, part(3)(part(6)(inputs)))
    compiled(model, keras.optimizers.SGD())
    with pytest.raises(ValueError, match="`model`.*different paths.*same/kernel"):
        tfpeft.layer_sensitivity(model, (X, Y), [0.5])


class Batches(keras.utils.PyDataset):
    """The tests' samples in batches of 8; `end` says whether their number is known."""

    def __init__(self, end=True):
        super().__init__()
        self.end = end

    @property
    def num_batches(self):
        return 4 if self.end else None

    def __getitem__(self, index):
        part = slice(8 * (index % 4), 8 * (index % 4) + 8)
        return X[part], Y[part]


def test_datasets_and_pydatasets_are_read_like_arrays():
    model = trained()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    rows = [
        tfpeft.layer_sensitivity(model, data, [0.5], batch_size=8).rows
        for data in ((X, Y), dataset, Batches(), (X, Y, np.ones(32)))
    ]
    assert all(each == rows[0] for each in rows)
    options = {"target_sparsity": 0.4, "step": 0.4, "tolerance": 1.0, "criterion": "gradient"}
    kernels = []
    for data in (dataset, Batches()):
        pruned = tfpeft.prune_iteratively(model, data, data, **options)
        kernels.append([layer.kernel.numpy() for layer in pruned.model.layers])
    for expected, found in zip(*kernels, strict=True):
        np.testing.assert_array_equal(found == 0, expected == 0)


def test_data_without_an_end_or_without_samples_is_named():
    model = trained()
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8)
    for data, message in (
        (dataset.repeat(), "`data`.*finite dataset"),
        (Batches(end=False), "`data`.*PyDataset whose `num_batches`"),
        (lambda: iter([(X, Y)]), "`data`.*whose end is known"),
        (dataset.filter(lambda x, y: False), "`data`.*one or more"),
        ((X[:0], Y[:0]), "`data`.*one or more"),
        ((X, Y[:-1]), "`data`.*as many samples as labels"),
        (X, r"`data`.*\(x, y\)"),
    ):
        with pytest.raises(InputError, match=message):
            tfpeft.layer_sensitivity(model, data, [0.5])


def test_the_direction_of_a_custom_metric_is_to_be_given():
    def surprise(y, logits):
        return keras.losses.sparse_categorical_crossentropy(y, logits, from_logits=True)

    keras.utils.set_random_seed(0)
    model = compiled(sequential(), keras.optimizers.Adam(1e-2), metrics=[surprise])
    train(model, epochs=5)
    with pytest.raises(InputError, match="`mode`.*'surprise' is no metric of Keras"):
        tfpeft.layer_sensitivity(model, (X, Y), [0.5])
    with pytest.raises(InputError, match="`mode`.*'surprise' is no metric of Keras"):
        prune(model)
    options = {"tolerance": 0.0, "step": 0.6, "criterion": _largest_first}
    strict = prune(model, mode="min", **options)  # what was worse did not hold
    assert [strict.reached, strict.history[0]["metric"] > strict.baseline] == [False, True]
    assert prune(model, mode="max", **options).reached
    result = tfpeft.layer_sensitivity(model, (X, Y), [0.9], mode="min")
    assert result.mode == "min"
    worse = {row["kernel"]: row["metric"] > result.baseline for row in result.rows}
    for kernel, density in result.densities(0.0).items():
        assert density == (1.0 if worse[kernel] else pytest.approx(0.1))


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


def plain_model():
    layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    return model


def prune_half(**arguments):
    data = (IN, OUT)
    return tfpeft.prune_iteratively(
        plain_model(), data, data, target_sparsity=0.5, step=0.5, **arguments
    )


IN, OUT = np.ones((8, 3), "float32"), np.ones((8, 2), "float32")


def with_one(array, value):
    changed = array.copy()
    changed[5, 1] = value
    return changed


BAD_DATA = {
    "finite inputs.*NaN": (with_one(IN, np.nan), OUT),
    "finite inputs": (with_one(IN, np.inf), OUT),
    "finite labels": (IN, with_one(OUT, np.inf)),
    "real numbers.*complex": (IN, OUT * 1j),
    "finite sample weights": (IN, OUT, np.full(8, np.nan)),
    "samples, one or more": (IN[:0], OUT[:0]),
    "the model, its loss and its metrics take.*axis -1": (IN[:, :2], OUT),
}


@pytest.mark.parametrize("message", BAD_DATA)
@pytest.mark.parametrize("as_dataset", [False, True])
def test_data_is_checked_at_every_door(message, as_dataset):
    model, bad, good = plain_model(), BAD_DATA[message], (IN, OUT)
    if as_dataset:
        bad = tf.data.Dataset.from_tensor_slices(bad).batch(4)
    options = {"target_sparsity": 0.5, "step": 0.5}
    for name, call in {
        "data": lambda: tfpeft.layer_sensitivity(model, bad, [0.5]),
        "train": lambda: tfpeft.prune_iteratively(model, bad, good, **options),
        "validation": lambda: tfpeft.prune_iteratively(model, good, bad, **options),
    }.items():
        with pytest.raises(InputError, match=f"`{name}`, expected .*{message}") as error:
            call()
        assert "\n" not in str(error.value)


def test_labels_are_needed_in_datasets_too():
    data = tf.data.Dataset.from_tensor_slices(IN).batch(4)
    with pytest.raises(InputError, match="`data`.*without y"):
        tfpeft.layer_sensitivity(plain_model(), data, [0.5])


class Rare(keras.metrics.Metric):
    """NaN, as a recall of a class without samples is."""

    def update_state(self, *args, **kwargs):
        pass

    def result(self):
        return tf.constant(np.nan)


@pytest.mark.parametrize("verbose", [True, False])
def test_only_the_metric_that_decides_has_to_be_finite(verbose, tmp_path):
    model = plain_model()
    model.compile("sgd", "mse", metrics=["mae", Rare(name="rare")])
    options = {"target_sparsity": 0.5, "step": 0.5, "verbose": verbose, "directory": tmp_path}
    for _ in range(2):  # the second time from the folder
        pruned = tfpeft.prune_iteratively(
            model, (IN, OUT), (IN, OUT), monitor="mae", tolerance=9.0, **options
        )
        assert pruned.reached
    found = tfpeft.layer_sensitivity(model, (IN, OUT), [0.5], monitor="loss")
    assert np.isfinite([row["metric"] for row in found.rows]).all()
    with pytest.raises(InputError, match="`model`.*whose rare on these data is not finite"):
        tfpeft.layer_sensitivity(model, (IN, OUT), [0.5], monitor="rare", mode="max")


def test_sparsities_may_be_of_any_kind_that_can_be_read():
    model, data = plain_model(), (IN, OUT)
    rows = tfpeft.layer_sensitivity(model, data, [0.25, 0.5]).rows
    for sparsities in ((s / 4 for s in (2, 1)), map(float, ("0.5", "0.25")), np.array([0.25, 0.5])):
        assert tfpeft.layer_sensitivity(model, data, sparsities).rows == rows
    for sparsities in (iter([]), 0.5, "0.5", np.array(0.5), (s for s in (0.5, 2.0))):
        with pytest.raises(InputError, match=r"`sparsities`, expected .*(0, 1|2.0)"):
            tfpeft.layer_sensitivity(model, data, sparsities)


def test_a_model_that_is_not_finite():
    model = plain_model()
    model.layers[0].kernel.assign(np.full((3, 4), np.nan))
    with pytest.raises(InputError, match="`model`.*whose loss on these data is not finite"):
        tfpeft.layer_sensitivity(model, (IN, OUT), [0.5])


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
