"""The proof: the smaller model computes what the model does whose removed channels are zeroed."""

import collections
import functools

import keras
import numpy as np
from keras import ops

from tfpeft.channels.dependency_graph import CONSUMES, recording_calls
from tfpeft.core.arguments import InputError
from tfpeft.core.graph import flatten_layers, same_operations
from tfpeft.core.hooks import intercepting
from tfpeft.core.same_outputs import in_float32, outputs_of

TOLERANCE = 1e-4
"""The difference that rounding may make, as a fraction of the largest value of a tensor."""


def check_same(graph, kept, new, batch):
    """Raises unless a smaller model has the outputs of the model whose removed channels are zeroed.

    Zeroed are the slices of the weights that consume the channels. The outputs of all operations
    are compared, where channels were removed those that are left.

    Args:
        graph: The `DependencyGraph` of the model.
        kept: The `Kept` of it.
        new: The smaller model.
        batch: Inputs.

    Returns:
        The largest difference, as a fraction of the largest value of a tensor.

    Raises:
        InputError: naming the operation whose outputs differ first.
    """
    layers = dict((id(a), b) for a, b in same_operations(graph.model, new))
    axes = collections.defaultdict(collections.deque)  # of each output, in the order of the calls
    for operation, index, tagged in graph.outputs:
        axes[id(operation), index].append(tagged.axes)
    operations = list({id(operation): operation for operation, _, _ in graph.outputs}.values())
    with in_float32(graph.model, new):
        before = _recorded(operations, functools.partial(_zeroed_outputs, graph, kept, batch))
        after = _recorded(
            [layers[id(operation)] for operation in operations],
            functools.partial(outputs_of, new, batch, state=_first_states(new)),
        )
    largest = 0.0
    for number, (index, outputs) in enumerate(before):
        operation = operations[index]
        others = after[number][1] if number < len(after) and after[number][0] == index else []
        for place, output in enumerate(outputs):
            other = others[place] if place < len(others) else None
            expected = kept.slices(output, axes[id(operation), place].popleft())
            difference = gap(expected, other)
            largest = max(largest, difference)
            if difference > TOLERANCE:
                raise InputError(
                    f"Cannot remove channels of {graph.model.name!r}, expected the outputs of the "
                    f"model with zeros, to {TOLERANCE:g} of the largest. Received: those of layer "
                    f"{operation.name!r} ({type(operation).__name__}) differ by {difference:.2g}; "
                    "`exclude` leaves layers out, `verify=False` skips this comparison"
                )
    return largest


def gap(expected, received):
    """Returns the largest difference of two arrays, as a fraction of the largest expected value."""
    if received is None or expected.shape != received.shape:
        return np.inf
    if not np.issubdtype(expected.dtype, np.floating):
        return 0.0 if np.array_equal(expected, received) else np.inf
    both = np.isfinite(expected)
    if not np.array_equal(both, np.isfinite(received)):
        return np.inf
    difference = np.abs(expected.astype("float64") - received)[both]
    return float(np.max(difference, initial=0.0) / np.max(np.abs(expected[both]), initial=1e-6))


def zeroed_weights(graph, kept):
    """Returns [(weight, value)]: weights that consume removed channels, with zeros there."""
    values = {}
    for each in graph.slices:
        if each.role == CONSUMES and not np.all(keep := kept(each.tags)):
            variable, value = values.get(id(each.variable), (each.variable, None))
            value = variable.numpy() if value is None else value
            shape = [-1 if axis == each.axis else 1 for axis in range(value.ndim)]
            values[id(variable)] = variable, value * keep.reshape(shape).astype(value.dtype)
    return list(values.values())


def _zeroed_outputs(graph, kept, batch):
    """Runs the model with zeros in place of the removed channels."""
    changed = zeroed_weights(graph, kept)
    state = [(variable, ops.convert_to_tensor(value)) for variable, value in changed]
    state += _first_states(graph.model)
    operations = [*graph.contractions, *graph.normalized]
    functions = [
        *(functools.partial(_mask, kept, places) for places in graph.contractions.values()),
        *(
            functools.partial(_normalize, kept, layer, tags)
            for layer, tags in graph.normalized.items()
        ),
    ]
    with intercepting(operations, functions):
        return outputs_of(graph.model, batch, state=state)


def _first_states(model):
    """Returns [(state of a recurrent layer, zeros)], as stateful layers may have seen data."""
    states = [
        state
        for layer in flatten_layers(model)
        if getattr(layer, "stateful", False)
        for state in keras.tree.flatten(getattr(layer, "states", None))
        if state is not None
    ]
    return [(state, ops.zeros_like(state)) for state in states]


def _mask(kept, places, call, *args, **kwargs):
    """Calls a sum over channels with zeros in place of the removed ones."""
    flat = keras.tree.flatten((args, kwargs))
    tensors = [i for i, each in enumerate(flat) if hasattr(each, "shape")]
    for index, axis, tags in places:
        each = flat[tensors[index]]
        shape = [-1 if i == axis else 1 for i in range(len(each.shape))]
        flat[tensors[index]] = each * ops.cast(kept(tags).reshape(shape), each.dtype)
    args, kwargs = keras.tree.pack_sequence_as((args, kwargs), flat)
    return call(*args, **kwargs)


def _normalize(kept, layer, tags, call, x, *args, **kwargs):
    """Calls a normalisation over channels with statistics over those that are kept."""
    keep = kept(tags)
    if np.all(keep):
        return call(x, *args, **kwargs)
    scale = ops.cast(keep, x.dtype)
    count = ops.sum(scale)
    x = x * scale
    mean = 0.0
    if isinstance(layer, keras.layers.LayerNormalization):
        mean = ops.sum(x, axis=-1, keepdims=True) / count
    centred = (x - mean) * scale
    variance = ops.sum(ops.square(centred), axis=-1, keepdims=True) / count
    if not getattr(layer, "rms_scaling", False):  # with it, Keras leaves the mean in
        x = centred
    outputs = x * ops.rsqrt(variance + layer.epsilon)
    for name in ("gamma", "scale"):
        weight = getattr(layer, name, None)
        if isinstance(weight, keras.Variable):
            outputs = outputs * weight
    beta = getattr(layer, "beta", None)
    return outputs if beta is None else outputs + beta


def _recorded(operations, run):
    """Returns [(index of the operation, outputs)] in the order of the calls that `run` makes."""
    recorded = []

    def record(index, outputs):
        flat = [each for each in outputs if each is not None]
        recorded.append((index, [ops.convert_to_numpy(each) for each in flat]))

    with recording_calls(operations, record):
        run()
    return recorded
