"""LoRA and DoRA: a low-rank product is added to a layer's kernel."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from tfpeft.adapters.adapter_method import (
    CONVOLUTIONS,
    KERNELS,
    AdapterMethod,
    activate,
    as_floats,
    call_without_activation,
    is_channels_first,
    register,
)
from tfpeft.core.arguments import check_positive, check_positive_integer, invalid
from tfpeft.core.kernel_axes import along_outputs, input_axes, parse_einsum


@register
class LoRA(AdapterMethod):
    """Low-rank adaptation: y = W x + b + (alpha / rank) * B (A x), before the activation.

    W and b are frozen. A maps the inputs to `rank` channels and is random at first; B maps these
    to the outputs and is zero at first, so that training begins with the model as it is. A step
    computes no gradient for W. For a convolution, A is a convolution of the same kernel size; for
    an embedding, A is a table.

    What it does not give: grouped convolutions, and EinsumDense layers with a label that is in
    inputs, kernel and outputs.

    Args:
        rank: Channels between A and B, >= 1.
        alpha: Scale, > 0: the product is multiplied by alpha / rank.
        target: Names or patterns of layers, or of models and blocks that contain them, such as
            "query" or "encoder_1/*". None for the query and value projections of attention;
            without attention, every Dense, EinsumDense and convolution.
        dropout: Rate in [0, 1) at which the inputs of A are dropped in training.

    Raises:
        InputError: for values out of range.
        NoMatchError: in `add_adapters`, for targets that match no layer.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    inputs = keras.Input((8,))
    hidden = keras.layers.Dense(64, activation="relu", name="hidden")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(3, name="head")(hidden))
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=2, target="hidden"))
    print(adapted.count_params() - model.count_params())  # 144: 8 * 2 + 2 * 64
    ```

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022,
    https://arxiv.org/abs/2106.09685
    """

    kinds = (*KERNELS, keras.layers.Embedding)
    default_target = ("query", "value")

    def __init__(
        self,
        rank: int = 8,
        alpha: float = 16,
        target: str | Sequence[str] | None = None,
        dropout: float = 0.0,
    ):
        super().__init__(target)
        check_positive_integer("rank", rank)
        check_positive("alpha", alpha)
        if not isinstance(dropout, (int, float)) or not 0.0 <= dropout < 1.0:
            raise invalid("dropout", "a number in [0, 1)", dropout)
        self.rank, self.alpha, self.dropout = rank, alpha, dropout

    def can_adapt(self, layer):
        if isinstance(layer, keras.layers.EinsumDense):
            return _split_einsum(layer) is not None
        return super().can_adapt(layer) and getattr(layer, "groups", 1) == 1

    def layers(self, model):
        found = super().layers(model)
        if self.target is None:  # embeddings only where the user names them
            return {
                path: layer
                for path, layer in found.items()
                if not isinstance(layer, keras.layers.Embedding)
            }
        return found

    def build(self, part, layer):
        a_shape, b_shape = self._shapes(layer)
        fan_in = math.prod(a_shape[:-1])
        initializer = keras.initializers.RandomUniform(-1.0, 1.0)
        if isinstance(layer, keras.layers.Embedding):
            initializer = keras.initializers.RandomNormal(stddev=1.0)
            fan_in = 1
        # The authors begin with Kaiming's uniform with a = sqrt(5): limits of 1 / sqrt(fan_in).
        part.a = part.add_weight(name="adapter_a", shape=a_shape, initializer=initializer)
        part.a.assign(part.a / math.sqrt(fan_in))
        part.b = part.add_weight(name="adapter_b", shape=b_shape, initializer="zeros")
        part.drop = keras.layers.Dropout(self.dropout) if self.dropout else None

    def _shapes(self, layer):
        """Returns the shapes of A and B."""
        if isinstance(layer, keras.layers.Embedding):
            return (layer.input_dim, self.rank), (self.rank, layer.output_dim)
        if isinstance(layer, keras.layers.EinsumDense):
            split = _split_einsum(layer)
            sides = dict(zip(parse_einsum(layer.equation).kernel, layer.kernel.shape, strict=True))
            sides[split.rank] = self.rank
            return tuple(sides[each] for each in split.a), tuple(sides[each] for each in split.b)
        *sides, outputs = layer.kernel.shape
        return (*sides, self.rank), (self.rank, outputs)

    def call(self, part, layer, call, inputs, *args, **kwargs):
        if isinstance(layer, keras.layers.Embedding):
            outputs = call(inputs, *args, **kwargs)
            return outputs + ops.cast(self._product(part, layer, inputs), outputs.dtype)
        outputs = call_without_activation(layer, call, inputs, *args, **kwargs)
        outputs = outputs + ops.cast(self._product(part, layer, inputs), outputs.dtype)
        return activate(layer, outputs)

    def _product(self, part, layer, inputs):
        """Returns (alpha / rank) * B (A x)."""
        scale = self.alpha / self.rank
        if isinstance(layer, keras.layers.Embedding):
            return scale * ops.matmul(ops.take(part.a, ops.cast(inputs, "int32"), axis=0), part.b)
        inputs = as_floats(layer, inputs)
        if part.drop is not None:
            inputs = part.drop(inputs)
        a, b = ops.cast(part.a, inputs.dtype), ops.cast(part.b, inputs.dtype)
        if isinstance(layer, keras.layers.EinsumDense):
            split = _split_einsum(layer)
            return scale * ops.einsum(split.by_b, ops.einsum(split.by_a, inputs, a), b)
        if isinstance(layer, CONVOLUTIONS):
            hidden = layer.convolution_op(inputs, a)
            if is_channels_first(layer):
                return scale * ops.moveaxis(ops.matmul(ops.moveaxis(hidden, 1, -1), b), -1, 1)
            return scale * ops.matmul(hidden, b)
        return scale * ops.matmul(ops.matmul(inputs, a), b)

    def kernel_delta(self, part, layer):
        """Returns (alpha / rank) * B A in the shape of the kernel, which it is added to."""
        if isinstance(layer, keras.layers.EinsumDense):
            split, kernel = _split_einsum(layer), parse_einsum(layer.equation).kernel
            product = ops.einsum(f"{split.a},{split.b}->{kernel}", part.a, part.b)
        else:
            product = ops.matmul(part.a, part.b)
        return ops.cast(self.alpha / self.rank * product, "float32")

    def merged(self, part, layer):
        name = "embeddings" if isinstance(layer, keras.layers.Embedding) else "kernel"
        return {name: ops.cast(getattr(layer, name), "float32") + self.kernel_delta(part, layer)}

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "rank": self.rank,
            "alpha": self.alpha,
            "dropout": self.dropout,
        }


@register
class DoRA(LoRA):
    """LoRA with a magnitude per output channel: y = m * (W + D) x / ||W + D|| + b.

    D is (alpha / rank) * B A. m has one value per output channel and is ||W|| at first, the norm
    over the kernel's input axes. The gradient does not flow through the norm, as in section 4.3 of
    the paper. DoRA follows full fine-tuning more closely than LoRA at small ranks; each step
    computes the norm of the kernel.

    What it does not give: embeddings, and convolutions with channels first. Arguments and errors
    are those of `LoRA`.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.DoRA(rank=2))
    print(adapted.count_params() - model.count_params())  # 25: 8 * 2 + 2 * 3 + 3
    ```

    Reference: Liu et al., "DoRA: Weight-Decomposed Low-Rank Adaptation", 2024,
    https://arxiv.org/abs/2402.09353
    """

    kinds = KERNELS

    def can_adapt(self, layer):
        return super().can_adapt(layer) and not is_channels_first(layer)

    def build(self, part, layer):
        super().build(part, layer)
        norms = self._norms(part, layer)
        part.magnitude = part.add_weight(name="adapter_magnitude", shape=norms.shape)
        part.magnitude.assign(norms)

    def _adapted_kernel(self, part, layer):
        """Returns W + D."""
        return ops.cast(layer.kernel, "float32") + self.kernel_delta(part, layer)

    def _norms(self, part, layer):
        """Returns ||W + D||."""
        squares = ops.square(self._adapted_kernel(part, layer))
        return ops.sqrt(ops.sum(squares, axis=input_axes(layer)))

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = call_without_activation(layer, call, inputs, *args, **kwargs)
        bias = layer.bias
        if bias is not None:
            bias = ops.cast(bias, outputs.dtype)
            outputs = outputs - bias
        outputs = outputs + ops.cast(self._product(part, layer, inputs), outputs.dtype)
        outputs = outputs * along_outputs(layer, self._scale(part, layer), outputs)
        return activate(layer, outputs if bias is None else outputs + bias)

    def _scale(self, part, layer):
        """Returns m / ||W + D||."""
        norms = ops.stop_gradient(self._norms(part, layer))
        return part.magnitude / ops.maximum(norms, 1e-12)

    def merged(self, part, layer):
        scale = ops.expand_dims(self._scale(part, layer), input_axes(layer))
        return {"kernel": self._adapted_kernel(part, layer) * scale}


class _SplitEinsum(NamedTuple):
    """The einsum of a layer as two: inputs by A, and the result by B."""

    rank: str  # the label between A and B
    a: str  # labels of A: the labels that are summed over, and the rank
    b: str  # labels of B: the rank, and the labels that are in the outputs
    by_a: str  # equation of inputs and A
    by_b: str  # equation of that and B


def _split_einsum(layer):
    """Returns the `_SplitEinsum` of an EinsumDense; None if its kernel cannot be split in two."""
    inputs, kernel, outputs = parse_einsum(layer.equation)
    rank = next(label for label in "rzyxwvu" if label not in layer.equation)
    labels = kernel.replace(".", "")
    summed = "".join(label for label in labels if label in inputs and label not in outputs)
    kept = "".join(label for label in labels if label in outputs and label not in inputs)
    if len(summed) + len(kept) != len(labels) or not summed or not kept:
        return None
    between = "".join(label for label in inputs if label not in summed) + rank
    a, b = summed + rank, rank + kept
    return _SplitEinsum(rank, a, b, f"{inputs},{a}->{between}", f"{between},{b}->{outputs}")
