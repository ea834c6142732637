"""Channels that are constant, whatever the inputs: their values, and the model without them."""

import collections
from collections.abc import Sequence

import keras
import numpy as np

from tfpeft.channels.dependency_graph import CONSUMES, PRODUCES, walk
from tfpeft.channels.plan import Plan
from tfpeft.channels.proof import TOLERANCE, gap
from tfpeft.channels.unknown_layers import CallOnArrays
from tfpeft.core.arguments import InputError, NoMatchError, check_boolean, unexpected
from tfpeft.core.same_outputs import in_float32, outputs_of

_CONVOLUTIONS = (keras.layers.Conv1D, keras.layers.Conv2D, keras.layers.Conv3D)


def remove_constant_channels(
    model: keras.Model, *, exclude: Sequence[str] = (), verify: bool = True
) -> keras.Model:
    """Returns a smaller model with the same outputs, without the channels that are constant.

    A channel is constant if the kernel that makes it is zero, as `ProximalGroupL1` leaves it, or
    the scale of its BatchNormalization: its value c then follows from biases, BatchNormalization
    and activations alone. A channel of c = 0 is removed. Another one is removed where a Dense layer
    or a convolution consumes it whose windows meet no border of zeros (padding="valid", or windows
    of 1), whose bias becomes `bias + c * sum of the kernel's slice`; a layer without bias gets one.

    What it does not give: channels that are zero for the inputs of your data alone (a dead ReLU);
    constant channels of recurrent layers and of attention.

    Args:
        model: A built functional or Sequential model, with nested ones; it stays as it is.
        exclude: Names or patterns of layers that keep their channels.
        verify: Whether the outputs are compared with those of `model` on a random batch: they have
            to be the same, to 1e-4 of the largest.

    Returns:
        A new model, plain Keras, compiled as `model` is; its attribute `channel_report` has the
        widths, as of `prune_channels`.

    Raises:
        InputError: if an argument is not of its kind; for a model without a graph.
        NoMatchError: if no channel is constant and can be removed.

    Example:

    ```python
    import keras, numpy as np, tfpeft

    model = keras.Sequential(
        [keras.Input((8,)), keras.layers.Dense(16, activation="relu"), keras.layers.Dense(4)]
    )
    kernel, bias = model.layers[0].get_weights()
    kernel[:, :6], bias[:6] = 0.0, 0.5
    model.layers[0].set_weights([kernel, bias])
    small = tfpeft.remove_constant_channels(model)
    x = np.random.rand(32, 8)
    print(small.layers[0].units)  # 10
    print(np.allclose(model.predict(x, verbose=0), small.predict(x, verbose=0), atol=1e-5))  # True
    ```
    """
    check_boolean("verify", verify)
    plan = Plan(model, exclude=exclude)
    constants = _Constants(plan.graph)
    removed = np.zeros(plan.graph.tags.count, bool)
    for family in plan.families:
        dead = [root for root in family.roots.tolist() if constants.can_go(root)]
        removed[dead[: len(family) - 1]] = True  # a layer keeps a channel
    if not removed.any():
        raise unexpected(
            "a model with channels that are constant and can be removed",
            f"{model.name!r}, which has none",
            error=NoMatchError,
        )
    new = plan.without(removed, constants.biases(removed))
    if verify:
        _check_outputs(plan, new)
    return plan.finish(new, removed, {}, verify=False)


def _check_outputs(plan, new):
    if plan.batch is None:
        raise unexpected("verify=False, as no inputs of the model are known", "verify=True")
    with in_float32(plan.model, new):
        before, _ = outputs_of(plan.model, plan.batch)
        after, _ = outputs_of(new, plan.batch)
    largest = max(gap(a, b) for a, b in zip(before, after, strict=True))
    if largest > TOLERANCE:
        raise InputError(
            f"Cannot remove constant channels of {plan.model.name!r}, expected the same outputs, "
            f"to {TOLERANCE:g} of the largest. Received: outputs that differ by {largest:.2g}; "
            "`exclude` leaves layers out"
        )


class _Constants:
    """The values of constant channels wherever they are, and where they are consumed.

    Args:
        graph: A `DependencyGraph`.
    """

    def __init__(self, graph):
        self._graph = graph
        self._consumed = {}  # (id of a weight, axis) -> (layer, variable, values)
        slices = {}
        for each in graph.slices:
            slices.setdefault(id(each.layer), []).append(each)
        self._slices = slices
        self._outputs = collections.defaultdict(collections.deque)
        for operation, index, tagged in graph.outputs:
            self._outputs[id(operation), index].append(tagged)
        inputs = [_Values(tensor.shape, {}) for tensor in graph.model.inputs]
        walk(graph.model, inputs, self._visit)
        self._bad = set()
        for places in graph.contractions.values():
            for _, _, tags in places:
                self._bad.update(graph.tags.roots(tags).tolist())
        consumers = {}
        for each in graph.slices:
            roots = graph.tags.roots(each.tags)
            if each.role == CONSUMES:
                known = self._consumed.get((id(each.variable), each.axis))
                values = np.full(len(roots), np.nan) if known is None else known
                foldable = _folds(each)
                bad = np.isnan(values) | ((values != 0) & (not foldable))
                self._bad.update(roots[bad].tolist())
                consumers[each.layer] = each, values
        self._consumers = consumers

    def can_go(self, root):
        """Whether a channel is constant wherever it is consumed, and can be removed there."""
        return root not in self._bad

    def biases(self, removed):
        """Returns {layer: new bias} of layers that consume removed channels that are not zero."""
        biases = {}
        for layer, (each, values) in self._consumers.items():
            gone = removed[self._graph.tags.roots(each.tags)]
            values = np.where(gone, values, 0.0)
            if np.any(values):
                kernel = layer.kernel.numpy()
                shape = [-1 if axis == each.axis else 1 for axis in range(kernel.ndim)]
                axes = tuple(range(kernel.ndim - 1))
                bias = np.sum(kernel * values.reshape(shape), axis=axes)
                biases[layer] = (bias if layer.bias is None else layer.bias.numpy() + bias).astype(
                    kernel.dtype
                )
        return biases

    def _visit(self, call, inputs):
        layer = call.operation
        outputs = [_Values(tensor.shape, {}) for tensor in call.outputs]
        for index, output in enumerate(outputs):
            output.tagged = self._outputs[id(layer), index].popleft()
        self._note_consumed(layer, inputs)
        known = self._of_layer(layer, inputs, outputs)
        if not known and not getattr(layer, "weights", ()):
            self._of_operation(call, inputs, outputs)
        return outputs

    def _note_consumed(self, layer, inputs):
        for each in self._slices.get(id(layer), ()):
            if each.role != CONSUMES:
                continue
            found = [v for x in inputs for v in x.known.values() if len(v) == len(each.tags)]
            values = found[0] if len(found) == 1 else np.full(len(each.tags), np.nan)
            key = id(each.variable), each.axis
            before = self._consumed.get(key, values)
            self._consumed[key] = np.where(before == values, values, np.nan)

    def _of_layer(self, layer, inputs, outputs):
        """Notes the constants that a layer with weights makes; whether it is known."""
        output = outputs[0]
        if isinstance(layer, keras.layers.BatchNormalization):
            self._normalized(layer, inputs[0], output)
            return True
        for each in self._slices.get(id(layer), ()):
            is_kernel = each.role == PRODUCES and each.variable is getattr(layer, "kernel", None)
            if is_kernel and type(layer) in (keras.layers.Dense, *_CONVOLUTIONS):
                kernel = np.moveaxis(layer.kernel.numpy(), each.axis, 0)
                values = np.zeros(len(kernel)) if layer.bias is None else layer.bias.numpy()
                values = np.where(kernel.reshape(len(kernel), -1).any(axis=1), np.nan, values)
                axis = next(
                    i
                    for i, tags in enumerate(output.tagged.axes)
                    if tags is not None and len(tags) == len(values) and np.all(tags == each.tags)
                )
                output.known[axis] = _activated(layer, values)
                return True
        return False

    def _normalized(self, layer, x, output):
        axis = layer.axis % len(x.shape)
        if output.tagged.axes[axis] is None:
            return
        width = len(output.tagged.axes[axis])
        values = x.known.get(axis, np.full(width, np.nan))
        scale = np.ones(width) if layer.gamma is None else layer.gamma.numpy()
        offset = np.zeros(width) if layer.beta is None else layer.beta.numpy()
        deviation = np.sqrt(layer.moving_variance.numpy() + layer.epsilon)
        scaled = scale * (values - layer.moving_mean.numpy()) / deviation + offset
        output.known[axis] = np.where(scale == 0, offset, scaled)

    def _of_operation(self, call, inputs, outputs):
        """Notes the constants that an operation without weights passes on, by running it."""
        if not any(np.any(~np.isnan(v)) for x in inputs for v in x.known.values()):
            return
        run = CallOnArrays(call, inputs)
        for array, x in zip(run.arrays, inputs, strict=True):
            array[:] = np.nan
            for axis, values in x.known.items():
                shape = [-1 if i == axis else 1 for i in range(array.ndim)]
                array[:] = np.where(np.isnan(array), values.reshape(shape), array)
        arrays = run(run.arrays)
        if arrays is None:
            return
        known = {
            tag
            for x in inputs
            for axis, values in x.known.items()
            for tag in x.tagged.axes[axis][~np.isnan(values)].tolist()
        }
        for array, output in zip(arrays, outputs, strict=True):
            axes = output.tagged.tagged_axes()
            if len(axes) != 1:
                continue
            (axis,) = axes
            rows = np.moveaxis(array, axis, 0).reshape(array.shape[axis], -1)
            same = np.all(rows == rows[:, :1], axis=1)  # a NaN is not
            # Some operations leave NaN out, such as the largest value of a window.
            same &= np.isin(output.tagged.axes[axis], list(known))
            output.known[axis] = np.where(same, rows[:, 0], np.nan)


class _Values:
    """A tensor: the constant values along its axes with channels, NaN where there are none."""

    def __init__(self, shape, known):
        self.shape, self.known = tuple(shape), known
        self.tagged = None


def _activated(layer, values):
    function = getattr(layer, "activation", None)
    if function is None:
        return values
    known = ~np.isnan(values)
    new = np.full(len(values), np.nan)
    tensor = keras.ops.convert_to_tensor(values[known], "float32")
    new[known] = keras.ops.convert_to_numpy(function(tensor)) if known.any() else new[known]
    return new


def _folds(each):
    """Whether what constant channels add is the same at each place of a layer's outputs."""
    layer = each.layer
    if type(layer) is keras.layers.Dense:
        return True
    if type(layer) not in _CONVOLUTIONS or layer.groups > 1:
        return False
    return layer.padding == "valid" or all(side == 1 for side in layer.kernel_size)
