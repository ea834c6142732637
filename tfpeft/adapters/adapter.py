"""The weights of one adapter: a part per adapted layer, and how the parts change a model."""

import contextlib

import keras

from tfpeft.core.hooks import intercepting


class Adapter(keras.layers.Layer):
    """An adapter: a part for each layer that it adapts.

    Args:
        method: An `AdapterMethod`.
        layers: {path: layer}, as of `method.layers(model)`; the layers are built.
        name: The adapter's name.
    """

    def __init__(self, method, layers, name):
        super().__init__(name=name)
        self.method = method
        with keras.name_scope(name):
            self.parts = [AdapterPart(method, path, layer) for path, layer in layers.items()]
        self.built = True

    def attached(self, parts=None):
        """Returns a context in which the layers, or those of some parts, are adapted."""
        parts = self.parts if parts is None else parts
        return intercepting([part.layer for part in parts], [part.adapted for part in parts])

    def arrays(self):
        """Returns {path of a layer and name of a weight: variable}."""
        return {
            f"{part.path_of_layer}/{weight.name}": weight
            for part in self.parts
            for weight in part.weights
        }


class AdapterPart(keras.layers.Layer):
    """The weights that are trained beside one layer."""

    def __init__(self, method, path, layer):
        super().__init__(name=f"adapter_{layer.name}", dtype=layer.variable_dtype)
        self.method = method
        self.path_of_layer = path
        self.__dict__["layer"] = layer  # not tracked: it belongs to the model
        with contextlib.ExitStack() as scopes:  # paths of variables contain the layer's path
            for parent in path.split("/")[:-1]:
                scopes.enter_context(keras.name_scope(parent))
            method.build(self, layer)
        self.built = True

    def adapted(self, call, *args, **kwargs):
        """Returns the adapted outputs of the layer, whose own call is `call`."""
        return self.method.call(self, self.layer, call, *args, **kwargs)
