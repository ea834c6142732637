"""The base of what keeps some weights at zero by a mask: pruning, and training sparse."""

import tensorflow as tf

from tfpeft.sparsity.sparse_optimizer import SparseOptimizer


class MaskedOptimizer(SparseOptimizer):
    """A sparse optimizer that remembers which weights it keeps: 4 bytes a weight.

    After each update of the wrapped optimizer:

    1. `update_masks` takes new masks, where its technique says so,
    2. `weight <- mask * weight`, so that a pruned weight is exactly 0.0 after every step.
    """

    keeps_dense = False
    """Whether there is room for the values of pruned weights: 4 bytes a weight more."""

    def add_states(self):
        self.add_state("mask", initial=self.initial_mask)
        if self.keeps_dense:
            self.add_state("dense")

    def initial_mask(self, index, variable):
        """Returns the mask that a kernel begins with; all weights are kept by default."""
        return tf.ones(variable.shape, variable.dtype)

    def update_masks(self, kernels, step, updated):
        """Gives kernels new masks by `set_mask`, or leaves them."""

    def after_update(self, kernels, step, updated, learning_rate):
        self.update_masks(kernels, step, updated)
        self.project(kernels)

    def project(self, kernels):
        for kernel in kernels:
            kernel.weight.assign(kernel.weight * kernel.state["mask"])

    def set_mask(self, kernel, mask):
        # Numbers of the kernel's own type: a byte a weight has to be cast first, in every step.
        kernel.state["mask"].assign(tf.cast(mask, kernel.weight.dtype))

    def remember(self, kernel):
        """Stores the values of all weights, and makes pruned ones zero."""
        kernel.state["dense"].assign(kernel.weight)
        kernel.weight.assign(kernel.weight * kernel.state["mask"])

    def restore(self, kernel):
        """Puts the values of pruned weights back; called again, it changes nothing more.

        Those of kept weights are what the weight holds, which may have been set from outside.
        """
        # mask * weight + (1 - mask) * dense, in fewer passes over memory.
        weight, dense = kernel.weight, tf.convert_to_tensor(kernel.state["dense"])
        weight.assign(dense + kernel.state["mask"] * (weight - dense))
