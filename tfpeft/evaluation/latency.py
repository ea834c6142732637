"""Latency of several programs, measured round robin."""

import time

import numpy as np

_ROUNDS = 100  # at most
_SECONDS = 5.0  # per program, at most


def round_robin(programs):
    """Returns {name: (median, 90th percentile)} of the milliseconds that a run takes.

    Each round runs every program once, so that other work of the machine slows all of them alike.

    Args:
        programs: {name: function without arguments}; every function has run before.
    """
    times = {name: [] for name in programs}
    started = time.perf_counter()
    for _ in range(_ROUNDS):
        for name, run in programs.items():
            before = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - before))
        if time.perf_counter() - started > _SECONDS * len(programs):
            break
    return {
        name: (float(np.median(runs)), float(np.percentile(runs, 90)))
        for name, runs in times.items()
    }
