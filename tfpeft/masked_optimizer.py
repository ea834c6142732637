"""The base of what keeps some weights at zero by a mask: pruning, and training sparse."""

import tensorflow as tf

from tfpeft.sparse_optimizer import SparseOptimizer


class MaskedOptimizer(SparseOptimizer):
    """A sparse optimizer that remembers which weights it keeps: 4 bytes a weight.

    After each update of the wrapped optimizer:

    1. `update_masks` takes new masks, where its technique says so,
    2. `weight <- mask * weight`, so that a pruned weight is exactly 0.0 after every step.
    """

    keeps_pruned = False
    """Whether there is room for the values of pruned weights: 4 bytes a weight more."""

    def add_states(self):
        self.add_state("mask", initial=self.initial_mask)
        if self.keeps_pruned:
            self.add_state("pruned")

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
        """Makes pruned weights zero, and stores the values they had."""
        # In place where possible: that costs less than to multiply by the inverse of the mask.
        kernel.state["pruned"].assign(kernel.weight)
        kernel.weight.assign(kernel.weight * kernel.state["mask"])
        kernel.state["pruned"].assign_sub(kernel.weight)

    def restore(self, kernel):
        """Puts the values of pruned weights back; called again, it changes nothing more."""
        # Whatever the weight holds by now where it should be zero does not count.
        kept = kernel.weight * kernel.state["mask"]
        kernel.weight.assign(kept + kernel.state["pruned"])
