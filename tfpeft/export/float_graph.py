"""The graph of a float .tflite file, and the values of its tensors while samples run."""

import dataclasses

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfpeft.export.tflite_contents import op_name

_FLOAT32 = schema.TensorType.FLOAT32
_SAME_VALUES = ("RESHAPE", "TRANSPOSE", "EXPAND_DIMS", "SQUEEZE", "BROADCAST_TO", "TILE", "CAST")

ENOUGH = 100_000
"""Values of a tensor whose range is taken as it is; see `FloatGraph.extend_ranges`."""
MASKED = 1e3
"""Scores below -MASKED stand for a mask: exp of them is 0 in float32, too."""
_BY_COLUMN = (
    *("ADD", "SUB", "MUL", "DIV", "CONCATENATION", "PACK", "SPLIT", "SPLIT_V", "UNPACK"),
    *("STRIDED_SLICE", "SLICE", "GATHER", "MAXIMUM", "MINIMUM", "NEG", "ABS", "LOG", "EXP"),
    *("SQRT", "RSQRT", "SQUARE", "POW", "FLOOR", "ROUND", *_SAME_VALUES),
)


@dataclasses.dataclass
class Operator:
    """One operator; tensors are numbers of the graph, -1 an input that is left out."""

    name: str
    inputs: list[int]
    outputs: list[int]


class FloatGraph:
    """One graph of a parsed file.

    Args:
        model: A `schema.ModelT`.
        index: Which graph of the file.

    Attributes:
        operators: Its `Operator`s, producers before consumers.
        inputs: Its input tensors.
        outputs: Its output tensors.
        makers: {tensor: the operator that makes it}.
        low: {tensor: least value}; `observe` fills it, and those below.
        high: {tensor: largest value}.
        counts: {tensor: how many values were observed}.
        columns: {tensor: least and largest value per column of the last axis}.
        peaks: {tensor that a softmax reads: least of the largest values of rows}.
    """

    def __init__(self, model, index):
        self._model, self._graph = model, model.subgraphs[index]
        codes = [op_name(code) for code in model.operatorCodes]
        self.inputs = [int(tensor) for tensor in self._graph.inputs]
        self.outputs = [int(tensor) for tensor in self._graph.outputs]
        self.operators = [
            Operator(codes[op.opcodeIndex], list(map(int, op.inputs)), list(map(int, op.outputs)))
            for op in self._graph.operators or []
        ]
        self.makers = {tensor: op for op in self.operators for tensor in op.outputs}
        self.low, self.high, self.counts, self.columns, self.peaks = {}, {}, {}, {}, {}

    def name(self, tensor):
        """Returns the name of a tensor, which holds the names of the layers it comes from."""
        return self._graph.tensors[tensor].name.decode()

    def source(self, tensor):
        """Returns the names of a tensor and of the constants that it is computed from.

        An output has a name that says nothing; its weights have the name of the layer. Without
        weights, as a softmax, it comes from the layer that it follows.
        """
        op = self.makers[tensor]
        constants = [t for t in op.inputs if t >= 0 and t not in self.makers]
        constants = [t for t in constants if t not in self.inputs]
        names = list(map(self.name, [tensor, *constants]))
        is_output_of_one = tensor in self.outputs and len(op.inputs) == 1
        if is_output_of_one and op.inputs[0] in self.makers:
            names.append(self.source(op.inputs[0]))
        return ";".join(names)

    def is_float(self, tensor):
        """Whether a tensor is of float32."""
        return tensor >= 0 and self._graph.tensors[tensor].type == _FLOAT32

    def constant(self, tensor):
        """Returns the values of a float constant, to be written to; None for other tensors."""
        if not self.is_float(tensor) or tensor in self.makers or tensor in self.inputs:
            return None
        buffer = self._model.buffers[self._graph.tensors[tensor].buffer]
        if buffer.data is None or not len(buffer.data):
            return None
        buffer.data = np.array(buffer.data, np.uint8)
        return buffer.data.view(np.float32)

    def observe(self, program, samples):
        """Runs samples, and widens the ranges of the tensors by their values.

        Args:
            program: What `TFLiteFile.observed` returns.
            samples: Lists of arrays (batch, ...) in the order of the inputs.
        """
        tensors = [tensor for tensor in (*self.inputs, *self.makers) if self.is_float(tensor)]
        read_by_softmax = {op.inputs[0] for op in self.operators if op.name == "SOFTMAX"}
        raw = self.raw_tensors()
        for arrays in samples:
            program.feed(dict(zip(program.inputs, arrays, strict=True)))
            program.invoke()
            for tensor in tensors:
                values = program.tensor(tensor)
                if values is None or not values.size:
                    continue
                self._widen(tensor, float(values.min()), float(values.max()))
                self.counts[tensor] = self.counts.get(tensor, 0) + values.size
                if tensor in raw and values.ndim > 1:
                    self._widen_columns(tensor, values.reshape(-1, values.shape[-1]))
                if tensor in read_by_softmax:
                    self._lower_peak(tensor, values.max(axis=-1))

    def _widen(self, tensor, low, high):
        self.low[tensor] = min(low, self.low.get(tensor, low))
        self.high[tensor] = max(high, self.high.get(tensor, high))

    def _widen_columns(self, tensor, rows):
        low, high = rows.min(axis=0), rows.max(axis=0)
        before = self.columns.get(tensor, (low, high))
        self.columns[tensor] = np.minimum(before[0], low), np.maximum(before[1], high)

    def _lower_peak(self, tensor, peaks):
        peaks = peaks[peaks > -MASKED]  # a row that is masked throughout has no scores
        if peaks.size:
            peak = float(peaks.min())
            self.peaks[tensor] = min(peak, self.peaks.get(tensor, peak))

    def is_read_by_softmax_alone(self, tensor):
        """Whether a tensor is no output, and all operators that read it are a softmax."""
        readers = {op.name for op in self.operators if tensor in op.inputs}
        return readers == {"SOFTMAX"} and tensor not in self.outputs

    def raw_tensors(self):
        """Returns the float inputs, and what is computed of them column by column."""
        raw = {tensor for tensor in self.inputs if self.is_float(tensor)}
        for op in self.operators:
            if op.name in _BY_COLUMN and self._reads(op, raw):
                raw |= {tensor for tensor in op.outputs if self.is_float(tensor)}
        return raw

    def _reads(self, op, tensors):
        """Whether what an operator reads is among tensors; a part of it, if it joins them."""
        read = [t for t in op.inputs if t in self.makers or t in self.inputs]
        read = [t for t in read if self.is_float(t)]
        joins = op.name in ("CONCATENATION", "PACK")
        return bool(read) and (any if joins else all)(tensor in tensors for tensor in read)

    def extend_ranges(self):
        """Extends the ranges of tensors of few values, of which others would be cut off.

        The largest of m normal values grows as sqrt(log(m)). So ranges become those of as many
        values as `ENOUGH`. A range that begins at 0, as of a ReLU, still does.
        """
        for tensor, count in self.counts.items():
            low, high = self.low[tensor], self.high[tensor]
            factor = np.sqrt(np.log(ENOUGH) / np.log(min(max(count, 3), ENOUGH)))
            more = (factor - 1.0) * (high - low) / 2
            if np.isfinite(more):
                self.low[tensor] = max(low - more, 0.0) if low >= 0 else low - more
                self.high[tensor] = min(high + more, 0.0) if high <= 0 else high + more

    def set_ranges(self, ranges):
        """Sets the ranges of tensors, {tensor: (low, high)}, whatever was observed."""
        for tensor, (low, high) in ranges.items():
            self.low[tensor], self.high[tensor] = low, high

    def write_ranges(self, in_float):
        """Writes the ranges into the parsed file, as the quantizer reads them.

        Args:
            in_float: Names of tensors whose operators stay in float32. Raw tensors that these
                read get no range, as the quantizer passes ranges on through such operators.
        """
        raw = self.raw_tensors()
        bare = {
            t for op in self.operators for t in op.inputs if self.name(op.outputs[0]) in in_float
        }
        for tensor, low in self.low.items():
            high = self.high[tensor]
            self._graph.tensors[tensor].quantization = None
            if tensor in bare & raw:
                continue
            if np.isfinite([low, high]).all() and high - low < 1e30:
                ranges = schema.QuantizationParametersT()
                ranges.min, ranges.max = [low], [high]
                self._graph.tensors[tensor].quantization = ranges
