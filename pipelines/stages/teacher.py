"""The first stage of every run: the model that is given, or a default one that is trained."""

import keras

from pipelines.common import training
from pipelines.common.flags import MODEL_FLAGS
from pipelines.stages.stage import Stage
from tfpeft.core.arguments import unexpected


def run(settings, inputs):
    """Returns the model of --model; without it a small CNN, or an MLP for flat data."""
    if inputs.model is not None:
        return inputs.model
    model = default_model(inputs.data)
    data, objective = inputs.data.for_model(model)
    training.fit(settings, model, data, objective)
    return model


def default_model(data):
    """Returns an untrained model for the data: three convolutions for images, then two layers.

    It holds the normalization of its inputs, so that it reads pixels as they are stored.
    """
    x, _ = data.train
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] > 4:
        expected = "images with channels last, (height, width, channels), without --model"
        raise unexpected(expected, f"--dataset with {x.shape[1:]}")
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
    return keras.Model(inputs, keras.layers.Dense(data.classes)(hidden), name="teacher")


STAGE = Stage("teacher", MODEL_FLAGS, run)
