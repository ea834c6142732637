"""Moving statistics of `BatchNormalization` in short trainings."""

import contextlib

import keras

from tfpeft.core.graph import flatten_layers

_LENGTHS = 10  # of the average that a training has time for: e^-10 of the old statistics is left
_FASTEST = 0.8


@contextlib.contextmanager
def following_statistics(model, steps):
    """Lets moving statistics of a new or cut model follow a training of so many steps.

    With momentum m a part of m^steps is left of those before: with Keras's 0.99 and 100 steps 37%,
    which are wrong where channels were removed, and 0 and 1 in a student. In the context m is at
    most 1 - 10 / steps, but not below 0.8; before and after it, it is that of the layer.

    Args:
        model: The model.
        steps: Updates, > 0.
    """
    norms = [
        layer
        for layer in flatten_layers(model)
        if isinstance(layer, keras.layers.BatchNormalization)
    ]
    given = [layer.momentum for layer in norms]
    for layer in norms:
        layer.momentum = min(layer.momentum, max(_FASTEST, 1.0 - _LENGTHS / steps))
    try:
        yield
    finally:
        for layer, momentum in zip(norms, given, strict=True):
            layer.momentum = momentum
