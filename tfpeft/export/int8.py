"""A float .tflite file in int8: ranges of activations, and what stays in float32.

TensorFlow's own calibration runs operators that write over each other's tensors, so that some
ranges are those of another tensor, and it ends the process at loops. So the ranges are observed
here; the quantizer itself is TensorFlow's.
"""

import flatbuffers
from ai_edge_litert import schema_py_generated as schema

from tfpeft.core.arguments import ExportError
from tfpeft.export.converter import quantize
from tfpeft.export.float_graph import FloatGraph
from tfpeft.export.lost_layers import losses_by_tensor
from tfpeft.export.masks import clip_masks
from tfpeft.export.raw_columns import raw_columns
from tfpeft.export.samples import stacked
from tfpeft.export.tflite_file import TFLiteFile

_LOOPS = ("WHILE", "IF")


def write_int8(path, layers, float_layers, samples, check):
    """Replaces a float file by one in int8.

    Args:
        path: The float file.
        layers: The `LayerNames` of the model.
        float_layers: Names or patterns of layers that stay in float32.
        samples: Lists of arrays (1, ...) in the order of the inputs, for calibration.
        check: A `Check`.

    Returns:
        The `Deviation` of the file, and notes on what is not in int8.

    Raises:
        ExportError: if the quantizer fails, or the file lost what the check does not allow.
    """
    exact = TFLiteFile(path)
    converter = _Converter(exact, samples)
    alike, readers = converter.raw_columns()
    in_float = alike | layers.tensors_of(float_layers, converter.sources())

    def write():
        path.write_bytes(converter.convert(in_float))
        return check.measure(path)

    deviation = write()
    if not check.allows(deviation) and not readers <= in_float:
        in_float |= readers
        deviation = write()
    if not check.allows(deviation):
        lost = converter.lost_layer(TFLiteFile(path), exact, layers, samples)
        raise check.error(deviation, lost)
    return deviation, converter.notes(layers, in_float)


class _Converter:
    """Turns a float file into int8, as often as it takes.

    Args:
        file: The float `TFLiteFile`.
        samples: As of `write_int8`.
    """

    def __init__(self, file, samples):
        self._size = len(file.content)
        self._model = schema.ModelT.InitFromPackedBuf(file.content)
        self._graphs, self._lowest = {}, 0.0
        batches = list(stacked(samples, _batch_size(samples)))
        for name in file.signatures:
            program = file.observed(name)
            graph = self._graphs[name] = FloatGraph(self._model, program.graph)
            step = program.batch
            graph.observe(program, batches if step is None else stacked(samples, step))
            self._lowest = min(self._lowest, clip_masks(graph))
            graph.extend_ranges()

    def raw_columns(self):
        """Returns what `raw_columns` returns, of all graphs."""
        pairs = [raw_columns(graph) for graph in self._graphs.values()]
        return tuple(set().union(*sets) for sets in zip(*pairs, strict=True))

    def sources(self):
        """Returns {name: source} of all tensors that operators make."""
        graphs = self._graphs.values()
        return {graph.name(t): graph.source(t) for graph in graphs for t in graph.makers}

    def notes(self, layers, in_float):
        """Returns what is not in int8, and what was clipped, in words."""
        loops = {
            layers.layer_of(graph.source(op.outputs[0])) or op.name
            for graph in self._graphs.values()
            for op in graph.operators
            if op.name in _LOOPS
        }
        sources = self.sources()
        kept = {layers.layer_of(sources[name]) or "operators on raw inputs" for name in in_float}
        return [
            *([f"float32: {', '.join(sorted(kept))}"] if kept else []),
            *([f"loops in float32: {', '.join(sorted(loops))}"] if loops else []),
            *([f"masks of attention clipped to {self._lowest:.3g}"] if self._lowest else []),
        ]

    def convert(self, in_float):
        """Returns the bytes of the int8 file.

        Args:
            in_float: Names of tensors whose operators stay in float32.
        """
        for graph in self._graphs.values():
            graph.write_ranges(in_float)
        builder = flatbuffers.Builder(self._size)
        builder.Finish(self._model.Pack(builder), b"TFL3")
        try:
            return quantize(bytes(builder.Output()), denylisted_nodes=sorted(in_float) or None)
        except Exception as error:
            reason = " ".join(str(error).split())[:300]
            raise ExportError(
                "Cannot quantize the model, expected operators that TFLite has in int8, or "
                f'quantization="dynamic_range". Received: {reason}'
            ) from error

    def lost_layer(self, file, exact, layers, samples):
        """Returns the layer that lost most; None if that is no layer."""
        losses = {}
        for name, graph in self._graphs.items():
            batch = next(stacked(samples, exact.signature(name).batch or 16))
            losses.update(losses_by_tensor(file, exact, name, graph, batch))
        by_layer = {layers.layer_of(name): loss for name, loss in sorted(losses.items(), key=_loss)}
        by_layer.pop(None, None)
        return max(by_layer, key=by_layer.get, default=None)


def _loss(item):
    return item[1]


def _batch_size(samples):
    """Returns how many samples run together, so that all their tensors fit into memory."""
    return max(1, min(32, 2**19 // max(array.size for array in samples[0])))
