"""The encoder that tasks share: a frozen backbone, and a pooling of its outputs."""

import keras
from keras import ops

from tfpeft.core.arguments import NoMatchError, check_choice, check_exclude, invalid
from tfpeft.core.graph import input_structure
from tfpeft.core.hooks import mask_of
from tfpeft.core.inputs import arrange
from tfpeft.core.layers import layers_by_path, match_layers, set_trainable

POOLINGS = (None, "mean", "first")


@keras.saving.register_keras_serializable(package="tfpeft")
class Encoder(keras.Model):
    """A backbone whose layers are frozen, but for some, and a pooling over positions.

    Args:
        backbone: A `keras.Model`. It is frozen and becomes part of this one.
        pooling: None for the backbone's output; "mean" for its mean over all axes but the first
            and the last, of the positions that are not masked (by Keras's mask, or the input
            "padding_mask"); "first" for the first position, BERT's [CLS].
        output: Key or index of the backbone's output, where it has several. None for the only one
            or, with a pooling, for KerasHub's "sequence_output".
        unfreeze: Names or patterns of layers of the backbone that are trained.
        name: The model's name.
    """

    def __init__(self, backbone, *, pooling=None, output=None, unfreeze=(), name=None):
        super().__init__(name=name or f"{backbone.name}_encoder")
        check_choice("pooling", pooling, POOLINGS)
        self.backbone = backbone
        self.pooling, self.output_key = pooling, output
        self.unfreeze = [unfreeze] if isinstance(unfreeze, str) else unfreeze
        check_exclude(self.unfreeze, "unfreeze")
        self.unfreeze = list(self.unfreeze)
        if output is not None and (isinstance(output, bool) or not isinstance(output, (str, int))):
            raise invalid("output", "the key or index of an output, or None", output)
        set_trainable(backbone, False)
        layers = layers_by_path(backbone)
        for pattern in self.unfreeze:
            found = match_layers(layers, [pattern])
            if not found:
                names = ", ".join(sorted(layers)[:10])
                expected = f"names or patterns of layers, such as {names}"
                raise invalid("unfreeze", expected, pattern, error=NoMatchError)
            for layer in found.values():
                layer.trainable = True
        self.has_output_mask = False
        self.built = backbone.built

    @property
    def input_structure(self):
        """Symbolic inputs in the structure that the backbone is called with, or None."""
        return input_structure(self.backbone)

    def call(self, inputs, training=None):
        inputs = arrange(self.backbone, inputs, "x")
        outputs = self._select_output(self.backbone(inputs, training=training))
        if self.pooling is None:
            self.has_output_mask = mask_of(outputs) is not None
            return outputs
        if not hasattr(outputs, "shape") or len(outputs.shape) < 3:
            shape = getattr(outputs, "shape", type(outputs).__name__)
            raise invalid("pooling", f"None for a backbone with outputs {shape}", self.pooling)
        if self.pooling == "first":
            return outputs[(slice(None), *[0] * (len(outputs.shape) - 2))]
        mask = mask_of(outputs)
        if mask is None and isinstance(inputs, dict):
            mask = inputs.get("padding_mask")
        if mask is None or len(outputs.shape) != 3:
            return ops.mean(outputs, axis=tuple(range(1, len(outputs.shape) - 1)))
        # In float32, as sums over long texts are wrong in half precision.
        mask = ops.expand_dims(ops.cast(mask, "float32"), -1)
        total = ops.sum(ops.cast(outputs, "float32") * mask, axis=1)
        return ops.cast(total / ops.maximum(ops.sum(mask, axis=1), 1.0), outputs.dtype)

    def _select_output(self, outputs):
        key = self.output_key
        if key is None and self.pooling and isinstance(outputs, dict):
            key = "sequence_output" if "sequence_output" in outputs else None
        if key is None:
            return outputs
        if not isinstance(outputs, (dict, list, tuple)):
            raise invalid("output", "None, as there is one", key)
        keys = list(outputs if isinstance(outputs, dict) else range(len(outputs)))
        if key not in keys:
            raise invalid("output", f"one of {', '.join(map(repr, keys))}", key)
        return outputs[key]

    def get_config(self):
        return {
            "backbone": keras.saving.serialize_keras_object(self.backbone),
            "pooling": self.pooling,
            "output": self.output_key,
            "unfreeze": self.unfreeze,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        backbone = keras.saving.deserialize_keras_object(
            config["backbone"], custom_objects=custom_objects
        )
        return cls(**{**config, "backbone": backbone})
