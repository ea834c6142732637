"""NormTuning: scale and shift of normalisation layers are trained."""

import keras

from tfpeft.adapters.adapter_method import NORMALIZATIONS, AdapterMethod, register
from tfpeft.core.arguments import invalid
from tfpeft.core.kernel_axes import along_outputs


@register
class NormTuning(AdapterMethod):
    """Training of normalisation layers: y = g * n + s with n the layer's outputs.

    g is one and s is zero at first. It equals the training of gamma and beta, which stay as they
    are. Where a layer has no beta, s is not trained.

    Args:
        target: Names or patterns of normalisation layers; None for all of them.

    Raises:
        InputError: in `add_adapters`, for a normalisation layer without a scale.
        NoMatchError: in `add_adapters`, for targets that match no layer.

    Example:

    ```python
    import keras, tfpeft

    layers = [keras.Input((8,)), keras.layers.LayerNormalization(), keras.layers.Dense(3)]
    adapted = tfpeft.add_adapters(keras.Sequential(layers), tfpeft.NormTuning())
    print(len(adapted.trainable_variables))  # 2
    ```

    Reference: Qi et al., "Parameter-Efficient Tuning on Layer Normalization for Pre-trained
    Language Models", 2022, https://arxiv.org/abs/2211.08682
    """

    kinds = NORMALIZATIONS

    def build(self, part, layer):
        scale = getattr(layer, _scale_name(layer), None)
        if scale is None:
            raise invalid("target", "normalisation layers with a scale", layer.name)
        part.gain = part.add_weight(name="norm_scale", shape=scale.shape, initializer="ones")
        part.shift = part.add_weight(name="norm_bias", shape=scale.shape, initializer="zeros")
        if getattr(layer, "beta", None) is None:
            part.shift.trainable = False

    def call(self, part, layer, call, inputs, *args, **kwargs):
        outputs = call(inputs, *args, **kwargs)
        # As in IA3, so that the converter does not fold it into the kernel before it.
        change = outputs * along_outputs(layer, part.gain - 1.0, outputs)
        return outputs + (change + along_outputs(layer, part.shift, outputs))

    def merged(self, part, layer):
        name = _scale_name(layer)
        new = {name: getattr(layer, name) * part.gain}
        if getattr(layer, "beta", None) is not None:
            new["beta"] = layer.beta * part.gain + part.shift
        return new


def _scale_name(layer):
    return "scale" if isinstance(layer, keras.layers.RMSNormalization) else "gamma"
