"""Ctrl-C, SIGTERM and closed pipes: one line or none, and the exit status of other programs."""

import os
import pathlib
import signal
import subprocess
import sys
import time

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
# TensorFlow is not needed for any of this, and takes seconds to import.
BEGIN = """
import os, signal, sys, tempfile, threading, time
from pipelines.common import stopping
stopping.install()
def ready():
    print("ready", flush=True)
    time.sleep(30)
"""
RUN = """
try:
    with stopping.stoppable(), tempfile.TemporaryDirectory(dir=".") as folder:
        {body}
except stopping.Stopped as stopped:
    print(stopping.line(stopped.status - 128), file=sys.stderr)
    sys.exit(stopped.status)
"""
LINE = "stopped by {}: the same command goes on after the last stage that is finished\n"


def start(code, cwd, **options):
    process = subprocess.Popen(
        [sys.executable, "-c", BEGIN + code],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )
    assert process.stdout.readline() == "ready\n"
    return process


def end(process):
    """Returns the exit status and the errors of a process."""
    try:
        _, errors = process.communicate(timeout=20)
    finally:
        process.kill()
    return process.returncode, errors


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
@pytest.mark.parametrize("code", ["ready()", RUN.format(body="ready()")], ids=["imports", "run"])
def test_a_signal_is_one_line(tmp_path, code, name, status):
    process = start(code, tmp_path)
    process.send_signal(getattr(signal, name))
    assert end(process) == (status, LINE.format(name))
    assert list(tmp_path.iterdir()) == []  # temporary folders are removed


def test_the_second_ctrl_c_ends_a_run_that_does_not_end(tmp_path):
    body = """
        try:
            ready()
        finally:
            print("cleaning", flush=True)
            time.sleep(30)
    """
    process = start(RUN.format(body=body.strip()), tmp_path)
    process.send_signal(signal.SIGINT)
    assert process.stdout.readline() == "cleaning\n"
    began = time.monotonic()
    process.send_signal(signal.SIGINT)
    assert end(process) == (130, LINE.format("SIGINT"))
    assert time.monotonic() - began < 15


CATCHES = """
        stopping._SECONDS = 0.2
        try:
            ready()
        except BaseException:
            time.sleep(30)
"""
NOT_RAISED = "type('A', (), {'__del__': lambda self: ready()})(); time.sleep(30)"


@pytest.mark.parametrize("body", [CATCHES.strip(), NOT_RAISED], ids=["caught", "not raised"])
def test_code_that_keeps_the_signal_to_itself(tmp_path, body):
    process = start(RUN.format(body=body), tmp_path)
    process.send_signal(signal.SIGTERM)
    assert end(process) == (143, LINE.format("SIGTERM"))


def test_a_worker_is_silent(tmp_path):
    body = """
        there, here = os.pipe()
        if os.fork() == 0:
            os.write(here, b"!")
            time.sleep(30)
        os.read(there, 1)
        ready()
    """
    process = start(RUN.format(body=body.strip()), tmp_path, start_new_session=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert end(process) == (130, LINE.format("SIGINT"))


def test_a_signal_that_is_ignored_stays_ignored(tmp_path):
    """As of `nohup`, and of jobs in the background of a shell script."""

    def ignore():
        signal.signal(signal.SIGHUP, signal.SIG_IGN)

    code = RUN.format(body="print('ready', flush=True); time.sleep(0.5)")
    process = start(code, tmp_path, preexec_fn=ignore)
    process.send_signal(signal.SIGHUP)
    assert end(process) == (0, "")
