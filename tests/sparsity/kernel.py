"""A kernel for tests that compare with NumPy."""

import keras
import numpy as np

KERNEL = np.array([[0.9, -0.1], [0.05, -0.8], [0.3, 0.2]], "float32")


def variable(kernel=KERNEL, dtype="float32"):
    return keras.Variable(kernel, name="kernel", dtype=dtype)
