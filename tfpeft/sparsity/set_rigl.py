"""Sparse training: most weights at zero from the first step on, by masks that stay or move."""

import math
from collections.abc import Sequence

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import (
    check_choice,
    check_positive_integer,
    check_rate,
    check_seed,
    check_sparsity,
    invalid,
)
from tfpeft.core.registration import register
from tfpeft.sparsity import masks
from tfpeft.sparsity.masked_optimizer import MaskedOptimizer
from tfpeft.sparsity.moments import initial_value, moments_of, wrapped
from tfpeft.sparsity.noise import uniform_noise
from tfpeft.sparsity.sparse_optimizer import Kernel


@register()
class StaticSparse(MaskedOptimizer):
    """Trains a random sparse network whose mask never changes: the baseline of sparse training.

    `mask` is drawn once, `w <- mask * w` from the first step on. The wrapped optimizer gets
    gradients of the kept weights only.

    Memory: 1 byte per weight.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        sparsity: Number in [0, 1), the fraction of zeros over all kernels.
        distribution: "erk", Erdos-Renyi-Kernel: `density = min(1, scale * sum(shape) /
            prod(shape))`, small layers stay denser; or "uniform", the same in each kernel.
        exclude: Names or patterns of layers to leave dense.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        seed: An integer.
        name: The optimizer's name.

    Raises:
        InputError: if an argument is out of range; and as `SparseOptimizer` does.

    Example: see `RigL`, which takes these arguments and more.

    Reference: Evci et al., "Rigging the Lottery", 2020, https://arxiv.org/abs/1911.11134
    """

    masks_gradients = True

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        sparsity: float,
        *,
        distribution: str = "erk",
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(optimizer, exclude=exclude, include=include, name=name)
        check_sparsity("sparsity", sparsity)
        check_choice("distribution", distribution, ("erk", "uniform"))
        self.sparsity = sparsity
        self.distribution = distribution
        check_seed("seed", seed)
        self.seed = seed

    def kept_counts(self) -> list[int]:
        """Returns how many weights each kernel keeps, in the order of `sparse_variables`."""
        shapes = [v.shape for v in self.sparse_variables]
        densities = [1.0 - self.sparsity] * len(shapes)
        if self.distribution == "erk":
            densities = masks.erk_densities(shapes, self.sparsity).numpy()
        return [
            int(masks.kept_count(np.prod(shape), 1.0 - density).numpy())
            for shape, density in zip(shapes, densities, strict=True)
        ]

    def add_states(self):
        self._kept_counts = self.kept_counts()
        super().add_states()

    def initial_mask(self, index, variable):
        noise = uniform_noise(self.seed, index, variable.shape, 0)
        return masks.top_mask(noise, self._kept_counts[index])

    def promised_zeros(self):
        return [
            ([v], int(np.prod(v.shape)) - count)
            for v, count in zip(self.sparse_variables, self._kept_counts, strict=True)
        ]

    def get_config(self):
        return {
            **super().get_config(),
            "sparsity": self.sparsity,
            "distribution": self.distribution,
            "seed": self.seed,
        }


@register()
class SET(StaticSparse):
    """Sparse evolutionary training: weak connections make way for new ones, drawn at random.

    Every `frequency` updates until `end_step`, in each kernel of `k` kept weights on its own:
    the `n = k * drop_fraction / 2 * (1 + cos(pi * step / end_step))` kept weights of smallest
    magnitude are dropped, and `n` of the weights at zero take their places, starting at zero.
    The number of zeros never changes. A kernel that is dense stays as it is.

    What the wrapped optimizer remembers of a weight that is grown starts anew: momentum, Adam's
    momentum and velocity, and any other variable of the kernel's shape, but for averages of
    weights (`use_ema`). Adafactor's factored statistics stay.

    Memory: 1 byte per weight.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        sparsity: Number in [0, 1), the fraction of zeros over all kernels.
        end_step: Integer, the update from which connections stay; 75% of the run is usual.
        frequency: Integer below `end_step`, the updates from one change to the next; None for
            100, and for a quarter of `end_step` where that is not above 100.
        drop_fraction: Number in (0, 1], of the kept weights, at the start.
        distribution: "erk" or "uniform", as in `StaticSparse`.
        exclude: Names or patterns of layers to leave dense.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        seed: An integer.
        name: The optimizer's name.

    Raises:
        InputError: if an argument is out of range; and as `SparseOptimizer` does.

    Example: see `RigL`, which takes the same arguments.

    Reference: Mocanu et al., "Scalable training of artificial neural networks with adaptive
    sparse connectivity inspired by network science", 2018, https://arxiv.org/abs/1707.04780
    (which drops a constant fraction)
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        sparsity: float,
        *,
        end_step: int,
        frequency: int | None = None,
        drop_fraction: float = 0.3,
        distribution: str = "erk",
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(
            optimizer,
            sparsity,
            distribution=distribution,
            exclude=exclude,
            include=include,
            seed=seed,
            name=name,
        )
        check_positive_integer("end_step", end_step)
        if end_step == 1:
            raise invalid("end_step", "an integer of at least 2, after the first change", end_step)
        if frequency is None:
            frequency = 100 if end_step > 100 else max(1, end_step // 4)
        check_positive_integer("frequency", frequency)
        if frequency >= end_step:
            expected = f"one below end_step={end_step}, so that connections change at least once"
            raise invalid("frequency", expected, frequency)
        check_rate("drop_fraction", drop_fraction)
        self.end_step = end_step
        self.frequency = frequency
        self.drop_fraction = drop_fraction

    def add_states(self):
        super().add_states()
        plain = wrapped(self.inner_optimizer)[-1]
        kinds = moments_of(plain, self.sparse_variables)
        # In a function: Keras takes variables in lists and dicts for the optimizer's own, and
        # would save them twice.
        self._moments = lambda: {f"moment_{i}": moments for i, moments in enumerate(kinds)}
        self._initial_moments = [initial_value(plain, moments) for moments in kinds]

    def _drop_fraction_at(self, step):
        progress = tf.cast(step, tf.float32) / self.end_step
        return self.drop_fraction / 2 * (1 + tf.cos(math.pi * progress))

    def states(self):
        return {**super().states(), **self._moments()}

    def grow_scores(self, kernel: Kernel, step: tf.Tensor) -> tf.Tensor:
        """Returns a tensor of numbers >= 0; weights at zero with the highest ones are grown."""
        # Not the noise that drew the first mask, in which weights at zero were the lowest.
        return uniform_noise(self.seed, kernel.index, kernel.weight.shape, step)

    def update_masks(self, kernels, step, updated):
        def rewire():
            fraction = self._drop_fraction_at(step)
            for kernel in kernels:
                self._rewire(kernel, fraction, step)
            return True

        due = (step % self.frequency == 0) & (step < self.end_step)
        tf.cond(updated & due, rewire, lambda: False)

    def _rewire(self, kernel, fraction, step):
        kept = self._kept_counts[kernel.index]
        zeros = int(np.prod(kernel.weight.shape)) - kept
        count = tf.minimum(tf.cast(fraction * kept, tf.int32), zeros)
        magnitudes = tf.cast(tf.abs(kernel.weight), tf.float32)
        stays = masks.top_mask(tf.where(kernel.state["mask"], magnitudes, -1.0), kept - count)
        growth = tf.cast(self.grow_scores(kernel, step), tf.float32)
        grown = masks.top_mask(tf.where(stays, -1.0, growth), count)
        self.set_mask(kernel, stays | grown)
        kernel.weight.assign(tf.where(stays, kernel.weight, tf.zeros_like(kernel.weight)))
        for i, initial in enumerate(self._initial_moments):
            moment = kernel.state[f"moment_{i}"]
            moment.assign(tf.where(grown, tf.cast(initial, moment.dtype), moment))

    def get_config(self):
        return {
            **super().get_config(),
            "end_step": self.end_step,
            "frequency": self.frequency,
            "drop_fraction": self.drop_fraction,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        # Version 0.1.0 saved frequencies at which nothing changes.
        if config["frequency"] >= config["end_step"]:
            config = {**config, "frequency": None, "end_step": max(2, config["end_step"])}
        return super().from_config(config, custom_objects)


@register()
class RigL(SET):
    """Rigging the lottery: new connections grow where the gradient is largest.

    As `SET`, which has the formula, the arguments and the memory; but the weights at zero with
    the highest `|dL/dw|` of this step's batch take the places.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    optimizer = tfpeft.RigL(keras.optimizers.Adam(1e-3), 0.75, end_step=6, frequency=2)
    model.compile(optimizer, loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=1, verbose=0)
    print(np.mean(tfpeft.strip_pruning(model).layers[0].kernel == 0))  # 0.75
    ```

    Reference: Evci et al., "Rigging the Lottery", 2020, https://arxiv.org/abs/1911.11134
    """

    uses_gradients = True

    def grow_scores(self, kernel, step):
        return tf.abs(kernel.gradient)
