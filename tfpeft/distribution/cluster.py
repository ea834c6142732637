"""TF_CONFIG: the cluster and the task of this process, checked before TensorFlow reads them."""

import collections
import json
import os
import re
import typing

from tfpeft.core.arguments import InputError

VARIABLE = "TF_CONFIG"
_TRAINING = ("chief", "worker")  # the tasks that train; there is at most one chief
_ADDRESS = re.compile(r".+:\d+")
_EXAMPLE = '{"cluster": {"worker": ["a:1", "b:1"]}, "task": {"type": "worker", "index": 0}}'


class Cluster(typing.NamedTuple):
    """The tasks that train together, and which of them this process is."""

    addresses: dict
    """{"chief" or "worker": list of "host:port"}."""
    task_type: str
    task_index: int

    @property
    def size(self):
        """The number of tasks that train."""
        return sum(len(self.addresses.get(task_type, ())) for task_type in _TRAINING)

    @property
    def is_chief(self):
        """Whether this task is the chief: the one of that name, or else worker 0."""
        first = next(task_type for task_type in _TRAINING if self.addresses.get(task_type))
        return (self.task_type, self.task_index) == (first, 0)


def read_cluster(text=None):
    """Returns the `Cluster` that TF_CONFIG names; None if it is not set or names no cluster.

    Raises:
        InputError: if it is not JSON of the form that TensorFlow reads, or names a task that does
            not train or is not in the cluster.
    """
    text = os.environ.get(VARIABLE) if text is None else text
    if text is None or not text.strip():
        return None
    try:
        config = json.loads(text)
    except ValueError as error:
        raise _invalid(f"JSON such as {_EXAMPLE}", f"{_short(text)} ({error})") from error
    if not isinstance(config, dict):
        raise _invalid(f"a JSON object such as {_EXAMPLE}", _short(text))
    addresses = config.get("cluster") or {}
    if addresses == {}:
        return None
    _check_addresses(addresses)
    return Cluster(addresses, *_task(config.get("task"), addresses))


def _check_addresses(addresses):
    if not isinstance(addresses, dict):
        raise _invalid("a `cluster` of the form {task type: list of addresses}", addresses)
    if not any(addresses.get(task_type) for task_type in _TRAINING):
        raise _invalid("a `cluster` with a chief or a worker", addresses)
    for task_type, named in addresses.items():
        if not isinstance(named, list) or not all(
            isinstance(each, str) and _ADDRESS.fullmatch(each) for each in named
        ):
            raise _invalid(f"a list of addresses 'host:port' for {task_type!r}", named)
    if len(addresses.get("chief", ())) > 1:
        raise _invalid("at most one chief", addresses["chief"])
    counts = collections.Counter(each for named in addresses.values() for each in named)
    twice = [address for address, count in counts.items() if count > 1]
    if twice:
        raise _invalid("an address for each task", f"{twice[0]!r} {counts[twice[0]]} times")


def _task(task, addresses):
    """Returns the type and the index of a task, which must be one of the cluster that trains."""
    if not isinstance(task, dict) or not {"type", "index"} <= set(task):
        raise _invalid('a `task` such as {"type": "worker", "index": 0}', task)
    task_type, index = task["type"], task["index"]
    if isinstance(index, str) and index.isdecimal():  # some launchers write it so
        index = int(index)
    if task_type not in _TRAINING:
        raise _invalid("a `task` of type 'chief' or 'worker'", task)
    count = len(addresses.get(task_type, ()))
    if isinstance(index, bool) or not isinstance(index, int) or not 0 <= index < count:
        there = f"0 to {count - 1}" if count else f"a {task_type} in the cluster"
        raise _invalid(f"a `task` of the cluster: an index from {there}", task)
    return task_type, index


def _invalid(expected, received):
    return InputError(
        f"The environment variable {VARIABLE} is invalid, expected {expected}. Received: {received}"
    )


def _short(text):
    return repr(text if len(text) <= 80 else f"{text[:80]}...")
