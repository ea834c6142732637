"""How far the outputs of an exported file are from those of its model."""

import dataclasses

import keras
import numpy as np

from tfpeft.core.arguments import ExportError
from tfpeft.core.arrays import text_tensors
from tfpeft.core.graph import last_activation
from tfpeft.export.conversion import fixed_batch_size, named_outputs
from tfpeft.export.samples import stacked

_BOUNDED = ("softmax", "sigmoid", "tanh", "hard_sigmoid")
_RECTIFIED = ("relu", "relu6")
_CLEAR = 0.1
"""A class is predicted clearly if its output is above the next one by this part of the spread."""
_STEPS = 2
"""An error of up to so many steps of 8 bits is as small as int8 can have it."""
_RARE = 0.1
"""An output of ReLU that is above zero for a smaller fraction of the samples is nearly dead."""
_MASK = 1e3
"""Outputs below -_MASK may stand for classes that are ruled out, as those of -1e9 do."""


@dataclasses.dataclass(frozen=True)
class Deviation:
    """How far the outputs of a file are from those of its model, on some samples.

    Attributes:
        largest: Largest |file - model|.
        relative: Largest error of an output, relative to the spread of the model's: the root of
            the mean of squares of file - model, divided by the standard deviation over samples. Of
            softmax, sigmoid and tanh it is of all columns together, else of the worst one. Outputs
            that stand for a mask need only be one in the file, too.
        agreement: Fraction in [0, 1] of the samples (of maps or tokens: of the positions) whose
            largest output is the same; None for outputs that are no classes.
        clear_agreement: The same, of those that the model predicts clearly; None without any.
        clear_share: Fraction in [0, 1] of the samples that the model predicts clearly.
        of_peak: Largest |file - model| of a column, as a part of its largest |model|, and at least
            of 1.
        lost: As `relative`, without outputs that are off by at most two steps of 8 bits.
        has_spread: Whether the outputs differ between samples; else `relative` is relative to
            their size, the root of the mean of squares.
    """

    largest: float = 0.0
    relative: float = 0.0
    agreement: float | None = None
    clear_agreement: float | None = None
    clear_share: float = 0.0
    of_peak: float = 0.0
    lost: float = 0.0
    has_spread: bool = True

    def worse(self, other):
        """Returns the worse of each figure."""
        return Deviation(
            max(self.largest, other.largest),
            max(self.relative, other.relative),
            _least(self.agreement, other.agreement),
            _least(self.clear_agreement, other.clear_agreement),
            max(self.clear_share, other.clear_share),
            max(self.of_peak, other.of_peak),
            max(self.lost, other.lost),
            self.has_spread and other.has_spread,
        )


def _least(*fractions):
    return min((fraction for fraction in fractions if fraction is not None), default=None)


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
        structure = text_tensors(keras.tree.pack_sequence_as(inputs, arrays))
        outputs = model(structure, training=False)
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
    is_right = found.shape == expected.shape
    # A class that is ruled out by -infinity is so in the file.
    if not is_right or not np.all(np.isfinite(found) | (found == expected)):
        raise ExportError(
            f"The outputs of the file differ from {model.name!r}, expected finite outputs of "
            f"shape {expected.shape}. Received: {name} of {found.shape}, "
            f"{np.mean(np.isfinite(found)):.0%} finite"
        )


def _deviation(parts, activation):
    """Returns the `Deviation` of one output, given in batches."""
    columns = [[a.reshape(-1, a.shape[-1] if a.ndim > 1 else 1) for a in pair] for pair in parts]
    sides = (np.concatenate(side) for side in zip(*columns, strict=True))
    found, expected = (np.clip(side, -1e18, 1e18) for side in sides)  # squares are finite
    if not expected.size:
        return Deviation()
    largest = float(np.max(np.abs(found - expected)))
    is_distribution = np.all(expected >= 0) and np.allclose(expected.sum(axis=1), 1.0, atol=1e-2)
    masked = _masked(expected)
    is_bounded = is_distribution or activation in _BOUNDED
    is_rare = np.mean(expected > 0, axis=0) < _RARE if activation in _RECTIFIED else False
    step = 1 / 256 if is_bounded else np.ptp(expected[~masked]) / 255
    relative, lost, has_spread = _relative(found, expected, masked, is_bounded, is_rare, step)
    of_peak = _of_peak(found, expected, masked)
    if np.any(found[masked] > -max(_MASK, np.max(np.abs(expected[~masked])))):
        # A mask is none in the file.
        relative, lost, of_peak = max(relative, 1.0), max(lost, 1.0), max(of_peak, 1.0)
    figures = {"of_peak": of_peak, "lost": lost, "has_spread": has_spread}
    is_of_classes = parts[0][1].ndim == 2 or activation == "softmax" or is_distribution
    if expected.shape[1] < 2 or not is_of_classes:
        return Deviation(largest, relative, **figures)
    agreement = _agreement(found, expected, masked, is_bounded)
    return Deviation(largest, relative, *agreement, **figures)


def _masked(expected):
    """Returns which outputs stand for a mask: alike, and ten times below all others."""
    below = expected < -_MASK
    masks, others = expected[below].astype("float64"), expected[~below]
    if not masks.size or not others.size or masks.max() > -10 * np.max(np.abs(others)):
        return np.zeros_like(below)
    return below if masks.std() <= 1e-3 * -masks.mean() else np.zeros_like(below)


def _of_peak(found, expected, masked):
    """Returns the largest error of a column, as a part of its largest value."""
    errors = np.max(np.abs(found - expected), axis=0, where=~masked, initial=0.0)
    peaks = np.max(np.abs(expected), axis=0, where=~masked, initial=1.0)
    # A small column may be the difference of large ones, which float32 rounds.
    return float(np.max(errors / np.maximum(peaks, 1e-3 * peaks.max())))


def _relative(found, expected, masked, is_bounded, is_rare, step):
    """Returns `relative`, `lost` and `has_spread` of a `Deviation`."""
    some = ~masked.all(axis=0)
    is_rare = np.broadcast_to(is_rare, some.shape)[some]
    columns = {"axis": 0, "where": ~masked[:, some], "dtype": "float64"}
    errors = np.where(masked, 0.0, found - expected)[:, some] ** 2
    error = np.mean(errors, **columns)
    spread = np.var(expected[:, some], **columns)
    peaks = np.max(np.abs(expected[:, some]), axis=0, where=~masked[:, some], initial=0.0)
    # A column that is constant over samples has no spread, only rounding.
    constant = spread <= (1e-3 * peaks) ** 2
    if constant.all():
        size = np.mean(expected[~masked] ** 2, dtype="float64")
        relative = float(np.sqrt(np.mean(errors) / max(size, 1e-30)))
        return relative, relative, False
    if is_bounded:
        is_near = errors.max(axis=1).mean() <= (_STEPS * step) ** 2
        error, spread, peaks = error.mean(), spread.mean(), peaks.max()
        constant = spread <= (1e-3 * peaks) ** 2
    else:
        # Steps that are those of a far larger column, or of an offset, are no measure of others.
        varied = spread[~constant & ~is_rare]
        are_alike = len(spread) > 1 and varied.size and varied.min() >= 1e-4 * varied.max()
        is_near = (is_rare | bool(are_alike)) & (error <= (_STEPS * step) ** 2)
    spread = np.where(constant, (2e-2 * peaks) ** 2 + 4e-4 * np.mean(spread), spread)
    relative = np.sqrt(error / np.maximum(spread, 1e-30))
    return float(np.max(relative)), float(np.max(np.where(is_near, 0.0, relative))), True


def _agreement(found, expected, masked, is_bounded):
    """Returns the three figures of agreement of a `Deviation`."""
    predicted = np.argmax(expected, axis=1)
    same = np.argmax(found, axis=1) == predicted
    # The spread of the classes that are predicted: others may be out of the question.
    classes = np.unique(predicted)
    values = expected[:, classes][~masked[:, classes]]
    # Two steps of 8 bits are no clear difference, as between the probabilities of many classes.
    margin = max(_CLEAR * np.std(values), (1.0 if is_bounded else np.ptp(values)) / 128)
    ordered = np.partition(expected, -2, axis=1)
    clear = ordered[:, -1] - ordered[:, -2] > margin
    return float(same.mean()), float(same[clear].mean()) if clear.any() else None, clear.mean()
