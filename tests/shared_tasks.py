"""Two tiny tasks on one backbone, for the tests of sharing."""

import functools

import keras
import numpy as np

import tfpeft

rng = np.random.default_rng(0)
X = rng.normal(size=(24, 6)).astype("float32")
LABELS = {"zoo": rng.integers(0, 3, 24), "age": rng.integers(0, 2, 24)}
HARD = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def backbone():
    return keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(8, activation="relu", name="hidden"),
            keras.layers.BatchNormalization(name="norm"),
            keras.layers.Dropout(0.5),
            keras.layers.Dense(5, name="last"),
        ]
    )


@functools.cache
def pretrained():
    keras.utils.set_random_seed(0)
    model = backbone()
    model.compile("sgd", "mse")
    model.fit(X, rng.normal(size=(24, 5)), epochs=2, verbose=0)
    return model


def shared_model(heads=None, seed=1, **options):
    keras.utils.set_random_seed(seed)
    return tfpeft.SharedModel(pretrained(), heads or {"zoo": 3, "age": 2}, **options)


def compiled(model, optimizer=None, loss=HARD, **options):
    # With momentum: it has a state for each variable, as Adam, and half of the time to trace.
    optimizer = optimizer or keras.optimizers.SGD(0.1, momentum=0.9)
    model.compile(optimizer, loss, **options)
    return model


def fitted(model, x=X, y=None, **options):
    options = {"batch_size": 8, "shuffle": False, "verbose": 0, "epochs": 1, **options}
    model.fit(x, LABELS if y is None else y, **options)
    return model


def randomized(model, seed=3):
    """Moves the trainable variables away from their initial values."""
    values = np.random.default_rng(seed)
    for variable in model.trainable_variables:
        variable.assign(variable + values.normal(0.0, 0.3, variable.shape))
    return model


def predict(model, x=X):
    """Returns outputs as arrays, in eager code: `Model.predict` traces every model anew."""
    return keras.tree.map_structure(np.asarray, model(x, training=False))


def assert_same_weights(model, other):
    for expected, weight in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(weight.numpy(), expected.numpy(), err_msg=weight.path)


def cross_entropies(logits, labels):
    """Returns the cross-entropy of each sample, by NumPy."""
    logits = logits - logits.max(axis=1, keepdims=True)
    return np.log(np.exp(logits).sum(axis=1)) - logits[np.arange(len(labels)), labels]
