"""Which files are kept: the limits on how far a file may be from its model."""

import dataclasses
import typing

import keras
import numpy as np

from tfpeft.core.arguments import ExportError, InputError, last_cause
from tfpeft.core.arrays import text_tensors
from tfpeft.export.conversion import computes_in_float32, initial_states, signatures
from tfpeft.export.deviation import Deviation, measure
from tfpeft.export.formats import FROM_FLOAT
from tfpeft.export.lost_layers import LayerNames, failed_operator
from tfpeft.export.tflite_file import TFLiteFile

_OF_PEAK = {None: 1e-3, "none": 1e-3, "float16": 2e-2}
"""Largest deviation of floats, as a part of the largest value of a column."""
RELATIVE, AGREEMENT = 0.3, 0.9
"""Largest relative error of integers, and least agreement of classes that are clear.

Measured on held-out samples, the error in int8: ResNet8 on CIFAR-10 0.07; digits by convolution
0.01 to 0.02, by attention 0.03, with outliers of 10 times the brightness 0.18; a table of heavy
tails 0.07. MiniLM in dynamic range: 0.09, and 0.984 of the clear classes agree. Logits beside
masks of -1e4 and -1e9, whose bits are lost: 1.0 to 1.6, and 0.28 to 0.45 agree."""


@dataclasses.dataclass(frozen=True)
class Check:
    """Compares a file with its model.

    Attributes:
        model: The model.
        layers: Its `LayerNames`; None for a file other than .tflite.
        inputs: `ModelInput`s in the structure that it is called with.
        samples: Lists of arrays (1, ...) in the order of the inputs.
        quantization: As `export_tflite` takes it; None for a file other than .tflite.
        allow_deviation: As `export_tflite` takes it.
        open_file: A function that opens the file at a path.
        models: {signature: model} of the file; None for the signatures of the model.
    """

    model: keras.Model
    layers: LayerNames | None
    inputs: object
    samples: list
    quantization: str
    allow_deviation: float | None
    open_file: typing.Callable = TFLiteFile
    models: dict | None = None

    def measure(self, path):
        """Returns the `Deviation` of all signatures of the file at `path`.

        Raises:
            ExportError: if the file does not run; or its outputs are not finite.
        """
        file = self.open_file(path)
        try:
            return self._measure(file, self.samples)
        except InputError as error:
            if self.layers is None:
                raise
            raise ExportError(
                f"Cannot run the file of {self.model.name!r} with quantization="
                f"{self.quantization!r}, expected operators that TFLite runs. Received: "
                f"{failed_operator(file, error, self.layers)}"
            ) from error

    def _measure(self, file, samples):
        deviation = Deviation()
        for name, served in (self.models or signatures(self.model)).items():
            with initial_states(served):
                found = measure(file, name, served, self.inputs, samples)
            deviation = deviation.worse(found)
        return deviation

    def float_file(self, path):
        """Returns the `Deviation` of a file before it is quantized to integers, or raises."""
        quantization = "none" if self.quantization in FROM_FLOAT else self.quantization
        deviation = self.measure(path)
        if not self.allows(deviation, quantization):
            raise self.error(deviation, None, quantization)
        return deviation

    def allows(self, deviation, quantization=None):
        """Whether a file of that `Deviation` is kept."""
        quantization = quantization or self.quantization
        if self.allow_deviation is not None and quantization == self.quantization:
            return self._error(deviation) <= self.allow_deviation
        if quantization in _OF_PEAK and computes_in_float32(self.model):
            return deviation.of_peak <= _OF_PEAK[quantization]
        agreement = deviation.clear_agreement
        agrees = agreement is None or agreement >= AGREEMENT
        return deviation.lost <= RELATIVE and agrees

    def _error(self, deviation):
        """Returns the relative error that counts: all of it where less than usual is allowed."""
        is_strict = self.allow_deviation is not None and self.allow_deviation < RELATIVE
        return deviation.relative if is_strict else deviation.lost

    def error(self, deviation, lost_layer, quantization=None):
        """Returns the error for a file of that `Deviation`."""
        quantization = quantization or self.quantization
        if quantization in _OF_PEAK and computes_in_float32(self.model):
            limit = _OF_PEAK[quantization]
            expected = f"a deviation of at most {limit:.1%} of the largest value of a column"
            received = f"{deviation.of_peak:.3%}"
        else:
            limit = RELATIVE if self.allow_deviation is None else self.allow_deviation
            of = "spread" if deviation.has_spread else "size"
            expected = f"an error of at most {limit:.0%} of their {of}"
            received = f"{self._error(deviation):.0%}"
            if deviation.clear_agreement is not None and self.allow_deviation is None:
                expected += f" and {AGREEMENT:.0%} of the clearly predicted classes to agree"
                received += f", {deviation.clear_agreement:.0%} agree"
        made = "" if quantization is None else f" with quantization={quantization!r}"
        text = (
            f"The outputs of the file differ from {self.model.name!r}{made}, expected {expected}. "
            f"Received: {received}"
        )
        if quantization in FROM_FLOAT:
            lost = "" if lost_layer is None else f"; the layer {lost_layer} lost most"
            is_int8 = quantization == "int8" and lost_layer is not None
            kept = f"float_layers=[{lost_layer!r}] or " if is_int8 else ""
            text += f'{lost}. Try {kept}quantization="dynamic_range"'
        reached = np.ceil(100 * self._error(deviation)) / 100
        # An error as large as the spread leaves nothing that is worth keeping.
        if quantization in ("dynamic_range", *FROM_FLOAT) and 0 < reached <= 1:
            text += f"; allow_deviation={reached:g} keeps the file"
        return ExportError(text)

    def other_sides(self, path):
        """Raises if free sides of other lengths than the samples' give other outputs."""
        longer = [_longer(self.inputs, sample) for sample in self.samples[:4]]
        if all(a is None for a in longer):
            return
        try:
            with initial_states(self.model):
                inputs = keras.tree.pack_sequence_as(self.inputs, longer[0])
                self.model(text_tensors(inputs), training=False)
        except Exception:  # sides that the model itself does not take
            return
        shapes = ", ".join(str(array.shape[1:]) for array in longer[0])
        try:
            deviation = self._measure(self.open_file(path), longer)
        except InputError as error:
            raise ExportError(
                f"The file does not take other lengths than the samples' on its free sides, "
                f"expected it to run on inputs of shape {shapes}. Received: {last_cause(error)}"
            ) from error
        # Few samples have no spread that the error of integers could be compared with.
        if self.quantization in _OF_PEAK and not self.allows(deviation):
            raise self.error(deviation, None)


def _longer(inputs, sample):
    """Returns a sample whose free sides are longer by a half; None if there are none."""
    leaves = keras.tree.flatten(inputs)
    if not any(side is None for leaf in leaves for side in leaf.shape):
        return None

    def longer(leaf, array):
        sides = zip(leaf.shape, array.shape[1:], strict=True)
        shape = [given + given // 2 + 1 if side is None else given for side, given in sides]
        pads = [(0, 0), *((0, new - old) for new, old in zip(shape, array.shape[1:], strict=True))]
        return np.pad(array, pads, mode="wrap")

    return [longer(*pair) for pair in zip(leaves, sample, strict=True)]
