"""How channels and heads pass through attention, and through the blocks of transformers."""

import math

import numpy as np

from tfpeft.core.graph import flatten_layers


def multi_head_attention(graph, call, inputs):
    """MultiHeadAttention: whole heads; kernels (inputs, heads, sides), (heads, sides, outputs)."""
    layer = call.operation
    query, value, key = _query_value_key(call, inputs)
    heads = graph.produce(layer, _parts(layer)["query"].kernel, 1)
    made = _projections(graph, layer, (query, key, value), (heads, heads, heads))
    graph.size(layer, "num_heads", heads)
    config = layer.get_config()
    given = config["output_shape"]
    if given is not None:
        if len(np.atleast_1d(given)) > 1:
            graph.fix(made, layer, "has outputs of several axes")
            made = None
        graph.size(layer, "output_shape", made, 0)
    elif query.axes[-1] is None:
        graph.fix(made, layer, "has outputs as wide as its query, which is fixed")
    else:
        graph.unite(made, query.axes[-1])
    pairs = math.prod(side or 1 for side in query.shape[1:-1])
    pairs *= math.prod(side or 1 for side in value.shape[1:-1])
    if config["attention_axes"] is None or len(query.shape) == 3:
        graph.product(pairs * (config["key_dim"] + config["value_dim"]), heads)
    axes = (*(None,) * (len(call.outputs[0].shape) - 1), made)
    return _outputs(call, axes, heads)


def group_query_attention(graph, call, inputs):
    """GroupQueryAttention: a head of keys and values goes with all its heads of queries."""
    layer = call.operation
    query, value, key = _query_value_key(call, inputs)
    shared = graph.produce(layer, _parts(layer)["key"].kernel, 1)
    heads = np.repeat(shared, layer.num_query_heads // layer.num_key_value_heads)
    graph.slice(layer, _parts(layer)["query"].kernel, 1, heads, "produces")
    made = _projections(graph, layer, (query, key, value), (heads, shared, shared))
    graph.size(layer, "num_query_heads", heads)
    graph.size(layer, "num_key_value_heads", shared)
    if query.axes[-1] is None:
        graph.fix(made, layer, "has outputs as wide as its query, which is fixed")
    else:
        graph.unite(made, query.axes[-1])
    pairs = (query.shape[1] or 1) * (value.shape[1] or 1)
    graph.product(2 * pairs * layer.head_dim, heads)
    return _outputs(call, (None, None, made), heads)


def _query_value_key(call, inputs):
    """Returns the `Tagged` of query, value and key, of which the last may be the second."""
    by_tensor = {id(tensor): tagged for tensor, tagged in zip(call.inputs, inputs, strict=True)}
    names = ("query", "value", "key")
    given = dict(zip(names, call.args, strict=False)) | call.kwargs
    found = [by_tensor.get(id(given.get(name))) for name in names]
    return (*found[:2], found[2] or found[1])


def _projections(graph, layer, inputs, heads):
    """Notes the weights of queries, keys, values and outputs; returns the outputs' channels."""
    named = _parts(layer)
    parts = [named["query"], named["key"], named["value"]]
    if "gate" in named:
        parts, inputs, heads = [*parts, named["gate"]], (*inputs, inputs[0]), (*heads, heads[0])
    for part, x, tags in zip(parts, inputs, heads, strict=True):
        for axis in x.tagged_axes():
            if axis != len(x.shape) - 1:
                graph.fix(x.axes[axis], layer, "attends along their axis")
        graph.consume(layer, part.kernel, 0, x.axes[-1])
        graph.slice(layer, part.kernel, 1, tags, "produces")
        graph.slice(layer, part.bias, 0, tags, "produces")
        places = math.prod(side or 1 for side in x.shape[1:-1]) * part.kernel.shape[2]
        width = x.shape[-1] if x.axes[-1] is None else x.axes[-1]
        graph.product(places, width, tags)
    out = named["attention_output"]
    graph.consume(layer, out.kernel, 0, heads[0])
    made = graph.produce(layer, out.kernel, out.kernel.ndim - 1)
    graph.slice(layer, out.bias, 0, made, "produces")
    places = math.prod(side or 1 for side in inputs[0].shape[1:-1]) * out.kernel.shape[1]
    graph.product(places, heads[0], made)
    return made


def _parts(layer):
    """Returns {name: layer} of the layers inside a layer."""
    return {part.name: part for part in flatten_layers(layer, include_self=False)}


def _outputs(call, axes, heads):
    """Returns the axes of the outputs, of which the second one are the scores of each head."""
    outputs = [axes]
    for tensor in call.outputs[1:]:
        outputs.append((None, heads, *(None,) * (len(tensor.shape) - 2)))
    return outputs


def transformer(graph, call, inputs):
    """TransformerEncoder and TransformerDecoder of KerasHub: the width of the feed-forward part.

    Their heads are as wide as the inputs by the number of heads, so that no head can be removed.
    """
    layer = call.operation
    parts = _parts(layer)
    first, last = parts["feedforward_intermediate_dense"], parts["feedforward_output_dense"]
    outputs = graph.stop(call, inputs, "adds what it computes to its inputs, and normalizes that")
    made = graph.produce(layer, first.kernel, 1)
    graph.slice(layer, first.bias, 0, made, "produces")
    graph.consume(layer, last.kernel, 0, made)
    graph.size(layer, "intermediate_dim", made)
    length = inputs[0].shape[1] or 1
    graph.product(length, first.kernel.shape[0], made)
    graph.product(length, last.kernel.shape[1], made)
    return outputs
