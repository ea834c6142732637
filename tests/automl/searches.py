"""Searches on a few tiny images, for tests; runs as a process that may be killed, or a worker."""

import os
import pathlib
import sys
import time

import keras
import numpy as np

import tfpeft

SPACE = {
    **{"stages": (1,), "depth": (2,), "growth": (1.0,), "block": ("plain",)},
    "width": (4, 8, 32, 48, 64),  # the search begins with 32, which is over the limit
}
LIMIT = 5_000


def data(samples=160):
    """Returns images whose brighter half says which of two classes they are of."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, samples)
    x = rng.random((samples, 8, 8, 1))
    x[:, :4] += y[:, None, None, None]
    return x.astype("float32"), y


def trained(layers, batch, epochs):
    """Returns a network of layers, trained on a `Batch` of these images."""
    model = keras.Sequential([keras.Input((8, 8, 1)), *layers])
    model.compile(keras.optimizers.Adam(1e-2), keras.losses.SparseCategoricalCrossentropy(True))
    model.fit(batch.x, batch.y, epochs=epochs, verbose=0)
    return model


def search(folder, **options):
    """Returns the result of a search of a few trials."""
    arguments = {
        "minutes": 3,
        "epochs": 3,
        "max_trials": 3,
        "batch_size": 32,
        "oracle": "random",
        "techniques": tfpeft.Techniques(quantization=("dynamic_range",), learning_rate=(4e-3,)),
        **options,
    }
    space = arguments.pop("space", None) or tfpeft.SmallCNN(**SPACE)
    budget = arguments.pop("budget", None) or tfpeft.Budget(max_size_bytes=LIMIT)
    return tfpeft.search(space, data(), budget, folder=folder, **arguments)


if __name__ == "__main__":
    folder, name = pathlib.Path(sys.argv[1]), os.environ.get("KERASTUNER_TUNER_ID", "")
    if name.startswith("worker"):
        (folder.parent / f"ready-{name}").touch()
        while len(list(folder.parent.glob("ready-*"))) < 2:  # so that both get trials
            time.sleep(0.05)
    print("result", search(folder))
