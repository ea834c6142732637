"""Whether an exported file predicts what its model predicts."""

import keras
import numpy as np

from tfpeft.core.arguments import ExportError
from tfpeft.export.conversion import computes_in_float32, named_outputs


def largest_deviation(file, signature, model, specs, samples, quantization):
    """Returns the largest |file - model| over the outputs of up to 32 samples.

    Args:
        file: A `TFLiteFile`.
        signature: The signature that was made of `model`.
        model: The model.
        specs: The TensorSpecs of its inputs, in their structure.
        samples: Arrays in the order of the flat specs.
        quantization: As `export_tflite` takes it.

    Raises:
        ExportError: if an output is not finite, of another shape, or too far from the model's.
    """
    samples = [array[:32] for array in samples]
    found = file.signature(signature).run(samples)
    outputs = model(keras.tree.pack_sequence_as(specs, samples), training=False)
    deviations = [0.0]
    for name, expected in named_outputs(outputs).items():
        expected = keras.ops.convert_to_numpy(keras.ops.cast(expected, "float32"))
        if found[name].shape != expected.shape or not np.all(np.isfinite(found[name])):
            raise ExportError(
                f"The outputs of the file differ from {model.name!r}, expected finite outputs of "
                f"shape {expected.shape}. Received: {name} of {found[name].shape}, "
                f"{np.mean(np.isfinite(found[name])):.0%} finite"
            )
        deviation = float(np.max(np.abs(found[name] - expected)))
        allowed = _tolerance(expected, quantization, computes_in_float32(model))
        if deviation > allowed:
            raise ExportError(
                f"The outputs of the file differ from {model.name!r}, expected a deviation of at "
                f"most {allowed:.3g}. Received: {deviation:.3g} in {name}"
            )
        deviations.append(deviation)
    return max(deviations)


def _tolerance(expected, quantization, in_float32):
    """Returns how far the output of a file may be from `expected`."""
    peak = max(1.0, float(np.max(np.abs(expected))))
    spread = max(float(np.ptp(expected)), 1e-3 * peak)
    if not in_float32:
        return spread  # the model itself computed in half precision
    return {"none": 1e-3 * peak, "float16": 2e-2 * peak}.get(quantization, spread)
