"""Configurations that refer to the objects of a model instead of naming classes and functions."""

import contextlib
import functools
import inspect
import os
import tempfile
import types

import keras

from tfpeft.core.arguments import InputError, last_cause
from tfpeft.core.graph import calls, detached, flatten_layers, functional_view, is_graph

_KEY = "tfpeft_reference"
_REUSED = "tfpeft_reused"
_ARGUMENTS = "tfpeft_arguments"


class References:
    """The configuration of a model, and what its references stand for.

    Keras finds classes and functions by name. Two classes of one name are then one, a custom
    `Dense` is taken for Keras's, a lambda loses the globals of its module, and what is not
    registered is not found. Here each object of the model gets a name that no other one has.

    Args:
        model: A `keras.Model`, or another object of Keras with `get_config`.
        edits: {id of an object: function of its configuration that returns the new one}.
        plain: Whether all models with a graph are configured as functional models.

    Attributes:
        config: Its configuration, with references; `resolved` makes it one for Keras.
        custom_objects: {name: what it stands for}, filled by `resolved`.

    Raises:
        InputError: naming the layer whose configuration cannot be had.
    """

    def __init__(self, model, *, edits=None, plain=False):
        self._root = model
        self._edits = edits or {}
        self._layers = flatten_layers(model) if isinstance(model, keras.layers.Layer) else []
        self._objects = _objects(self._layers or [model])
        self._functions = _functions(self._objects)
        views = [functional_view(each) if plain else None for each in self._objects]
        self._rebuilders = [
            _Rebuilder(each, model, type(each) if view is None else type(view))
            for each, view in zip(self._objects, views, strict=True)
        ]
        self.custom_objects = {
            _function_name(i): function for i, function in enumerate(self._functions)
        }
        with contextlib.ExitStack() as stack:
            for i, each in enumerate(self._objects):
                get_config = each.get_config if views[i] is None else views[i].get_config
                config = functools.partial(self._config_of, each, get_config, i)
                stack.enter_context(_replaced(each, "get_config", each.get_config, config))
                if hasattr(each, "get_build_config"):
                    shapes = functools.partial(_build_config, each.get_build_config)
                    stack.enter_context(
                        _replaced(each, "get_build_config", each.get_build_config, shapes)
                    )
                if isinstance(each, keras.Model):  # a copy is not compiled
                    stack.enter_context(
                        _replaced(each, "get_compile_config", each.get_compile_config, _no_config)
                    )
            for i, function in enumerate(self._functions):
                stack.enter_context(_renamed(function, _function_name(i)))
            self.config = keras.saving.serialize_keras_object(model)

    def resolved(self, config):
        """Returns the configuration of one object, with names of `custom_objects`.

        Args:
            config: A dict of "class_name" and "config", of which the parts are resolved.
        """
        inner = config["config"]
        if config["class_name"] == "function":
            self._check_function(self.custom_objects.get(inner))
        if not isinstance(inner, dict) or _KEY not in inner:
            return config
        inner = dict(inner)
        index = inner.pop(_KEY)
        name = f"tfpeft/object/{len(self.custom_objects)}"
        if inner.pop(_REUSED, False):
            self.custom_objects[name] = _reused(self._objects[index])
            return {**config, "class_name": "function", "config": name, "registered_name": name}
        self.custom_objects[name] = _Occurrence(self._rebuilders[index])
        return {"module": None, **config, "config": inner, "registered_name": name}

    def _config_of(self, each, get_config, index):
        try:
            # What cannot be written fails here, where the object is known.
            config = keras.saving.serialize_keras_object(get_config())
            if id(each) in self._edits:
                config = self._edits[id(each)](config)
            return {**config, _KEY: index}
        except InputError:
            raise
        except Exception as error:  # whatever the code of a custom layer raises
            name = getattr(each, "name", type(each).__name__)
            if _is_stateless(each) and each is not self._root:
                return {"name": name, _REUSED: True, _KEY: index}
            arguments = _kept_arguments(each) if isinstance(each, keras.layers.Layer) else None
            if arguments is None:
                raise InputError(
                    f"Cannot rebuild {name!r} ({type(each).__name__}) from its configuration, "
                    "expected a `get_config` of what Keras can write. "
                    f"Received: {last_cause(error)}"
                ) from error
            config = {key: self._argument(value) for key, value in arguments.items()}
            return {"name": name, _ARGUMENTS: config, _KEY: index}

    def _argument(self, value):
        if isinstance(value, (keras.layers.Layer, types.FunctionType, str, int, float, type(None))):
            return value
        name = f"tfpeft/argument/{len(self.custom_objects)}"
        self.custom_objects[name] = value
        return {"class_name": "function", "config": name, "registered_name": name}

    def copy_adapted(self, new):
        """Copies the state of preprocessing layers, such as the mean of `Normalization`.

        They have state beside their weights, and prepare it when they load it.
        """
        layers = flatten_layers(new)
        pairs = list(zip(self._layers, layers, strict=False))
        if len(layers) != len(self._layers):  # a layer that has been called has more inside it
            pairs = [(each.original, made) for each in self._rebuilders for made in each.copies]
        for old_layer, new_layer in pairs:
            if hasattr(old_layer, "adapt"):
                copy_own_variables(old_layer, new_layer)

    def _check_function(self, function):
        """Raises if a copy of the function would read weights of the model that is copied."""
        if function is None:
            return
        try:
            variables = inspect.getclosurevars(function)
        except (TypeError, ValueError):
            return
        used = {**variables.globals, **variables.nonlocals}
        for name, value in used.items():
            for layer in self._layers:
                if value is layer and layer.weights:
                    raise self._shared(function, name, layer)
                if any(value is weight for weight in layer.weights):
                    raise self._shared(function, name, layer)

    def _shared(self, function, name, used):
        owner = next(
            each.name
            for each in self._layers
            if any(function is found for found in _functions_in(vars(each)))
        )
        return InputError(
            f"Cannot copy layer {owner!r}, expected a function that uses no weights of the model "
            "from outside: its copy would go on with those of the original. Received: "
            f"{name!r}, of layer {used.name!r}; a custom layer can use it"
        )


class _Rebuilder:
    """Makes objects of the class of one object, and gives them its assets."""

    def __init__(self, original, root, cls):
        self.original = original
        self.root = root
        self.cls = cls
        self.made = {}  # occurrence in the configuration -> the object made for it

    @property
    def copies(self):
        return self.made.values()

    def make(self, occurrence, config):
        # One object in two places stays one. A template, of which `from_config` makes several,
        # is one place.
        others = [made for other, made in self.made.items() if other is not occurrence]
        if others and occurrence not in self.made:
            return self.made.setdefault(occurrence, others[0])
        self.made[occurrence] = self._new(config)
        return self.made[occurrence]

    def _new(self, config):
        original, cls = self.original, self.cls
        make = cls.from_config
        if _ARGUMENTS in config:
            make, config = _from_arguments(cls), config[_ARGUMENTS]
        elif cls.get_config is keras.layers.Layer.get_config:
            # Keras's own record of what `__init__` got, and of more.
            taken = inspect.signature(cls.__init__).parameters.values()
            if not any(each.kind is each.VAR_KEYWORD for each in taken):
                config = {each.name: config[each.name] for each in taken if each.name in config}
        try:
            new = make(config)
        except InputError:
            raise
        except Exception as error:  # whatever the code of a custom layer raises
            if original is self.root:
                raise
            if _is_stateless(original):
                return _reused(original)
            name = getattr(original, "name", "")
            raise InputError(
                f"Cannot rebuild {name!r} ({cls.__name__}) from its configuration, expected a "
                f"`get_config` with all arguments of `__init__`. Received: {last_cause(error)}"
            ) from error
        _copy_assets(original, new)
        return new


class _Occurrence:
    """What Keras takes for a class: one place in a configuration."""

    def __init__(self, rebuilder):
        self.rebuilder = rebuilder

    def from_config(self, config):
        return self.rebuilder.make(self, config)


def _from_arguments(cls):
    deserialize = keras.saving.deserialize_keras_object
    return lambda config: cls(**{key: deserialize(value) for key, value in config.items()})


def _copy_assets(original, new):
    """Copies the vocabularies of lookup layers and tokenizers, before the layer is called."""
    if not hasattr(original, "save_assets") or not hasattr(new, "load_assets"):
        return
    with tempfile.TemporaryDirectory() as folder:
        try:
            original.save_assets(folder)
        except Exception:  # there are none yet
            return
        if not os.listdir(folder):  # they are in the configuration
            return
        if hasattr(original, "adapt"):  # the document frequencies that go with them
            state = {}
            original.save_own_variables(state)
            if "idf_weights" in state:  # without their padding, which `load_assets` adds
                state["idf_weights"] = state["idf_weights"][: original.vocabulary_size()]
            new.load_own_variables(state)
        new.load_assets(folder)


def copy_own_variables(layer, new):
    """Copies the variables of one layer as a file would hold them."""
    state = {}
    layer.save_own_variables(state)
    new.load_own_variables(state)


def _objects(layers):
    """Returns what gets a reference: layers, operations, and custom objects that layers hold."""
    found = {id(layer): layer for layer in layers}
    for layer in layers:
        for call in calls(layer) if is_graph(layer) else ():
            found.setdefault(id(call.operation), call.operation)
    for each in list(found.values()):
        for value in vars(each).values():
            custom = not type(value).__module__.startswith("keras.")
            has_config = hasattr(value, "get_config") and hasattr(value, "__dict__")
            if custom and has_config and not isinstance(value, type):
                found.setdefault(id(value), value)
    return list(found.values())


def _functions(objects):
    """Returns the Python functions that objects hold, but for Keras's."""
    found = {id(f): f for each in objects for f in _functions_in(vars(each))}
    return [f for f in found.values() if not str(f.__module__).startswith("keras.")]


def _functions_in(value, depth=3):
    if isinstance(value, types.FunctionType):
        yield value
    elif depth and isinstance(value, (dict, list, tuple)):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _functions_in(each, depth - 1)


def _function_name(index):
    return f"tfpeft/function/{index}"


def _kept_arguments(layer):
    """Returns the arguments of `__init__` that a layer keeps as attributes of their names.

    None if it does not keep one that it needs.
    """
    found = {}
    for each in list(inspect.signature(type(layer).__init__).parameters.values())[1:]:
        if each.kind is each.VAR_KEYWORD:
            found |= {"name": layer.name, "dtype": layer.dtype_policy.name}
        elif each.name in vars(layer):
            found[each.name] = vars(layer)[each.name]
        elif each.default is each.empty:
            return None
    return found


def _is_stateless(each):
    """Whether an object holds no variables and no layers, so that two models can share it."""
    if isinstance(each, keras.layers.Layer):
        return not each.variables and len(flatten_layers(each)) == 1
    return True


def _reused(each):
    return detached(each) if isinstance(each, keras.Operation) else each


def _no_config():
    return None


def _build_config(get_build_config):
    """Returns what a layer was built for; None, so that its call builds it, if that is not had."""
    try:
        return keras.saving.serialize_keras_object(get_build_config())
    except Exception:  # whatever the code of a custom layer raises
        return None


@contextlib.contextmanager
def _replaced(owner, name, method, function):
    """A context in which an object's method is a function."""
    before = owner.__dict__.get(name)
    # Keras marks its own methods by attributes, and reads them.
    owner.__dict__[name] = functools.wraps(method)(lambda: function())
    try:
        yield
    finally:
        del owner.__dict__[name]
        if before is not None:
            owner.__dict__[name] = before


@contextlib.contextmanager
def _renamed(function, name):
    before, function.__name__ = function.__name__, name
    try:
        yield
    finally:
        function.__name__ = before
