"""The calls in a functional model of Keras 1 or 2, in the order that they need."""

import keras
import tensorflow as tf

from tfpeft.core.arguments import last_cause
from tfpeft.core.graph import origin
from tfpeft.loading import tensorflow_symbols

_CONSTANT = "_CONSTANT_VALUE"


def new_name(name):
    """Returns a layer's name as Keras 3 takes it: without slashes."""
    return name.replace("/", "_") if isinstance(name, str) else name


def give_unique_names(outputs):
    """Renames operations of a graph that have the name of a layer, as those of masks may."""
    tensors, found = keras.tree.flatten(outputs), {}
    seen = set()
    while tensors:
        tensor = tensors.pop()
        if id(tensor) not in seen:
            seen.add(id(tensor))
            made = origin(tensor)
            found[id(made.operation)] = made.operation
            tensors += made.inputs
    is_layer = [isinstance(each, keras.layers.Layer) for each in found.values()]
    taken = {each.name for each, has in zip(found.values(), is_layer, strict=True) if has}
    for each, has in zip(found.values(), is_layer, strict=True):
        if not has:
            name, count = each.name, 0
            while each.name in taken:
                count += 1
                each.name = f"{name}.{count}"
            taken.add(each.name)


class Calls:
    """The calls of a functional model's layers; each runs when what it needs is there."""

    def __init__(self, config, made, problems):
        self._layers = {layer["name"]: layer for layer in config["layers"]}
        self._made = made
        self._problems = problems
        self._outputs = {}  # (layer, index of the call) -> flat outputs
        self._first = _first_calls(config)

    def run(self):
        """Makes all calls; returns whether none of them failed."""
        waiting = {}
        for name, layer in self._layers.items():
            made = self._made[name]
            if made is not None and isinstance(made.layer, keras.layers.InputLayer):
                self._outputs[name, 0] = [made.layer.output]
            elif layer["inbound_nodes"]:
                waiting[name] = list(enumerate(layer["inbound_nodes"]))
        failed = set()
        while waiting:
            before = sum(map(len, waiting.values()))
            for name in list(waiting):
                nodes = waiting[name]
                while nodes and self._is_ready(nodes[0][1]):
                    index, node = nodes.pop(0)
                    if not self._call(name, index, node):
                        failed.add(name)
                        nodes.clear()
                if not nodes:
                    del waiting[name]
            if sum(map(len, waiting.values())) == before:
                if not failed:
                    self._problems[next(iter(waiting))] = "its inputs are made by no layer"
                return False
        return not failed

    def _is_ready(self, node):
        return all(self._key(each) in self._outputs for each in _references(node))

    def _key(self, reference):
        name, index = reference[:2]
        return name, index - self._first.get(name, 0)

    def _call(self, name, index, node):
        made, layer = self._made[name], self._layers[name]
        is_symbol = made.layer is None
        try:
            inputs, kwargs = self._arguments(node, keep_list=is_symbol)
            if is_symbol:
                call_name = new_name(f"{name}.call_{index}" if index else name)
                outputs = tensorflow_symbols.apply(layer, inputs, kwargs, call_name)
            else:
                outputs = _called(made.layer, inputs, kwargs)
        except Exception as error:  # whatever a layer or an operation raises
            self._problems[name] = f"{made.class_name}: {last_cause(error)}"
            return False
        # A shape is one value, of which later calls take entries.
        is_shape = isinstance(outputs, tensorflow_symbols.Shape)
        self._outputs[name, index] = [outputs] if is_shape else tf.nest.flatten(outputs)
        return True

    def _arguments(self, node, keep_list):
        """Returns the first argument of a call, and the others by name."""
        kwargs = {}

        def value(item):
            if _is_reference(item, lengths=(3, 4)):
                if len(item) == 4 and item[3]:
                    kwargs.update(item[3])
                return item[2] if item[0] == _CONSTANT else self._tensor(item)
            if isinstance(item, dict):
                return {key: value(each) for key, each in item.items()}
            if isinstance(item, (list, tuple)):
                return [value(each) for each in item]
            return item

        inputs = value(node)
        if isinstance(inputs, list) and len(inputs) == 1 and not keep_list:
            inputs = inputs[0]
        return inputs, {key: self._decoded(each) for key, each in kwargs.items()}

    def _decoded(self, item):
        """Returns an argument of a call with tensors for references."""
        if _is_reference(item, lengths=(3,)) and item[0] in self._layers:
            return self._tensor(item)
        if isinstance(item, dict):
            if set(item) == {"start", "stop", "step"}:
                return slice(*(self._decoded(item[key]) for key in ("start", "stop", "step")))
            return {key: self._decoded(each) for key, each in item.items()}
        if isinstance(item, (list, tuple)):
            return [self._decoded(each) for each in item]
        return item

    def _tensor(self, reference):
        return self._outputs[self._key(reference)][reference[2]]

    def tensors(self, references):
        """Returns the tensors of a model's inputs or outputs, one alone without its list."""
        if _is_reference(references, lengths=(3, 4)):
            return self._tensor(references)
        if isinstance(references, dict):
            return {key: self.tensors(each) for key, each in references.items()}
        found = [self.tensors(each) for each in references]
        return found[0] if len(found) == 1 else found


def _called(layer, inputs, kwargs):
    is_recurrent = isinstance(layer, (keras.layers.RNN, keras.layers.Bidirectional))
    if is_recurrent and isinstance(inputs, list):
        # Keras 2 lists the states after the sequence, and keeps the mask, which Keras 3 does not.
        inputs, *states = inputs
        mask = getattr(inputs, "_keras_mask", None)
        kwargs = {"mask": mask, **kwargs, "initial_state": states}
    return layer(inputs, **{key: value for key, value in kwargs.items() if value is not None})


def _is_reference(item, lengths):
    return (
        isinstance(item, (list, tuple))
        and len(item) in lengths
        and isinstance(item[0], str)
        and all(isinstance(each, int) and not isinstance(each, bool) for each in item[1:2])
        and (item[0] == _CONSTANT or isinstance(item[2], int))
    )


def _references(node):
    """Yields the references to calls of other layers in a node, those in its arguments too."""
    if _is_reference(node, lengths=(3, 4)):
        if node[0] != _CONSTANT:
            yield node
        if len(node) == 4:
            yield from _references(list((node[3] or {}).values()))
    elif isinstance(node, dict):
        yield from _references(list(node.values()))
    elif isinstance(node, (list, tuple)):
        for each in node:
            yield from _references(each)


def _first_calls(config):
    """Returns {name of a nested model: number of its first call}.

    Keras 2 counts the call that made the model's own graph.
    """
    nested = {
        layer["name"]
        for layer in config["layers"]
        if isinstance(layer["config"], list) or "layers" in layer["config"]
    }
    nodes = [layer["inbound_nodes"] for layer in config["layers"]]
    first = {}
    for reference in _references([*nodes, config["output_layers"]]):
        if reference[0] in nested:
            first[reference[0]] = min(reference[1], first.get(reference[0], reference[1]))
    return first
