"""Criteria of pruning: magnitude, gradient, movement and random."""

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from tfpeft.core.arguments import check_seed
from tfpeft.core.registration import register
from tfpeft.sparsity.pruning import Pruning


@register()
class MagnitudePruning(Pruning):
    """Prunes the weights of smallest magnitude, gradually, while the other weights train on.

    `score = |w|`. Arguments, memory, and what it does not give: see `Pruning`.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    schedule = tfpeft.polynomial_decay(0.5, begin=0.0, end=1.0, total_steps=4, frequency=1)
    model.compile(tfpeft.MagnitudePruning(keras.optimizers.Adam(1e-3), schedule), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=2, verbose=0)
    small = tfpeft.strip_pruning(model)
    print(np.mean(small.layers[0].kernel == 0))  # 0.5
    ```

    Reference: Zhu & Gupta, "To prune, or not to prune", 2017, https://arxiv.org/abs/1710.01878
    """

    def calculate_scores(self, kernel):
        return tf.abs(kernel.weight)


class _AccumulatedPruning(Pruning):
    """A criterion whose score adds up over the steps, from weights and gradients."""

    uses_gradients = True

    def accumulate(self, score, weight, gradient):
        """Adds the score of one step to the tf.Variable `score`."""
        raise NotImplementedError(f"{type(self).__name__} does not define `accumulate`.")

    def add_states(self):
        super().add_states()
        # In float32, whatever the kernel is: half precision would lose small numbers.
        self.add_state("score", dtype="float32")

    def before_update(self, kernels, step):
        super().before_update(kernels, step)
        for kernel in kernels:
            weight = tf.cast(kernel.weight, tf.float32)
            self.accumulate(kernel.state["score"], weight, kernel.gradient)

    def calculate_scores(self, kernel):
        return tf.identity(kernel.state["score"])


@register()
class GradientPruning(_AccumulatedPruning):
    """Prunes the weights whose loss would change the loss least, to first order.

    `score = mean of |w * dL/dw|` over the steps since the masks changed last. A pruned weight
    scores 0 and does not come back; with `straight_through` its remembered value counts, and it
    may.

    Memory: 4 bytes per weight more than `Pruning`, which has the arguments.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    schedule = tfpeft.polynomial_decay(0.5, begin=0.0, end=1.0, total_steps=4, frequency=2)
    model.compile(tfpeft.GradientPruning(keras.optimizers.Adam(1e-3), schedule), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=2, verbose=0)
    print(np.mean(tfpeft.strip_pruning(model).layers[0].kernel == 0))  # 0.5
    ```

    Reference: Molchanov et al., "Pruning Convolutional Neural Networks for Resource Efficient
    Inference", 2017, https://arxiv.org/abs/1611.06440
    """

    def accumulate(self, score, weight, gradient):
        score.assign_add(tf.abs(weight * gradient))

    def calculate_scores(self, kernel):
        # The sum ranks as the mean does: the number of steps is the same for all weights.
        scores = super().calculate_scores(kernel)
        kernel.state["score"].assign(tf.zeros_like(scores))
        return scores


@register()
class MovementPruning(_AccumulatedPruning):
    """Prunes the weights that move towards zero, whatever their size: for fine-tuning.

    `score = sum of -w * dL/dw` over all steps so far: high for weights that the gradient drives
    away from zero. The score of a pruned weight stays as it is; with `straight_through` its
    remembered value counts, and the score goes on.

    Memory: 4 bytes per weight more than `Pruning`, which has the arguments.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    schedule = tfpeft.polynomial_decay(0.5, begin=0.0, end=1.0, total_steps=4, frequency=1)
    model.compile(tfpeft.MovementPruning(keras.optimizers.Adam(1e-3), schedule), loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=2, verbose=0)
    print(np.mean(tfpeft.strip_pruning(model).layers[0].kernel == 0))  # 0.5
    ```

    Reference: Sanh et al., "Movement Pruning: Adaptive Sparsity by Fine-Tuning", 2020,
    https://arxiv.org/abs/2005.07683
    """

    def accumulate(self, score, weight, gradient):
        score.assign_sub(weight * gradient)


@register()
class RandomPruning(Pruning):
    """Prunes weights at random: the baseline that every criterion has to beat.

    `score` is uniform noise that stays the same throughout, so that pruned weights stay pruned.

    Args:
        seed: An integer; equal seeds prune equal weights.

    The other arguments: see `Pruning`.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    schedule = tfpeft.constant_sparsity(0.5, begin=0.0, total_steps=4)
    optimizer = tfpeft.RandomPruning(keras.optimizers.Adam(1e-3), schedule, seed=1)
    model.compile(optimizer, loss="mse")
    model.fit(np.ones((8, 8)), np.ones((8, 4)), batch_size=2, verbose=0)
    print(np.mean(tfpeft.strip_pruning(model).layers[0].kernel == 0))  # 0.5
    ```
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
        seed: int = 0,
        name: str | None = None,
    ):
        super().__init__(
            optimizer,
            schedule,
            scope=scope,
            block_size=block_size,
            n_m=n_m,
            exclude=exclude,
            include=include,
            straight_through=straight_through,
            name=name,
        )
        check_seed("seed", seed)
        self.seed = seed

    def calculate_scores(self, kernel):
        seed = (self.seed, kernel.index)
        return tf.random.stateless_uniform(kernel.weight.shape, seed)

    def get_config(self):
        return {**super().get_config(), "seed": self.seed}
