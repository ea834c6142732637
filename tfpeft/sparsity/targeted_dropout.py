"""Targeted dropout: training that makes later pruning harmless."""

from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import check_positive_integer, check_rate, check_seed, check_sparsity
from tfpeft.core.registration import register
from tfpeft.sparsity import masks
from tfpeft.sparsity.masked_optimizer import MaskedOptimizer
from tfpeft.sparsity.moments import wrapped
from tfpeft.sparsity.noise import uniform_noise


@register()
class TargetedDropout(MaskedOptimizer):
    """Drops weights of low magnitude at random while training, so that losing them is harmless.

    Every `frequency` updates, in each kernel on its own: before the update dropped weights get
    their values back; after it the round(size * target_fraction) weights of lowest magnitude are
    the targets, and each target is dropped, `w = 0`, with probability `drop_rate`. The gradients
    of dropped weights are 0. From `end_step` on, or when `fit` ends if that is None, all targets
    are dropped for good.

    Before the end, `fit` evaluates validation data on the model with some targets dropped. The
    paper takes its fraction in each output unit; here it is a fraction of the kernel, as in the
    pruning that follows.

    Memory: 5 bytes per weight, for the mask and the values of dropped weights.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        drop_rate: Number in (0, 1], the probability that a target is dropped.
        target_fraction: Number in [0, 1), the fraction of weights that are targets; the sparsity
            in the end.
        end_step: The update, counted from 1, at which the targets are dropped for good; None
            for the end of `fit` (in a custom loop, call `finalize_variable_values`).
        frequency: Integer, the updates from one draw to the next.
        exclude: Names or patterns of layers to leave alone.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        seed: An integer.
        name: The optimizer's name.

    Raises:
        InputError: if an argument is out of range; and as `SparseOptimizer` does.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    optimizer = tfpeft.TargetedDropout(keras.optimizers.Adam(1e-3), 0.5, 0.75)
    model.compile(optimizer, loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=2, verbose=0)
    print(np.mean(model.layers[0].kernel == 0))  # 0.75
    ```

    Reference: Gomez et al., "Learning Sparse Networks Using Targeted Dropout", 2019,
    https://arxiv.org/abs/1905.13678
    """

    masks_gradients = True
    keeps_dense = True

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        drop_rate: float,
        target_fraction: float,
        *,
        end_step: int | None = None,
        frequency: int = 1,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(optimizer, exclude=exclude, include=include, name=name)
        check_rate("drop_rate", drop_rate)
        check_sparsity("target_fraction", target_fraction)
        if end_step is not None:
            check_positive_integer("end_step", end_step)
        check_positive_integer("frequency", frequency)
        self.drop_rate = drop_rate
        self.target_fraction = target_fraction
        self.end_step = end_step
        self.frequency = frequency
        check_seed("seed", seed)
        self.seed = seed
        self._drop_for_good = tf.function(self._drop_all_targets)

    def _is_due(self, step):
        if self.end_step is None:
            return step % self.frequency == 0
        return ((step % self.frequency == 0) & (step < self.end_step)) | (step == self.end_step)

    def before_update(self, kernels, step):
        # Before the update: weights that a wrapped technique prunes in it must not come back.
        self._if(self._is_due(step + 1), self._restore_all, kernels)

    def update_masks(self, kernels, step, updated):
        self._if(self._is_due(step) & updated, self._draw, kernels, step)

    def _if(self, condition, method, *args):
        tf.cond(condition, lambda: method(*args) is None, lambda: False)

    def _restore_all(self, kernels):
        for kernel in kernels:
            self.restore(kernel)

    def _draw(self, kernels, step):
        last = False if self.end_step is None else step == self.end_step
        self._drop(kernels, step, tf.where(last, 1.0, self.drop_rate))

    def _drop(self, kernels, step, drop_rate):
        for kernel in kernels:
            kept = masks.layer_mask(tf.abs(kernel.weight), self.target_fraction)
            spared = uniform_noise(self.seed, kernel.index, kernel.weight.shape, step) >= drop_rate
            self.set_mask(kernel, kept | spared)
            self.remember(kernel)

    def clear_averages(self, kernels, step):
        # Until then weights are dropped for some steps only, and averages keep what they are.
        if self.end_step is not None:
            self._if(step >= self.end_step, super().clear_averages, kernels, step)

    def finalize_variable_values(self, var_list):
        if self.end_step is None and self.sparse_variables:
            self._drop_for_good()
        super().finalize_variable_values(var_list)

    def _drop_all_targets(self):
        self.act(lambda kernels, step: self._restore_all(kernels))
        for optimizer in wrapped(self.inner_optimizer):
            if isinstance(optimizer, MaskedOptimizer):
                optimizer.act(lambda kernels, step, inner=optimizer: inner.project(kernels))
        self.act(lambda kernels, step: self._drop(kernels, step, drop_rate=1.0))

    def promised_zeros(self):
        sizes = [int(np.prod(v.shape)) for v in self.sparse_variables]
        kept = [int(masks.kept_count(size, self.target_fraction)) for size in sizes]
        return [
            ([v], size - count)
            for v, size, count in zip(self.sparse_variables, sizes, kept, strict=True)
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "drop_rate": self.drop_rate,
            "target_fraction": self.target_fraction,
            "end_step": self.end_step,
            "frequency": self.frequency,
            "seed": self.seed,
        }
