"""Base class of adapter methods: which layers are adapted, and how a layer's call is changed."""

import difflib
from collections.abc import Sequence
from typing import Any

import keras

from tfpeft.core.arguments import NoMatchError, invalid, unexpected
from tfpeft.core.layers import layers_by_path, match_layers

CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)
KERNELS = (keras.layers.Dense, keras.layers.EinsumDense, *CONVOLUTIONS)
NORMALIZATIONS = (
    keras.layers.LayerNormalization,
    keras.layers.BatchNormalization,
    keras.layers.GroupNormalization,
    keras.layers.RMSNormalization,
)

register = keras.saving.register_keras_serializable(package="tfpeft")


class AdapterMethod:
    """Which layers are adapted, and what is computed beside each of them.

    A custom method overrides `kinds` and `default_target`, and three functions: `build`, `call`
    and, if the adapter can be merged, `merged`. They get a layer and its part: a
    `keras.layers.Layer` that holds what is trained beside that layer. To be saved with a model,
    a custom method is registered with Keras.

    Args:
        target: Names or patterns of layers; None for the method's default.

    Example:

    ```python
    import keras, tfpeft

    class OutputScale(tfpeft.AdapterMethod):
        def build(self, part, layer):
            part.scale = part.add_weight(name="scale", shape=(), initializer="ones")

        def call(self, part, layer, call, inputs, *args, **kwargs):
            return part.scale * call(inputs, *args, **kwargs)

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, OutputScale(target="head"))
    print(len(adapted.trainable_variables))  # 1
    ```
    """

    kinds = KERNELS
    """Classes of layers that can be adapted."""

    default_target = ()
    """Patterns of layers if none are given; where they match nothing, all layers of `kinds`."""

    starts_as_identity = True
    """Whether a new adapter leaves the model's outputs as they are, which is then checked."""

    def __init__(self, target: str | Sequence[str] | None = None):
        self.target = patterns("target", target)

    def layers(self, model: keras.Model) -> dict[str, keras.layers.Layer]:
        """Returns {path: layer} of the layers in a model that are adapted.

        Raises:
            NoMatchError: if a pattern matches no layer that can be adapted; the message lists
                similar names.
        """
        able = self._adaptable_layers(model)
        if self.target is None:
            found = match_layers(able, self.default_target) or able
        else:
            found = {}
            for pattern in self.target:
                matches = match_layers(able, [pattern])
                if not matches:
                    raise self._no_match("target", pattern, able)
                found.update(matches)
        if not found:
            raise self._no_match("target", None, able)
        return dict(sorted(found.items()))

    def _adaptable_layers(self, model):
        able = {p: layer for p, layer in layers_by_path(model).items() if self.can_adapt(layer)}
        # A layer with two paths, of a nested model that is used twice, is adapted once.
        one_path = {id(layer): path for path, layer in able.items()}
        return {path: able[path] for path in one_path.values()}

    def _no_match(self, argument, pattern, able):
        names = sorted({path.split("/")[-1] for path in able})
        near = difflib.get_close_matches(str(pattern), names, n=5, cutoff=0.4) or names[:10]
        kinds = ", ".join(kind.__name__ for kind in self.kinds)
        expected = f"names or patterns of layers ({kinds}), such as {', '.join(near) or 'none'}"
        return invalid(argument, expected, pattern, error=NoMatchError)

    def can_adapt(self, layer: keras.layers.Layer) -> bool:
        """Whether the method can adapt a layer."""
        return isinstance(layer, self.kinds)

    def build(self, part: keras.layers.Layer, layer: keras.layers.Layer) -> None:
        """Adds weights to the part of a layer that is built."""
        raise NotImplementedError

    def call(
        self, part: keras.layers.Layer, layer: keras.layers.Layer, call, inputs, *args, **kwargs
    ):
        """Returns the adapted outputs of a layer; `call` is the layer's own call."""
        raise NotImplementedError

    def merged(self, part: keras.layers.Layer, layer: keras.layers.Layer) -> dict[str, Any]:
        """Returns {name of a layer's variable: value} with which the layer needs no part.

        Raises:
            InputError: if the method is not linear in the layer's weights.
        """
        raise unexpected(
            "an adapter that is linear in the layer's weights, such as LoRA",
            f"{type(self).__name__}, which cannot be merged; the adapted model can be kept",
        )

    def get_config(self) -> dict[str, Any]:
        return {"target": self.target}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "AdapterMethod":
        return cls(**config)


def patterns(argument, value):
    """Returns the names or patterns of layers that an argument gave, as a list; None of None."""
    if value is None:
        return None
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, (list, tuple)) or not all(isinstance(each, str) for each in found):
        raise invalid(argument, "a name or pattern, or a list of them", value)
    return list(found)


def is_channels_first(layer):
    """Whether the channels of a layer's outputs are on axis 1."""
    return getattr(layer, "data_format", None) == "channels_first"


def as_floats(layer, inputs):
    """Returns the inputs of a layer, integers as the floats that the layer computes with."""
    if keras.backend.is_float_dtype(keras.backend.standardize_dtype(inputs.dtype)):
        return inputs
    return keras.ops.cast(inputs, layer.compute_dtype)


def call_without_activation(layer, call, *args, **kwargs):
    """Returns the outputs of a layer before its activation; see `activate`."""
    if getattr(layer, "activation", None) is None:
        return call(*args, **kwargs)
    activation, layer.activation = layer.activation, None
    try:
        return call(*args, **kwargs)
    finally:
        layer.activation = activation


def activate(layer, outputs):
    """Returns the layer's activation of `outputs`."""
    activation = getattr(layer, "activation", None)
    return outputs if activation is None else activation(outputs)
