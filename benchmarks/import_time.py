"""What `import tfpeft` costs, against `import keras`.

    python benchmarks/import_time.py

Both are imported in turn, each in a process of its own. The table has medians of the seconds that
pass and of those that the process computes, with their ratios to `import keras`. On a busy machine
the second kind is steadier.

Cost: about 3 minutes on 2 cores. The table with machine and date is in README.md.
"""

import subprocess
import sys

import machine
import numpy as np
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 15, "Processes per module.", lower_bound=1)

MODULES = ("keras", "tfpeft")
_PROGRAM = """
import time
started = time.perf_counter(), time.process_time()
import {module}
print(time.perf_counter() - started[0], time.process_time() - started[1])
"""


def seconds_to_import(module):
    """Returns the seconds of `import module` in a new process: those that pass, those computed."""
    command = [sys.executable, "-c", _PROGRAM.format(module=module)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return [float(number) for number in output.splitlines()[-1].split()]


def main(_):
    seconds = {module: [] for module in MODULES}
    for module in MODULES:
        seconds_to_import(module)  # the files of the first import come from the disk
    for round_number in range(FLAGS.rounds):
        # Back and forth, so that none is always next to the same one.
        for module in MODULES[:: -1 if round_number % 2 else 1]:
            seconds[module].append(seconds_to_import(module))
    medians = {module: np.median(each, axis=0) for module, each in seconds.items()}
    print(f"{machine.describe()}\n\n| import | seconds | ratio | computed | ratio |")
    print("|---|---:|---:|---:|---:|")
    for module, (passed, computed) in medians.items():
        ratios = medians[module] / medians["keras"]
        print(f"| {module} | {passed:.3f} | {ratios[0]:.3f} | {computed:.3f} | {ratios[1]:.3f} |")


if __name__ == "__main__":
    app.run(main)
