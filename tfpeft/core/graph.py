"""The graph of a Keras model: nodes, inputs, outputs, and who made a tensor.

This is the one reader of Keras's graph, and the only place that uses Keras's private names for
it. `PRIVATE_NAMES` lists them; a test fails with the name that Keras moved.
"""

import contextlib
import types
import typing

import keras
import tensorflow as tf

from tfpeft.core.arguments import invalid, unexpected

PRIVATE_NAMES = (
    *("_functional", "_nodes_by_depth", "_inputs_struct"),
    *("_keras_history", "_inbound_nodes", "_outbound_nodes", "_flatten_layers"),
)
_ALL_REDUCE = "_all_reduce_sum_gradients"  # of an optimizer


def _private(owner, name):
    try:
        return getattr(owner, name)
    except AttributeError as error:
        raise AttributeError(
            f"Keras moved {name} of {type(owner).__name__}; tfpeft {__name__} reads it there"
        ) from error


class Call(typing.NamedTuple):
    """One call of an operation in a graph."""

    operation: keras.Operation
    """A layer, a nested model, or an operation such as `x + y`."""
    inputs: list
    """The symbolic tensors that it is called with."""
    outputs: list
    """The symbolic tensors that it returns."""
    args: tuple = ()
    """All that it is called with, the symbolic tensors among it."""
    kwargs: dict = types.MappingProxyType({})


class Origin(typing.NamedTuple):
    """What made a symbolic tensor."""

    operation: keras.Operation
    inputs: list
    """The symbolic tensors that the operation was called with."""
    index: int
    """Which output of the operation it is."""


def is_graph(layer):
    """Whether a layer is a built functional or Sequential model, whose graph can be read."""
    return _functional(layer) is not None


def _functional(layer):
    if isinstance(layer, keras.Sequential):
        return _private(layer, "_functional")
    return layer if isinstance(layer, keras.Model) and hasattr(layer, "_nodes_by_depth") else None


def calls(model):
    """Returns the calls in the graph of a model, producers before their consumers.

    Raises:
        InputError: if the model is not a built functional or Sequential one.
    """
    functional = _functional(model)
    if functional is None:
        raise invalid("model", "a built functional or Sequential keras.Model", model)
    by_depth = sorted(_private(functional, "_nodes_by_depth").items(), reverse=True)
    return [
        Call(
            node.operation,
            node.input_tensors,
            node.outputs,
            node.arguments.args,
            node.arguments.kwargs,
        )
        for _, nodes in by_depth
        for node in nodes
        if not node.is_input
    ]


def origin(tensor):
    """Returns what made a symbolic tensor."""
    operation, node, index = _private(tensor, "_keras_history")
    return Origin(operation, _private(operation, "_inbound_nodes")[node].input_tensors, index)


def functional_view(model):
    """Returns a functional model of the layers of another one whose class has a configuration.

    None if the model has no graph, or is a functional or Sequential one itself.
    """
    if not is_graph(model) or isinstance(model, keras.Sequential):
        return None
    view = keras.Model(input_structure(model), output_structure(model), name=model.name)
    return None if type(view) is type(model) else view


def same_operations(model, new):
    """Yields the pairs of operations of two models of the same graph, those inside models too."""
    by_name = {call.operation.name: call.operation for call in calls(new)}
    for operation in {id(call.operation): call.operation for call in calls(model)}.values():
        counterpart = by_name.get(operation.name)
        if counterpart is None:
            raise unexpected(
                f"a copy of {model.name!r} with the same graph",
                f"one without {operation.name!r}, as Keras rebuilds layers that a nested model and "
                "the model around it share",
            )
        if is_graph(operation):
            yield from same_operations(operation, counterpart)
        else:
            yield operation, counterpart


def inner_output(made):
    """Returns the tensor inside a nested model that an `Origin` stands for; None if it is none."""
    if isinstance(made.operation, keras.Model) and getattr(made.operation, "outputs", None):
        return made.operation.outputs[made.index]
    return None


def input_tensors(model):
    """Returns the symbolic inputs of a functional or Sequential model in a list."""
    return _functional(model).inputs


def input_structure(model):
    """Returns the symbolic inputs in the structure that a model is called with, or None.

    A model that holds another one may have a property of this name.
    """
    own = getattr(model, "input_structure", None)
    if own is not None:
        return own
    functional = getattr(model, "_functional", None) or model
    return getattr(functional, "_inputs_struct", None)


def outputs_by_key(structure):
    """Returns {key or index: output} of a structure of outputs; {None: output} of one."""
    if isinstance(structure, (dict, list, tuple)) and len(structure) == 1:
        return {None: keras.tree.flatten(structure)[0]}
    if isinstance(structure, dict):
        return structure
    if isinstance(structure, (list, tuple)):
        return dict(enumerate(structure))
    return {None: structure}


def output_structure(model):
    """Returns the symbolic outputs of a model in their structure; None if it has no graph.

    A model that holds another one may have a property of this name.
    """
    own = getattr(model, "output_structure", None)
    if own is not None:
        return own
    outputs = getattr(model, "outputs", None)
    if isinstance(model, keras.Sequential) or not outputs:
        return outputs
    return model.output


def output_keys(model):
    """Returns the keys or indices of a model's outputs; [None] of one, or if it has no graph."""
    return list(outputs_by_key(output_structure(model)))


def output_names(model):
    """Returns the names of a model's outputs in a list, those of the layers that make them.

    None of one output, of outputs in a dict, without a graph, and where two have the same name.
    """
    names = list(getattr(model, "output_names", None) or ())
    structure = output_structure(model)
    is_list = isinstance(structure, (list, tuple)) and 1 < len(structure) == len(names)
    return names if is_list and len(set(names)) == len(names) else None


def output_tensor(model, output):
    """Returns the symbolic tensor of one output of a model, or None if it has no graph."""
    by_key = outputs_by_key(output_structure(model))
    return by_key.get(None, by_key.get(output))


_SHAPE_ONLY = (
    keras.layers.Reshape,
    keras.layers.Flatten,
    keras.layers.Permute,
    keras.layers.Dropout,
    keras.layers.Identity,
    keras.layers.GlobalAveragePooling1D,
    keras.layers.GlobalAveragePooling2D,
)


def last_activation(model, output=None):
    """Returns the name of the activation, or operation, that makes an output of a model.

    Layers that change only the shape are passed over, and nested models entered. None if the model
    has no graph.
    """
    tensor = output_tensor(model, output)
    if tensor is None:
        return None
    entered = []  # models, with the tensors that they are called with
    while True:
        made = origin(tensor)
        if inner_output(made) is not None:
            entered.append((made.operation.inputs, made.inputs))
            tensor = inner_output(made)
        elif isinstance(made.operation, _SHAPE_ONLY):
            tensor = made.inputs[0]
        elif isinstance(made.operation, keras.layers.InputLayer) and entered:
            inner, outer = entered.pop()
            tensor = dict(zip(map(id, inner), outer, strict=False))[id(tensor)]
        else:
            break
    operation = made.operation
    if isinstance(operation, keras.layers.TimeDistributed):
        operation = operation.layer
    activation = getattr(operation, "activation", None)
    return getattr(activation, "__name__", type(operation).__name__.lower())


class LayerGraph:
    """Which operation feeds which, with nested models replaced by their operations.

    Attributes:
        model: The model.
        inputs: The operations that make its inputs.
        outputs: The operations that make its outputs.
        producers: {operation: {operation that feeds it: None}}, in the order of the graph.
        consumers: {operation: {operation that it feeds: None}}.

    Raises:
        InputError: if the model is not a built functional or Sequential one.
    """

    def __init__(self, model):
        self.model = model
        self.producers, self.consumers = {}, {}
        self._models = {}
        if not is_graph(model):
            calls(model)  # raises
        self.inputs = [origin(tensor).operation for tensor in _functional(model).inputs]
        self.outputs = self._link(model, self.inputs)

    @property
    def layers(self):
        """The layers, without the models that they are nested in."""
        operations = self.producers
        return [layer for layer in operations if isinstance(layer, keras.layers.Layer)]

    @property
    def models(self):
        """The model and its nested models."""
        return list(self._models.values())

    def _link(self, model, sources):
        """Adds the calls of `model`, of which `sources` feed the inputs; returns its outputs'."""
        self._models[id(model)] = model
        functional = _functional(model)
        # A call may have more tensors than inputs: a mask, for example.
        made_by = dict(zip(map(id, functional.inputs), sources, strict=False))
        for operation, inputs, outputs, *_ in calls(model):
            feeding = [made_by[id(tensor)] for tensor in inputs]
            if is_graph(operation):
                made = self._link(operation, feeding)
            else:
                self.producers.setdefault(operation, {}).update(dict.fromkeys(feeding))
                for source in feeding:
                    self.consumers.setdefault(source, {})[operation] = None
                made = [operation] * len(outputs)
            made_by.update(zip(map(id, outputs), made, strict=True))
        return [made_by[id(tensor)] for tensor in functional.outputs]


def flatten_layers(model, *, recursive=True, include_self=True):
    """Returns a model and the layers inside it, at any depth."""
    return list(_private(model, "_flatten_layers")(include_self=include_self, recursive=recursive))


def metric_function(metric):
    """Returns the function, or the loss, whose mean a `keras.metrics.MeanMetricWrapper` is."""
    return _private(metric, "_fn")


def metric_values(metric, y, outputs):
    """Returns the values, whose mean a `keras.metrics.MeanMetricWrapper` is, of a batch."""
    return metric_function(metric)(y, outputs, **_private(metric, "_fn_kwargs"))


@contextlib.contextmanager
def without_all_reduce(optimizers):
    """A context in which optimizers add up no gradients over replicas, where there is only one.

    TensorFlow registers the gradient of that sum, with the whole training graph, for as long as
    the process lives: each `fit` would leave its graph behind.
    """
    shadowed = []
    if tf.distribute.get_strategy().num_replicas_in_sync == 1:
        # Not those of an outer context, which ends after this one.
        shadowed = [optimizer for optimizer in optimizers if _ALL_REDUCE not in vars(optimizer)]
    for optimizer in shadowed:
        _private(optimizer, _ALL_REDUCE)  # raises where Keras has moved it
        vars(optimizer)[_ALL_REDUCE] = list
    try:
        yield
    finally:
        for optimizer in shadowed:
            del vars(optimizer)[_ALL_REDUCE]


def detached(operation):
    """Returns a shallow copy of an operation without weights that is part of no graph."""
    new = object.__new__(type(operation))
    new.__dict__.update(operation.__dict__)
    for nodes in ("_inbound_nodes", "_outbound_nodes"):
        _private(operation, nodes)
        new.__dict__[nodes] = []
    return new
