"""Models that were trained once, for pruning in rounds."""

import keras
import numpy as np

import tfpeft
from tests.networks import X, Y, compiled, sequential, train

_trained = {}  # build -> weights


def trained(build=sequential, optimizer=None):
    """Returns a compiled model that was trained, the first time; its weights are kept."""
    keras.utils.set_random_seed(0)
    model = compiled(
        build(), optimizer or keras.optimizers.SGD(0.1, momentum=0.9), metrics=["accuracy"]
    )
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


def _largest_first(kernel):
    return -np.abs(kernel.numpy())


def plain_model():
    layers = [keras.layers.Dense(4, name="hidden"), keras.layers.Dense(2, name="head")]
    model = keras.Sequential([keras.Input((3,)), *layers])
    model.compile("sgd", "mse")
    return model


IN, OUT = np.ones((8, 3), "float32"), np.ones((8, 2), "float32")
