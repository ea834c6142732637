"""Models with adapters: one frozen model, and named adapters that are switched on it."""

import os
from typing import Any

import keras

from tfpeft.adapters.adapter import Adapter
from tfpeft.adapters.adapter_method import AdapterMethod
from tfpeft.adapters.mergeable import check_adapter
from tfpeft.core import clone, weight_files
from tfpeft.core.arguments import invalid
from tfpeft.core.graph import input_structure
from tfpeft.core.layers import set_trainable
from tfpeft.core.same_outputs import run


def add_adapters(
    model: keras.Model, method: AdapterMethod, *, name: str = "default"
) -> "AdaptedModel":
    """Returns a model with trainable adapters beside the frozen layers of `model`.

    `model` stays as it is. The new model contains a frozen copy of it (statistics of BatchNorm
    included), and returns the outputs of `model` until it is trained. If `model` is an
    `AdaptedModel`, the new model also contains copies of its adapters, with their trained weights;
    the adapter that is added is the active one. So one model holds adapters of several tasks.

    What it does not give: layers that are created while the model is called; training of the
    model's own weights.

    Args:
        model: A built `keras.Model`: functional, Sequential, KerasHub's, or a subclassed one with
            `get_config`; or an `AdaptedModel`.
        method: `LoRA(...)`, `DoRA(...)`, `IA3(...)`, `BottleneckAdapter(...)`, `BitFit(...)`,
            `NormTuning(...)`, or a custom `AdapterMethod`.
        name: The adapter's name, a new one.

    Returns:
        An `AdaptedModel`, not compiled.

    Raises:
        NoMatchError: for targets that match no layer; the message lists similar names.
        InputError: for a name that is taken; for models that are not built, or of which a copy
            has other outputs; naming the layer, for targets whose weights are used by more than
            their own `call`, so that merging would change the outputs: tied tables, Keras's own
            LoRA (`enable_lora`), quantized layers, wrappers such as `SpectralNormalization`.

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
    both = tfpeft.add_adapters(adapted, tfpeft.IA3(), name="second")
    print(list(both.adapters), both.active)  # ['default', 'second'] second
    merged = tfpeft.merge_adapters(both, "default")  # a plain model again
    ```

    Reference: Hu et al., "LoRA: Low-Rank Adaptation of Large Language Models", 2022,
    https://arxiv.org/abs/2106.09685
    """
    _check_method("method", method)
    _check_model(model)
    plain = model.model if isinstance(model, AdaptedModel) else model
    # Errors before the model is copied.
    method.layers(plain)
    _check_new_name(model.adapters if isinstance(model, AdaptedModel) else (), name)
    sample = run(plain)
    copy = clone.copy_model(plain, sample=sample)
    if not isinstance(model, AdaptedModel):
        new = AdaptedModel(copy, {name: method})
        check_adapter(new.model, new.adapters[name], sample)
        return new
    methods = {known: adapter.method for known, adapter in model.adapters.items()}
    new = AdaptedModel(copy, methods, name=model.name)
    for known, adapter in model.adapters.items():
        new.adapters[known].set_weights(adapter.get_weights())
    new.add(method, name)
    return new


def _check_model(model):
    if not isinstance(model, keras.Model) or not model.built:
        raise invalid("model", "a keras.Model that is built", model)


def _check_method(argument, method):
    if not isinstance(method, AdapterMethod):
        raise invalid(argument, "LoRA(...) or another AdapterMethod", method)


def _check_new_name(adapters, name):
    if not isinstance(name, str) or not name or name in adapters:
        taken = f", none of {', '.join(adapters)}" if adapters else ""
        raise invalid("name", f"a new name{taken}", name)


def _is_name_in(adapters, name):
    return isinstance(name, str) and name in adapters


@keras.saving.register_keras_serializable(package="tfpeft")
class AdaptedModel(keras.Model):
    """A frozen model with named adapters, one of which is active; `add_adapters` returns it.

    `use` switches the adapter. Compile again before training, as the trainable variables change;
    compile models that contain this one again, too, as they were traced with the adapter that was
    active.

    Args:
        model: The model. It is frozen and becomes part of this one; `add_adapters` copies it.
        adapters: {name: method}.
        active: Name of the adapter that is used; None for the last one.
        name: The model's name.

    Attributes:
        model: The frozen model.
        adapters: {name: adapter}.
        active: Name of the adapter that is used, or None.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(3, name="head")])
    adapted = tfpeft.AdaptedModel(model, {"a": tfpeft.LoRA(2), "b": tfpeft.BitFit()}, active="a")
    adapted.use(None)  # the outputs of `model`
    adapted.use("b")
    adapted.save_adapter("b.weights.h5")
    ```
    """

    def __init__(
        self,
        model: keras.Model,
        adapters: dict[str, AdapterMethod],
        *,
        active: str | None = None,
        name: str | None = None,
    ):
        _check_model(model)
        if not isinstance(adapters, dict):
            raise invalid("adapters", "{name: method}", adapters)
        for adapter_name, method in adapters.items():
            if not isinstance(adapter_name, str) or not adapter_name:
                raise invalid("adapters", "{name: method} with names that are texts", adapters)
            _check_method(f"adapters[{adapter_name!r}]", method)
        if active is not None and not _is_name_in(adapters, active):
            raise invalid("active", f"one of {', '.join(adapters)}, or None", active)
        super().__init__(name=name or f"{model.name}_adapted")
        set_trainable(model, False)
        self.model = model
        self.adapters = {}
        self.active = None
        for adapter_name, method in adapters.items():
            self._put(self._adapter(method, adapter_name))
        if active is not None:
            self.use(active)
        self.built = True

    def add(self, method: AdapterMethod, name: str) -> None:
        """Adds an adapter to this model and makes it the active one.

        Raises:
            NoMatchError: for targets that match no layer.
            InputError: for a name that is taken, layers that are not built, and layers with which
                the adapter cannot be merged; this model then stays as it is.
        """
        _check_method("method", method)
        adapter = self._adapter(method, name)
        check_adapter(self.model, adapter)
        self._put(adapter)

    def _adapter(self, method, name):
        """Returns an adapter of the model's layers, which is not yet part of this model."""
        _check_new_name(self.adapters, name)
        layers = method.layers(self.model)
        unbuilt = [path for path, layer in layers.items() if not layer.built]
        if unbuilt:
            raise invalid("model", "layers that are built", unbuilt[0])
        return Adapter(method, layers, name)

    def _put(self, adapter):
        self._tracker.unlock()
        self.adapters[adapter.name] = adapter
        self._tracker.lock()
        self.use(adapter.name)

    def use(self, name: str | None) -> None:
        """Makes an adapter the active one; with None, outputs are those of the frozen model.

        Raises:
            InputError: for the name of an adapter that this model does not have.
        """
        if name is not None and not _is_name_in(self.adapters, name):
            raise invalid("name", f"one of {', '.join(self.adapters)}, or None", name)
        self.active = name
        for adapter_name, adapter in self.adapters.items():
            adapter.trainable = adapter_name == name
        self.train_function = self.test_function = self.predict_function = None

    def call(self, inputs, training=None):
        if self.active is None:
            return self.model(inputs, training=training)
        with self.adapters[self.active].attached():
            return self.model(inputs, training=training)

    @property
    def input_structure(self):
        """Symbolic inputs in the structure that the model is called with, or None."""
        return input_structure(self.model)

    @property
    def input_shape(self):
        return self.model.input_shape

    @property
    def output_shape(self):
        return self.model.output_shape

    def save_adapter(self, path: str | os.PathLike, name: str | None = None) -> None:
        """Writes one adapter to a file: method, weights, and a fingerprint of the frozen model.

        Args:
            path: A file that ends in .weights.h5 or .safetensors (which needs `safetensors`).
            name: The adapter; None for the active one.

        Raises:
            InputError: for the name of an adapter that this model does not have, and a path with
                another ending.
        """
        adapter = self.adapter(name)
        about = {
            "method": keras.saving.serialize_keras_object(adapter.method),
            "model": weight_files.fingerprint(self.model),
        }
        weights = {key: variable.numpy() for key, variable in adapter.arrays().items()}
        weight_files.write(path, weights, about)

    def load_adapter(self, path: str | os.PathLike, name: str = "default") -> None:
        """Adds an adapter from a file of `save_adapter` and makes it the active one.

        Args:
            path: The file.
            name: The adapter's name here, a new one.

        Raises:
            InputError: for a file of a model with other weights, and other or damaged files; this
                model then stays as it is.
        """
        weights, about = weight_files.read(path)
        if about.get("model") != weight_files.fingerprint(self.model):
            raise invalid("path", "an adapter of this model, with these weights", str(path))
        method = weight_files.rebuild(about.get("method"), AdapterMethod, path)
        adapter = self._adapter(method, name)
        weight_files.assign(adapter.arrays(), weights, path, "save_adapter")
        self._put(adapter)

    def adapter(self, name: str | None = None) -> Adapter:
        """Returns the adapter of a name; None for the active one."""
        name = self.active if name is None else name
        if not _is_name_in(self.adapters, name):
            raise invalid("name", f"one of {', '.join(self.adapters) or '(none)'}", name)
        return self.adapters[name]

    def get_config(self) -> dict[str, Any]:
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
    def from_config(cls, config: dict[str, Any], custom_objects=None) -> "AdaptedModel":
        config = dict(config)
        deserialize = keras.saving.deserialize_keras_object
        config["model"] = deserialize(config["model"], custom_objects=custom_objects)
        config["adapters"] = {
            name: deserialize(method, custom_objects=custom_objects)
            for name, method in config["adapters"].items()
        }
        return cls(**config)
