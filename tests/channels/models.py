"""Models whose channels are removed, and the removal of named channels."""

import pathlib
import sys

import keras
import numpy as np

from tfpeft.channels.dependency_graph import PRODUCES
from tfpeft.channels.plan import Plan
from tfpeft.core.layers import layers_by_path

sys.path.append(str(pathlib.Path(__file__).parents[2] / "benchmarks"))

import random_models  # noqa: E402

layers = keras.layers


def with_random_weights(model, seed=0):
    """Returns a model whose weights, statistics too, are random."""
    random_models.set_random_weights(model, np.random.default_rng(seed))
    return model


def functional(shape, build, **options):
    """Returns a model with random weights, of a function of its input."""
    inputs = keras.Input(shape, **options)
    return with_random_weights(keras.Model(inputs, build(inputs)))


def without(model, channels, *, verify=False, **options):
    """Returns the model without some channels.

    Args:
        model: The model.
        channels: {name of a layer: numbers of channels that it makes}.
        verify: Whether the proof runs.
        options: Of `Plan`.
    """
    plan = Plan(model, **options)
    graph = plan.graph
    removed = np.zeros(graph.tags.count, bool)
    named = {path.split("/")[-1]: layer for path, layer in layers_by_path(model).items()}
    for name, numbers in channels.items():
        layer = getattr(named[name], "cell", named[name])
        made = next(s for s in graph.slices if s.layer is layer and s.role == PRODUCES)
        roots = graph.tags.roots(made.tags[list(numbers)])
        assert np.all(roots > 0), f"{name} is fixed"
        removed[roots] = True
    return plan.finish(plan.without(removed), removed, {}, verify=verify)


def widths(model, **options):
    """Returns {name of a layer: how many of its channels can be removed}."""
    graph = Plan(model, **options).graph
    return {
        each.layer.name: len(np.unique(each.tags[graph.tags.roots(each.tags) > 0]))
        for each in graph.slices
        if each.role == PRODUCES and len(each.variable.shape) > 1
    }


def classifier(compiled=True):
    """Returns a small convolutional classifier of 8 x 8 images, compiled with accuracy."""
    model = functional(
        (8, 8, 2),
        lambda x: layers.Dense(3, name="head")(
            layers.GlobalAveragePooling2D()(
                layers.Conv2D(8, 3, activation="relu", name="second")(
                    layers.ReLU()(
                        layers.BatchNormalization(name="norm")(
                            layers.Conv2D(6, 3, use_bias=False, name="first")(x)
                        )
                    )
                )
            )
        ),
    )
    if compiled:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(1e-2), loss, metrics=["accuracy"])
    return model


def images(count=48, seed=0):
    """Returns images of three classes that differ in brightness, and their labels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return rng.normal(size=(count, 8, 8, 2)).astype("float32") + labels[:, None, None, None], labels


def head(x):
    return layers.Dense(2, name="head")(x)


def flat(x):
    return head(layers.Flatten()(x))


def residual(x):
    x = layers.Dense(4, name="a")(x)
    return head(layers.Add()([x, layers.Dense(4, name="c")(layers.Dense(3, name="b")(x))]))
