"""TF_CONFIG, and a strategy without one."""

import json

import pytest

import tfpeft
from tfpeft.distribution.cluster import Cluster, read_cluster

WORKERS = {"worker": ["a:1", "b:2"]}


def config(cluster=WORKERS, task_type="worker", index=0):
    return json.dumps({"cluster": cluster, "task": {"type": task_type, "index": index}})


@pytest.mark.parametrize("text", [None, "", " ", "{}", '{"task": {"type": "worker", "index": 0}}'])
def test_no_cluster(text, monkeypatch):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    assert read_cluster(text) is None


def test_who_is_the_chief():
    assert read_cluster(config()) == Cluster(WORKERS, "worker", 0)
    assert read_cluster(config()).is_chief
    assert read_cluster(config()).size == 2
    assert not read_cluster(config(index=1)).is_chief
    assert read_cluster(config(index="1")).task_index == 1
    with_chief = {"chief": ["c:1"], **WORKERS}
    assert not read_cluster(config(with_chief)).is_chief
    assert read_cluster(config(with_chief, "chief")).is_chief
    assert read_cluster(config(with_chief)).size == 3


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{cluster", "JSON such as .*Received: '{cluster'"),
        ("[1]", "a JSON object such as"),
        (config(["a:1"]), "{task type: list of addresses}"),
        (config({"ps": ["a:1"]}), "with a chief or a worker"),
        (config({"worker": "a:1"}), "a list of addresses 'host:port' for 'worker'"),
        (config({"worker": ["a"]}), "a list of addresses 'host:port' for 'worker'"),
        (config({"chief": ["a:1", "b:1"]}), "at most one chief"),
        (config({"worker": ["a:1", "a:1"]}), "an address for each task.*'a:1' 2 times"),
        (json.dumps({"cluster": WORKERS}), "a `task` such as.*None"),
        (config(task_type="evaluator"), "of type 'chief' or 'worker'"),
        (config(task_type="chief"), "a chief in the cluster"),
        (config(index=2), "an index from 0 to 1"),
        (config(index=-1), "an index from 0 to 1"),
        (config(index=True), "an index from 0 to 1"),
    ],
)
def test_bad_configurations(text, message, monkeypatch):
    monkeypatch.setenv("TF_CONFIG", text)
    with pytest.raises(tfpeft.InputError, match=f"TF_CONFIG is invalid, expected .*{message}"):
        tfpeft.MultiWorkerStrategy()


def test_bad_arguments():
    with pytest.raises(tfpeft.InputError, match="`cluster_resolver`.*'slurm'"):
        tfpeft.MultiWorkerStrategy(cluster_resolver="slurm")
    with pytest.raises(tfpeft.InputError, match="`communication_options`.*'nccl'"):
        tfpeft.MultiWorkerStrategy(communication_options="nccl")


def test_without_a_cluster_paths_are_the_callers(monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CONFIG", raising=False)
    strategy = tfpeft.MultiWorkerStrategy()
    assert strategy.is_chief
    assert strategy.num_workers == 1 == strategy.num_replicas_in_sync
    assert strategy.worker_path(tmp_path / "x") == str(tmp_path / "x")
    with pytest.raises(tfpeft.InputError, match="`path`"):
        strategy.worker_path(3)
