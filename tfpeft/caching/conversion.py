"""Types of stored outputs: which leaves are halved to float16, and which are not."""

import keras
import numpy as np

from tfpeft.core.arguments import invalid


class Conversion:
    """Converts outputs to NumPy arrays of the types that are stored.

    Which leaves become float16 is decided by the outputs of the first batch: outputs in [0, 1]
    may be probabilities, and stay as they are, as float16 rounds those near 1 to 1.

    Args:
        outputs: {"outputs": ..., "features": ...} of the first batch, tensors.
        float16: Whether other floating-point leaves become float16.
    """

    def __init__(self, outputs, float16):
        self._halved = [
            float16 and leaf.dtype.is_floating and not (key == "outputs" and _in_unit_range(leaf))
            for key in sorted(outputs)
            for leaf in keras.tree.flatten(outputs[key])
        ]

    def __call__(self, outputs):
        keys = sorted(outputs)
        leaves = [leaf for key in keys for leaf in keras.tree.flatten(outputs[key])]
        pairs = zip(leaves, self._halved, strict=True)
        arrays = iter([_halve(leaf) if halved else _as_array(leaf) for leaf, halved in pairs])
        return {key: keras.tree.map_structure(lambda _: next(arrays), outputs[key]) for key in keys}


def _in_unit_range(tensor):
    array = _as_array(tensor)
    return bool(np.all((array >= 0.0) & (array <= 1.0)))


def _as_array(tensor):
    array = np.asarray(tensor)
    return array.astype("float32") if array.dtype.name == "bfloat16" else array


def _halve(tensor):
    array = _as_array(tensor)
    with np.errstate(over="ignore"):
        halved = array.astype("float16")
    if not np.array_equal(np.isfinite(halved), np.isfinite(array)):
        largest = float(np.max(np.abs(array[np.isfinite(array)])))
        raise invalid("float16", "outputs of at most 65504, or False", largest)
    return halved
