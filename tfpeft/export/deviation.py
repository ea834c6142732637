"""How far the outputs of an exported file are from those of its model."""

import dataclasses

import keras
import numpy as np

from tfpeft.core.arguments import ExportError
from tfpeft.core.graph import last_activation
from tfpeft.export.conversion import fixed_batch_size, named_outputs
from tfpeft.export.samples import stacked

_BOUNDED = ("softmax", "sigmoid", "tanh", "hard_sigmoid")
_CLEAR = 0.1
"""A class is predicted clearly if its output is above the next one by this part of the spread."""


@dataclasses.dataclass(frozen=True)
class Deviation:
    """How far the outputs of a file are from those of its model, on some samples.

    Attributes:
        largest: Largest |file - model|.
        relative: Largest error of an output, relative to the spread of the model's: the root of
            the mean of squares of file - model, divided by the standard deviation over samples. Of
            softmax, sigmoid and tanh it is of all columns together, else of the worst one.
        agreement: Fraction in [0, 1] of the samples whose largest output is the same, of those
            that the model predicts clearly; None without outputs (samples, classes).
        peak: Largest |model|.
    """

    largest: float = 0.0
    relative: float = 0.0
    agreement: float | None = None
    peak: float = 0.0

    def worse(self, other):
        """Returns the worse of each figure."""
        agreements = [a for a in (self.agreement, other.agreement) if a is not None]
        return Deviation(
            max(self.largest, other.largest),
            max(self.relative, other.relative),
            min(agreements, default=None),
            max(self.peak, other.peak),
        )


def measure(file, signature, model, inputs, samples):
    """Returns the `Deviation` of a signature of a file from the model that it was made of.

    Args:
        file: A `TFLiteFile`.
        signature: The signature.
        model: The model.
        inputs: `ModelInput`s in the structure that the model is called with.
        samples: Lists of arrays (1, ...) in the order of the inputs.

    Raises:
        ExportError: if an output is not finite, or of another shape.
    """
    program = file.signature(signature)
    pairs = {}  # output -> list of (file, model)
    fixed = fixed_batch_size(model)
    for arrays in stacked(samples, fixed or 32):
        if fixed is not None and len(arrays[0]) < fixed and pairs:
            continue  # an incomplete batch
        arrays = [_filled(array, fixed) for array in arrays]
        outputs = model(keras.tree.pack_sequence_as(inputs, arrays), training=False)
        found = program.run(arrays)
        for name, expected in named_outputs(outputs).items():
            expected = keras.ops.convert_to_numpy(keras.ops.cast(expected, "float32"))
            _check(found[name], expected, name, model)
            pairs.setdefault(name, []).append((found[name], expected))
    deviation = Deviation()
    names = list(pairs)
    for name, parts in pairs.items():
        output = (
            None if len(names) == 1 else name if isinstance(outputs, dict) else names.index(name)
        )
        deviation = deviation.worse(_deviation(parts, last_activation(model, output)))
    return deviation


def _filled(array, batch_size):
    """Returns an array of as many samples as a batch has, by repeating the first one."""
    missing = (batch_size or 0) - len(array)
    return np.concatenate([array, *[array[:1]] * missing]) if missing > 0 else array


def _check(found, expected, name, model):
    if found.shape != expected.shape or not np.all(np.isfinite(found)):
        raise ExportError(
            f"The outputs of the file differ from {model.name!r}, expected finite outputs of "
            f"shape {expected.shape}. Received: {name} of {found.shape}, "
            f"{np.mean(np.isfinite(found)):.0%} finite"
        )


def _deviation(parts, activation):
    """Returns the `Deviation` of one output, given in batches."""
    largest = max(float(np.max(np.abs(f - m), initial=0.0)) for f, m in parts)
    peak = max(float(np.max(np.abs(m), initial=0.0)) for _, m in parts)
    columns = [[a.reshape(-1, a.shape[-1] if a.ndim > 1 else 1) for a in pair] for pair in parts]
    found, expected = (np.concatenate(side) for side in zip(*columns, strict=True))
    if not expected.size:
        return Deviation(largest, 0.0, None, peak)
    error, spread = np.mean((found - expected) ** 2, axis=0), np.var(expected, axis=0)
    is_distribution = np.all(expected >= 0) and np.allclose(expected.sum(axis=1), 1.0, atol=1e-2)
    if activation in _BOUNDED or is_distribution:
        error, spread = error.mean(keepdims=True), spread.mean(keepdims=True)
    else:
        # A column that is constant over samples has no spread, only rounding.
        peaks = np.max(np.abs(expected), axis=0)
        constant = spread <= (1e-3 * peaks) ** 2
        spread = np.where(constant, (2e-2 * peaks) ** 2 + 4e-4 * spread.mean(), spread)
    relative = float(np.sqrt(np.max(error / np.maximum(spread, (1e-6 * peak) ** 2 + 1e-30))))
    is_table = parts[0][1].ndim == 2 and expected.shape[1] > 1
    agreement = _agreement(found, expected, is_distribution) if is_table else None
    return Deviation(largest, relative, agreement, peak)


def _agreement(found, expected, is_distribution):
    """Returns the fraction of rows with the same largest column, of those that are clear."""
    ordered = np.sort(expected, axis=1)
    # Two steps of 8 bits are no clear difference, as between the probabilities of many classes.
    margin = max(_CLEAR * np.std(expected), (1.0 if is_distribution else np.ptp(expected)) / 128)
    clear = ordered[:, -1] - ordered[:, -2] > margin
    if not clear.any():
        return None
    same = np.argmax(found[clear], axis=1) == np.argmax(expected[clear], axis=1)
    return float(same.mean())
