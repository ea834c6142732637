"""Latency: the order of runs, and the figures of a clock that is known."""

import time

from tfpeft.evaluation import latency


def test_programs_run_in_turn(monkeypatch):
    clock, order = [0.0], []
    seconds = {"fast": iter(range(1, 200)), "slow": iter(range(1000, 1200))}

    def program(name):
        def run():
            order.append(name)
            clock[0] += next(seconds[name]) / 1000

        return run

    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    figures = latency.round_robin({name: program(name) for name in seconds})
    # A round takes a second and more: 10 s for two programs are over after ten rounds.
    assert order == ["fast", "slow"] * 10
    assert round(figures["fast"][0], 6) == 5.5
    assert round(figures["fast"][1], 6) == 9.1  # between the 9th and the 10th of ten values
    assert round(figures["slow"][0], 6) == 1004.5
    assert latency.round_robin({}) == {}
