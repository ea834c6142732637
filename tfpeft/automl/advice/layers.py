"""What a model is made of: kinds of layers, and their shares of multiply-accumulates and bytes."""

import functools
import math

import keras
import numpy as np

from tfpeft.channels.plan import Plan
from tfpeft.core.arguments import InputError
from tfpeft.core.graph import flatten_layers
from tfpeft.core.hooks import intercepting
from tfpeft.core.kernel_axes import kernel_axes
from tfpeft.core.layers import layers_by_path
from tfpeft.sparsity.xnnpack import prune_for_xnnpack

_KINDS = {  # word -> classes, by name, as KerasHub has some of its own
    "convolution": ("Conv",),
    "dense": ("Dense",),
    "attention": ("Attention",),
    "embedding": ("Embedding",),
    "recurrent": ("LSTM", "GRU", "RNN"),
    "batch normalisation": ("BatchNormalization",),
}


def layer_rows(model, x):
    """Returns a dict for each layer that has weights of its own; see `Recommendations.layers`.

    Args:
        model: The model.
        x: Some inputs, with which it runs once.
    """
    leaves = {path: layer for path, layer in layers_by_path(model).items() if _own(layer)}
    macs = dict.fromkeys(leaves, 0)

    def count(path, layer, call, *args, **kwargs):
        output = call(*args, **kwargs)
        inputs = args[0] if args else None
        macs[path] += sum(_macs(layer, kernel, inputs, output) for kernel in _kernels(layer))
        return output

    functions = [functools.partial(count, path, layer) for path, layer in leaves.items()]
    with intercepting(leaves.values(), functions):
        model(keras.tree.map_structure(lambda array: array[:1], x), training=False)
    total_macs = sum(macs.values())
    total = sum(math.prod(weight.shape) for weight in model.weights)
    rows = []
    for path, layer in leaves.items():
        values = [weight.numpy() for weight in _own(layer)]
        size = sum(value.size for value in values)
        rows.append(
            {
                "layer": path,
                "kind": type(layer).__name__,
                "parameters": size,
                "zeros": sum(int(np.sum(value == 0)) for value in values if value.ndim > 1)
                / max(1, sum(value.size for value in values if value.ndim > 1)),
                "macs": macs[path],
                "share_of_macs": macs[path] / total_macs if total_macs else 0.0,
                "share_of_bytes": size / total if total else 0.0,
            }
        )
    return rows


def _own(layer):
    """Returns the weights that a layer holds itself, and no layer in it."""
    inside = flatten_layers(layer, include_self=False)
    held = {id(weight) for each in inside for weight in each.weights}
    return [weight for weight in layer.weights if id(weight) not in held]


def _kernels(layer):
    if isinstance(layer, keras.layers.Embedding):  # which looks rows up
        return []
    return [weight for weight in _own(layer) if len(weight.shape) > 1]


def _macs(layer, kernel, inputs, output):
    """Returns the multiply-accumulates of a kernel in a call: 0 where its axes are not known.

    Each position of the outputs is computed from a whole slice of the kernel; of transposed
    convolutions, each position of the inputs goes to one.
    """
    axes = kernel_axes(layer, kernel)
    if axes is None:
        return 0
    is_transposed = "Transpose" in type(layer).__name__
    tensor = inputs if is_transposed else keras.tree.flatten(output)[0]
    if not hasattr(tensor, "shape"):
        return 0
    is_depthwise = "Depthwise" in type(layer).__name__
    taken = axes.inputs if is_transposed else axes.outputs
    taken = (*axes.inputs, *axes.outputs) if is_depthwise else taken
    slices = math.prod(kernel.shape[axis] for axis in taken)
    return math.prod(kernel.shape) * math.prod(tensor.shape[1:]) // max(1, slices)


def facts_of(model):
    """Returns what a model is made of, a dict: kinds of layers, channels, what zeros could do.

    "removable_channels" are those that `prune_channels` can remove, None where it cannot, with
    the reason in "channels_reason"; "xnnpack_layers" those whose zeros XNNPACK skips on ARM, and
    "xnnpack_exclude" what pruning leaves out for that.
    """
    names = [type(layer).__name__ for layer in layers_by_path(model).values()]
    kinds = {
        kind: sum(any(part in name for part in parts) for name in names)
        for kind, parts in _KINDS.items()
    }
    facts = {"kinds": {kind: count for kind, count in kinds.items() if count}}
    try:
        facts["removable_channels"] = sum(map(len, Plan(model).families))
        facts["channels_reason"] = None
    except InputError as error:
        facts["removable_channels"], facts["channels_reason"] = None, str(error)
    try:
        policy = prune_for_xnnpack(model)
        facts |= {"xnnpack_layers": policy.prunable, "xnnpack_exclude": policy.exclude}
        facts["xnnpack_reason"] = None
    except InputError as error:
        facts |= {"xnnpack_layers": [], "xnnpack_exclude": [], "xnnpack_reason": str(error)}
    return facts
