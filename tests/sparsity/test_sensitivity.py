"""Sensitivity of layers, and the data that it and pruning in rounds read."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tests.networks import X, Y, compiled, sequential, train
from tests.sparsity.rounds import IN, OUT, _largest_first, plain_model, prune, trained
from tfpeft.core.arguments import InputError


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
