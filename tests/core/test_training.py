"""What `fit` and `evaluate` of every model of tfpeft raise before and after training."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from tfpeft import InputError
from tfpeft.core.training import CheckedModel

X = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
Y = np.arange(8) % 2
BATCHES = tf.data.Dataset.from_tensor_slices((X, Y)).batch(4)


class Logits(CheckedModel):
    def __init__(self):
        super().__init__()
        self.head = keras.layers.Dense(2)

    def call(self, x):
        return self.head(x)


class Batches(keras.utils.PyDataset):
    def __init__(self, count):
        super().__init__()
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        return X[:4], Y[:4]


def endless():
    while True:
        yield X[:4], Y[:4]


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    model = Logits()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"])
    return model


@pytest.mark.parametrize("method", ["fit", "evaluate"])
@pytest.mark.parametrize(
    ("data", "message"),
    [
        ((BATCHES.repeat(),), "`x`, expected a finite dataset, or `steps.*without an end$"),
        ((BATCHES.repeat().filter(lambda x, y: True),), "a finite dataset, or `steps"),
        ((BATCHES.take(0),), "samples, one or more. Received: a dataset without any"),
        ((BATCHES.filter(lambda x, y: False),), "samples, one or more"),
        ((Batches(0),), "a PyDataset without any"),
        ((endless(),), "`x`, expected `steps.*whether a generator ends"),
        ((X[:0], Y[:0]), "an array without any"),
        ((endless, None), "`x`, expected arrays, .* Received: a function$"),
        ((None, Y), "Received: a NoneType$"),
        ((X.tolist(), Y), "Received: a list of float$"),
        ((X, Y[:3]), "`y`, expected as many as samples, 8. Received: 3"),
        ((X, Y.astype(str)), "`y`, expected arrays of real numbers. Received: .*<U"),
        ((X, Y.astype(object)), "`y`, expected arrays of real numbers. Received: .* object"),
        ((X, Y + 1j), "`y`, expected arrays of real numbers. .*complex128"),
        ((X + 1j, Y), "`x`, expected arrays of real numbers.*complex numbers$"),
        ((BATCHES.map(lambda x, y: (tf.cast(x, tf.complex64), y)),), "`x`.* complex numbers$"),
    ],
)
def test_data_that_cannot_be_used(model, method, data, message):
    with pytest.raises(InputError, match=message) as raised:
        getattr(model, method)(*data, verbose=0)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        (np.full(8, np.nan), "`sample_weight`, expected finite weights"),
        (np.ones(3), "`sample_weight`, expected as many as samples, 8. Received: 3"),
    ],
)
def test_weights_that_cannot_be_used(model, weights, message):
    with pytest.raises(InputError, match=message):
        model.fit(X, Y, sample_weight=weights, verbose=0)


@pytest.mark.parametrize(
    "data", [BATCHES.repeat(), BATCHES.take(0), endless(), BATCHES.filter(lambda x, y: False)]
)
def test_validation_data_is_checked_too(model, data):
    with pytest.raises(InputError, match="expected"):
        model.fit(X, Y, validation_data=data, verbose=0)


def test_steps_end_data_without_an_end(model):
    options = {"steps_per_epoch": 2, "validation_steps": 1, "verbose": 0}
    history = model.fit(BATCHES.repeat(), validation_data=endless(), **options).history
    assert len(history["val_loss"]) == 1


def test_labels_of_another_rank_are_traced_anew(model):
    for labels in (Y, Y[:, None]):
        model.fit(X, labels, batch_size=8, verbose=0)
    losses = [model.evaluate(X, labels, batch_size=8, verbose=0) for labels in (Y[:, None], Y)]
    assert losses[0] == losses[1]


class Counted(Logits):
    """Counts how often Keras traces its steps, of which each has one loss."""

    def __init__(self):
        super().__init__()
        self.traced = 0
        self.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))

    def compute_loss(self, *args, **kwargs):
        self.traced += 1
        return super().compute_loss(*args, **kwargs)


def test_what_was_traced_is_kept_for_other_containers():
    model = Counted()
    column = tf.data.Dataset.from_tensor_slices((X, Y[:, None])).batch(4)
    kinds = {
        "arrays": lambda: model.fit(X, Y, batch_size=4, verbose=0),
        "a dataset": lambda: model.fit(BATCHES, verbose=0),
        "one batch": lambda: model.train_on_batch(X[:4], Y[:4]),
        "tensors": lambda: model.fit(tf.constant(X), tf.constant(Y), batch_size=4, verbose=0),
        "a generator": lambda: model.fit(endless(), steps_per_epoch=2, verbose=0),
        "a PyDataset": lambda: model.fit(Batches(2), verbose=0),
        "another rank": lambda: model.fit(column, verbose=0),
        "evaluate": lambda: model.evaluate(BATCHES, verbose=0),
        "evaluate arrays": lambda: model.evaluate(X, Y, batch_size=4, verbose=0),
    }
    for call in (*kinds.values(), *kinds.values()):
        call()
    before = model.traced
    for call in kinds.values():
        call()
    assert model.traced == before


def test_compile_ends_what_was_traced():
    model = Counted()
    for labels in (Y, Y[:, None]):
        model.fit(X, labels, batch_size=8, verbose=0)
    model.compile("sgd", lambda y, logits: 0.0 * logits[:, 0] + 3.0)
    for labels in (Y, Y[:, None], Y):
        history = model.fit(X, labels, batch_size=8, verbose=0).history
        assert history["loss"] == [3.0]
