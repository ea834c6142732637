"""The stages of a run: each takes models and data, and returns a new model."""

import math
import sys

import keras
import numpy as np

import tfpeft
from pipelines import common
from tfpeft.core.checks import input_errors
from tfpeft.evaluation.quality import are_logits
from tfpeft.sparsity.gradients import NonFiniteGradientsError

FLAGS = common.FLAGS


class KeepBest(keras.callbacks.Callback):
    """Ends training with the weights of the epoch that was best on validation data.

    Among equals the last one counts: on little data accuracies are coarse, and the later epoch
    has the lower learning rate. Epochs that end before `first_step` updates do not count.
    """

    def __init__(self, first_step=0):
        super().__init__()
        self.first_step = first_step
        self.best, self.weights = -math.inf, None

    def on_epoch_end(self, epoch, logs=None):
        done = int(self.model.optimizer.iterations)
        if done >= self.first_step and logs["val_accuracy"] >= self.best:
            self.best, self.weights = logs["val_accuracy"], self.model.get_weights()

    def on_train_end(self, logs=None):
        self.model.set_weights(self.weights)


def fit(model, data, *, from_logits, train=None, sparsify=None, first_step=0):
    """Compiles and trains `model` as the flags say; `sparsify` wraps the optimizer.

    `train` is what a Distiller trains on, instead of the data's own pairs.
    """
    optimizer = keras.optimizers.Adam(
        keras.optimizers.schedules.CosineDecay(FLAGS.learning_rate, total_steps(data))
    )
    model.compile(
        optimizer=sparsify(optimizer) if sparsify else optimizer,
        loss=keras.losses.SparseCategoricalCrossentropy(from_logits=from_logits),
        metrics=["accuracy"],
    )
    try:
        with input_errors():
            model.fit(
                *(train or data.train),
                validation_data=data.validation,
                batch_size=FLAGS.batch_size,
                epochs=FLAGS.epochs,
                callbacks=[*([tfpeft.SparsityLogger()] if sparsify else []), KeepBest(first_step)],
                # A bar that redraws itself is for a terminal; a log gets a line an epoch.
                verbose=1 if sys.stdout.isatty() else 2,
            )
    except NonFiniteGradientsError as error:
        raise ValueError(
            "Training met a gradient that is NaN or infinite, expected finite ones: look for such "
            "values in --dataset, or lower the rate. "
            f"Received: --learning_rate={FLAGS.learning_rate}"
        ) from error


def total_steps(data):
    return FLAGS.epochs * math.ceil(len(data.train[1]) / FLAGS.batch_size)


def answers_logits(model, data):
    return are_logits(np.asarray(model(data.train[0][:256], training=False)))


def teacher(data):
    """Returns the model of a run that has none: a small CNN, or an MLP for flat data."""
    x, _ = data.train
    if x.ndim == 3:
        x = x[..., None]
    normalization = keras.layers.Normalization()
    normalization.adapt(x)
    inputs = keras.Input(x.shape[1:])
    hidden = normalization(inputs)
    if x.ndim == 4:
        for filters, dropout in ((32, 0.1), (64, 0.2), (128, 0.3)):
            hidden = keras.layers.Conv2D(filters, 3, padding="same", use_bias=False)(hidden)
            hidden = keras.layers.BatchNormalization()(hidden)
            hidden = keras.layers.ReLU()(hidden)
            if min(hidden.shape[1:3]) >= 4:
                hidden = keras.layers.MaxPooling2D()(hidden)
            hidden = keras.layers.Dropout(dropout)(hidden)
    hidden = keras.layers.Flatten()(hidden)
    hidden = keras.layers.Dense(256, activation="relu")(hidden)
    hidden = keras.layers.Dropout(0.4)(hidden)
    model = keras.Model(inputs, keras.layers.Dense(data.classes)(hidden), name="teacher")
    fit(model, data.for_model(model), from_logits=True)
    return model
