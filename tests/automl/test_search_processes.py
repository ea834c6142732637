"""A search in several processes: after a kill, and in two workers."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import pytest

from tests.automl import searches

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")
ROOT = pathlib.Path(__file__).parent.parent.parent


def start(folder, log, **environment):
    """Starts a search in a process."""
    with open(log, "w") as file:
        return subprocess.Popen(
            [sys.executable, "-m", "tests.automl.searches", str(folder)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **environment},
            stdout=file,
            stderr=subprocess.STDOUT,
        )


def wait_for(condition, process, log):
    """Waits until a condition holds, while a process runs."""
    while not condition():
        assert process.poll() is None, log.read_text()
        time.sleep(0.05)


def test_a_search_resumes_after_a_kill(tmp_path):
    folder, log = tmp_path / "search", tmp_path / "log"
    process = start(folder, log)
    trials = folder / "trials"
    # Within the second trial: the first one has its record.
    wait_for(lambda: (folder / "oracle/trial_0001").exists(), process, log)
    process.send_signal(signal.SIGKILL)
    process.wait()
    first = (trials / "0000.json").read_text()
    assert not (folder / "report.json").exists()
    result = searches.search(folder)
    assert (trials / "0000.json").read_text() == first
    trained = [trial for trial in result.trials if trial.metric is not None]
    assert [trial.id for trial in trained] == ["0000", "0001", "0002", "final"]
    assert len({json.dumps(trial.settings) for trial in trained[:3]}) == 3


def test_two_workers_share_the_trials(tmp_path):
    folder = tmp_path / "search"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    variables = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": str(port)}
    logs = {name: tmp_path / name for name in ("chief", "worker0", "worker1")}
    processes = [
        start(folder, log, **variables, KERASTUNER_TUNER_ID=name) for name, log in logs.items()
    ]
    try:
        for process, log in zip(processes, logs.values(), strict=True):
            assert process.wait(200) == 0, log.read_text()
    finally:
        for process in processes:
            process.kill()
    texts = {name: log.read_text() for name, log in logs.items()}
    assert "result Budget: max_size_bytes=5,000" in texts["chief"]
    assert "result None" in texts["worker0"]
    assert [sum(f"Trial 000{i}: " in texts[name] for i in range(2)) for name in logs] == [0, 1, 1]
    report = json.loads((folder / "report.json").read_text())
    assert {"0000", "0001", "final"} <= {trial["id"] for trial in report["trials"]}
