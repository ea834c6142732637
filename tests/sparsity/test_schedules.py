"""Schedules in epochs and fractions, and TFMOT left as it was found."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfpeft
from tfpeft.sparsity import schedules


def updates(schedule, steps):
    """Returns {step: sparsity} where the schedule updates."""
    each = {s: schedule(tf.constant(s, tf.int64)) for s in range(steps + 1)}
    return {s: float(sparsity) for s, (update, sparsity) in each.items() if bool(update)}


def test_polynomial_decay_by_hand():
    schedule = tfpeft.polynomial_decay(0.8, begin=1, end=3, steps_per_epoch=10, frequency=5)
    expected = {step: 0.8 - 0.8 * (1 - (step - 10) / 20) ** 3 for step in (10, 15, 20, 25, 30)}
    assert updates(schedule, 60) == pytest.approx(expected)


@pytest.mark.parametrize(
    ("arguments", "steps"),
    [
        ({"begin": 0.25, "end": 0.75, "total_steps": 1000, "frequency": 100}, (250, 750, 100)),
        ({"begin": 0.1, "end": 0.75, "total_steps": 5616, "frequency": 100}, (612, 4212, 100)),
        ({"begin": 0, "end": 2, "steps_per_epoch": 7, "frequency": 4}, (2, 14, 4)),
        ({"begin": 0, "end": 1, "total_steps": 30, "frequency": 100}, (0, 30, 30)),
        ({"begin": 0.5, "end": 1.5, "steps_per_epoch": 3, "frequency": 1}, (2, 4, 1)),
    ],
)
def test_the_last_update_is_at_the_end(arguments, steps):
    schedule = tfpeft.polynomial_decay(0.8, **arguments)
    assert (schedule.begin_step, schedule.end_step, schedule.frequency) == steps
    done = updates(schedule, 2 * steps[1])
    assert max(done) == steps[1]
    assert done[steps[1]] == pytest.approx(0.8)


def test_constant_sparsity_in_epochs_and_fractions():
    schedule = tfpeft.constant_sparsity(0.5, begin=0.25, total_steps=100, frequency=50)
    assert updates(schedule, 200) == {25: 0.5, 75: 0.5, 125: 0.5, 175: 0.5}
    schedule = tfpeft.constant_sparsity(0.5, begin=1, end=2, steps_per_epoch=20, frequency=10)
    assert updates(schedule, 200) == {20: 0.5, 30: 0.5, 40: 0.5}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"begin": 0.5, "end": 0.2, "total_steps": 10}, r"`end`.*above begin=0.5.*0.2"),
        ({"begin": 0.0, "end": 2, "total_steps": 10}, r"`end`.*\[0, 1\].*2"),
        ({"begin": -1, "end": 2, "steps_per_epoch": 10}, "`begin`.*-1"),
        ({"begin": 0, "end": 1}, "exactly one of `steps_per_epoch` and `total_steps`"),
        ({"begin": 0, "end": 1, "steps_per_epoch": 3, "total_steps": 3}, "exactly one"),
        ({"begin": 0, "end": 1, "total_steps": 0}, "`total_steps`.*0"),
        ({"begin": 0, "end": 1, "total_steps": 10, "frequency": 0}, "`frequency`.*0"),
        ({"begin": 0, "end": 0.01, "total_steps": 10}, "`end`.*at least one update"),
        ({"begin": 0, "end": 1, "total_steps": 10, "power": 0}, "`power`.*0"),
        ({"begin": 0, "end": 1, "total_steps": 10, "power": float("nan")}, "`power`.*nan"),
        ({"begin": "a", "end": 1, "total_steps": 10}, "`begin`.*'a'"),
        ({"begin": float("nan"), "end": 1, "total_steps": 10}, "`begin`.*nan"),
        ({"begin": 0, "end": "b", "total_steps": 10}, "`end`.*'b'"),
        ({"begin": 0, "end": 1, "total_steps": 10, "initial_sparsity": 1}, "`initial_sparsity`.*1"),
    ],
)
def test_bad_input_names_the_argument(arguments, message):
    with pytest.raises(ValueError, match=message):
        tfpeft.polynomial_decay(0.8, **arguments)


def test_a_sparsity_out_of_range_raises():
    with pytest.raises(ValueError, match=r"`final_sparsity`.*\[0, 1\).*80"):
        tfpeft.polynomial_decay(80, begin=0, end=1, total_steps=10)
    with pytest.raises(ValueError, match=r"`target_sparsity`.*\[0, 1\).*1.0"):
        tfpeft.constant_sparsity(1.0, begin=0, total_steps=10)


def test_schedules_survive_saving():
    for schedule in (
        tfpeft.polynomial_decay(0.8, begin=0, end=1, total_steps=10, initial_sparsity=0.1),
        tfpeft.constant_sparsity(0.5, begin=0, total_steps=10),
    ):
        copy = schedules.deserialize_schedule(schedules.serialize_schedule(schedule))
        assert copy.get_config() == schedule.get_config()


def test_numbers_of_numpy_are_numbers():
    schedule = tfpeft.polynomial_decay(
        np.float32(0.5), begin=0, end=np.int64(2), steps_per_epoch=np.int64(5)
    )
    assert schedule.end_step == 10


def test_constant_sparsity_begins_within_the_run():
    with pytest.raises(ValueError, match=r"`begin`.*\[0, 1\).*2000"):
        tfpeft.constant_sparsity(0.5, begin=2000, total_steps=4000)


@keras.saving.register_keras_serializable(package="tests")
class Shifted(schedules.tfmot.sparsity.keras.ConstantSparsity):
    def __call__(self, step):
        return super().__call__(step + 1)


def test_a_subclass_of_a_schedule_survives_saving():
    copy = schedules.deserialize_schedule(schedules.serialize_schedule(Shifted(0.5, 3)))
    assert isinstance(copy, Shifted)
    assert copy.get_config()["config"] == Shifted(0.5, 3).get_config()["config"]
    with pytest.raises(ValueError, match="the class of a schedule to be registered.*none>None"):
        schedules.deserialize_schedule({"subclass": "none>None", "config": {}})


@pytest.mark.parametrize(
    "schedule", [lambda step: 0.5, keras.optimizers.schedules.CosineDecay(0.1, 10)]
)
def test_what_is_no_schedule_raises(schedule):
    with pytest.raises(ValueError, match=r"`schedule`.*\(update_now, sparsity\)"):
        tfpeft.MagnitudePruning(keras.optimizers.SGD(), schedule)


def test_a_schedule_shows_where_it_ends():
    options = {"total_steps": 100, "frequency": 10}
    constant = tfpeft.constant_sparsity(0.5, begin=0.25, **options)
    assert schedules.end_step(constant) == 25
    assert schedules.end_step(tfpeft.constant_sparsity(0.5, begin=0, end=0.5, **options)) == 50
    assert schedules.end_step(tfpeft.polynomial_decay(0.5, begin=0, end=0.75, **options)) == 75
    assert schedules.end_step(lambda step: (True, 0.5)) == 0
