"""What `import tfpeft` costs, against `import keras`.

    python benchmarks/import_time.py

Both are imported in turn, each in a process of its own. The table has medians of seconds, and the
ratio to `import keras` with Keras's TensorFlow backend. Run it on an idle machine.

Cost: about 5 minutes on 2 cores. The table with machine and date is in README.md.
"""

import statistics
import subprocess
import sys

import machine
from absl import app, flags

FLAGS = flags.FLAGS
flags.DEFINE_integer("rounds", 15, "Processes per module.", lower_bound=1)

MODULES = ("keras", "tfpeft")
_PROGRAM = """
import time
started = time.perf_counter()
import {module}
print(time.perf_counter() - started)
"""


def seconds_to_import(module):
    """Returns the seconds that `import module` takes in a new process."""
    command = [sys.executable, "-c", _PROGRAM.format(module=module)]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return float(output.splitlines()[-1])


def main(_):
    seconds = {module: [] for module in MODULES}
    for module in MODULES:
        seconds_to_import(module)  # the files of the first import come from the disk
    for round_number in range(FLAGS.rounds):
        # Back and forth, so that none is always next to the same one.
        for module in MODULES[:: -1 if round_number % 2 else 1]:
            seconds[module].append(seconds_to_import(module))
    medians = {module: statistics.median(each) for module, each in seconds.items()}
    print(f"{machine.describe()}\n\n| import | seconds | ratio |\n|---|---:|---:|")
    for module, median in medians.items():
        print(f"| {module} | {median:.3f} | {median / medians['keras']:.3f} |")


if __name__ == "__main__":
    app.run(main)
