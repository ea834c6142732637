"""MaskedOptimizer: the base of techniques that keep weights at zero by a mask."""

import tensorflow as tf

from tfpeft.sparsity.sparse_optimizer import SparseOptimizer


class MaskedOptimizer(SparseOptimizer):
    """A sparse optimizer with a mask of the weights that it keeps: 1 byte per weight.

    After each update of the wrapped optimizer:

    1. `update_masks` sets new masks, at the steps of its technique,
    2. `weight <- mask * weight`, so that a pruned weight is exactly 0.0 after every step.
    """

    masks_gradients = False
    """Whether the wrapped optimizer gets gradients of kept weights only."""

    keeps_dense = False
    """Whether the values of pruned weights are kept, too: 4 bytes per weight more."""

    def add_states(self):
        self.add_state("mask", dtype="bool", initial=self.initial_mask)
        if self.keeps_dense:
            self.add_state("dense")

    def initial_mask(self, index, variable):
        """Returns the mask that a kernel begins with; all weights are kept by default."""
        return tf.ones(variable.shape, tf.bool)

    def update_masks(self, kernels, step, updated):
        """Sets new masks of kernels by `set_mask`; the base class sets none."""

    def adjust_gradients(self, gradients):
        if not self.masks_gradients:
            return gradients
        masks = self._states["mask"]
        return {
            i: tf.convert_to_tensor(gradient) * tf.cast(masks[i], gradient.dtype)
            for i, gradient in gradients.items()
        }

    def after_update(self, kernels, step, updated, learning_rate):
        self.update_masks(kernels, step, updated)
        self.project(kernels)

    def project(self, kernels):
        for kernel in kernels:
            kernel.weight.assign(_masked(kernel))

    def final_zeros(self, index, variable):
        # Not the zeros that the weights have: a callback may have put other weights there, such
        # as `keras.callbacks.SwapEMAWeights`.
        return tf.logical_not(tf.convert_to_tensor(self._states["mask"][index]))

    def set_mask(self, kernel, mask):
        kernel.state["mask"].assign(mask)

    def remember(self, kernel):
        """Stores the values of all weights, and makes pruned ones zero."""
        kernel.state["dense"].assign(kernel.weight)
        kernel.weight.assign(_masked(kernel))

    def restore(self, kernel):
        """Puts the values of pruned weights back; a second call changes nothing.

        Kept weights stay as they are: they may have been set from outside.
        """
        dense = tf.convert_to_tensor(kernel.state["dense"])
        # Not tf.where, which broadcasts, and takes twice as long.
        kernel.weight.assign(
            tf.raw_ops.Select(condition=kernel.state["mask"], x=kernel.weight, y=dense)
        )


def _masked(kernel):
    # A product takes less time than a selection, its cast included.
    return kernel.weight * tf.cast(kernel.state["mask"], kernel.weight.dtype)
