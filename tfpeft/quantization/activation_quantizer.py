"""The range of one activation: observed or learned while training, then rounded to."""

import keras
import tensorflow as tf

from tfpeft.core.arguments import unexpected
from tfpeft.core.registration import register
from tfpeft.quantization.fake_quant import deployed_range, fake_quant, learned_fake_quant

WARM_UP = 20
"""Updates that observe the range before it is learned by gradients."""


@register()
class ActivationQuantizer(keras.layers.Layer):
    """Rounds an activation to the grid of its range.

    The range begins as that of the first batch and follows the batches by a moving average of
    their least and largest values, `r <- r + m (batch - r)` with `m = max(1 / step, 1 - momentum)`,
    until `freeze_after` steps. With `ranges="learned"` it is observed for 20 steps, and then moved
    by the gradient of `learned_fake_quant`. 0 is always inside.

    Before any step, values pass through as they are. Of a frozen quantizer the range stays.

    Args:
        bits: 8 or 16.
        ranges: "moving_average" or "learned".
        momentum: Of the moving average, in [0, 1).
        freeze_after: Steps after which the range stays; None for never.
        name: The layer's name.
    """

    def __init__(self, bits, ranges, momentum, freeze_after, name=None):
        super().__init__(name=name, dtype="float32", autocast=False)
        self.bits, self.ranges = bits, ranges
        self.momentum, self.freeze_after = momentum, freeze_after

        def number(name, **options):
            return self.add_weight(
                shape=(),
                initializer="zeros",
                autocast=False,
                aggregation="mean",
                name=name,
                **options,
            )

        self.low = number("low", trainable=ranges == "learned")
        self.high = number("high", trainable=ranges == "learned")
        self.steps = number("steps", trainable=False)
        self.built = True

    def observe(self, x):
        """Moves the range towards that of a batch."""
        steps = tf.convert_to_tensor(self.steps)
        moving = tf.maximum(1.0 / (steps + 1.0), 1.0 - self.momentum)
        limit = WARM_UP if self.ranges == "learned" else self.freeze_after
        if limit is not None:
            moving = tf.where(steps < limit, moving, 0.0)
        for side, of_batch in (
            (self.low, tf.minimum(tf.reduce_min(x), 0.0)),
            (self.high, tf.maximum(tf.reduce_max(x), 0.0)),
        ):
            value = tf.convert_to_tensor(side)
            side.assign(value + moving * (tf.stop_gradient(of_batch) - value))
        self.steps.assign_add(1.0)

    def call(self, x, training=False):
        training = training and self.trainable
        values = tf.cast(x, "float32")
        if training:
            self.observe(values)
        low, high = self.ends()
        function = learned_fake_quant if self.ranges == "learned" else fake_quant

        def rounded():
            return function(values, low, high, self.bits)

        if not training:
            is_known = tf.convert_to_tensor(self.steps) > 0.0
            return tf.cast(tf.cond(is_known, rounded, lambda: values), x.dtype)
        return tf.cast(rounded(), x.dtype)

    def ends(self):
        """Returns (low, high) of the range, in tensors."""
        low, high = tf.convert_to_tensor(self.low), tf.convert_to_tensor(self.high)
        if self.ranges == "learned":
            # A step of the optimizer may cross zero.
            low, high = tf.minimum(low, 0.0), tf.maximum(high, 0.0)
        return low, tf.maximum(high, low + 1e-6)

    def has_range(self):
        """Whether a batch has been seen."""
        return bool(keras.ops.convert_to_numpy(self.steps) > 0)

    def deployed_range(self):
        """Returns (low, high) of the grid.

        Raises:
            InputError: if no batch has been seen.
        """
        if not self.has_range():
            raise unexpected(
                "a quantise-aware model that has seen data: train it, or give "
                "`representative_data` to `quantize_aware`",
                "one whose ranges are not known",
            )
        low, high = (keras.ops.convert_to_numpy(side) for side in (self.low, self.high))
        return deployed_range(low, max(high, low + 1e-6), self.bits)

    def get_config(self):
        return {
            "bits": self.bits,
            "ranges": self.ranges,
            "momentum": self.momentum,
            "freeze_after": self.freeze_after,
            "name": self.name,
        }
