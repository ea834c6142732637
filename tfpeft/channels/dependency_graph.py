"""Which slices of which weights belong to a channel: the graph of dependencies of a model."""

import collections
import contextlib
import functools
import typing

import keras
import numpy as np

from tfpeft.channels import layer_rules, unknown_layers
from tfpeft.channels.tags import FIXED, Tagged, Tags, untagged
from tfpeft.core.graph import calls, input_tensors, is_graph, origin
from tfpeft.core.hooks import intercepting
from tfpeft.core.layers import layers_by_path, matching_patterns
from tfpeft.core.same_outputs import outputs_of

PRODUCES, CARRIES, CONSUMES = "produces", "carries", "consumes"


class Slices(typing.NamedTuple):
    """The slices of a weight along one axis: slice i belongs to the channel tags[i]."""

    layer: keras.layers.Layer
    variable: keras.Variable
    axis: int
    tags: np.ndarray
    role: str
    """PRODUCES the channel, CARRIES it (its scale, say), or CONSUMES it: is multiplied by it."""


class Size(typing.NamedTuple):
    """An argument of an operation that is the number of channels."""

    operation: keras.Operation
    argument: str
    index: int | None
    """The index in the argument, if that is a tuple."""
    tags: np.ndarray


class Product(typing.NamedTuple):
    """Multiply-accumulates: a factor times the numbers of channels."""

    factor: int
    widths: tuple
    """Arrays of tags."""


class _Shaped:
    """An output of a call: its shape, with a free batch."""

    def __init__(self, shape):
        self.shape = (None, *shape[1:])


def _shapes_of(model, batch):
    """Returns {id of an operation: shapes of its outputs in each call}, of a model with free sides.

    An empty dict if the model has none.
    """
    operations, free = {}, []

    def visit(call, inputs):
        operations[id(call.operation)] = call.operation
        free.extend(tensor for tensor in call.outputs if None in tensor.shape[1:])
        return call.outputs

    walk(model, model.inputs, visit)
    if not free:
        return {}
    operations = list(operations.values())
    shapes = {id(operation): [] for operation in operations}

    def record(index, outputs):
        shapes[id(operations[index])].append([tuple(each.shape) for each in outputs])

    with recording_calls(operations, record):
        outputs_of(model, batch)
    return shapes


@contextlib.contextmanager
def recording_calls(operations, record):
    """A context in which the calls of operations are recorded, but those inside another one's.

    Args:
        operations: A list of operations.
        record: A function of the index of an operation and a list of its outputs.
    """
    inside = []

    def function(index, call, *args, **kwargs):
        inside.append(index)
        try:
            outputs = call(*args, **kwargs)
        finally:
            inside.pop()
        if not inside:  # a layer may be called by a TimeDistributed, and by itself
            record(index, keras.tree.flatten(outputs))
        return outputs

    functions = [functools.partial(function, index) for index in range(len(operations))]
    with intercepting(operations, functions):
        yield


def _without_masks(call, inputs):
    """Returns a call and its inputs without those that are masks: of positions, not of channels."""
    named = [each for name, each in call.kwargs.items() if name.endswith("mask")]
    masks = {id(tensor) for tensor in keras.tree.flatten(named)}
    if isinstance(call.operation, keras.layers.Layer):
        masks |= {id(tensor) for tensor in call.inputs if tensor.dtype == "bool"}
    pairs = [
        (tensor, tagged)
        for tensor, tagged in zip(call.inputs, inputs, strict=True)
        if id(tensor) not in masks
    ]
    tensors, inputs = zip(*pairs, strict=True)
    return call._replace(inputs=list(tensors)), list(inputs)


def walk(model, inputs, visit, enter=None):
    """Carries values through the graph of a model, and of the models inside.

    Args:
        model: The model.
        inputs: A value for each input.
        visit: A function of a `core.graph.Call` and the values of its inputs that returns those of
            its outputs.
        enter: A function of a nested model and the values of its inputs, or None.

    Returns:
        The values of the model's outputs.
    """
    made = dict(zip(map(id, input_tensors(model)), inputs, strict=False))
    for call in calls(model):
        feeding = [made[id(tensor)] for tensor in call.inputs]
        if is_graph(call.operation):
            if enter is not None:
                enter(call.operation, feeding)
            outputs = walk(call.operation, feeding, visit, enter)
        else:
            outputs = visit(call, feeding)
        made.update(zip(map(id, call.outputs), outputs, strict=True))
    return [made[id(tensor)] for tensor in model.outputs]


class DependencyGraph:
    """Follows the channels of a model from the layers that make them to those that use them.

    Each channel gets a tag, a number, that goes through the graph with it: see `layer_rules`. Of
    what has no rule and no weights, `unknown_layers` finds out by running it. What cannot be
    followed is fixed, with a reason.

    Args:
        model: A functional or Sequential model.
        batch: Inputs of the model, from which free sides get their sizes; or None.
        exclude: Names or patterns of layers whose channels are not removed.
        through_statistics: Whether channels are followed through statistics over channels, such as
            those of `LayerNormalization`.

    Attributes:
        model: The model.
        tags: The `Tags`.
        slices: A list of `Slices`.
        sizes: A list of `Size`.
        products: A list of `Product`.
        contractions: {operation: [(input, axis, tags)]}: sums over channels without weights.
        normalized: {layer: tags}: layers with statistics over the channels.
        outputs: [(operation, index, Tagged)]: each output of each call.
        reasons: [(tags, name of an operation, reason)] of what is fixed.
        used: The patterns of `exclude` that matched a layer.

    Raises:
        InputError: if the model is not a built functional or Sequential one.
    """

    def __init__(self, model, *, batch=None, exclude=(), through_statistics=False):
        self.model = model
        self._shapes = {} if batch is None else _shapes_of(model, batch)
        self.through_statistics = through_statistics
        self.tags = Tags()
        self.slices, self.sizes, self.products, self.outputs = [], [], [], []
        self.contractions = collections.defaultdict(list)
        self.normalized = {}
        self.reasons = []
        self._tags_of = {}  # of what several calls share, by its place
        paths = layers_by_path(model)
        found = {path: matching_patterns(path, exclude) for path in paths}
        self.used = {pattern for patterns in found.values() for pattern in patterns}
        self._excluded = {id(paths[path]) for path, patterns in found.items() if patterns}
        shapes = [tensor.shape for tensor in model.inputs]
        if self._shapes:
            shapes = [np.shape(each) for each in keras.tree.flatten(batch)]
        inputs = [untagged((None, *shape[1:])) for shape in shapes]
        for tagged, tensor in zip(
            walk(model, inputs, self._outputs, self._enter), model.outputs, strict=True
        ):
            self.fix(tagged, origin(tensor).operation, "makes an output of the model")

    def _enter(self, model, feeding):
        """Notes the widths that the inputs of a nested model are declared with."""
        for tensor, tagged in zip(input_tensors(model), feeding, strict=False):
            for axis, tags in enumerate(tagged.axes):
                if tensor.shape[axis] is not None:
                    self.size(origin(tensor).operation, "batch_shape", tags, axis)

    def _outputs(self, call, inputs):
        layer = call.operation
        if self._shapes:
            outputs = [_Shaped(shape) for shape in self._shapes[id(layer)].pop(0)]
            call = call._replace(outputs=outputs)
        shapes = [tuple(tensor.shape) for tensor in call.outputs]
        rule = layer_rules.rule_of(layer)
        problem = layer_rules.problem_of(layer)
        if problem:
            outputs = self.stop(call, inputs, problem)
        elif rule is not None:
            outputs = rule(self, *_without_masks(call, inputs))
        elif getattr(layer, "weights", ()):
            why = f"is a {type(layer).__name__}, whose weights have unknown axes"
            outputs = self.stop(call, inputs, why)
        else:
            outputs = unknown_layers.follow(self, call, inputs)
        outputs = [
            Tagged(shape, self._of_sizes(layer, shape, axes))
            for shape, axes in zip(shapes, outputs, strict=True)
        ]
        self.outputs.extend((layer, index, output) for index, output in enumerate(outputs))
        return outputs

    def _of_sizes(self, layer, shape, axes):
        """Returns the tags along axes, without those of axes that are free, or of another size."""
        axes = list(axes)
        for axis, (side, tags) in enumerate(zip(shape, axes, strict=True)):
            if tags is not None and len(tags) != side and axis:
                self.fix(tags, layer, "has them along an axis of no fixed size")
                axes[axis] = None
        return tuple(axes)

    def stop(self, call, inputs, why):
        """Fixes all channels that reach a call; returns the axes of its outputs, without tags."""
        for tagged in inputs:
            self.fix(tagged, call.operation, why)
        return [(None,) * len(tensor.shape) for tensor in call.outputs]

    def fix(self, tagged, operation, why):
        """Fixes channels, for a reason.

        Args:
            tagged: A `Tagged`, or an array of tags, or None.
            operation: The operation, or what has a name, that is the reason.
            why: The reason, to be read after the name.
        """
        arrays = tagged.axes if isinstance(tagged, Tagged) else (tagged,)
        for tags in arrays:
            if tags is not None and len(tags):
                self.reasons.append((tags, operation.name, why))
                self.tags.unite(tags, FIXED)

    def unite(self, tags, others):
        """Makes channels one, pair by pair, that can only be removed together."""
        self.tags.unite(tags, others)

    def produce(self, layer, variable, axis, *, repeats=1):
        """Returns the tags of the channels that a weight makes, a slice per channel.

        Args:
            layer: The layer.
            variable: Its weight.
            axis: The axis of the channels.
            repeats: How many slices a channel has; slice i is of channel i modulo their number.
        """
        known = self._tags_of.get((id(variable), axis))
        if known is not None:
            return known[: len(known) // repeats]
        tags = self.tags.new(variable.shape[axis] // repeats)
        self.slice(layer, variable, axis, np.tile(tags, repeats), PRODUCES)
        if id(layer) in self._excluded:
            self.fix(tags, layer, "is excluded")
        return tags

    def slice(self, layer, variable, axis, tags, role):
        """Notes to which channels the slices of a weight belong; a weight may be None."""
        if variable is not None and self._is_first(layer, (id(variable), axis), tags):
            self.slices.append(Slices(layer, variable, axis, tags, role))

    def consume(self, layer, variable, axis, tags):
        """Notes that the slices of a weight are multiplied by channels."""
        self.slice(layer, variable, axis, tags, CONSUMES)

    def size(self, operation, argument, tags, index=None):
        """Notes that an argument of an operation is the number of channels."""
        if self._is_first(operation, (id(operation), argument, index), tags):
            self.sizes.append(Size(operation, argument, index, tags))

    def contract(self, operation, index, axis, tags):
        """Notes that an operation without weights sums over the channels of an input's axis."""
        if self._is_first(operation, (id(operation), "contract", index, axis), tags):
            self.contractions[operation].append((index, axis, tags))

    def normalize(self, layer, tags):
        """Notes that a layer has statistics over channels."""
        if self._is_first(layer, (id(layer), "normalize"), tags):
            self.normalized[layer] = tags

    def _is_first(self, operation, key, tags):
        """Whether tags are the first ones of a place; those of further calls become one with them.

        Channels that an operation is called with stay where it is called with fixed ones, too.
        """
        known = self._tags_of.setdefault(key, tags)
        if known is tags:
            return tags is not None
        if known is not None and tags is not None and len(known) == len(tags):
            self.unite(known, tags)
        else:
            for each in (known, tags):
                self.fix(each, operation, "is called with channels that are fixed, too")
        return False

    def product(self, factor, *widths):
        """Notes multiply-accumulates: `factor` times the sizes of `widths`, tags or numbers."""
        for width in widths:
            if isinstance(width, int):
                factor *= width
        self.products.append(Product(factor, tuple(w for w in widths if not isinstance(w, int))))
