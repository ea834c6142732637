"""IA3: a factor per output or input channel of a layer."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from tfpeft.adapters.adapter_method import (
    AdapterMethod,
    activate,
    as_floats,
    call_without_activation,
    patterns,
    register,
)
from tfpeft.core.arguments import invalid
from tfpeft.core.kernel_axes import along_outputs, input_axes, output_shape
from tfpeft.core.layers import match_layers


@register
class IA3(AdapterMethod):
    """A factor per channel: y = l * (W x + b), or y = W (l * x) + b; l is one at first.

    Args:
        target: Layers whose outputs are scaled, before the activation. None for the key and value
            projections of attention; without attention, every Dense, EinsumDense and convolution.
        input_target: Dense layers whose inputs are scaled, on the last axis. None for the second
            Dense layers of KerasHub's feedforward blocks, where the model has such blocks.

    Raises:
        InputError: in `add_adapters`, for an `input_target` that is no Dense layer.
        NoMatchError: in `add_adapters`, for targets that match no layer.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.IA3(target="head"))
    print(adapted.count_params() - model.count_params())  # 3
    ```

    Reference: Liu et al., "Few-Shot Parameter-Efficient Fine-Tuning is Better and Cheaper than
    In-Context Learning", 2022, https://arxiv.org/abs/2205.05638
    """

    default_target = ("key", "value")

    def __init__(
        self,
        target: str | Sequence[str] | None = None,
        input_target: str | Sequence[str] | None = None,
    ):
        super().__init__(target)
        self.input_target = patterns("input_target", input_target)

    def _scales_inputs(self, path):
        wanted = self.input_target
        if wanted is None:
            wanted = () if self.target is not None else ("feedforward_output_dense",)
        return bool(match_layers({path: None}, wanted))

    def layers(self, model):
        able = self._adaptable_layers(model)
        by_input = {path: layer for path, layer in able.items() if self._scales_inputs(path)}
        for path, layer in by_input.items():
            if not isinstance(layer, keras.layers.Dense):
                raise invalid("input_target", "Dense layers", path)
        for pattern in self.input_target or ():
            if not match_layers(able, [pattern]):
                raise self._no_match("input_target", pattern, able)
        return {**super().layers(model), **by_input}

    def build(self, part, layer):
        part.on_input = self._scales_inputs(part.path_of_layer)
        shape = (layer.kernel.shape[0],) if part.on_input else output_shape(layer)
        part.scale = part.add_weight(name="ia3_scale", shape=shape, initializer="ones")

    def call(self, part, layer, call, inputs, *args, **kwargs):
        # As h + (l - 1) * h: TensorFlow Lite's converter folds l * h into the kernel, and a file
        # of several tasks would then hold one copy of the kernel per task.
        if part.on_input:
            inputs = as_floats(layer, inputs)
            inputs = inputs + inputs * ops.cast(part.scale - 1.0, inputs.dtype)
            return call(inputs, *args, **kwargs)
        outputs = call_without_activation(layer, call, inputs, *args, **kwargs)
        change = outputs * along_outputs(layer, part.scale - 1.0, outputs)
        return activate(layer, outputs + change)

    def merged(self, part, layer):
        if part.on_input:
            return {"kernel": layer.kernel * part.scale[:, None]}
        new = {"kernel": layer.kernel * ops.expand_dims(part.scale, input_axes(layer))}
        if layer.bias is not None:
            scale = part.scale
            if isinstance(layer, keras.layers.EinsumDense):
                scale = along_outputs(layer, scale, layer.bias)
            new["bias"] = layer.bias * ops.reshape(scale, layer.bias.shape)
        return new

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "input_target": self.input_target}
