"""TensorFlow Lite for Microcontrollers: a file run by its interpreter, and compressed for it."""

import dataclasses
import json
import math
import operator
import pathlib
import re
import tempfile

import numpy as np

from tfpeft.core.arguments import InputError, unexpected
from tfpeft.export.targets.programs import check_dense, check_one_signature, last_words, run_python
from tfpeft.export.targets.tflm_kernels import KERNELS
from tfpeft.export.tflite_file import TFLiteFile

_CHILD = pathlib.Path(__file__).with_name("tflm_child.py")
_SAMPLES = 8
_MOST_BITS = 7  # of an index into a table
_HEADER = 16  # bytes before the tables of a constant
_OPERATOR = 224  # bytes of the operator that unpacks a constant, and its tensors; measured
_COMPRESSED_TYPES = ("int8", "int16", "float32")


@dataclasses.dataclass(frozen=True)
class CompressedFile:
    """A file with tables of values in place of constants; its outputs are equal.

    Attributes:
        size_bytes: Bytes of the file.
        arena_bytes: Bytes of RAM that it needs: constants are unpacked into the arena.
        tensors: Names of the constants that are compressed.
        resolver: The operators as C++, a ready op resolver.
        content: The file. Only TFLite Micro runs it.
    """

    size_bytes: int
    arena_bytes: int
    tensors: tuple[str, ...]
    resolver: str
    content: bytes = dataclasses.field(repr=False)

    def __str__(self):
        return (
            f"with tables of values: {self.size_bytes:,} bytes, arena {self.arena_bytes:,} bytes, "
            f"equal outputs; compressed: {', '.join(self.tensors)}"
        )


@dataclasses.dataclass(frozen=True)
class TFLMReport:
    """What TFLite Micro makes of a file.

    Attributes:
        arena_bytes: Bytes of RAM that the interpreter needs, on this machine's 64 bits.
        samples: How many random samples were run.
        max_difference: Largest difference from LiteRT, as `TFLiteFile` runs it, in the unit of
            the outputs. On random inputs it is larger than on data.
        max_steps: The same in steps of the outputs' scales; None for outputs of floats.
        reference_difference: Largest difference from LiteRT's reference kernels, of which those
            of TFLite Micro are made: about 0. None where LiteRT has no such kernels, as of ELU.
        resolver: The operators as C++, a ready op resolver.
        compressed: The `CompressedFile`; None where tables save nothing.
        notes: What to know.
    """

    arena_bytes: int
    samples: int
    max_difference: float
    max_steps: int | None
    reference_difference: float | None
    resolver: str
    compressed: CompressedFile | None
    notes: tuple[str, ...]

    def __str__(self):
        steps = "" if self.max_steps is None else f" (in steps of the outputs: {self.max_steps})"
        reference = ""
        if self.reference_difference is not None:
            reference = f", from its reference kernels {self.reference_difference:.3g}"
        lines = [
            f"TFLite Micro runs it: arena {self.arena_bytes:,} bytes; on {self.samples} random "
            f"samples, largest difference from LiteRT {self.max_difference:.3g}{steps}{reference}"
        ]
        lines += [str(self.compressed)] if self.compressed is not None else []
        return "\n".join([*lines, *self.notes, "", self.resolver])


def describe_tflm(file):
    """Returns the `TFLMReport` of a `TFLiteFile`.

    Raises:
        InputError: if the file has several signatures, or TFLite Micro cannot run it.
    """
    check_one_signature(file, "tflm")
    graph = file.read_graphs(lambda graphs: graphs[0])
    _check_kernels(file)
    samples = _random_inputs(graph)
    found, arena = _run(file, samples, graph)
    steps = _largest(file.run_stored(samples), found)
    scales = [tensor.scales[0] if tensor.is_quantized else 1.0 for tensor in graph.outputs]
    are_integers = all(tensor.is_quantized for tensor in graph.outputs)
    return TFLMReport(
        arena_bytes=arena,
        samples=_SAMPLES,
        max_difference=max(map(operator.mul, steps, scales)),
        max_steps=int(max(steps)) if are_integers else None,
        reference_difference=_reference_difference(file, samples, found, scales),
        resolver=resolver(file.contents.ops),
        compressed=_compress(file, graph, samples, found),
        notes=_notes(graph),
    )


def resolver(ops):
    """Returns the C++ of an op resolver for operators.

    Args:
        ops: Names of operators that `KERNELS` has.
    """
    calls = [f"resolver.{KERNELS[op]}();" for op in ops]
    return "\n".join([f"tflite::MicroMutableOpResolver<{len(calls)}> resolver;", *calls])


def tables(graph):
    """Returns {constant: its tables as TFLite Micro's compression takes them}, where they pay.

    A constant of n distinct values becomes indices of ceil(log2(n)) bits, and a table of n
    values: one for each channel where the constant has a scale for each channel, as a single one
    would load and compute wrongly.
    """
    found = {}
    for tensor in {graph.kernel(op): None for op in graph.operators}:
        if tensor is None or tensor.dtype not in _COMPRESSED_TYPES or tensor.is_sparse:
            continue
        if not any(tensor in op.inputs for op in graph.operators if op.name in KERNELS):
            continue
        axis = tensor.channel_axis
        channels = 1 if axis is None else tensor.shape[axis]
        slices = [tensor.values] if axis is None else np.moveaxis(tensor.values, axis, 0)
        longest = max(len(np.unique(values)) for values in slices)
        bits = max(1, math.ceil(math.log2(longest)))
        table_bytes = channels * longest * tensor.values.itemsize
        packed = math.ceil(tensor.size * bits / 8) + _HEADER + table_bytes
        # What it is unpacked to has the scales once more.
        more = _OPERATOR + tensor.scale_bytes
        if bits <= _MOST_BITS and packed + more < tensor.stored_bytes:
            mode = {"per_tensor": None} if axis is None else {"per_channel": {"axis": axis}}
            found[tensor] = {"index_bitwidth": bits, **mode}
    return found


def _largest(expected, found):
    """Returns the largest difference of each output, in the numbers that the file has."""
    return [
        float(np.max(np.abs(a.astype(np.float64) - b.astype(np.float64)), initial=0.0))
        for a, b in zip(expected, found, strict=True)
    ]


def _reference_difference(file, samples, found, scales):
    """Returns the largest difference from LiteRT's reference kernels; None if it has none."""
    try:
        expected = file.run_stored(samples, reference=True)
    except InputError:
        return None
    return max(map(operator.mul, _largest(expected, found), scales))


def _check_kernels(file):
    check_dense(file, "tflm")
    missing = [op for op in file.contents.ops if op not in KERNELS]
    if missing:
        raise unexpected(
            "operators that TFLite Micro has kernels for", f"{file.path} with {', '.join(missing)}"
        )


def _random_inputs(graph):
    """Returns random inputs of their types, arrays (samples, *shape)."""
    rng = np.random.default_rng(0)

    def values(tensor):
        shape = (_SAMPLES, *tensor.shape)
        if "float" in tensor.dtype:
            return rng.normal(size=shape).astype(tensor.dtype)
        dtype = np.dtype(tensor.dtype)
        if not tensor.is_quantized:  # indices, masks
            return rng.integers(0, 2, shape).astype(dtype)
        limits = np.iinfo(dtype)
        return rng.integers(limits.min, limits.max, shape, dtype, endpoint=True)

    return [values(tensor) for tensor in graph.inputs]


def _run(file, samples, graph):
    """Returns the outputs of TFLite Micro, and the bytes of its arena."""
    # Enough for all tensors side by side; it is what is used that counts.
    arena = 2**20 + 10 * len(file.content) + 8 * sum(tensor.size for tensor in graph.tensors)
    with tempfile.TemporaryDirectory(prefix="tfpeft-") as folder:
        folder = pathlib.Path(folder)
        (folder / "model.tflite").write_bytes(file.content)
        np.savez(folder / "inputs.npz", *samples)
        ended = run_python([_CHILD, "run", arena, len(graph.outputs)], folder)
        used = re.search(r"Arena allocation total (\d+) bytes", ended.stderr)
        if ended.returncode or used is None:
            reason = _reason(ended)
            raise unexpected("a file that TFLite Micro runs", f"{file.path}: {reason}")
        loaded = np.load(folder / "outputs.npz")
        return [loaded[f"arr_{i}"] for i in range(len(loaded.files))], int(used[1])


def _reason(ended):
    """Returns what TFLite Micro says before Python's traceback; a signal has no more words."""
    said, _, _ = ended.stderr.partition("Traceback (most recent call last)")
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    if ended.returncode < 0:
        return "; ".join([*lines[-1:], last_words(ended)])
    return lines[0] if lines else last_words(ended)


def _compress(file, graph, samples, expected):
    """Returns the `CompressedFile`, run and compared; None if it would not be smaller."""
    chosen = tables(graph)
    if not chosen:
        return None
    compressed = _with_tables(file, chosen)
    if len(compressed.content) >= len(file.content):
        return None
    found, arena = _run(compressed, samples, graph)
    names = tuple(tensor.name for tensor in chosen)
    if not all(map(np.array_equal, expected, found)):
        raise unexpected(
            "a compressed file of equal outputs in TFLite Micro",
            f"{file.path}, whose outputs change with tables for {', '.join(names)}",
        )
    ops, content = compressed.contents.ops, compressed.content
    return CompressedFile(len(content), arena, names, resolver(ops), content)


def _with_tables(file, chosen):
    """Returns the compressed `TFLiteFile`, of {constant: its tables}."""
    specs = [
        {"subgraph": 0, "tensor": tensor.index, "compression": [{"lut": table}]}
        for tensor, table in chosen.items()
    ]
    with tempfile.TemporaryDirectory(prefix="tfpeft-") as folder:
        folder = pathlib.Path(folder)
        (folder / "model.tflite").write_bytes(file.content)
        (folder / "tables.json").write_text(json.dumps({"tensors": specs}))
        ended = run_python([_CHILD, "compress"], folder)
        if ended.returncode:
            reason = last_words(ended)
            raise unexpected("constants that TFLite Micro compresses", f"{file.path}: {reason}")
        return TFLiteFile(folder / "compressed.tflite")


def _notes(graph):
    if any(-1 in tensor.free for tensor in graph.inputs):
        return ("a free side counts as 1 there: export with batch_size=1",)
    return ()
