"""The machine of a measurement, in one line for the tables."""

import os
import pathlib

_INSTRUCTIONS = {"avx": "AVX", "avx2": "AVX2", "avx512f": "AVX-512"}
_VNNI = ("avx512_vnni", "avx_vnni")


def describe(cpuinfo=pathlib.Path("/proc/cpuinfo")):
    """Returns the processor, the cores that this process may use, and the instruction sets.

    oneDNN, XLA and NumPy use all of these instructions. TensorFlow's other kernels, and so every
    operation of a mask, are compiled for AVX alone in the packages of PyPI.
    """
    cores = f"{len(os.sched_getaffinity(0))} cores" if hasattr(os, "sched_getaffinity") else ""
    if not cpuinfo.exists():
        return ", ".join(filter(None, [cores, "instruction sets unknown"]))
    lines = [line.partition(":") for line in cpuinfo.read_text().splitlines()]
    fields = {key.strip(): value.strip() for key, _, value in lines}
    flags = fields.get("flags", "").split()
    sets = [name for flag, name in _INSTRUCTIONS.items() if flag in flags]
    sets.append("VNNI" if any(flag in flags for flag in _VNNI) else "no VNNI")
    return ", ".join(filter(None, [fields.get("model name", ""), cores, " ".join(sets)]))
