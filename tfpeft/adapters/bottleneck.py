"""Bottleneck adapters: a small network behind a layer."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops

from tfpeft.adapters.adapter_method import AdapterMethod, is_channels_first, register
from tfpeft.core.arguments import check_positive_integer, invalid
from tfpeft.core.kernel_axes import output_shape


@register
class BottleneckAdapter(AdapterMethod):
    """A small network behind a layer: y = h + U f(D h) with h the layer's outputs.

    D maps the last axis of h to `size` channels, U maps these back and is zero at first.

    What it does not give: merging, as f is not linear; convolutions with channels first.

    Args:
        size: Channels between D and U, >= 1.
        activation: f, a name or function of Keras.
        target: Names or patterns of layers. None for the last projections of attention and
            feedforward blocks, as in the paper; without such blocks, every Dense, EinsumDense and
            convolution.

    Raises:
        InputError: for values out of range.
        NoMatchError: in `add_adapters`, for targets that match no layer.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.BottleneckAdapter(size=2))
    print(adapted.count_params() - model.count_params())  # 17: 3 * 2 + 2 + 2 * 3 + 3
    ```

    Reference: Houlsby et al., "Parameter-Efficient Transfer Learning for NLP", 2019,
    https://arxiv.org/abs/1902.00751
    """

    default_target = ("attention_output", "feedforward_output_dense")

    def __init__(
        self,
        size: int = 64,
        activation: str | Callable = "gelu",
        target: str | Sequence[str] | None = None,
    ):
        super().__init__(target)
        check_positive_integer("size", size)
        self.size = size
        try:
            self.activation = keras.activations.get(activation)
        except ValueError as error:
            expected = "the name of an activation of Keras, or a function"
            raise invalid("activation", expected, activation) from error

    def can_adapt(self, layer):
        return super().can_adapt(layer) and not is_channels_first(layer)

    def build(self, part, layer):
        width = output_shape(layer)[-1]
        for name, shape, initializer in (
            ("down", (width, self.size), "glorot_uniform"),
            ("down_bias", (self.size,), "zeros"),
            ("up", (self.size, width), "zeros"),
            ("up_bias", (width,), "zeros"),
        ):
            weight = part.add_weight(
                name=f"bottleneck_{name}", shape=shape, initializer=initializer
            )
            setattr(part, name, weight)

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = call(inputs, *args, **kwargs)
        down, down_bias, up, up_bias = (
            ops.cast(weight, outputs.dtype)
            for weight in (part.down, part.down_bias, part.up, part.up_bias)
        )
        hidden = self.activation(ops.matmul(outputs, down) + down_bias)
        return outputs + ops.matmul(hidden, up) + up_bias

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "size": self.size,
            "activation": keras.activations.serialize(self.activation),
        }
