"""Layers by path, by name and by pattern."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests import networks
from tfpeft.core.arguments import NoMatchError
from tfpeft.core.layers import find_layer, layers_by_path, match_layers, path_of, set_trainable


def model(name="outer"):
    block = keras.Sequential(
        [keras.Input((6,), name="inner_x"), keras.layers.Dense(6, name="dense")], name="block_1"
    )
    layers = [keras.Input((6,), name="x"), block, keras.layers.Dense(6, name="dense")]
    return keras.Sequential([*layers, keras.layers.Dense(2, name="head")], name=name)


def test_paths_go_through_nested_models():
    built = model()
    paths = layers_by_path(built)
    expected = ["x", "block_1", "block_1/inner_x", "block_1/dense", "dense", "head"]
    assert list(paths) == expected
    assert paths["block_1/dense"] is built.layers[0].layers[0]
    assert paths["dense"] is built.layers[1]


def test_a_layer_is_found_by_path_or_its_end():
    built = model()
    assert find_layer([built], "head", "layer").name == "head"
    assert find_layer([built], "block_1/dense", "layer") is built.layers[0].layers[0]
    assert find_layer([built], "dense", "layer") is built.layers[1]  # the path itself goes first
    other = model("other")
    assert find_layer([built, other], "other/head", "layer") is other.layers[-1]
    same_name = [model(), model()]
    assert find_layer(same_name, "1/head", "layer") is same_name[1].layers[-1]


def test_a_layer_that_is_not_found():
    with pytest.raises(NoMatchError, match="`layer`, expected .* such as .*head.*layer='haed'"):
        find_layer([model()], "haed", "layer")
    with pytest.raises(NoMatchError, match="one of the paths other/head, outer/head"):
        find_layer([model(), model("other")], "head", "layer")
    with pytest.raises(NoMatchError, match="there are none"):
        find_layer([], "head", "layer")


def test_patterns_match_the_path_or_a_name_in_it():
    paths = layers_by_path(model())
    for patterns, expected in [
        (["dense"], ["block_1/dense", "dense"]),
        (["block_*"], ["block_1", "block_1/inner_x", "block_1/dense"]),
        (["block_1/d*"], ["block_1/dense"]),
        (["h?ad", "none"], ["head"]),
        (["Head"], []),
        ([], []),
    ]:
        assert list(match_layers(paths, patterns)) == expected


def test_the_flag_reaches_layers_below_a_frozen_model():
    built = model()
    built.trainable = False
    built.layers[0].layers[0].trainable = True
    set_trainable(built, False)
    assert not any(layer.trainable for layer in layers_by_path(built).values())
    set_trainable(built, True)
    assert len(built.trainable_variables) == 6


def test_paths_of_variables():
    kernel = networks.sequential().layers[0].kernel
    assert path_of(kernel).endswith("hidden/kernel")
    assert path_of(tf.Variable(np.ones(2), name="scale")).startswith("scale")
