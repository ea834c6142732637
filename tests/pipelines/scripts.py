"""Runs scripts for tests: in this process, in one that is forked, or as a user does."""

import contextlib
import gc
import json
import multiprocessing
import os
import pathlib
import resource
import runpy
import subprocess
import sys

import keras

import pipelines
from pipelines.common import stopping, training
from tests import cheap_tracing

ROOT = pathlib.Path(__file__).parent.parent.parent
_FORKSERVER = multiprocessing.get_context("forkserver")
_PRELOADED = ["pipelines.stages.compression", "pipelines.stages.share", "keras_hub", "PIL"]


def run_module(*arguments, cwd):
    """Runs `python -m`; returns the exit status, the output and the errors."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", *arguments]
    done = subprocess.run(command, cwd=cwd, env=environment, text=True, capture_output=True)
    return done.returncode, done.stdout, done.stderr


def start(script, *arguments, cwd, output, errors, max_file_size=None, environment=()):
    """Starts a script in a process of its own, which need not import TensorFlow again.

    It is forked from a server that imported what scripts import, and began no work.

    Args:
        script: Name of the module, such as "pipelines.compress".
        *arguments: Its arguments.
        cwd: The current folder.
        output: File for its standard output.
        errors: File for its standard errors.
        max_file_size: The largest file that it can write, in bytes.
        environment: {name: value} of variables that are set.

    Returns:
        A `multiprocessing.Process`.
    """
    _FORKSERVER.set_forkserver_preload([*_PRELOADED, __name__])
    files = (str(cwd), str(output), str(errors))
    target = (script, arguments, *files, max_file_size, dict(environment))
    process = _FORKSERVER.Process(target=_run_as_main, args=target)
    process.start()
    return process


def run(script, *arguments, cwd, max_file_size=None):
    """Runs a script in a forked process; returns its exit status, its output and its errors."""
    logs = [pathlib.Path(cwd) / name for name in ("tests-output", "tests-errors")]
    paths = {"output": logs[0], "errors": logs[1]}
    process = start(script, *arguments, cwd=cwd, **paths, max_file_size=max_file_size)
    process.join()
    texts = [log.read_text() for log in logs]
    for log in logs:
        log.unlink()
    assert "The report is without" not in texts[0], texts[0]
    return process.exitcode, *texts


def _run_as_main(script, arguments, cwd, output, errors, max_file_size, environment):
    gc.freeze()  # what was imported is no garbage: searches for it are many, and all in vain
    os.environ.update(environment)
    os.chdir(cwd)
    sys.path.insert(0, cwd)  # as `python -m` does
    sys.argv = [script, *arguments]
    for descriptor, path in ((1, output), (2, errors)):
        file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(file, descriptor)
        os.close(file)
    sys.stdout = os.fdopen(1, "w", buffering=1, closefd=False)
    stopping.install()
    pipelines.quiet_native_logs()
    cheap_tracing.apply()
    if max_file_size is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (max_file_size, max_file_size))
    runpy.run_module(script, run_name="__main__", alter_sys=True)


@contextlib.contextmanager
def without_determinism():
    """Seeds, and nothing more: determinism is for good, and XLA's tests cannot have it."""
    seed_everything = training.seed_everything
    training.seed_everything = keras.utils.set_random_seed
    try:
        yield
    finally:
        training.seed_everything = seed_everything


def call(script, *arguments):
    """Calls the module `script` in this process; bad input raises."""
    with without_determinism():
        return script.SCRIPT.call(list(arguments))


def read_report(folder):
    """Returns the report but for latencies, which are measured anew, and when it was made."""
    report = json.loads((pathlib.Path(folder) / "report.json").read_text())
    del report["made"]
    for row in report["rows"].values():
        del row["latency_ms"], row["latency_p90_ms"]
    return report
