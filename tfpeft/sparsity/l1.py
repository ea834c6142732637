"""L1: the classic penalty, and proximal steps, which reach exact zeros."""

import inspect
import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfpeft.core import clone
from tfpeft.core.arguments import NoMatchError, check_exclude, check_positive, invalid
from tfpeft.core.kernel_axes import is_class_of_keras
from tfpeft.core.layers import layers_by_path, match_layers, matching_patterns
from tfpeft.core.registration import register
from tfpeft.sparsity.kernels import direct_patterns, unmatched_patterns
from tfpeft.sparsity.sparse_optimizer import SparseOptimizer


def l1_regularize(
    model: keras.Model,
    l1: float,
    *,
    exclude: Sequence[str] = (),
    include: Sequence[str] = (),
) -> keras.Model:
    """Returns a new model whose kernels have the classic L1 penalty in their loss.

    `loss + l1 * sum |w|`, over every kernel that a layer of Keras can regularize, by its
    `kernel_regularizer`, for example. An L1 or L2
    penalty that is already there stays, added up.

    What it does not give: exact zeros. The gradient of the penalty pushes weights past zero and
    back, so they end near zero; `ProximalL1` reaches zero. Side by side, for one weight w = 0.25
    and a loss that does not depend on it, l1 = 1, SGD with a learning rate of 0.1:

    | step | penalty | proximal |
    |---|---|---|
    | 1 | 0.15 | 0.15 |
    | 2 | 0.05 | 0.05 |
    | 3 | -0.05 | 0.0 |
    | 4 | 0.05 | 0.0 |

    Args:
        model: A `keras.Model`; a subclassed one needs `get_config`. It stays as it is.
        l1: Number above 0.
        exclude: Names or patterns of layers to leave alone, with all that is in them.
        include: Names or patterns of layers that take part as well, by arguments of theirs such
            as `embeddings_regularizer`: custom layers, and embeddings.

    Returns:
        A new, uncompiled model with the weights of `model`.

    Raises:
        InputError: if `l1` is not positive, or if a layer has a regularizer that is neither L1
            nor L2; `NoMatchError` if no layer has a kernel to regularize, or if an entry of
            `exclude` or `include` matches nothing.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.layers[0].kernel.assign([[1.0], [-2.0]])
    print(float(tfpeft.l1_regularize(model, 0.1).losses[0]))  # 0.3
    ```

    Reference: Tibshirani, "Regression Shrinkage and Selection via the Lasso", 1996
    """
    if not isinstance(model, keras.Model):
        raise invalid("model", "a keras.Model", model)
    check_positive("l1", l1)
    check_exclude(exclude)
    layers = layers_by_path(model)
    unmatched = [pattern for pattern in exclude if not match_layers(layers, [pattern])]
    if unmatched:
        raise unmatched_patterns("exclude", layers, unmatched)
    regularized, without_effect = [], set(include)

    def edit(config, parents):
        path = "/".join((*parents, config.get("name", "")))
        in_model = path.removeprefix(f"{model.name}/")
        keys = _regularizer_keys(config, in_model, layers.get(in_model), include)
        if not keys or matching_patterns(in_model, exclude):
            return config
        without_effect.difference_update(matching_patterns(in_model, include))
        regularized.extend(keys)
        return {**config, **{key: _with_l1(config[key], l1, path) for key in keys}}

    new = clone.rebuild(model, edit)
    if without_effect:
        raise unmatched_patterns("include", layers, without_effect)
    if not regularized:
        raise NoMatchError(
            "l1_regularize found no kernel to regularize, expected layers with a "
            f"kernel_regularizer. Received: {list(layers)}"
        )
    return new


_KERNEL_REGULARIZERS = (
    "kernel_regularizer",
    "depthwise_regularizer",
    "pointwise_regularizer",
    "recurrent_regularizer",
)


_OTHER_REGULARIZERS = (
    *("bias_regularizer", "activity_regularizer", "beta_regularizer", "gamma_regularizer"),
)


def _regularizer_keys(config, path, layer, include):
    """Returns the arguments of a layer that regularize its kernels, or what `include` names."""
    is_of_keras = layer is None or is_class_of_keras(type(layer))
    if direct_patterns(path, include) if is_of_keras else matching_patterns(path, include):
        return [
            key for key in config if key.endswith("_regularizer") and key not in _OTHER_REGULARIZERS
        ]
    return [key for key in config if key in _KERNEL_REGULARIZERS and _is_of_keras(layer, key)]


def _is_of_keras(layer, argument):
    """Whether a class of Keras that a layer is an instance of takes an argument."""
    return layer is None or any(
        is_class_of_keras(base) and argument in inspect.signature(base.__init__).parameters
        for base in type(layer).__mro__
    )


def _with_l1(config, l1, layer):
    regularizer = keras.regularizers.get(config)
    if regularizer is None:
        new = keras.regularizers.L1(l1)
    elif isinstance(
        regularizer, (keras.regularizers.L1, keras.regularizers.L2, keras.regularizers.L1L2)
    ):
        here = {key: float(value) for key, value in regularizer.get_config().items()}
        new = keras.regularizers.L1L2(here.get("l1", 0.0) + l1, here.get("l2", 0.0))
    else:
        raise invalid("model", f"an L1 or L2 regularizer, if any, on layer {layer}", regularizer)
    return keras.saving.serialize_keras_object(new)


@register()
class ProximalL1(SparseOptimizer):
    """Soft-thresholds the kernels after each update, which ends in exact zeros.

    `w <- sign(w) * max(|w| - learning_rate * l1, 0)`

    With SGD as the wrapped optimizer this minimizes `loss + l1 * sum |w|` (proximal gradient
    descent); adaptive optimizers rescale gradients, but not this step. How many weights end at
    zero follows from `l1`, by trying: with SGD it has the unit of the gradients, 1e-5 to 1e-3 are
    usual; Adam moves weights by about its learning rate whatever the gradient, so with Adam `l1`
    is the part of such a move that is taken back, 0.01 to 0.5. A weight at zero comes back if one
    update moves it further than `learning_rate * l1`. The penalty alone, `l1_regularize`, never
    reaches zero; its page compares both.

    Memory: nothing.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        l1: Number above 0.
        exclude: Names or patterns of layers to leave alone.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        name: The optimizer's name.

    Raises:
        InputError: if `l1` is not positive; and as `SparseOptimizer` does.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(4)])
    model.compile(tfpeft.ProximalL1(keras.optimizers.SGD(0.1), l1=1.0), loss="mse")
    model.fit(np.zeros((8, 8)), np.zeros((8, 4)), batch_size=1, epochs=2, verbose=0)
    print(np.mean(model.layers[0].kernel == 0))  # 1.0
    ```

    Reference: Parikh & Boyd, "Proximal Algorithms", 2014,
    https://web.stanford.edu/~boyd/papers/prox_algs.html
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        l1: float,
        *,
        exclude: Sequence[str] = (),
        include: Sequence[str] = (),
        name: str | None = None,
    ):
        super().__init__(optimizer, exclude=exclude, include=include, name=name)
        check_positive("l1", l1)
        self.l1 = float(l1)

    def shrink(self, kernel, weight, threshold):
        """Returns the new weights of a kernel.

        Args:
            kernel: The `Kernel`.
            weight: Its weights, of float32.
            threshold: `learning_rate * l1`.
        """
        # A weight inside the threshold is subtracted from itself, which leaves an exact 0.0.
        return weight - tf.clip_by_value(weight, -threshold, threshold)

    def after_update(self, kernels, step, updated, learning_rate):
        threshold = tf.where(updated, learning_rate * self.l1, 0.0)
        for kernel in kernels:
            # In float32: neither the threshold nor a norm fits into float16.
            weight = tf.cast(kernel.weight, tf.float32)
            shrunk = self.shrink(kernel, weight, threshold)
            kernel.weight.assign(tf.cast(shrunk, kernel.weight.dtype))

    def get_config(self):
        return {**super().get_config(), "l1": self.l1}


@register()
class ProximalGroupL1(ProximalL1):
    """Soft-thresholds whole output channels after each update: they vanish together.

    `w_c <- w_c * max(1 - learning_rate * l1 * sqrt(n) / ||w_c||_2, 0)`, where `w_c` are the `n`
    weights of one output channel (group lasso): one unit of a Dense, one filter of a
    convolution, one element of one head of an attention's query. A kernel with only one output
    channel is skipped, and so is that of a depthwise convolution, in which each channel has its
    own weights. Weights of custom layers with rank 3 or more cannot take part.

    What it does not give: biases and normalisation after a channel are left as they are, so a
    channel without weights may still put out a constant; the model keeps its shape.

    Args:
        optimizer: The `keras.optimizers.Optimizer` that trains the weights.
        l1: Number above 0.
        exclude: Names or patterns of layers to leave alone; the last layer's channels are the
            model's outputs.
        include: Names or patterns of layers that take part as well, as in `SparseOptimizer`.
        name: The optimizer's name.

    Raises:
        InputError: if `l1` is not positive; and as `SparseOptimizer` does.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    layers = [keras.layers.Dense(16, activation="relu"), keras.layers.Dense(1, name="last")]
    model = keras.Sequential([keras.Input((4,)), *layers])
    optimizer = tfpeft.ProximalGroupL1(keras.optimizers.SGD(0.1), l1=0.1, exclude=["last"])
    model.compile(optimizer, loss="mse")
    x = np.random.default_rng(0).normal(size=(256, 4))
    model.fit(x, x[:, :1], epochs=20, verbose=0)
    print(np.all(layers[0].kernel == 0, axis=0))  # channels that vanished are True
    ```

    Reference: Yuan & Lin, "Model selection and estimation in regression with grouped variables",
    2006; Wen et al., "Learning Structured Sparsity in Deep Neural Networks", 2016,
    https://arxiv.org/abs/1608.03665
    """

    uses_axes = True

    def add_states(self):
        self._kernel_axes = [self.axes_of(variable) for variable in self.sparse_variables]

    def shrink(self, kernel, weight, threshold):
        axes = self._kernel_axes[kernel.index]
        squares = tf.square(axes.to_matrix(weight))
        # BiasAddGrad sums over all axes but the last, in half the time of reduce_sum.
        norm = tf.sqrt(tf.raw_ops.BiasAddGrad(out_backprop=squares))
        sides = [side if i in axes.outputs else 1 for i, side in enumerate(weight.shape)]
        norm = tf.reshape(norm, sides)
        threshold = threshold * math.sqrt(math.prod(weight.shape) / math.prod(sides))
        # Not 1 - threshold / norm, of which a channel of zeros would make 0 / 0.
        return weight * tf.math.divide_no_nan(tf.maximum(norm - threshold, 0.0), norm)

    def skip_reason(self, variable):
        channels = self.axes_of(variable).matrix_shape(variable.shape)[-1]
        return "one channel" if channels == 1 else None
