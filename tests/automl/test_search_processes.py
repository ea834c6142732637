"""A search in several processes: after a kill, and in two workers."""

import json
import pathlib
import shutil
import socket
import time

import pytest

import tfpeft
from tests.automl import searches
from tests.pipelines import scripts

pytest.importorskip("keras_tuner", reason="pip install tfpeft[search]")


def start(folder, log, **environment):
    """Starts a search in a process."""
    files = {"output": log, "errors": log.with_suffix(".errors")}
    script, cwd = "tests.automl.searches", pathlib.Path(__file__).parents[2]
    return scripts.start(script, str(folder), cwd=cwd, **files, environment=environment)


def wait_for(condition, process, log):
    """Waits until a condition holds, while a process runs."""
    while not condition():
        assert process.is_alive(), log.read_text()
        time.sleep(0.05)


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """The folder of a search that was killed within the second trial."""
    parent = tmp_path_factory.mktemp("killed")
    folder, log = parent / "search", parent / "log"
    process = start(folder, log)

    def is_at_the_second():
        state = folder / "oracle/oracle.json"
        ongoing = json.loads(state.read_text())["ongoing_trials"] if state.is_file() else {}
        return "0001" in ongoing.values()

    wait_for(is_at_the_second, process, log)
    process.kill()
    process.join()
    assert not (folder / "report.json").exists()
    return folder


def test_a_search_resumes_after_a_kill(killed, tmp_path):
    folder = shutil.copytree(killed, tmp_path / "search")
    trials = folder / "trials"
    first = (trials / "0000.json").read_text()
    result = searches.search(folder)
    assert (trials / "0000.json").read_text() == first
    trained = [trial for trial in result.trials if trial.metric is not None]
    assert [trial.id for trial in trained] == ["0000", "0001", "0002", "final"]
    assert len({json.dumps(trial.settings) for trial in trained[:3]}) == 3


def test_two_workers_share_the_trials_that_are_left(killed, tmp_path):
    """Of a search that one process began, whose first trial has ended."""
    folder = shutil.copytree(killed, tmp_path / "search")
    first = (folder / "trials/0000.json").read_text()
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
            process.join(200)
            assert process.exitcode == 0, log.read_text()
    finally:
        for process in processes:
            process.kill()
    texts = {name: log.read_text() for name, log in logs.items()}
    assert "result Budget: max_size_bytes=5,000" in texts["chief"]
    assert "result None" in texts["worker0"]
    run = [[i for i in range(3) if f"Trial 000{i}: " in texts[name]] for name in logs]
    assert run[0] == []
    assert sorted(run[1] + run[2]) == [1, 2]
    assert (folder / "trials/0000.json").read_text() == first
    trials = json.loads((folder / "report.json").read_text())["trials"]
    trained = {trial["id"]: trial["settings"] for trial in trials if trial["epochs"]}
    assert {"0000", "0001", "0002", "final"} <= trained.keys()
    assert len({json.dumps(trained[f"000{i}"]) for i in range(3)}) == 3


def test_a_worker_is_called_as_its_chief(killed, monkeypatch):
    variables = {"KERASTUNER_ORACLE_IP": "127.0.0.1", "KERASTUNER_ORACLE_PORT": "1"}
    for name, value in {**variables, "KERASTUNER_TUNER_ID": "worker0"}.items():
        monkeypatch.setenv(name, value)
    budget = tfpeft.Budget(max_size_bytes=searches.LIMIT, max_macs=10**6)
    with pytest.raises(tfpeft.InputError, match="a chief with other.*max_macs was None and is"):
        searches.search(killed, budget=budget)
    x, y = searches.data()
    monkeypatch.setattr(searches, "data", lambda: (x[::-1], y[::-1]))
    with pytest.raises(tfpeft.InputError, match="data and its order was"):
        searches.search(killed)
