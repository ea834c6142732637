"""The models that scripts train where none is given: one for each task, on numbers or images."""

import keras
import numpy as np

from pipelines.common import recognition, samples
from tfpeft.core.arguments import unexpected

_SAMPLES = 10_000  # whose mean and variance normalise inputs and numbers to predict
_FILTERS = ((32, 0.1), (64, 0.2), (128, 0.3))  # of each convolution, and the dropout behind it


def default_model(data):
    """Returns an untrained model for the data, by its task.

    Images pass three convolutions, and then, unless there is an output for each position, two
    layers; numbers pass two layers. It holds the normalization of its inputs, so that it reads
    pixels as they are stored, and returns numbers to predict in their own unit.
    """
    x, y, _ = samples.some(data.train, _SAMPLES)
    if isinstance(data.task, dict):
        raise unexpected("--model for labels of several outputs", f"--dataset of {data}")
    if isinstance(x, dict):
        inputs = {
            name: keras.Input(array.shape[1:], name=name) for name, array in sorted(x.items())
        }
        flat = [
            keras.layers.Flatten()(_normalized(inputs[name], np.asarray(x[name])))
            for name in inputs
        ]
        return keras.Model(inputs, _head(data, y, keras.layers.Concatenate()(flat)), name="teacher")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[-1] > 4:
        expected = "images with channels last, (height, width, channels), without --model"
        raise unexpected(expected, f"--dataset with {x.shape[1:]}")
    if x.ndim == 3 and np.ndim(y) == 4:  # grey images, of which each pixel has numbers
        x = x[..., None]
    if data.task == "segmentation" or (data.task == "regression" and _has_positions(x, y)):
        return _of_positions(data, x, y)
    if data.task == "reconstruction":
        return _auto_encoder(x)
    if x.ndim == 3:
        x = x[..., None]
    inputs = keras.Input(x.shape[1:])
    hidden = _normalized(inputs, x)
    if x.ndim == 4:
        for filters, dropout in _FILTERS:
            hidden = _convolution(hidden, filters)
            if min(hidden.shape[1:3]) >= 4:
                hidden = keras.layers.MaxPooling2D()(hidden)
            hidden = keras.layers.Dropout(dropout)(hidden)
    return keras.Model(inputs, _head(data, y, keras.layers.Flatten()(hidden)), name="teacher")


def _normalized(inputs, x):
    """Returns inputs of mean 0 and variance 1; a number that is always the same is not divided.

    Divided by almost 0, it would be rounded to anything in integers.
    """
    x = x.reshape(-1, x.shape[-1]).astype("float64")
    variance = np.where(x.std(axis=0) > 1e-6 * np.abs(x).max(axis=0), x.var(axis=0), 1.0)
    return keras.layers.Normalization(mean=x.mean(axis=0), variance=variance)(inputs)


def _convolution(hidden, filters):
    kind = keras.layers.Conv1D if len(hidden.shape) == 3 else keras.layers.Conv2D
    hidden = kind(filters, 3, padding="same", use_bias=False)(hidden)
    return keras.layers.ReLU()(keras.layers.BatchNormalization()(hidden))


def _head(data, y, hidden):
    """Returns the outputs of a task for one vector per sample."""
    hidden = keras.layers.Dense(256, activation="relu")(hidden)
    hidden = keras.layers.Dropout(0.4)(hidden)
    if data.task in recognition.CLASSES:
        return keras.layers.Dense(data.classes)(hidden)
    if data.task == "multi_label":
        return keras.layers.Dense(data.classes, activation="sigmoid")(hidden)
    numbers = np.asarray(y, "float32").reshape(len(y), -1)
    outputs = _in_unit_of(keras.layers.Dense(numbers.shape[1])(hidden), numbers)
    return outputs if y.ndim < 3 else keras.layers.Reshape(y.shape[1:])(outputs)


def _in_unit_of(outputs, y):
    """Returns numbers around 0, as those of a new layer are, in the unit of the labels."""
    y = np.asarray(y, "float64").reshape(-1, y.shape[-1])
    scale = np.where(y.std(axis=0) > 0, y.std(axis=0), 1.0)
    return keras.layers.Rescaling(scale.tolist(), y.mean(axis=0).tolist())(outputs)


def _has_positions(x, y):
    """Whether each position of images or sequences has labels of its own."""
    return x.ndim in (3, 4) and y.ndim > 2 and y.shape[1 : x.ndim - 1] == x.shape[1:-1]


def _of_positions(data, x, y):
    """Returns a model with outputs for each position of images or sequences."""
    if not _has_positions(x, y):
        expected = "images, or sequences (positions, numbers), with a label per position"
        raise unexpected(f"{expected}, without --model", f"inputs of {x.shape[1:]}")
    inputs = keras.Input(x.shape[1:])
    hidden = _normalized(inputs, x)
    for filters, dropout in _FILTERS:
        hidden = keras.layers.Dropout(dropout)(_convolution(hidden, filters))
    kind = keras.layers.Conv1D if x.ndim == 3 else keras.layers.Conv2D
    if data.task == "segmentation":
        return keras.Model(inputs, kind(data.classes, 1)(hidden), name="teacher")
    numbers = y.reshape(*y.shape[: x.ndim - 1], -1)  # of a position, in its last axis
    outputs = _in_unit_of(kind(numbers.shape[-1], 1)(hidden), numbers)
    return keras.Model(inputs, keras.layers.Reshape(y.shape[1:])(outputs), name="teacher")


def _auto_encoder(x):
    """Returns a model whose outputs are its inputs, through a quarter of their numbers."""
    inputs = keras.Input(x.shape[1:])
    size = int(np.prod(x.shape[1:]))
    hidden = keras.layers.Flatten()(_normalized(inputs, x))
    for units in (256, max(2, min(64, size // 4)), 256):
        hidden = keras.layers.Dense(units, activation="relu")(hidden)
    scale = float(x.std()) or 1.0
    hidden = keras.layers.Rescaling(scale, float(x.mean()))(keras.layers.Dense(size)(hidden))
    return keras.Model(inputs, keras.layers.Reshape(x.shape[1:])(hidden), name="teacher")
