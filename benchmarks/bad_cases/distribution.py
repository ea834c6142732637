"""Bad inputs of training on several machines: TF_CONFIG, arguments, and paths."""

import json
import os

import tfpeft
from bad_cases.case import Case, bad_arguments

WORKERS = {"worker": ["127.0.0.1:1", "127.0.0.1:2"]}
CHIEF = {"type": "worker", "index": 0}


def config(cluster=WORKERS, **task):
    return json.dumps({"cluster": cluster, "task": {**CHIEF, **task}})


CONFIGURATIONS = {
    "no JSON": "worker:0",
    "half of it": config()[:-5],
    "a list": "[]",
    "a number": "3",
    "a cluster that is a list": config(["127.0.0.1:1"]),
    "a cluster without workers": config({"ps": ["127.0.0.1:1"]}),
    "an address, no list": config({"worker": "127.0.0.1:1"}),
    "an address without a port": config({"worker": ["127.0.0.1"]}),
    "an address that is a number": config({"worker": [1]}),
    "two chiefs": config({"chief": ["127.0.0.1:1", "127.0.0.1:2"]}),
    "an address twice": config({"worker": ["127.0.0.1:1"] * 2}),
    "no task": json.dumps({"cluster": WORKERS}),
    "a task that is a number": json.dumps({"cluster": WORKERS, "task": 1}),
    "a task without an index": json.dumps({"cluster": WORKERS, "task": {"type": "worker"}}),
    "a task that is not in the cluster": config(type="chief"),
    "a task that does not train": config(type="evaluator"),
    **{f"index {index!r}": config(index=index) for index in (2, -1, 0.5, "a", None, True)},
}


def strategy_of(text):
    before = os.environ.get("TF_CONFIG")
    os.environ["TF_CONFIG"] = text
    try:
        return tfpeft.MultiWorkerStrategy()
    finally:
        os.environ.pop("TF_CONFIG")
        if before is not None:
            os.environ["TF_CONFIG"] = before


def of_configurations():
    return [
        Case(f"TF_CONFIG: {name}", lambda text=text: strategy_of(text), ("TF_CONFIG",))
        for name, text in CONFIGURATIONS.items()
    ]


def cases():
    return [
        *of_configurations(),
        *bad_arguments(
            "MultiWorkerStrategy",
            tfpeft.MultiWorkerStrategy,
            dict,
            {
                "cluster_resolver": (3, "slurm", {"cluster": WORKERS}, []),
                "communication_options": (3, "nccl", {}, []),
            },
        ),
        *bad_arguments(
            "MultiWorkerStrategy().worker_path",
            lambda **arguments: tfpeft.MultiWorkerStrategy().worker_path(**arguments),
            lambda: {"path": "model.keras"},
            {"path": ("", None, 3, 2.5, [], True, {}, "a\0b")},
        ),
    ]
