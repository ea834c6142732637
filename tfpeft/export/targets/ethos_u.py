"""Arm's Ethos-U NPUs: what Arm's compiler, Vela, places on them, with memory and time."""

import csv
import dataclasses
import pathlib
import re
import tempfile

from tfpeft.core.arguments import shortened, unexpected
from tfpeft.export.targets.programs import check_dense, check_one_signature, last_words, run_python
from tfpeft.export.tflite_file import TFLiteFile
from tfpeft.reports.tables import text_table

_NPU = "custom ethos-u"
_WARNING = re.compile(
    r"^Warning \([\w ]+\) operator: (\w+), ofm: '(.*)'\nReason: (.*)(?:\n(?!\n)(.*))?", re.MULTILINE
)


@dataclasses.dataclass(frozen=True)
class CPUOperator:
    """An operator that Vela leaves to the CPU.

    Attributes:
        name: "SOFTMAX".
        tensor: Name of its first output.
        reason: Vela's reason.
    """

    name: str
    tensor: str
    reason: str


@dataclasses.dataclass(frozen=True)
class EthosUReport:
    """What Vela makes of a file for an Ethos-U.

    Attributes:
        accelerator: "ethos-u55-128".
        system: Name of the system that Vela assumes: its clock and memories.
        memory_mode: Where it keeps weights and activations.
        clock_mhz: Clock of the NPU.
        inference_ms: Estimated time of the NPU, in ms; operators on the CPU are not in it.
        flash_bytes: Bytes of flash that the NPU reads: weights and commands.
        sram_bytes: Bytes of SRAM.
        dram_bytes: Bytes of DRAM, which an Ethos-U65 keeps weights in.
        compiled_bytes: Bytes of the compiled .tflite file, which the firmware holds.
        compiled: That file.
        macs: Multiply-accumulates on the NPU.
        operators: How many operators the file has.
        cpu_operators: A `CPUOperator` of each that is left to the CPU.
        notes: What to do about some of them.
    """

    accelerator: str
    system: str
    memory_mode: str
    clock_mhz: float
    inference_ms: float
    flash_bytes: int
    sram_bytes: int
    dram_bytes: int
    compiled_bytes: int
    macs: int
    operators: int
    cpu_operators: tuple[CPUOperator, ...]
    notes: tuple[str, ...]
    compiled: bytes = dataclasses.field(repr=False)

    def __str__(self):
        dram = f", DRAM {self.dram_bytes:,} bytes" if self.dram_bytes else ""
        lines = [
            f"{self.accelerator}: {self.inference_ms:.3g} ms (Vela's estimate for the NPU; "
            f"{self.system}, {self.memory_mode}, {self.clock_mhz:g} MHz), flash "
            f"{self.flash_bytes:,} bytes, SRAM {self.sram_bytes:,} bytes{dram}, compiled file "
            f"{self.compiled_bytes:,} bytes",
            f"{len(self.cpu_operators)} of {self.operators} operators on the CPU",
        ]
        if self.cpu_operators:
            rows = [
                [op.name, op.tensor.split(";")[0], shortened(op.reason, 100)]
                for op in self.cpu_operators
            ]
            lines.append(text_table(("on the CPU", "tensor", "because"), rows, align=["left"] * 3))
        return "\n".join([*lines, *self.notes])


def describe_ethos_u(file, accelerator):
    """Returns the `EthosUReport` of a `TFLiteFile`.

    Raises:
        InputError: if the file has several signatures, nothing in it is quantized, or Vela
            cannot compile it.
    """
    check_one_signature(file, accelerator)
    check_dense(file, accelerator)
    operators = file.read_graphs(lambda graphs: [op for g in graphs for op in g.operators])
    if not any(t.is_quantized for op in operators for t in op.outputs):
        raise unexpected(
            f"a file of int8 activations for target={accelerator!r}: export_tflite(..., "
            "quantization='int8', batch_size=1, input_type='int8', output_type='int8')",
            f"{file.path}, in which all operators compute in float",
        )
    with tempfile.TemporaryDirectory(prefix="tfpeft-") as folder:
        folder = pathlib.Path(folder)
        (folder / "model.tflite").write_bytes(file.content)
        options = ["--accelerator-config", accelerator, "--output-dir", "compiled"]
        ended = run_python(["-m", "ethosu.vela", "model.tflite", *options], folder)
        summaries = list(folder.glob("compiled/*_summary_*.csv"))
        compiled = folder / "compiled" / "model_vela.tflite"
        if ended.returncode or not summaries or not compiled.is_file():
            raise unexpected("a file that Vela compiles", f"{file.path}: {last_words(ended)}")
        with summaries[0].open(newline="", encoding="utf-8") as lines:
            (summary,) = csv.DictReader(lines)
        compiled = TFLiteFile(compiled)
    on_cpu = compiled.read_graphs(lambda graphs: _on_cpu(graphs, _reasons(ended.stdout)))
    return EthosUReport(
        accelerator=accelerator,
        system=summary["system_config"],
        memory_mode=summary["memory_mode"],
        clock_mhz=float(summary["core_clock"]) / 1e6,
        inference_ms=1e3 * float(summary["inference_time"]),
        flash_bytes=_bytes(summary, "on_chip_flash") + _bytes(summary, "off_chip_flash"),
        sram_bytes=_bytes(summary, "sram"),
        dram_bytes=_bytes(summary, "dram"),
        compiled_bytes=len(compiled.content),
        macs=int(summary["nn_macs"]),
        operators=len(operators),
        cpu_operators=on_cpu,
        notes=file.read_graphs(_advice),
        compiled=compiled.content,
    )


def _bytes(summary, memory):
    """Returns the bytes used of a memory; Vela writes KiB."""
    return round(1024 * float(summary[f"{memory}_memory_used"]))


def _reasons(printed):
    """Returns {name of an output tensor: why Vela leaves its operator to the CPU}."""
    return {
        found[2]: ": ".join(filter(None, (found[3].strip(), (found[4] or "").strip())))
        for found in _WARNING.finditer(printed)
    }


def _on_cpu(graphs, reasons):
    """Returns the operators of the compiled file that are not the NPU's."""
    return tuple(
        CPUOperator(op.name, op.outputs[0].name, reasons.get(op.outputs[0].name, "not given"))
        for graph in graphs
        for op in graph.operators
        if op.name != _NPU
    )


def _advice(graphs):
    """Returns what to export otherwise so that fewer operators stay on the CPU."""
    borders = [tensor for g in graphs if g.is_main for tensor in (*g.inputs, *g.outputs)]
    if any("float" in tensor.dtype for tensor in borders):
        return ("float borders stay on the CPU: export with input_type='int8', output_type='int8'",)
    return ()
