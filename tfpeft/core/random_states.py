"""Random numbers of the caller, which go on as before."""

import contextlib
import random

import numpy as np


@contextlib.contextmanager
def random_states_kept():
    """A context after which the random numbers of the caller go on as before."""
    # Those of Python and NumPy that `keras.utils.set_random_seed` sets.
    states = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
