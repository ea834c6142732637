"""Steps to sparsity: TFMOT's schedules, and how they are stored with a model.

A schedule is a callable `step -> (update_now, sparsity)` over an int64 scalar tensor; TFMOT's
`ConstantSparsity` and `PolynomialDecay` are such callables.
"""

import os

import keras
import tensorflow as tf


def _import_tfmot():
    """Imports TFMOT without its side effects.

    TFMOT sets TF_USE_LEGACY_KERAS, and a `tf.keras` that nobody has touched by then becomes
    tf_keras for the whole process. So it is touched first, and the variable put back.
    """
    tf.keras.Model  # noqa: B018
    before = os.environ.get("TF_USE_LEGACY_KERAS")
    try:
        import tensorflow_model_optimization
    finally:
        if before is None:
            os.environ.pop("TF_USE_LEGACY_KERAS", None)
        else:
            os.environ["TF_USE_LEGACY_KERAS"] = before
    return tensorflow_model_optimization


tfmot = _import_tfmot()

_LAST_STEP = 2**31 - 1


def evaluate_schedule(schedule, step):
    """Returns (update_now, sparsity) after `step` updates, as scalar tensors.

    An optimizer acts after an update, so it first asks at step 1; what a schedule says of
    step 0, where TFMOT asks before the first update, is taken there too.
    """
    update, sparsity = schedule(step)
    first_update, first_sparsity = schedule(tf.zeros_like(step))
    at_start = (step == 1) & first_update & ~tf.convert_to_tensor(update)
    return update | at_start, tf.where(at_start, first_sparsity, sparsity)


def promised_sparsity(schedule):
    """Returns the sparsity in [0, 1) that a schedule ends with, as a float."""
    return float(schedule(tf.constant(_LAST_STEP, tf.int64))[1])


def serialize_schedule(schedule):
    """Returns a JSON-able description from which `deserialize_schedule` makes it again."""
    if isinstance(schedule, tfmot.sparsity.keras.PruningSchedule):
        return schedule.get_config()
    return keras.saving.serialize_keras_object(schedule)


def deserialize_schedule(config):
    """The inverse of `serialize_schedule`; schedules that are objects come back unchanged.

    TFMOT's own `from_config(get_config())` raises, because its config is nested.
    """
    if not isinstance(config, dict):
        return config
    schedule = getattr(tfmot.sparsity.keras, config["class_name"], None)
    if schedule is not None and set(config) == {"class_name", "config"}:
        return schedule(**config["config"])
    return keras.saving.deserialize_keras_object(config)
