"""States in files: those of another optimizer are left out with a warning."""

import keras
import numpy as np
import pytest

import tfpeft
from tests.networks import compiled, sequential, train, zeros

HALF = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=8, frequency=1)
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(1e-2),
    "magnitude": lambda: tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-2), HALF),
    "gradient": lambda: tfpeft.GradientPruning(keras.optimizers.Adam(1e-2), HALF),
    "straight_through": lambda: tfpeft.MagnitudePruning(
        keras.optimizers.Adam(1e-2), HALF, straight_through=True
    ),
    "proximal": lambda: tfpeft.ProximalL1(keras.optimizers.Adam(1e-2, use_ema=True), 0.1),
    "fixed": lambda: tfpeft.FixedMask(keras.optimizers.Adam(1e-2)),
}


def built(name, run=False):
    model = compiled(sequential(), OPTIMIZERS[name]())
    model.optimizer.build(model.trainable_variables)
    if run:
        gradients = [np.ones(v.shape, "float32") for v in model.trainable_variables]
        model.optimizer.apply(gradients, model.trainable_variables)
    return model


@pytest.mark.parametrize(
    ("saved", "here", "lost"),
    [
        ("adam", "magnitude", "mask"),
        ("magnitude", "gradient", "mask, score"),
        ("gradient", "straight_through", "dense, mask"),
    ],
)
def test_states_of_another_optimizer_start_anew(tmp_path, saved, here, lost):
    path = tmp_path / "model.weights.h5"
    model = built(saved, run=True)
    model.save_weights(path)
    other = built(here)
    message = f"Skipping variable loading.* it has .*start anew: {lost}.$"
    with pytest.warns(UserWarning, match=message):
        other.load_weights(path)
    for weight, expected in zip(other.weights, model.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy())
    assert all(np.all(mask.numpy()) for mask in other.optimizer._states["mask"])


def test_an_optimizer_without_states_loses_none(tmp_path):
    built("magnitude").save_weights(tmp_path / "model.weights.h5")
    with pytest.warns(UserWarning, match=r"it has 2 .*4 \(mask\). Those .* are not used.$"):
        built("proximal").load_weights(tmp_path / "model.weights.h5")


def test_an_equal_optimizer_without_states_loads_without_a_warning(tmp_path, recwarn):
    built("proximal", run=True).save_weights(tmp_path / "model.weights.h5")
    built("proximal").load_weights(tmp_path / "model.weights.h5")
    assert not [each for each in recwarn if "Skipping" in str(each.message)]


def test_states_of_an_equal_optimizer_are_loaded(tmp_path):
    model = built("magnitude", run=True)
    model.save_weights(tmp_path / "model.weights.h5")
    other = built("magnitude")
    other.load_weights(tmp_path / "model.weights.h5")
    masks = [np.mean(mask.numpy()) for mask in other.optimizer._states["mask"]]
    assert masks == [0.5, 0.5]


def test_masks_are_rebuilt_from_zeros_where_these_are_to_be_kept(tmp_path):
    model = built("gradient", run=True)
    model.save_weights(tmp_path / "model.weights.h5")
    other = built("fixed")
    with pytest.warns(UserWarning, match="it has 4 .mask. variables, and the file 6 .mask, score"):
        other.load_weights(tmp_path / "model.weights.h5")
    train(other, epochs=1)
    assert [zeros(layer.kernel) for layer in other.layers] == [30, 15]


def test_an_optimizer_that_is_not_built_yet_warns_as_well(tmp_path):
    built("magnitude").save_weights(tmp_path / "model.weights.h5")
    model = compiled(sequential(), OPTIMIZERS["magnitude"]())
    with pytest.warns(UserWarning, match="Skipping variable loading for 'magnitude"):
        model.load_weights(tmp_path / "model.weights.h5")


def test_states_by_number_are_those_of_version_0_1_0():
    first, second = built("magnitude", run=True).optimizer, built("magnitude").optimizer
    second.load_own_variables({str(i): v.numpy() for i, v in enumerate(first._variables)})
    for mask, expected in zip(second._states["mask"], first._states["mask"], strict=True):
        np.testing.assert_array_equal(mask.numpy(), expected.numpy())
    with pytest.warns(UserWarning, match=r"the shape of mask_1 is \(10, 3\).*\(2, 2\)"):
        second.load_own_variables(
            {"0": np.zeros(()), "1": np.zeros(()), "mask_0": np.ones((6, 10)), "mask_1": np.eye(2)}
        )


def test_a_whole_h5_file_loads_and_trains_on(tmp_path):
    model = compiled(sequential(), OPTIMIZERS["magnitude"]())
    model.compile(model.optimizer, keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    train(model, epochs=1)
    model.save(tmp_path / "model.h5")
    loaded = keras.models.load_model(tmp_path / "model.h5")
    assert [zeros(layer.kernel) for layer in loaded.layers] == [30, 15]
    train(loaded, epochs=1)
    assert [zeros(layer.kernel) for layer in tfpeft.strip_pruning(loaded).layers] == [30, 15]
