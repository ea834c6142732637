"""What a teacher returns is finite: checked before it reaches the student."""

import dataclasses

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import unexpected
from tfpeft.core.checks import assert_in_graph


class TeacherCheck:
    """Checks outputs and features of teachers in each step.

    XLA leaves assertions out. In what it compiles, values that are not finite become zeros, the
    loss of such a step is 0, and `raise_recorded` raises when the step has run.
    """

    def __init__(self):
        self._steps = None  # how many compiled steps had values that are not finite

    def prepare(self):
        """Adds the state that compiled steps need."""
        if self._steps is None:
            self._steps = tf.Variable(
                0.0,  # TensorFlow keeps integers out of the memory of a GPU
                trainable=False,
                aggregation=tf.VariableAggregation.SUM,
                synchronization=tf.VariableSynchronization.ON_READ,
            )
        self._steps.assign(0.0)

    def checked(self, outputs, is_compiled):
        """Returns the `Outputs`, and whether they are finite: True if the check has raised else.

        Raises:
            InputError: for NaN and infinity; see `core.checks`.
        """
        found = [
            (path, leaf)
            for path, leaf in keras.tree.flatten_with_path(outputs)
            if tf.as_dtype(leaf.dtype).is_floating
        ]
        if not found:
            return outputs, True
        finite = tf.stack([tf.reduce_all(tf.math.is_finite(leaf)) for _, leaf in found])
        if is_compiled:
            if not tf.distribute.in_cross_replica_context():  # where Keras only traces shapes
                self._steps.assign_add(tf.cast(~tf.reduce_all(finite), tf.float32))
            return keras.tree.map_structure(_zeros_for_others, outputs), tf.reduce_all(finite)
        error = _NotFinite(tuple(map(_name, [path for path, _ in found])))
        checks = assert_in_graph(tf.reduce_all(finite), error, values=[finite], shown=error.shown)
        with tf.control_dependencies(checks):
            return keras.tree.map_structure(tf.identity, outputs), True

    def raise_recorded(self):
        """Raises if a compiled step had values that are not finite."""
        if self._steps is not None and float(self._steps.read_value()):
            self._steps.assign(0.0)
            raise _NotFinite(("what it returned",))(np.array([False]))


@dataclasses.dataclass(frozen=True)
class _NotFinite:
    """Makes the error for values of teachers that are NaN or infinite."""

    names: tuple

    def __call__(self, finite):
        bad = ", ".join(name for name, ok in zip(self.names, finite, strict=True) if not ok)
        return unexpected("finite outputs of the teacher", f"NaN or infinity in {bad}")

    def shown(self):
        return ["Expected finite outputs of the teacher. Received: NaN or infinity"]


def _name(path):
    """Returns the name of a leaf of `Outputs`."""
    field, *rest = path
    if field in ("features", 1):
        return f"the features {rest[0]!r}"
    where = "".join(f"[{key!r}]" for key in rest[1:])
    return f"the outputs{where} of teacher {rest[0]}"


def _zeros_for_others(leaf):
    if not tf.as_dtype(leaf.dtype).is_floating:
        return leaf
    return tf.where(tf.math.is_finite(leaf), leaf, tf.zeros_like(leaf))
