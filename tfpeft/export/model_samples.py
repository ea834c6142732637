"""The samples of an export: which ones calibrate, and which ones file and model are compared on."""

import hashlib

import keras

from tfpeft.core.arguments import last_cause, unexpected
from tfpeft.core.arrays import text_tensors
from tfpeft.core.data import read
from tfpeft.core.inputs import arrange, match
from tfpeft.core.sample_inputs import random_inputs
from tfpeft.export.conversion import known_inputs
from tfpeft.export.formats import CALIBRATED
from tfpeft.export.samples import spread

_CALIBRATED, _COMPARED = 400, 200
_FEWEST = 10
"""Samples that can be held out from calibration; with fewer, all calibrate and are compared."""
_SIDES = (32, 64, 128, 256)
"""Lengths of free sides that are tried in turn, without samples."""


def inputs_and_samples(
    model,
    representative_data,
    quantization=None,
    name="representative_data",
    *,
    texts=False,
):
    """Returns `ModelInput`s, samples (lists of arrays in their order), and how many were read.

    Args:
        model: The model.
        representative_data: The argument of an export; None for random samples.
        quantization: As `export_tflite` takes it; None for a file other than .tflite.
        name: Name of the argument, for errors.
        texts: Whether inputs may be texts.
    """
    if representative_data is None:
        inputs = known_inputs(model, None)
        samples = _random_samples(model, inputs)
        return inputs, samples, len(samples)
    data = read(representative_data, name)
    inputs = known_inputs(model, arrange(model, data.inputs(1), name))
    count = _CALIBRATED + _COMPARED if quantization in CALIBRATED else _COMPARED
    # All samples of floats are alike: those of the first batches will do.
    limits = {} if quantization in CALIBRATED else {"most_read": count}
    samples, read_samples = spread(
        data,
        count,
        arranged=lambda x: match(inputs, x, name, repr(model.name)),
        texts=texts,
        **limits,
    )
    types = [_numpy_type(leaf.dtype) for leaf in keras.tree.flatten(inputs)]
    return (
        inputs,
        [
            [array.astype(dtype) for array, dtype in zip(sample, types, strict=True)]
            for sample in samples
        ],
        read_samples,
    )


def _numpy_type(dtype):
    return "float32" if "float" in dtype else object if dtype == "string" else dtype


def _random_samples(model, inputs):
    """Returns random samples; free sides get the first length that the model takes."""
    leaves = keras.tree.flatten(inputs)
    are_free = any(side is None for leaf in leaves for side in leaf.shape)
    for side in _SIDES if are_free else _SIDES[:1]:
        arrays = [
            array.astype(_numpy_type(leaf.dtype))
            for array, leaf in zip(random_inputs(model, 16, side), leaves, strict=True)
        ]
        samples = [[array[i : i + 1] for array in arrays] for i in range(16)]
        try:
            model(text_tensors(keras.tree.pack_sequence_as(inputs, samples[0])), training=False)
        except Exception as error:
            last = error
        else:
            return samples
    raise unexpected(
        f"`representative_data` for {model.name!r}, which does not take inputs of sides "
        f"{', '.join(map(str, _SIDES))}",
        last_cause(last),
    )


def split(samples, quantization):
    """Returns the samples that calibrate, and those that file and model are compared on."""
    if quantization not in CALIBRATED:
        return [], samples
    count = min(_COMPARED, len(samples) // 3)
    calibration = samples[count:]
    # Data that repeats has the same samples again.
    known = {content_of(sample) for sample in calibration}
    others = [sample for sample in samples[:count] if content_of(sample) not in known]
    if len(others) < _FEWEST:
        return samples, samples
    return calibration, others


def content_of(sample):
    """Returns a short value that differs between samples."""
    digest = hashlib.sha256()
    for array in sample:
        digest.update(array.tobytes())
    return digest.digest()
