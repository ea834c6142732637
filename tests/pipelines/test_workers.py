"""Scripts on the machines of TF_CONFIG."""

import json

import pytest

from pipelines import evaluate, train
from pipelines.common import workers
from tests.pipelines.scripts import call
from tfpeft.core.arguments import InputError

CLUSTER = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}


@pytest.fixture
def worker(monkeypatch):
    def set_task(index):
        task = {"type": "worker", "index": index}
        monkeypatch.setenv("TF_CONFIG", json.dumps({"cluster": CLUSTER, "task": task}))

    return set_task


def test_only_the_chief_runs_what_does_not_train(worker, monkeypatch, capsys):
    worker(1)
    assert call(evaluate, "--dataset=no_such.npz", "no_such.keras") == 0
    assert capsys.readouterr().out == ""
    worker(0)
    with pytest.raises(InputError, match="no_such"):
        call(evaluate, "--dataset=no_such.npz", "no_such.keras")


def test_a_bad_cluster_is_one_line_of_the_script(worker):
    worker(2)
    with pytest.raises(InputError, match="TF_CONFIG is invalid, expected a `task` of the cluster"):
        call(train, "--dataset=digits")


def test_without_a_cluster_nothing_changes(monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert not workers.is_no_chief()
    with workers.together():
        assert workers.own_path(tmp_path) == tmp_path
