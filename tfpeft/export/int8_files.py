"""int8 files of one model that differ in which layers stay in float32."""

from tfpeft.export.conversion import in_float32, initial_states
from tfpeft.export.file_writing import repacked
from tfpeft.export.int8 import Quantizer, samples_per_run
from tfpeft.export.int8_options import Int8Options
from tfpeft.export.layer_errors import tensors_by_layer
from tfpeft.export.lost_layers import LayerNames
from tfpeft.export.model_samples import inputs_and_samples, split
from tfpeft.export.samples import stacked
from tfpeft.export.tflite import file_batch_size, write_float_file
from tfpeft.export.tflite_file import TFLiteFile


class Int8Files:
    """Writes int8 files of a model; it is converted, and ranges are observed, once.

    Args:
        model: A built model.
        data: Typical inputs, as `export_tflite` takes them.
        folder: Where the files go.
        name: The argument that gave `data`, for errors.

    Attributes:
        exact: The float `TFLiteFile`.
        layers: {path of a layer: names of the tensors that it makes}, in the order of the file.
        samples: Lists of arrays (1, ...), of other samples than those of the ranges.
    """

    def __init__(self, model, data, folder, name="data"):
        inputs, samples, _ = inputs_and_samples(model, data, "int8", name)
        calibration, self.samples = split(samples, "int8")
        self._names, self._folder = LayerNames(model), folder
        path, converted = folder / "float.tflite", in_float32(model)
        with initial_states(model), self._names.recording(converted):
            size = file_batch_size(model, None)
            write_float_file(converted, inputs, path, "int8", size, self._names)
        self.exact = TFLiteFile(path)
        self._quantizer = Quantizer(self.exact, calibration, Int8Options().ranges)
        self._in_float, _ = self._quantizer.raw_columns()
        self.layers = tensors_by_layer(self._quantizer.graphs, self._names)

    def without(self, layers):
        """Returns the `TFLiteFile` in int8 but for some layers, as `float_layers` names them."""
        return self._written(self._names.tensors_of(layers, self._quantizer.sources()))

    def only(self, layer):
        """Returns the `TFLiteFile` in which one layer alone is in int8."""
        return self._written(set(self._quantizer.sources()) - set(self.layers[layer]))

    def batches(self, signature):
        """Returns lists of arrays (batch, ...) of the samples, as a signature runs them."""
        size = self.exact.signature(signature).batch or samples_per_run(self.samples)
        return stacked(self.samples, size)

    def _written(self, in_float):
        path = self._folder / "int8.tflite"
        path.write_bytes(repacked(self._quantizer.convert(in_float | self._in_float)))
        return TFLiteFile(path)
