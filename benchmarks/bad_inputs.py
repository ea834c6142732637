r"""What becomes of bad inputs: how many get a clear error, and which do not.

    python benchmarks/bad_inputs.py
    python benchmarks/bad_inputs.py --groups=export,sparsity --show=silent,traceback

Every public name and every flag gets values that must be rejected: of a wrong type, NaN, negative,
empty, of another shape; other models; bad paths; damaged files and folders. An outcome is

    good          an error of tfpeft: one line, which names the argument and what was expected
    unclear       an error of tfpeft which does not
    traceback     an exception from the depths: Keras, TensorFlow, NumPy, h5py, Python
    silent        no error
    hang          no end within two minutes, or the end of the process
    half-written  an error, and a part of a file stayed behind

A group is one process; its cases are in bad_cases/. Status 1 unless all are good.
"""

import collections
import contextlib
import gc
import importlib
import json
import os
import pathlib
import subprocess
import sys
import tempfile

from absl import app, flags

GROUPS = (
    *("export", "data", "flags", "run_flags", "run_folders"),
    *("copies", "sparsity", "channels", "quantization", "teaching", "sharing", "loading"),
    *("distribution", "recommend", "reports", "search"),
)
FLAGS = flags.FLAGS
flags.DEFINE_list("groups", list(GROUPS), "Groups of cases.")
flags.DEFINE_list("show", [], "Kinds of outcomes whose cases are printed; `all` for every one.")
flags.DEFINE_string("only", "", "Run the cases alone whose name has this text.")
flags.DEFINE_string("output", "", "File for the outcomes, a line of JSON for each case.")
flags.DEFINE_string("child", "", "Used inside: the file that one group writes its outcomes to.")
flags.DEFINE_integer("start", 0, "Used inside: the number of the first case.")


def run_group(group):
    """Runs a group in a process, and goes on in another one if a case ends it."""
    outcomes = []
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "outcomes"
        while True:
            path.write_text("")
            arguments = [f"--groups={group}", f"--child={path}", f"--start={len(outcomes)}"]
            command = [sys.executable, __file__, *arguments, f"--only={FLAGS.only}"]
            environment = {"TF_CPP_MIN_LOG_LEVEL": "3", **os.environ}
            status = subprocess.run(command, env=environment, capture_output=True, text=True)
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            outcomes += [line for line in lines if "kind" in line]
            if status.returncode == 0:
                return outcomes
            if not lines:
                raise RuntimeError(f"{group}: {status.stderr[-2000:]}")
            text = f"the process ended with status {status.returncode}"
            outcomes.append({**lines[-1], "kind": "hang", "text": text})


def run_child():
    """Runs the cases of one group, and writes a line when each begins and when it ends."""
    from bad_cases.case import run

    (group,) = FLAGS.groups
    cases = importlib.import_module(f"bad_cases.{group}").cases()
    cases = [case for case in cases if FLAGS.only in case.name]
    names = [case.name for case in cases]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"Two cases of one name: {twice}")
    with pathlib.Path(FLAGS.child).open("a", buffering=1) as file:
        for number, case in enumerate(cases[FLAGS.start :]):
            file.write(json.dumps({"group": group, "name": case.name}) + "\n")
            kind, text = run(case)
            line = {"group": group, "name": case.name, "kind": kind, "text": text}
            file.write(json.dumps(line) + "\n")
            if number % 50 == 49:
                gc.collect()


def table(outcomes):
    """Returns the counts of each group and of all, in Markdown."""
    from bad_cases.case import KINDS

    from tfpeft.reports.tables import markdown_table

    by_group = collections.defaultdict(collections.Counter)
    for outcome in outcomes:
        for group in (outcome["group"], "all"):
            by_group[group][outcome["kind"]] += 1
    total = by_group.pop("all", collections.Counter())
    rows = [
        [group, *(str(number) for number in (counts.total(), *(counts[kind] for kind in KINDS)))]
        for group, counts in [*by_group.items(), ("all", total)]
    ]
    return markdown_table(["group", "inputs", *KINDS], rows, align=["left", *["right"] * 7])


def main(_):
    if FLAGS.child:
        run_child()
        return 0
    outcomes = []
    for group in FLAGS.groups:
        found = run_group(group)
        outcomes += found
        print(f"{group}: {len(found)} inputs", file=sys.stderr, flush=True)
    for outcome in outcomes:
        if {outcome["kind"], "all"} & set(FLAGS.show):
            text = " ".join(outcome["text"].split())[:700]
            print(f"{outcome['kind']}: {outcome['name']}\n    {text}")
    if FLAGS.output:
        lines = [json.dumps(outcome) for outcome in outcomes]
        pathlib.Path(FLAGS.output).write_text("\n".join(lines) + "\n")
    print(table(outcomes))
    return int(any(outcome["kind"] != "good" for outcome in outcomes))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):
        app.run(main)
