"""Which layers XNNPACK runs sparse: TFMOT's rules on the equal tf_keras model, and the reasons."""

import keras
import numpy as np
import pytest

import tfpeft
from tfpeft.sparsity import schedules

import tf_keras  # isort: skip  (after tfpeft: see sparsity/tfmot_import.py)


def mobile(layers, *, inputs, model, pooled=True, stem_padding=1, middle=None):
    """A small MobileNet in Keras 3 or tf_keras."""
    image = inputs((32, 32, 3))
    x = layers.ZeroPadding2D(stem_padding, name="pad")(image)
    x = layers.Conv2D(8, 3, strides=2, name="stem")(x)
    x = layers.BatchNormalization(name="stem_norm")(x)
    x = layers.ReLU(6.0, name="stem_relu")(x)
    x = layers.Conv2D(16, 1, use_bias=False, name="expand")(x)
    x = layers.DepthwiseConv2D(3, padding="same", name="depthwise")(x)
    if middle is not None:
        x = middle(layers)(x)
    y = layers.Conv2D(16, 1, activation="relu", name="project")(x)
    x = layers.Add(name="add")([x, y])
    end = layers.GlobalAveragePooling2D(name="pool") if pooled else layers.Flatten(name="flat")
    return model(image, layers.Dense(10, name="head")(end(x)))


def in_keras(**options):
    return mobile(keras.layers, inputs=keras.Input, model=keras.Model, **options)


def in_tf_keras(**options):
    return mobile(tf_keras.layers, inputs=tf_keras.Input, model=tf_keras.Model, **options)


def allowed_by_tfmot(model):
    policy = schedules.tfmot.sparsity.keras.PruneForLatencyOnXNNPack()
    policy.ensure_model_supports_pruning(model)
    return [layer.name for layer in model.layers if layer.weights and policy.allow_pruning(layer)]


def test_it_prunes_what_tfmot_prunes():
    policy = tfpeft.prune_for_xnnpack(in_keras())
    assert policy.prunable == ["expand", "project"] == allowed_by_tfmot(in_tf_keras())
    assert set(policy.reasons) == {"stem", "depthwise", "head"}
    assert "skips zeros in 1x1 Conv2D only" in policy.reasons["head"]
    assert sorted(policy.exclude) == ["depthwise", "head", "stem"]
    assert "| expand | yes | |" in str(policy).splitlines()


def test_its_exclude_is_for_the_optimizers():
    model = in_keras()
    policy = tfpeft.prune_for_xnnpack(model)
    schedule = tfpeft.constant_sparsity(0.75, begin=0, total_steps=2, frequency=1)
    optimizer = tfpeft.MagnitudePruning(
        keras.optimizers.SGD(0.01), schedule, exclude=policy.exclude
    )
    model.compile(optimizer, "mse")
    model.fit(np.ones((2, 32, 32, 3)), np.ones((2, 10)), batch_size=1, verbose=0)
    names = {"expand": 0.75, "project": 0.75, "stem": 0.0, "depthwise": 0.0, "head": 0.0}
    for name, sparsity in names.items():
        assert np.mean(model.get_layer(name).kernel.numpy() == 0) == sparsity


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooled": False}, "GlobalAveragePooling2D"),
        ({"stem_padding": 2}, "ZeroPadding2D"),
        (
            {"middle": lambda layers: layers.Conv2D(16, 3, padding="same", name="wide")},
            "wide is a Conv2D, not of 1x1",
        ),
        (
            {"middle": lambda layers: layers.DepthwiseConv2D(7, padding="same", name="large")},
            "large is a DepthwiseConv2D, not of 3x3 or 5x5",
        ),
        ({"middle": lambda layers: layers.Softmax(name="odd")}, "odd is a Softmax"),
    ],
)
def test_what_cannot_run_sparse_raises_with_the_reason_as_in_tfmot(options, message):
    with pytest.raises(ValueError, match=f"`model`.*{message}"):
        tfpeft.prune_for_xnnpack(in_keras(**options))
    with pytest.raises(ValueError, match="."):
        allowed_by_tfmot(in_tf_keras(**options))


def test_a_model_in_the_model_is_seen_through():
    inner = keras.Sequential(
        [
            keras.Input((16, 16, 8)),
            keras.layers.Conv2D(16, 1, name="inner_pointwise"),
            keras.layers.ReLU(name="inner_relu"),
        ],
        name="inner",
    )
    image = keras.Input((32, 32, 3))
    x = keras.layers.ZeroPadding2D(1)(image)
    x = inner(keras.layers.Conv2D(8, 3, strides=2, name="stem")(x))
    x = keras.layers.Dense(3, name="head")(keras.layers.GlobalAveragePooling2D()(x))
    policy = tfpeft.prune_for_xnnpack(keras.Model(image, x))
    assert policy.prunable == ["inner_pointwise"]


def test_frozen_layers_are_no_candidates():
    model = in_keras()
    model.get_layer("project").trainable = False
    policy = tfpeft.prune_for_xnnpack(model)
    assert policy.prunable == ["expand"]
    assert policy.reasons["project"] == "not trainable"
    assert "project" not in policy.exclude


def test_models_without_a_graph_raise():
    with pytest.raises(ValueError, match="`model`.*functional or Sequential"):
        tfpeft.prune_for_xnnpack("model")
    with pytest.raises(ValueError, match="`model`.*functional or Sequential"):
        tfpeft.prune_for_xnnpack(keras.Model())
