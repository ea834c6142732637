"""XNNPACK, LiteRT's kernels on phones: which operators run by its sparse kernels on ARM."""

import dataclasses

import numpy as np

from tfpeft.export.targets.xnnpack_parts import is_unpacking, part_reasons, sparse_nodes
from tfpeft.reports.tables import text_table


@dataclasses.dataclass(frozen=True)
class SparseOperator:
    """Whether an operator runs in a sparse part.

    Attributes:
        name: "CONV_2D".
        tensor: Name of its first output.
        zeros: Fraction in [0, 1] of its kernel that is zero; None without a kernel.
        is_sparse: Whether XNNPACK skips the zeros of its kernel.
        reason: Why it does not; None if it does.
    """

    name: str
    tensor: str
    zeros: float | None
    is_sparse: bool
    reason: str | None


@dataclasses.dataclass(frozen=True)
class XnnpackReport:
    """Which operators of a file XNNPACK runs by its sparse kernels on ARM.

    By the rules of its source; they need no device, and say nothing of time.

    Attributes:
        operators: A `SparseOperator` of each operator.
        runs_sparse: Whether any runs by a sparse kernel.
    """

    operators: tuple[SparseOperator, ...]
    runs_sparse: bool

    def __str__(self):
        rows = [
            [
                op.name,
                op.tensor.split(";")[0],
                "" if op.zeros is None else f"{op.zeros:.1%}",
                "yes" if op.is_sparse else "no",
                op.reason or "",
            ]
            for op in self.operators
        ]
        count = sum(op.is_sparse for op in self.operators)
        return "\n".join(
            [
                f"XNNPACK on ARM: {count} of {len(rows)} operators run by sparse kernels",
                text_table(
                    ("operator", "tensor", "zeros", "sparse", "because"),
                    rows,
                    align=["left", "left", "right", "left", "left"],
                ),
            ]
        )


def describe_xnnpack(file):
    """Returns the `XnnpackReport` of a `TFLiteFile`."""
    operators = file.read_graphs(lambda graphs: [op for g in graphs for op in _of_graph(g)])
    return XnnpackReport(tuple(operators), any(op.is_sparse for op in operators))


def _of_graph(graph):
    """Returns a `SparseOperator` of each operator of a graph."""
    nodes = sparse_nodes(graph)
    reasons = {node.op: reason for node, reason in part_reasons(graph, nodes).items()}
    found = []
    for op in graph.operators:
        if is_unpacking(op):
            continue
        kernel = graph.kernel(op)
        zeros = None if kernel is None else float(np.mean(kernel.values == kernel.zero))
        reason = reasons.get(op, "becomes the padding of the convolution after it")
        tensor = op.outputs[0].name if op.outputs else ""
        found.append(SparseOperator(op.name, tensor, zeros, reason is None, reason))
    return found
