"""Steps to sparsity: TFMOT's schedules, and how they are stored with a model.

A schedule is a callable `step -> (update_now, sparsity)` over an int64 scalar tensor; TFMOT's
`ConstantSparsity` and `PolynomialDecay` are such callables.
"""

import math
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import (
    InputError,
    check_positive,
    check_positive_integer,
    check_sparsity,
    invalid,
    is_real,
    unexpected,
)
from tfpeft.sparsity.tfmot_import import import_tfmot


def __getattr__(name):
    """`schedules.tfmot` is TFMOT, imported when it is first asked for."""
    if name == "tfmot":
        return import_tfmot()
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


_LAST_STEP = 2**31 - 1


def polynomial_decay(
    final_sparsity: float,
    *,
    begin: float,
    end: float,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
    initial_sparsity: float = 0.0,
    frequency: int = 100,
    power: float = 3.0,
) -> Callable:
    """Returns TFMOT's `PolynomialDecay` for a part of the run, with its last update at the end.

    `sparsity = final + (initial - final) * (1 - (step - begin) / (end - begin))^power`

    `begin` and `end` are epochs where `steps_per_epoch` is given, and fractions of the run, in
    [0, 1], where `total_steps` is. TFMOT's schedule updates at begin_step + k * frequency only;
    here begin_step is moved later, by less than `frequency`, so that one of the updates is at
    end_step.

    Args:
        final_sparsity: Number in [0, 1), reached at `end`.
        begin, end: Numbers, `begin < end`.
        steps_per_epoch: Integer, the updates in an epoch.
        total_steps: Integer, the updates in the whole run; give it or `steps_per_epoch`.
        initial_sparsity: Number in [0, 1), from which it starts.
        frequency: Integer, the updates from one change of the masks to the next.
        power: Positive number; 3 prunes fast first, 1 evenly.

    Raises:
        InputError: if an argument is out of range, or the schedule would end before it begins.

    Example:

    ```python
    import tfpeft

    schedule = tfpeft.polynomial_decay(0.8, begin=2, end=8, steps_per_epoch=469)
    print(schedule.begin_step, schedule.end_step)  # 952 3752
    ```

    Reference: Zhu & Gupta, "To prune, or not to prune", 2017, https://arxiv.org/abs/1710.01878
    """
    check_sparsity("final_sparsity", final_sparsity)
    check_sparsity("initial_sparsity", initial_sparsity)
    check_positive("power", power)
    begin_step, end_step, frequency = _steps(begin, end, steps_per_epoch, total_steps, frequency)
    return import_tfmot().sparsity.keras.PolynomialDecay(
        initial_sparsity, final_sparsity, begin_step, end_step, power=power, frequency=frequency
    )


def constant_sparsity(
    target_sparsity: float,
    *,
    begin: float,
    end: float | None = None,
    steps_per_epoch: int | None = None,
    total_steps: int | None = None,
    frequency: int = 100,
) -> Callable:
    """Returns TFMOT's `ConstantSparsity` for a part of the run, with its last update at the end.

    Args:
        target_sparsity: Number in [0, 1), from `begin` on.
        begin, end: Numbers, `begin < end`, in epochs or fractions of the run as in
            `polynomial_decay`. Masks change until `end`; None is forever.
        steps_per_epoch: Integer, the updates in an epoch.
        total_steps: Integer, the updates in the whole run; give it or `steps_per_epoch`.
        frequency: Integer, the updates from one change of the masks to the next.

    Raises:
        InputError: if an argument is out of range, or the schedule would end before it begins.

    Example:

    ```python
    import tfpeft

    print(tfpeft.constant_sparsity(0.8, begin=0.25, total_steps=1000).begin_step)  # 250
    ```
    """
    check_sparsity("target_sparsity", target_sparsity)
    if end is None:
        if not is_real(begin):
            raise invalid("begin", "a number of at least 0", begin)
        begin_step, _, _ = _steps(begin, begin + 1, steps_per_epoch, total_steps, 1, bounded=False)
        check_positive_integer("frequency", frequency)
        end_step = -1
    else:
        begin_step, end_step, frequency = _steps(
            begin, end, steps_per_epoch, total_steps, frequency
        )
    return import_tfmot().sparsity.keras.ConstantSparsity(
        target_sparsity, begin_step, end_step, frequency=frequency
    )


def _steps(begin, end, steps_per_epoch, total_steps, frequency, bounded=True):
    """Returns (begin_step, end_step, frequency), the span a multiple of the frequency."""
    if (steps_per_epoch is None) == (total_steps is None):
        raise unexpected(
            "exactly one of `steps_per_epoch` and `total_steps`",
            f"steps_per_epoch={steps_per_epoch}, total_steps={total_steps}",
        )
    unit_name = "total_steps" if steps_per_epoch is None else "steps_per_epoch"
    unit = total_steps if steps_per_epoch is None else steps_per_epoch
    check_positive_integer(unit_name, unit)
    check_positive_integer("frequency", frequency)
    most = math.inf if total_steps is None else 1
    if not is_real(begin) or not 0 <= begin < most:
        raise invalid("begin", f"a number in [0, {most})", begin)
    if not is_real(end) or not begin < end < math.inf:
        raise invalid("end", f"a number above begin={begin}", end)
    if bounded and end > most:
        raise invalid("end", "a fraction of the run in [0, 1]", end)
    begin_step, end_step = round(begin * unit), round(end * unit)
    if end_step == begin_step:
        raise invalid("end", f"at least one update after begin={begin}", end)
    frequency = min(frequency, end_step - begin_step)
    return begin_step + (end_step - begin_step) % frequency, end_step, frequency


def check_schedule(schedule):
    """Raises unless `schedule` is a callable that ends with a sparsity in [0, 1)."""
    if not callable(schedule):
        raise invalid(
            "schedule", "a callable of a step such as tfpeft.polynomial_decay(...)", schedule
        )
    try:
        promised_sparsity(schedule)
        updates_at(schedule, tf.constant(1, tf.int64))
    except (TypeError, ValueError, IndexError, tf.errors.OpError) as error:
        raise InputError(
            "Received an invalid value for `schedule`, expected a callable of a step that returns "
            f"(update_now, sparsity). Received: {schedule!r}, which failed: {error}"
        ) from error
    sparsity = promised_sparsity(schedule)
    if not 0.0 <= sparsity < 1.0:
        raise invalid("schedule", "one that ends with a sparsity in [0, 1)", sparsity)


def updates_at(schedule, step):
    """Returns whether the schedule updates after `step` updates of the optimizer.

    TFMOT asks for step 0, before the first update. An optimizer acts after an update, first at
    step 1: there an update of the schedule at step 0 happens, too.
    """
    return tf.logical_or(schedule(step)[0], _stands_for_zero(schedule, step))


def sparsity_at(schedule, step):
    """Returns the sparsity of an update at `step`, as `updates_at` counts."""
    step = tf.where(_stands_for_zero(schedule, step), tf.zeros_like(step), step)
    return schedule(step)[1]


def _stands_for_zero(schedule, step):
    with tf.init_scope():
        if not np.asarray(schedule(tf.constant(0, tf.int64))[0]):
            return False
        if np.asarray(schedule(tf.constant(1, tf.int64))[0]):
            return False
    return step == 1


def promised_sparsity(schedule):
    """Returns the sparsity in [0, 1) that a schedule ends with, as a float."""
    return float(schedule(tf.constant(_LAST_STEP, tf.int64))[1])


def serialize_schedule(schedule):
    """Returns a description for JSON from which `deserialize_schedule` rebuilds the schedule."""
    tfmot = import_tfmot().sparsity.keras
    if getattr(tfmot, type(schedule).__name__, None) is type(schedule):
        return schedule.get_config()
    if isinstance(schedule, tfmot.PruningSchedule):
        name = keras.saving.get_registered_name(type(schedule))
        return {"subclass": name, "config": schedule.get_config()["config"]}
    return keras.saving.serialize_keras_object(schedule)


def deserialize_schedule(config):
    """The inverse of `serialize_schedule`; schedules that are objects come back unchanged.

    TFMOT's `from_config(get_config())` raises, because its config is nested.
    """
    if not isinstance(config, dict):
        return config
    if "subclass" in config:
        schedule = keras.saving.get_registered_object(config["subclass"])
        if schedule is None:
            expected = "the class of a schedule to be registered with Keras"
            raise unexpected(expected, config["subclass"])
        return schedule(**config["config"])
    schedule = getattr(import_tfmot().sparsity.keras, config["class_name"], None)
    if schedule is not None and "module" not in config:  # Keras writes one, TFMOT does not
        return schedule(**config["config"])
    return keras.saving.deserialize_keras_object(config)


def end_step(schedule):
    """Returns the step at which a schedule ends: from then on masks and sparsity stay.

    A `ConstantSparsity` without an end has its sparsity from `begin_step` on. A callable that is
    not TFMOT's may have an attribute `end_step`; without it the step is 0.
    """
    if isinstance(schedule, import_tfmot().sparsity.keras.ConstantSparsity):
        return max(schedule.begin_step, schedule.end_step)
    return max(getattr(schedule, "end_step", 0), 0)
