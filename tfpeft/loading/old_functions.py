"""Functions and layers of Keras 2 that Keras 3 lacks, or computes in another way."""

import keras

from tfpeft.core.registration import PACKAGE, register


@keras.saving.register_keras_serializable(package=PACKAGE)
def keras2_hard_sigmoid(x):
    """Returns clip(0.2 x + 0.5, 0, 1); `hard_sigmoid` of Keras 3 is relu6(x + 3) / 6."""
    return keras.ops.clip(0.2 * x + 0.5, 0.0, 1.0)


OLD_ACTIVATIONS = {
    "hard_sigmoid": {
        "module": "builtins",
        "class_name": "function",
        "config": "keras2_hard_sigmoid",
        "registered_name": f"{PACKAGE}>keras2_hard_sigmoid",
    },
    "leaky_relu_v2": "leaky_relu",
    "softmax_v2": "softmax",
}
"""Name of an activation in Keras 1 and 2 -> what Keras 3 is given."""


@register()
class LayerScale(keras.layers.Layer):
    """Multiplies each channel by a weight, as ConvNeXt of keras.applications does."""

    def __init__(self, init_values=1e-6, projection_dim=None, **kwargs):
        super().__init__(**kwargs)
        self.init_values = init_values
        self.projection_dim = projection_dim

    def build(self, input_shape):
        self.gamma = self.add_weight(
            shape=(self.projection_dim or input_shape[-1],),
            initializer=keras.initializers.Constant(self.init_values),
            name="gamma",
        )
        self.built = True

    def call(self, inputs):
        return inputs * keras.ops.cast(self.gamma, inputs.dtype)

    def get_config(self):
        own = {"init_values": self.init_values, "projection_dim": self.projection_dim}
        return {**super().get_config(), **own}


@register()
class StochasticDepth(keras.layers.Layer):
    """Drops the whole branch of a sample while training, as ConvNeXt of keras.applications does."""

    def __init__(self, drop_path_rate, **kwargs):
        super().__init__(**kwargs)
        self.drop_path_rate = drop_path_rate
        self._seeds = keras.random.SeedGenerator()

    def call(self, inputs, training=None):
        if not training:
            return inputs
        keep = 1.0 - self.drop_path_rate
        shape = (keras.ops.shape(inputs)[0],) + (1,) * (len(inputs.shape) - 1)
        kept = keras.ops.floor(keep + keras.random.uniform(shape, seed=self._seeds))
        return inputs / keep * keras.ops.cast(kept, inputs.dtype)

    def get_config(self):
        return {**super().get_config(), "drop_path_rate": self.drop_path_rate}


@register()
class ScaledSum(keras.layers.Layer):
    """a + scale * b, as InceptionResNetV2 of keras.applications adds its branches."""

    def __init__(self, scale, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale

    def call(self, inputs):
        return inputs[0] + self.scale * inputs[1]

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


OLD_CLASSES = {
    "CustomScaleLayer": ScaledSum,
    "LayerScale": LayerScale,
    "StochasticDepth": StochasticDepth,
}
"""Name of a layer of keras.applications in Keras 2 -> the class that computes the same."""
