"""BitFit: only what is added to the biases is trained."""

import keras
from keras import ops

from tfpeft.adapters.adapter_method import (
    KERNELS,
    NORMALIZATIONS,
    AdapterMethod,
    activate,
    call_without_activation,
    register,
)
from tfpeft.core.kernel_axes import along_outputs


@register
class BitFit(AdapterMethod):
    """Training of biases alone: y = W x + b + d; d is zero at first.

    Args:
        target: Names or patterns of layers; None for all layers with a bias: Dense,
            EinsumDense, convolutions and normalisation.

    Raises:
        NoMatchError: in `add_adapters`, for targets that match no layer.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.BitFit())
    print(adapted.count_params() - model.count_params())  # 3
    ```

    Reference: Ben Zaken, Goldberg & Ravfogel, "BitFit: Simple Parameter-efficient Fine-tuning for
    Transformer-based Masked Language-models", 2022, https://arxiv.org/abs/2106.10199
    """

    kinds = (*KERNELS, *NORMALIZATIONS)

    def can_adapt(self, layer):
        return super().can_adapt(layer) and getattr(layer, _bias_name(layer), None) is not None

    def build(self, part, layer):
        bias = getattr(layer, _bias_name(layer))
        part.shift = part.add_weight(name="bias_shift", shape=bias.shape, initializer="zeros")

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = call_without_activation(layer, call, inputs, *args, **kwargs)
        shift = part.shift
        if not isinstance(layer, keras.layers.EinsumDense):
            shift = along_outputs(layer, shift, outputs)
        return activate(layer, outputs + ops.cast(shift, outputs.dtype))

    def merged(self, part, layer):
        name = _bias_name(layer)
        return {name: getattr(layer, name) + part.shift}


def _bias_name(layer):
    return "beta" if isinstance(layer, NORMALIZATIONS) else "bias"
