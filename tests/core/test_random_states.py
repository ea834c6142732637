"""The random numbers of the caller go on as if nothing had been drawn in between."""

import random

import keras
import numpy as np
import pytest

from tfpeft.core.random_states import random_states_kept


def draw_and_fail():
    keras.utils.set_random_seed(7)
    raise ValueError("in between")


def test_numbers_go_on_also_after_an_error():
    keras.utils.set_random_seed(1)
    expected = [(random.random(), np.random.random()) for _ in range(2)]  # noqa: NPY002
    keras.utils.set_random_seed(1)
    found = [(random.random(), np.random.random())]  # noqa: NPY002
    with pytest.raises(ValueError, match="in between"), random_states_kept():
        draw_and_fail()
    found.append((random.random(), np.random.random()))  # noqa: NPY002
    assert found == expected
