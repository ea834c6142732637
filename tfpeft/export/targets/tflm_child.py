"""A program for a child process: runs a file in TFLite Micro, or compresses its constants.

    python tflm_child.py run ARENA_BYTES OUTPUTS    model.tflite, inputs.npz -> outputs.npz
    python tflm_child.py compress                   model.tflite, tables.json -> compressed.tflite

It reads and writes in the current folder, and imports nothing of tfpeft.
"""

import pathlib
import sys

import numpy as np


def run(arena_bytes, outputs):
    """Runs each sample of the inputs; prints to stderr what the arena holds."""
    from tflite_micro import runtime

    interpreter = runtime.Interpreter.from_file("model.tflite", arena_size=int(arena_bytes))
    loaded = np.load("inputs.npz")
    inputs = [loaded[f"arr_{i}"] for i in range(len(loaded.files))]
    found = [[] for _ in range(int(outputs))]
    for sample in zip(*inputs, strict=True):
        interpreter.reset()
        for i, values in enumerate(sample):
            interpreter.set_input(values, i)
        interpreter.invoke()
        for i, values in enumerate(found):
            values.append(np.array(interpreter.get_output(i)))
    np.savez("outputs.npz", *map(np.stack, found))
    interpreter.print_allocations()


def compress():
    """Puts tables of values in place of constants; JSON is YAML, which the package reads."""
    from tflite_micro import compression

    content = pathlib.Path("model.tflite").read_bytes()
    tables = compression.parse_yaml(pathlib.Path("tables.json").read_text())
    pathlib.Path("compressed.tflite").write_bytes(compression.compress(content, tables))


if __name__ == "__main__":
    {"run": run, "compress": compress}[sys.argv[1]](*sys.argv[2:])
