"""Whether the zeros are there that optimizers promised for the end of training."""

import numpy as np

from tfpeft.core.layers import path_of


def missing_zeros(optimizer, belongs=lambda variable: True):
    """Returns a text for each kernel, or group of kernels, with fewer zeros than promised.

    Args:
        optimizer: A `SparseOptimizer`.
        belongs: Whether a variable counts; groups with another one are left out.
    """
    missing = []
    for variables, promised in optimizer.promised_zeros():
        zeros = sum(zeros_in(v) for v in variables) if all(map(belongs, variables)) else promised
        if zeros < promised:
            missing.append(
                f"{', '.join(map(path_of, variables))}: {zeros} of {promised} zeros at step "
                f"{int(optimizer.iterations)}"
            )
    return missing


def zeros_in(variable):
    """Returns how many weights of a variable are zero."""
    values = variable.numpy()
    return values.size - np.count_nonzero(values)
