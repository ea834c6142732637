r"""Whether the tests notice a wrong formula: formulas changed on purpose, and the tests that fail.

    python benchmarks/mutants.py
    python benchmarks/mutants.py --only="RigL,T^2"

Each mutant is one formula of tfpeft with a common mistake in it: a factor left out, a sign turned
round, a sum in place of a mean. It is put into a copy of the package, and its tests run there. A
mutant is caught if one of them fails. Before that, the tests of all mutants have to pass without
one. Status 1 if a mutant is not caught. The lists are in mutant_lists/.
"""

import concurrent.futures
import multiprocessing
import os
import pathlib
import shutil
import sys
import tempfile

from absl import app, flags
from mutant_lists import MUTANTS

FLAGS = flags.FLAGS
flags.DEFINE_list("only", [], "Parts of names: the mutants that run; by default all.")
flags.DEFINE_bool("check_tests", True, "Whether the tests run once without a mutant, first.")
flags.DEFINE_integer("jobs", 1, "How many mutants run side by side.", lower_bound=1)

ROOT = pathlib.Path(__file__).resolve().parent.parent
_PASSED, _FAILED = 0, 1  # pytest's exit status
_OPTIONS = ("-x", "-q", "-n", "0", "-p", "no:cacheprovider")
# Forked from a process that has imported what takes long, and nothing of tfpeft.
_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tensorflow_model_optimization", "keras", "pytest", "sklearn"])


def mutate(folder, mutant):
    """Puts the mutant into the package in `folder`; returns the text that was there."""
    path = folder / "tfpeft" / mutant.file
    text = path.read_text()
    if text.count(mutant.right) != 1:
        raise ValueError(f"{mutant.name}: {mutant.right!r} is not in {mutant.file} once")
    path.write_text(text.replace(mutant.right, mutant.wrong))
    return text


def run_tests(folder, tests):
    """Runs tests in a copy; returns pytest's exit status and the last line of its output."""
    log = folder / "log"
    process = _PROCESSES.Process(target=_run_pytest, args=(str(folder), tests, str(log)))
    process.start()
    process.join()
    lines = log.read_text().strip().splitlines() or ["no output"]
    failed = [line for line in lines if line.startswith("FAILED")]
    return process.exitcode, (failed or lines)[-1]


def _run_pytest(folder, tests, log):
    import pytest

    os.chdir(folder)
    sys.path.insert(0, folder)
    with open(log, "w") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.exit(pytest.main([*_OPTIONS, *(f"tests/{test}" for test in tests)]))


def copy_to(folder):
    """Copies the package, its tests and what they run."""
    for name in ("tfpeft", "tests", "pipelines", "benchmarks"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder)


def verdict(mutant):
    """Returns whether a mutant is caught, and the test that failed."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        copy_to(folder)
        mutate(folder, mutant)
        status, line = run_tests(folder, mutant.tests)
    if status not in (_PASSED, _FAILED):
        raise RuntimeError(f"{mutant.name}: pytest ended with status {status}: {line}")
    return status == _FAILED, line


def check_tests(mutants):
    """Raises unless the tests of the mutants pass without them."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        copy_to(folder)
        tests = sorted({test for mutant in mutants for test in mutant.tests})
        status, line = run_tests(folder, tests)
    if status != _PASSED:
        raise RuntimeError(f"The tests do not pass without a mutant: {line}")


def main(_):
    chosen = [m for m in MUTANTS if not FLAGS.only or any(part in m.name for part in FLAGS.only)]
    if FLAGS.check_tests:
        check_tests(chosen)
    print("| mutant | file | caught by |\n|---|---|---|", flush=True)
    caught = 0
    with concurrent.futures.ThreadPoolExecutor(FLAGS.jobs) as pool:
        for mutant, (found, line) in zip(chosen, pool.map(verdict, chosen), strict=True):
            test = line.split("::", 1)[-1].split(" - ")[0] if found else "**not caught**"
            print(f"| {mutant.name} | {mutant.file} | {test} |", flush=True)
            caught += found
    print(f"\n{caught} of {len(chosen)} caught")
    return int(caught < len(chosen))


if __name__ == "__main__":
    app.run(main)
