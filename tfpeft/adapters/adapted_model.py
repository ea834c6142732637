"""Models with adapters: one frozen model, and small trainable parts that are switched on it."""

import contextlib

import keras
import numpy as np

from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.core import clone, weight_files
from tfpeft.core.arguments import invalid
from tfpeft.core.graph import input_structure
from tfpeft.core.hooks import intercepting
from tfpeft.core.layers import set_trainable


def add_adapters(model, method, *, name="default"):
    """Returns a model with trainable adapters beside the frozen layers of `model`.

    The new model has a copy of `model` that is frozen (BatchNorm's statistics included), and
    answers what `model` answers until it is trained. Given an `AdaptedModel`, one more adapter is
    added to its copy, under another name, and made the active one: several tasks, one model.

    What it does not give: layers that are made while the model is called; weights of the model
    itself that are trained, too.

    Args:
        model: A built `keras.Model`: functional, Sequential, KerasHub's, or a subclassed one with
            `get_config`; or an `AdaptedModel`.
        method: `LoRA(...)`, `DoRA(...)`, `IA3(...)`, `BottleneckAdapter(...)`, `BitFit(...)`,
            `NormTuning(...)`, or an `AdapterMethod` of one's own.
        name: Of the adapter.

    Returns:
        An `AdaptedModel`.

    Raises:
        ValueError: for targets that match nothing (near names are listed), a name that is taken,
            and models that are not built or cannot be made again.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    x, y = np.random.rand(64, 8), np.random.randint(0, 3, 64)
    hidden = keras.layers.Dense(32, activation="relu", name="hidden")
    model = keras.Sequential([keras.Input((8,)), hidden, keras.layers.Dense(3, name="head")])
    adapted = tfpeft.add_adapters(model, tfpeft.LoRA(rank=2, target=["hidden", "head"]))
    adapted.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    adapted.fit(x, y, verbose=0)
    print(tfpeft.trainable_summary(adapted))
    merged = tfpeft.merge_adapters(adapted)  # a plain model again
    ```

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022,
    https://arxiv.org/abs/2106.09685
    """
    if not isinstance(method, AdapterMethod):
        raise invalid("method", "LoRA(...) or another AdapterMethod", method)
    if isinstance(model, AdaptedModel):
        model.add(method, name)
        return model
    if not isinstance(model, keras.Model) or not model.built:
        raise invalid("model", "a keras.Model that is built", model)
    method.layers(model)  # a target that matches nothing is refused before the copy is made
    return AdaptedModel(clone.rebuild(model, lambda config, parents: config), {name: method})


@keras.saving.register_keras_serializable(package="tfpeft")
class AdaptedModel(keras.Model):
    """A frozen model with named adapters, one of which is active. See `add_adapters`.

    A model that contains this one, or was compiled, has traced the adapter that was active: after
    `use`, this model traces again by itself, and is to be compiled again for training, as its
    trainable variables are others.

    Args:
        model: The model; it is frozen, and belongs to this one from here on.
        adapters: {name: method}.
        active: Name of the adapter that is used; None for the last one.
        name: The model's name.
    """

    def __init__(self, model, adapters, *, active=None, name=None):
        super().__init__(name=name or f"{model.name}_adapted")
        set_trainable(model, False)
        self.model = model
        self.adapters = {}
        self.active = None
        for each, method in adapters.items():
            self.add(method, each)
        if active is not None:
            self.use(active)
        self.built = True

    def add(self, method, name):
        """Adds an adapter and makes it the active one."""
        if not isinstance(name, str) or not name or name in self.adapters:
            taken = f", none of {', '.join(self.adapters)}" if self.adapters else ""
            raise invalid("name", f"a new name{taken}", name)
        layers = method.layers(self.model)
        unbuilt = [path for path, layer in layers.items() if not layer.built]
        if unbuilt:
            raise invalid("model", "layers that are built", unbuilt[0])
        self._tracker.unlock()
        self.adapters[name] = Adapter(method, layers, name)
        self._tracker.lock()
        self.use(name)

    def use(self, name):
        """Makes an adapter the active one; None for the model as it was."""
        if name is not None and name not in self.adapters:
            raise invalid("name", f"one of {', '.join(self.adapters)}, or None", name)
        self.active = name
        for each, adapter in self.adapters.items():
            adapter.trainable = each == name
        self.train_function = self.test_function = self.predict_function = None

    def call(self, inputs, training=None):
        if self.active is None:
            return self.model(inputs, training=training)
        with self.adapters[self.active].attached():
            return self.model(inputs, training=training)

    @property
    def input_structure(self):
        """Inputs as the model was made with, or None if it does not tell."""
        return input_structure(self.model)

    @property
    def input_shape(self):
        return self.model.input_shape

    @property
    def output_shape(self):
        return self.model.output_shape

    def save_adapter(self, path, name=None):
        """Writes one adapter: its method, its weights, and a fingerprint of the model it is for.

        Args:
            path: A file that ends in .weights.h5 or .safetensors (which needs `safetensors`).
            name: The adapter; None for the active one.
        """
        name = self._known(name)
        about = {
            "method": keras.saving.serialize_keras_object(self.adapters[name].method),
            "model": weight_files.fingerprint(self.model),
        }
        weights = {key: v.numpy() for key, v in self.adapters[name].arrays().items()}
        weight_files.write(path, weights, about)

    def load_adapter(self, path, name="default"):
        """Adds an adapter from a file of `save_adapter` and makes it the active one.

        Raises:
            ValueError: if the file was made for another model, or is none.
        """
        weights, about = weight_files.read(path)
        before = self.active
        if about.get("model") != weight_files.fingerprint(self.model):
            raise invalid("path", "an adapter of this model, with these weights", str(path))
        self.add(keras.saving.deserialize_keras_object(about["method"]), name)
        variables = self.adapters[name].arrays()
        if {key: v.shape for key, v in variables.items()} != {
            k: a.shape for k, a in weights.items()
        }:
            self.adapters.pop(name)  # which untracks it, as `del` does not
            self.use(before)
            raise invalid("path", "a whole file of `save_adapter`", str(path))
        for key, weight in variables.items():
            weight.assign(weights[key])

    def _known(self, name):
        name = self.active if name is None else name
        if name not in self.adapters:
            raise invalid("name", f"one of {', '.join(self.adapters) or '(none)'}", name)
        return name

    def get_config(self):
        serialize = keras.saving.serialize_keras_object
        return {
            "model": serialize(self.model),
            "adapters": {
                name: serialize(adapter.method) for name, adapter in self.adapters.items()
            },
            "active": self.active,
            "name": self.name,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        config["model"] = deserialize(config["model"], custom_objects=custom_objects)
        config["adapters"] = {
            name: deserialize(method, custom_objects=custom_objects)
            for name, method in config["adapters"].items()
        }
        return cls(**config)


class Adapter(keras.layers.Layer):
    """The parts of one adapter."""

    def __init__(self, method, layers, name):
        super().__init__(name=name)
        self.method = method
        with keras.name_scope(name):
            self.parts = [AdapterPart(method, path, layer) for path, layer in layers.items()]
        self.built = True

    def attached(self):
        """A context in which the layers answer as adapted."""
        layers = [part.layer for part in self.parts]
        return intercepting(layers, [part.adapted for part in self.parts])

    def arrays(self):
        """Returns {path of the layer and name of the weight: variable}."""
        return {
            f"{part.path_of_layer}/{weight.name}": weight
            for part in self.parts
            for weight in part.weights
        }


class AdapterPart(keras.layers.Layer):
    """What is trained beside one layer."""

    def __init__(self, method, path, layer):
        super().__init__(name=f"adapter_{layer.name}", dtype=layer.variable_dtype)
        self.method = method
        self.path_of_layer = path
        self.__dict__["layer"] = layer  # untracked: it is the model's, not this part's
        with contextlib.ExitStack() as scopes:  # so that paths of variables tell the layers apart
            for above in path.split("/")[:-1]:
                scopes.enter_context(keras.name_scope(above))
            method.build(self, layer)
        self.built = True

    def adapted(self, call, *args, **kwargs):
        return self.method.call(self, self.layer, call, *args, **kwargs)


def merge_adapters(model, name=None):
    """Returns a plain model in which an adapter is folded into the weights.

    It has the architecture of the model that the adapter was added to, and answers the same as
    the adapted one.

    Args:
        model: An `AdaptedModel`; it stays as it is.
        name: The adapter; None for the active one.

    Raises:
        ValueError: for an adapter that is not linear in the weights (`BottleneckAdapter`), and
            names that are not there.
    """
    if not isinstance(model, AdaptedModel):
        raise invalid("model", "an AdaptedModel", model)
    name = model._known(name)
    index = {id(variable): i for i, variable in enumerate(model.model.variables)}
    values = {}
    for part in model.adapters[name].parts:
        for attribute, value in part.method.merged(part, part.layer).items():
            variable = getattr(part.layer, f"_{attribute}", None)
            if not isinstance(variable, keras.Variable):
                variable = getattr(part.layer, attribute)
            values[index[id(variable)]] = value
    merged = clone.rebuild(model.model, lambda config, parents: config)
    set_trainable(merged, True)
    for i, value in values.items():
        merged.variables[i].assign(value)
    return merged


def trainable_summary(model):
    """Returns a text: which variables of a model are trained, and how many there are of all.

    Args:
        model: A built `keras.Model`.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3)])
    print(tfpeft.trainable_summary(model))  # 27 of 27 parameters are trainable (100.00%) ...
    ```
    """
    if not isinstance(model, keras.Model) or not model.built:
        raise invalid("model", "a keras.Model that is built", model)
    trainable = model.trainable_variables
    sizes = [int(np.prod(variable.shape)) for variable in trainable]
    total = sum(int(np.prod(variable.shape)) for variable in model.variables)
    share = 100.0 * sum(sizes) / total if total else 0.0
    lines = [f"{sum(sizes):,} of {total:,} parameters are trainable ({share:.2f}%)"]
    for variable, size in zip(trainable, sizes, strict=True):
        lines.append(f"  {variable.path}  {tuple(variable.shape)}  {size:,}")
    return "\n".join(lines)
