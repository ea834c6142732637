"""Pruning: the base of criteria; a schedule, scores, and masks of the highest scores."""

import numbers
from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import InputError, check_boolean, check_choice, invalid
from tfpeft.core.layers import path_of
from tfpeft.sparsity import masks, schedules
from tfpeft.sparsity.masked_optimizer import MaskedOptimizer
from tfpeft.sparsity.sparse_optimizer import Kernel


class Pruning(MaskedOptimizer):
    """The base of pruning optimizers: a schedule, scores, and masks of the highest scores.

    After updates of the wrapped optimizer at which `schedule` changes the masks:

    `mask = calculate_scores among the highest`; after every update: `w <- mask * w`.

    A criterion is a subclass that overrides `calculate_scores`. A pruned weight still gets
    gradients, and comes back at the next change of the masks if its score is high.

    `round(size * (1 - sparsity))` weights are kept: in each kernel (`scope="layer"`); in all
    kernels together, with one threshold (`"global"`: good at high sparsity, but a layer can lose
    all its weights); or in each kernel with its Erdos-Renyi-Kernel density (`"erk"`: `density =
    min(1, scale * sum(shape) / prod(shape))`, small layers stay denser).

    What it does not give: speed on x86 (no dense kernel skips zeros), or a smaller file before
    it is compressed. 90% zeros make a compressed file about 5x smaller. ARM's sparse kernels do
    skip zeros, in some networks: see `prune_for_xnnpack`.

    Memory: 1 byte per weight for the mask, 4 more with `straight_through`, and what the
    criterion needs.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        schedule: `tfpeft.polynomial_decay`, `tfpeft.constant_sparsity`, TFMOT's
            `PolynomialDecay` or `ConstantSparsity`, or any callable
            `step -> (update_now, sparsity)`, in updates of the optimizer.
        scope: "layer", "global" or "erk".
        block_size: (height, width); whole blocks of the matrix inputs x outputs are pruned, by
            their mean score. None for single weights. A kernel of Dense is such a matrix; one of
            a convolution is such a matrix at each position; one of EinsumDense, and so of
            attention, is the matrix of all its input axes and all its output axes. Weights of
            custom layers with rank 3 or more cannot take part.
        n_m: (n, m); of each m neighbours along the inputs of that matrix, n are kept. The
            schedule must end at `1 - n / m`; on the way there, the pattern's weights are kept
            and the best others.
        exclude: Names or patterns of layers to leave dense.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        straight_through: Whether pruned weights keep their values and train on, behind the zeros
            that the model computes with (straight-through estimator); they come back with these
            values.
        name: The optimizer's name.

    Raises:
        InputError: if an argument is not of its kind; as training begins, if blocks or n:m do not
            divide a kernel, or the axes of one are not known; and as `SparseOptimizer` does.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        schedule: Callable,
        *,
        scope: str = "layer",
        block_size: tuple[int, int] | None = None,
        n_m: tuple[int, int] | None = None,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        straight_through: bool = False,
        name: str | None = None,
    ):
        super().__init__(optimizer, exclude=exclude, include=include, name=name)
        schedules.check_schedule(schedule)
        check_choice("scope", scope, ("layer", "global", "erk"))
        self.schedule = schedule
        self.scope = scope
        self.block_size = _pair("block_size", block_size)
        self.n_m = _pair("n_m", n_m)
        check_boolean("straight_through", straight_through)
        self.straight_through = self.keeps_dense = bool(straight_through)
        if self.n_m:
            self._check_n_m()

    def calculate_scores(self, kernel: Kernel) -> tf.Tensor:
        """Returns a finite tensor of the shape of `kernel.weight`; the highest are kept.

        Args:
            kernel: A `Kernel`: `weight` is a tf.Variable as the wrapped optimizer left it,
                `gradient` is the gradient of this step, if the class sets `uses_gradients = True`.
        """
        raise NotImplementedError(f"{type(self).__name__} does not define `calculate_scores`.")

    @property
    def end_step(self):
        return schedules.end_step(self.schedule)

    @property
    def uses_axes(self):
        return bool(self.block_size or self.n_m)

    def add_states(self):
        if self.uses_axes:
            self._kernel_axes = [self.axes_of(variable) for variable in self.sparse_variables]
            for variable, axes in zip(self.sparse_variables, self._kernel_axes, strict=True):
                self._check_pattern(variable, axes)
        super().add_states()

    def before_update(self, kernels, step):
        if self.straight_through:
            for kernel in kernels:
                self.restore(kernel)

    def update_masks(self, kernels, step, updated):
        def update_now():
            sparsity = schedules.sparsity_at(self.schedule, step)
            scores = [self.calculate_scores(kernel) for kernel in kernels]
            indices = [kernel.index for kernel in kernels]
            new = self._masks_of(scores, sparsity, indices)
            for kernel, mask in zip(kernels, new, strict=True):
                self.set_mask(kernel, mask)
            return True

        due = schedules.updates_at(self.schedule, step)
        tf.cond(due & updated, update_now, lambda: False)

    def after_update(self, kernels, step, updated, learning_rate):
        if not self.straight_through:
            super().after_update(kernels, step, updated, learning_rate)
            return
        self.update_masks(kernels, step, updated)
        for kernel in kernels:
            self.remember(kernel)

    def _masks_of(self, scores, sparsity, indices):
        if not (self.block_size or self.n_m):
            return self._best(scores, sparsity, indices)
        axes = [self._kernel_axes[i] for i in indices]
        matrices = [each.to_matrix(score) for each, score in zip(axes, scores, strict=True)]
        if self.n_m:
            matrices = [masks.prefer_n_m(each, *self.n_m) for each in matrices]
            kept = self._best(matrices, sparsity, indices)
        else:
            pooled = [masks.pool_blocks(each, self.block_size) for each in matrices]
            kept = self._best(pooled, sparsity, indices)
            kept = [masks.spread_blocks(mask, self.block_size) for mask in kept]
        return [
            each.from_matrix(mask, score.shape)
            for each, mask, score in zip(axes, kept, scores, strict=True)
        ]

    def _best(self, scores, sparsity, indices):
        """Returns masks of the highest scores of the kernels with these indices."""
        if self.scope == "global":
            return masks.global_masks(scores, sparsity)
        counts = self._kept_counts([each.shape for each in scores], sparsity, indices)
        return [masks.top_mask(*each) for each in zip(scores, counts, strict=True)]

    def _kept_counts(self, shapes, sparsity, indices):
        """Returns how many scores are kept of each kernel, by the shapes of the scores."""
        sparsities = [sparsity] * len(self.sparse_variables)
        if self.scope == "erk":
            kernels = [variable.shape for variable in self.sparse_variables]
            sparsities = 1.0 - masks.erk_densities(kernels, sparsity)
        return [
            masks.kept_count(np.prod(shape), sparsities[i])
            for i, shape in zip(indices, shapes, strict=True)
        ]

    def promised_zeros(self):
        sparsity = schedules.promised_sparsity(self.schedule)
        block = int(np.prod(self.block_size or 1))
        sizes = [int(np.prod(v.shape)) // block for v in self.sparse_variables]
        if self.scope == "global":
            kept = int(masks.kept_count(sum(sizes), sparsity))
            return [(self.sparse_variables, block * (sum(sizes) - kept))]
        counts = self._kept_counts([(size,) for size in sizes], sparsity, range(len(sizes)))
        return [
            ([variable], block * (size - int(count)))
            for variable, size, count in zip(self.sparse_variables, sizes, counts, strict=True)
        ]

    def _check_n_m(self):
        n, m = self.n_m
        if n >= m:
            raise invalid("n_m", "(n, m) with n < m", self.n_m)
        if self.block_size or self.scope != "layer":
            raise invalid(
                "n_m", "a pattern alone, without `block_size` and with scope='layer'", self.n_m
            )
        ends = schedules.promised_sparsity(self.schedule)
        if abs(ends - (1 - n / m)) > 1e-6:
            raise invalid("schedule", f"one that ends at {1 - n / m}, as n_m={n, m} does", ends)

    def _check_pattern(self, variable, axes):
        *_, inputs, outputs = axes.matrix_shape(variable.shape)
        height, width = self.block_size or (1, 1)
        expected = f"{{}} that divides the kernels; leave {path_of(variable)} out by `exclude`"
        if inputs % height or outputs % width:
            raise InputError(
                f"{invalid('block_size', expected.format('a size'), self.block_size)} "
                f"for inputs x outputs = {inputs} x {outputs}"
            )
        if self.n_m and inputs % self.n_m[1]:
            raise InputError(
                f"{invalid('n_m', expected.format('an m'), self.n_m)} for {inputs} inputs"
            )

    def get_config(self):
        return {
            **super().get_config(),
            "schedule": schedules.serialize_schedule(self.schedule),
            "scope": self.scope,
            "block_size": self.block_size,
            "n_m": self.n_m,
            "straight_through": self.straight_through,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        schedule = schedules.deserialize_schedule(config["schedule"])
        return super().from_config({**config, "schedule": schedule}, custom_objects)


def _pair(name, value):
    if value is None:
        return None
    pair = tuple(value) if isinstance(value, (list, tuple)) else ()
    is_integer = [isinstance(v, numbers.Integral) and not isinstance(v, bool) for v in pair]
    if len(pair) != 2 or not all(is_integer) or min(pair) < 1:
        raise invalid(name, "None or two integers of at least 1", value)
    return tuple(map(int, pair))
