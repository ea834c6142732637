"""A float .tflite file in int8: ranges of activations, and what stays in float32.

TensorFlow's own calibration runs operators that write over each other's tensors, so that some
ranges are those of another tensor, and it ends the process at loops. So the ranges are observed
here; the quantizer itself is TensorFlow's.
"""

import copy
import re

import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from tfpeft.core.arguments import ExportError, NoMatchError, last_cause, unexpected
from tfpeft.export.bias_correction import correct_biases
from tfpeft.export.converter import quantize, quantize_to_int16
from tfpeft.export.equalization import equalized
from tfpeft.export.file_writing import repacked, to_bytes
from tfpeft.export.float_graph import FloatGraph
from tfpeft.export.four_bits import with_four_bit_weights
from tfpeft.export.histograms import choose_ranges
from tfpeft.export.intervals import complete_ranges, unite_ranges
from tfpeft.export.layer_errors import record_layer_errors
from tfpeft.export.lost_layers import losses_by_tensor
from tfpeft.export.masks import clip_masks
from tfpeft.export.quantization_marks import take_marks
from tfpeft.export.raw_columns import raw_columns
from tfpeft.export.samples import stacked
from tfpeft.export.tflite_file import TFLiteFile

_LOOPS = ("WHILE", "IF")


def write_int8(
    path,
    layers,
    float_layers,
    samples,
    check,
    options,
    *,
    input_type="float32",
    output_type="float32",
    aware=None,
):
    """Replaces a float file by one in int8, or with int16 activations as the check's quantization.

    Args:
        path: The float file.
        layers: The `LayerNames` of the model.
        float_layers: Names or patterns of layers that stay in float32.
        samples: Lists of arrays (1, ...) in the order of the inputs, for calibration.
        check: A `Check`.
        options: `Int8Options`.
        input_type: The type of the inputs that are float32 in the file.
        output_type: The type of the outputs.
        aware: What `conversion.quantization_settings` returns of a quantise-aware model, whose
            float file has marks.

    Returns:
        The `Deviation` of the file, and notes on what is not in int8.

    Raises:
        ExportError: if the quantizer fails, or the file lost what the check does not allow.
        NoMatchError: if there is nothing to equalise, or to correct.
    """
    marks = {}
    if aware is not None:
        content, marks = take_marks(path.read_bytes())
        path.write_bytes(content)
        float_layers = [*float_layers, *aware["float_layers"]]
    made = _equalize(path, check) if options.equalize else []
    exact = TFLiteFile(path)
    is_int8 = check.quantization == "int8"
    # Least errors and percentiles are those of 8 bits.
    converter = Quantizer(exact, samples, options.ranges if is_int8 else "extended", marks)
    # Steps of 16 bits are small enough for the columns of a table.
    alike, readers = converter.raw_columns() if is_int8 else (set(), set())
    in_float = alike | layers.tensors_of(float_layers, converter.sources())
    corrected = []

    def write():
        if is_int8:
            content = converter.convert(in_float, input_type, output_type)
        else:
            content = converter.convert_to_int16(layers, input_type, output_type)
        if aware is not None and aware["weight_bits"] == 4:
            content = with_four_bit_weights(content)
        path.write_bytes(repacked(content))
        if options.correct_bias:
            corrected[:] = [_correct_biases(path, exact, samples)]
        return check.measure(path)

    deviation = write()
    if not check.allows(deviation) and not readers <= in_float:
        in_float |= readers
        deviation = write()
    if not check.allows(deviation):
        lost = converter.lost_layer(TFLiteFile(path), exact, layers, samples)
        raise check.error(deviation, lost)
    _check_inputs(TFLiteFile(path), exact, input_type, check.quantization)
    if aware is None:
        record_layer_errors(exact, TFLiteFile(path), converter.graphs, layers, check.samples)
    known = {} if aware is None else aware["in_float"]
    reasons = [f"{path} in float32: {why}" for path, why in known.items()]
    return deviation, [*converter.notes(layers, in_float), *reasons, *made, *corrected]


def _equalize(path, check):
    """Equalises a float file, which is compared with the model again; returns what was done."""
    content, pairs = equalized(path.read_bytes())
    if not pairs:
        raise unexpected(
            "convolutions or Dense layers in a row, with no activation, ReLU or LeakyReLU "
            "between them, for `equalize`",
            "a model without any",
            error=NoMatchError,
        )
    path.write_bytes(content)
    check.float_file(path)
    return [f"{pairs} pairs of layers equalized"]


def _correct_biases(path, exact, samples):
    """Corrects the biases of an int8 file; returns what was done."""
    count = correct_biases(path, exact, samples, samples_per_run(samples))
    if not count:
        raise unexpected(
            "convolutions or Dense layers in int8 for `correct_bias`",
            "a file without any",
            error=NoMatchError,
        )
    return f"biases of {count} layers corrected"


def _check_inputs(file, exact, input_type, quantization):
    """Raises if float32 inputs of a file do not have the wanted type."""
    for name in file.signatures:
        types, before = file.signature(name).input_types, exact.signature(name).input_types
        others = [n for n in types if before[n] == "float32" and types[n] != input_type]
        if others:
            raise ExportError(
                f"Cannot write inputs of {input_type} with quantization={quantization!r}, "
                'expected layers that read them in integers, or input_type="float32". Received: '
                f"{', '.join(others)}, which stays in {types[others[0]]}"
            )


class Quantizer:
    """Turns a float file into int8, as often as it takes.

    Args:
        file: The float `TFLiteFile`.
        samples: As of `write_int8`.
        ranges: As of `Int8Options`.
        marks: {index of a graph: {tensor: (low, high)}}, ranges that are known.
    """

    def __init__(self, file, samples, ranges, marks=None):
        self._model = schema.ModelT.InitFromPackedBuf(file.content)
        self.graphs, self._lowest = {}, 0.0
        batches = list(stacked(samples, samples_per_run(samples))) if samples else []
        for name in file.signatures:
            program = file.observed(name)
            graph = self.graphs[name] = FloatGraph(self._model, program.graph)
            step = program.batch
            fed = batches if step is None else list(stacked(samples, step))
            graph.observe(program, fed)
            self._lowest = min(self._lowest, clip_masks(graph))
            if ranges != "extended":
                choose_ranges(graph, program, fed, ranges)
            graph.extend_ranges()
            if marks:
                graph.set_ranges(marks[program.graph])
                complete_ranges(graph)
            unite_ranges(graph)

    def raw_columns(self):
        """Returns what `raw_columns` returns, of all graphs."""
        pairs = [raw_columns(graph) for graph in self.graphs.values()]
        return tuple(set().union(*sets) for sets in zip(*pairs, strict=True))

    def sources(self):
        """Returns {name: source} of all tensors that operators make."""
        graphs = self.graphs.values()
        return {graph.name(t): graph.source(t) for graph in graphs for t in graph.makers}

    def notes(self, layers, in_float):
        """Returns what is not in int8, and what was clipped, in words."""
        loops = {layer for name in _LOOPS for layer in self._layers_with(name, layers)}
        sources = self.sources()
        kept = {layers.layer_of(sources[name]) or "operators on raw inputs" for name in in_float}
        return [
            *([f"float32: {', '.join(sorted(kept))}"] if kept else []),
            *([f"loops in float32: {', '.join(sorted(loops))}"] if loops else []),
            *([f"masks of attention clipped to {self._lowest:.3g}"] if self._lowest else []),
        ]

    def convert(self, in_float, input_type="float32", output_type="float32"):
        """Returns the bytes of the int8 file.

        Args:
            in_float: Names of tensors whose operators stay in float32.
            input_type: The type of the inputs that are floats.
            output_type: The type of the outputs.
        """
        try:
            return quantize(
                self._with_ranges(in_float),
                denylisted_nodes=sorted(in_float) or None,
                input_data_type=tf.as_dtype(input_type),
                output_data_type=tf.as_dtype(output_type),
            )
        except Exception as error:
            raise ExportError(
                "Cannot quantize the model, expected operators that TFLite has in int8, or "
                f'quantization="dynamic_range". Received: {last_cause(error)}'
            ) from error

    def convert_to_int16(self, layers, input_type, output_type):
        """Returns the bytes of the file with int8 weights and int16 activations."""
        expected = (
            "Cannot quantize the model, expected operators that TFLite has in int16x8, or "
            'quantization="int8" or "float16". Received: '
        )
        for name in _LOOPS:
            if self._layers_with(name, layers):
                raise ExportError(f"{expected}{self._described(name, layers)}")
        self._unshare_constants()
        try:
            return quantize_to_int16(self._with_ranges(()), input_type, output_type)
        except Exception as error:
            reason = last_cause(error)
            named = re.search(r"for op: '(\w+)'", reason)
            if named is not None:
                reason = self._described(named[1], layers)
            raise ExportError(f"{expected}{reason}") from error

    def _with_ranges(self, in_float):
        """Returns the bytes of the float file with the ranges of its tensors."""
        for graph in self.graphs.values():
            graph.write_ranges(in_float)
        return to_bytes(self._model)

    def _unshare_constants(self):
        """Gives each tensor a buffer of its own, as the quantizer writes one for each tensor."""
        taken = set()
        for graph in self._model.subgraphs:
            for tensor in graph.tensors:
                if tensor.buffer in taken and self._model.buffers[tensor.buffer].data is not None:
                    self._model.buffers.append(copy.copy(self._model.buffers[tensor.buffer]))
                    tensor.buffer = len(self._model.buffers) - 1
                taken.add(tensor.buffer)

    def _described(self, operator, layers):
        """Returns an operator with the layers that have one of that name."""
        return f"{operator} (layers: {', '.join(self._layers_with(operator, layers))})"

    def _layers_with(self, operator, layers):
        """Returns the layers that have an operator of that name; its name for those of none."""
        found = [
            layers.layer_of(graph.source(op.outputs[0])) or op.name
            for graph in self.graphs.values()
            for op in graph.operators
            if op.name == operator
        ]
        return list(dict.fromkeys(found))

    def lost_layer(self, file, exact, layers, samples):
        """Returns the layer that lost most; None if that is no layer."""
        losses = {}
        for name, graph in self.graphs.items():
            if not samples:
                continue
            batch = next(stacked(samples, exact.signature(name).batch or 16))
            losses.update(losses_by_tensor(file, exact, name, graph, batch))
        by_layer = {layers.layer_of(name): loss for name, loss in sorted(losses.items(), key=_loss)}
        by_layer.pop(None, None)
        return max(by_layer, key=by_layer.get, default=None)


def _loss(item):
    return item[1]


def samples_per_run(samples):
    """Returns how many samples run together, so that all their tensors fit into memory."""
    return max(1, min(32, 2**19 // max(array.size for array in samples[0])))
