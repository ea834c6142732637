"""What a .tflite file holds, operator by operator, and what a device says of it."""

import dataclasses
import os
import typing

import numpy as np

from tfpeft.core.arguments import unexpected
from tfpeft.export.targets.table import check_target, describe_for
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.reports.tables import markdown_table, text_table

_WIDTH = 48
_OPERATORS = ("operator", "tensor", "type", "shape", "float because")
_CONSTANTS = ("constant", "of", "type", "shape", "zeros", "distinct", "per channel", "bytes")


@dataclasses.dataclass(frozen=True)
class OperatorDescription:
    """An operator of a file; see `describe_tflite`.

    Attributes:
        name: "CONV_2D".
        tensor: Name of its first output, which holds the names of the layers it comes from.
        dtype: The type that it computes in: that of its first output.
        shape: The shape of its first output; -1 is a free side.
        is_quantized: Whether it computes real numbers as integers.
        reason: Why it computes in float; None if it does not.
    """

    name: str
    tensor: str
    dtype: str
    shape: tuple[int, ...]
    is_quantized: bool
    reason: str | None


@dataclasses.dataclass(frozen=True)
class ConstantDescription:
    """A constant of a file, such as a kernel; see `describe_tflite`.

    Attributes:
        tensor: Its name.
        operator: The operator that computes with it.
        dtype: Its type.
        shape: Its shape.
        size: How many numbers it has.
        zeros: How many of them are zero.
        distinct: How many distinct values it has.
        distinct_per_channel: The largest number of distinct values of an output channel; None if
            it has no channels.
        channel_axis: The axis of its output channels; None if it has none.
        scales: How many scales it has: 0 of floats, 1 per tensor, or one per channel.
        is_sparse: Whether it is stored in sparse form.
        stored_bytes: Bytes of its values in the file.
    """

    tensor: str
    operator: str
    dtype: str
    shape: tuple[int, ...]
    size: int
    zeros: int
    distinct: int
    distinct_per_channel: int | None
    channel_axis: int | None
    scales: int
    is_sparse: bool
    stored_bytes: int


@dataclasses.dataclass(frozen=True)
class TFLiteDescription:
    """What `describe_tflite` returns. Print it for tables.

    Attributes:
        path: The file.
        size_bytes: Bytes of the file.
        gzip_bytes: Bytes of the file compressed by gzip at level 9.
        signatures: Names of its signatures; () if it has none.
        inputs: {name of an input tensor: (type, shape)}, of all signatures; -1 is a free side.
        outputs: The same of the outputs.
        ops: {operator name: how many there are}.
        int8_share: Fraction in [0, 1] of the operators in int8, as in `ExportReport`.
        operators: An `OperatorDescription` of each operator, in the order in which they run, the
            operators inside of loops after the others.
        constants: A `ConstantDescription` of each constant of real numbers.
        target: The argument.
        device: What the target says: an object to print, whose attributes the documentation of
            `describe_tflite` lists; None without a target.
    """

    path: str
    size_bytes: int
    gzip_bytes: int
    signatures: tuple[str, ...]
    inputs: dict[str, tuple[str, tuple[int, ...]]]
    outputs: dict[str, tuple[str, tuple[int, ...]]]
    ops: dict[str, int]
    int8_share: float
    operators: tuple[OperatorDescription, ...]
    constants: tuple[ConstantDescription, ...]
    target: str | None = None
    device: typing.Any = None

    @property
    def float_operators(self) -> tuple[OperatorDescription, ...]:
        """The operators that compute in float, each with the reason."""
        return tuple(op for op in self.operators if op.reason is not None)

    def to_markdown(self) -> str:
        """Returns the tables in Markdown."""
        return self._text(markdown_table)

    def __str__(self):
        return self._text(text_table)

    def _text(self, table):
        ops = [
            [op.name, _short(op.tensor), op.dtype, _shape(op.shape), op.reason or ""]
            for op in self.operators
        ]
        constants = [
            [
                *(_short(c.tensor), c.operator, c.dtype, _shape(c.shape)),
                f"{c.zeros / max(c.size, 1):.1%}",
                f"{c.distinct:,}",
                "" if c.distinct_per_channel is None else f"{c.distinct_per_channel:,}",
                f"{c.stored_bytes:,}{' sparse' if c.is_sparse else ''}",
            ]
            for c in self.constants
        ]
        integer = sum(op.is_quantized for op in self.operators)
        parts = [
            f"{self.path}: {self.size_bytes:,} bytes ({self.gzip_bytes:,} gzipped), {integer} of "
            f"{integer + len(self.float_operators)} operators on real numbers in integers",
            _borders("inputs", self.inputs),
            _borders("outputs", self.outputs),
            "",
            table(_OPERATORS, ops, align=["left"] * 5),
        ]
        if constants:
            align = [*["left"] * 4, *["right"] * 4]
            parts += ["", table(_CONSTANTS, constants, align=align)]
        if self.device is not None:
            parts += ["", str(self.device)]
        return "\n".join(parts)


def describe_tflite(path: str | os.PathLike, target: str | None = None) -> TFLiteDescription:
    """Describes a .tflite file, and what a device makes of it.

    Without a target: operators, types and shapes; the zeros and the distinct values of each
    constant, also per output channel; which operators compute in float, and why, as far as the
    file shows it; raw and gzip bytes.

    With a target, `device` of the result has:

    - "tflm" (TensorFlow Lite for Microcontrollers; needs the package `tflite-micro`): the file
      was run by its interpreter. `arena_bytes`, `max_difference` and `max_steps` from LiteRT on
      random inputs, and `resolver` (C++). With tables of values in place of weights of few
      distinct values: `compressed`, its `size_bytes`, `arena_bytes`, `resolver`, and the file
      itself, `content`; it was run, and its outputs are equal.
    - "ethos-u55-32", "-64", "-128", "-256", "ethos-u65-256", "-512", "ethos-u85-128" to "-2048"
      (Arm's NPUs; needs `ethos-u-vela`): what Arm's compiler makes of it. `cpu_operators` with
      the reason, `flash_bytes`, `sram_bytes`, `dram_bytes`, `inference_ms`, and the file that it
      compiled, `compiled`.
    - "xnnpack" (phones): `operators`, which of XNNPACK's sparse kernels on ARM apply, and why
      not; `runs_sparse`.

    What it does not give: time on a device. Vela's is an estimate for the NPU alone, and with the
    clock and the memory of its default system; measure on yours.

    Args:
        path: The file.
        target: One of those above, or None.

    Returns:
        A `TFLiteDescription`.

    Raises:
        InputError: if there is no such file or target, the package of the target is missing, or
            the target cannot take the file: operators without a kernel in TFLM, a file without
            int8 activations for an Ethos-U.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, activation="softmax")])
    tfpeft.export_tflite(model, "model.tflite")
    described = tfpeft.describe_tflite("model.tflite", target="xnnpack")
    print(described)
    print(described.constants[0].distinct)  # 24
    print(described.float_operators[0].reason)  # nothing in the file is quantized
    ```
    """
    check_target(target)
    file = TFLiteFile(path)
    described = file.read_graphs(lambda graphs: _described(file, graphs))
    if target is None:
        return described
    return dataclasses.replace(described, target=target, device=describe_for(target, file))


def _described(file, graphs):
    from tfpeft.export.float_reasons import float_reason, is_quantized

    if not any(graph.operators for graph in graphs):
        raise unexpected("a .tflite file with operators", f"{file.path}, which has none")
    contents = file.contents
    main = [graph for graph in graphs if graph.is_main]
    return TFLiteDescription(
        path=str(file.path),
        size_bytes=contents.size_bytes,
        gzip_bytes=contents.gzip_bytes,
        signatures=tuple(name for graph in graphs for name in graph.signatures),
        inputs={t.name: (t.dtype, t.free) for graph in main for t in graph.inputs},
        outputs={t.name: (t.dtype, t.free) for graph in main for t in graph.outputs},
        ops=contents.ops,
        int8_share=contents.int8_share,
        operators=tuple(
            OperatorDescription(
                name=op.name,
                tensor=op.outputs[0].name if op.outputs else "",
                dtype=op.outputs[0].dtype if op.outputs else "",
                shape=op.outputs[0].free if op.outputs else (),
                is_quantized=is_quantized(op),
                reason=float_reason(op, graphs),
            )
            for graph in sorted(graphs, key=lambda graph: not graph.is_main)
            for op in graph.operators
        ),
        constants=tuple(_constants(graphs)),
    )


def _constants(graphs):
    """Yields a `ConstantDescription` of each constant of real numbers; of a shared one, once."""
    from tfpeft.export.tflite_constants import most_distinct

    seen = set()
    for graph in graphs:
        axes = graph.channel_axes()
        for op in graph.operators:
            for tensor in op.constants:
                if tensor.buffer in seen or not (tensor.is_quantized or "float" in tensor.dtype):
                    continue
                seen.add(tensor.buffer)
                values, axis = tensor.values, axes.get(tensor)
                if values is None:
                    continue
                yield ConstantDescription(
                    tensor=tensor.name,
                    operator=graph.user(op).name,
                    dtype=tensor.dtype,
                    shape=tensor.shape,
                    size=tensor.size,
                    zeros=int(np.count_nonzero(values == tensor.zero)),
                    distinct=len(np.unique(values)),
                    distinct_per_channel=None if axis is None else most_distinct(values, axis),
                    channel_axis=axis,
                    scales=len(tensor.scales),
                    is_sparse=tensor.is_sparse,
                    stored_bytes=tensor.stored_bytes,
                )


def _short(name):
    """Returns what fits into a table of the name of a tensor: its last parts."""
    name = name.split(";")[0]
    return name if len(name) <= _WIDTH else f"...{name[3 - _WIDTH :]}"


def _shape(shape):
    return "x".join("?" if side < 0 else str(side) for side in shape) or "()"


def _borders(title, tensors):
    found = [f"{name} {dtype} {_shape(shape)}" for name, (dtype, shape) in tensors.items()]
    return f"{title}: {', '.join(found)}"
