"""Batches that a model can be called with, made from its inputs."""

import math

import keras
import numpy as np

from tfpeft.core.graph import LayerGraph, flatten_layers, input_structure, is_graph, origin

_FREE_SIDES = (32, 8, 96)
"""Sides that are tried where a model leaves them open: windows need some room."""

_FEW = 20_000
"""Values of a sample up to which a batch has two."""


def sample_inputs(model):
    """Yields batches, one of which a model can probably be called with; always the same ones.

    Floats are of a normal distribution, or pixels where the model scales them; integers are in the
    range of the embeddings that they go to; the batch has two samples, or one if they are large. Of
    a subclassed model Keras knows the shapes that it was built with, and not the types.
    """
    structure = input_structure(model)
    if structure is not None:
        limits = _limits(model)
        for side in _FREE_SIDES:
            yield keras.tree.map_structure(
                lambda tensor, side=side: _values(
                    model, tensor.shape, tensor.dtype, side, limits.get(id(tensor), 2)
                ),
                structure,
            )
        return
    shapes = (model.get_build_config() or {}).get("input_shape")
    if not shapes:
        return
    limit = min((_limit(layer) for layer in flatten_layers(model)), default=math.inf)
    types = ("float32", "int32") if math.isinf(limit) else ("int32", "float32")
    for dtype in (*types, "string"):
        yield _map_shapes(
            lambda shape, dtype=dtype: _values(
                model, (None, *shape[1:]), dtype, _FREE_SIDES[0], min(limit, 100)
            ),
            shapes,
        )


def random_inputs(model, count, side):
    """Returns arrays of `count` random samples for the inputs of a model, in a list.

    They are of the kinds that `sample_inputs` has, other ones for each input.

    Args:
        model: A model whose symbolic inputs are known.
        count: How many samples.
        side: The length of sides that the model leaves open.
    """
    limits, found = _limits(model), []
    for seed, tensor in enumerate(keras.tree.flatten(input_structure(model))):
        shape = [side if each is None else each for each in tensor.shape[1:]]
        dtype = keras.backend.standardize_dtype(tensor.dtype)
        limit = limits.get(id(tensor), 2)
        found.append(_random((count, *shape), dtype, limit, model, seed))
    return found


def _map_shapes(function, shapes):
    if isinstance(shapes, dict):
        return {key: _map_shapes(function, shape) for key, shape in shapes.items()}
    if all(side is None or isinstance(side, int) for side in shapes):
        return function(shapes)
    return [_map_shapes(function, shape) for shape in shapes]


def _values(model, shape, dtype, side, limit):
    batch, *shape = shape
    shape = [side if each is None else each for each in shape]
    batch = batch or (2 if math.prod(shape) <= _FEW else 1)
    return _random((batch, *shape), keras.backend.standardize_dtype(dtype), limit, model)


def _random(shape, dtype, limit, model, seed=0):
    rng = np.random.default_rng(seed)
    if dtype == "string":
        return np.array(["a", "the good film"], object)[rng.integers(0, 2, shape)].astype(str)
    if dtype == "bool":
        return rng.integers(0, 2, shape).astype(bool)
    pixels = any(
        isinstance(layer, keras.layers.Rescaling) and np.max(np.abs(layer.scale)) < 0.1
        for layer in flatten_layers(model)
    )
    if "int" in dtype:
        limit = 256 if limit == 2 and (pixels or dtype == "uint8") else limit
        return rng.integers(0, min(limit, np.iinfo(dtype).max), shape).astype(dtype)
    values = rng.uniform(0.0, 255.0, shape) if pixels else rng.normal(size=shape)
    # Keras casts: NumPy has no bfloat16.
    return values.astype("float64" if dtype == "float64" else "float32")


def _limits(model):
    """Returns {id of an input: limit of its integers}, of the embeddings nearest to it."""
    if not is_graph(model):
        inner = getattr(model, "model", None) or getattr(model, "backbone", None)
        if inner is None or not is_graph(inner):
            limit = min((_limit(layer) for layer in flatten_layers(model)), default=math.inf)
            limit = 2 if math.isinf(limit) else limit
            return {id(each): limit for each in keras.tree.flatten(input_structure(model))}
        model = inner
    graph, limits = LayerGraph(model), {}
    for tensor in keras.tree.flatten(input_structure(model)):
        seen, operations = set(), [origin(tensor).operation]
        found = math.inf
        while operations and math.isinf(found):
            seen.update(operations)
            operations = [
                consumer
                for operation in operations
                for consumer in graph.consumers.get(operation, ())
                if consumer not in seen
            ]
            for operation in operations:
                if isinstance(operation, keras.layers.Layer):
                    for layer in flatten_layers(operation):
                        found = min(found, _limit(layer))
        limits[id(tensor)] = 2 if math.isinf(found) else found
    return limits


def _limit(layer):
    """Returns the number of integers that a layer takes."""
    if isinstance(layer, keras.layers.Embedding):
        return layer.input_dim
    if isinstance(layer, keras.layers.CategoryEncoding):
        return layer.num_tokens or math.inf
    return math.inf
