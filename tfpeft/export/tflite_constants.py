"""The values of a constant in a .tflite file: 4 bits, dense or sparse, zeros and distinct ones."""

import math

import numpy as np
from ai_edge_litert import schema_py_generated as schema

NUMPY_TYPES = {
    schema.TensorType.FLOAT32: np.float32,
    schema.TensorType.FLOAT16: np.float16,
    schema.TensorType.INT8: np.int8,
    schema.TensorType.UINT8: np.uint8,
    schema.TensorType.INT16: np.int16,
    schema.TensorType.INT32: np.int32,
    schema.TensorType.INT64: np.int64,
}
_DENSE = schema.DimensionType.DENSE


def shape_of(tensor):
    """Returns the shape of a tensor of the schema, in Python's integers."""
    # The product of NumPy's would overflow, and is no JSON.
    return tuple(map(int, tensor.shape)) if tensor.shape is not None else ()


def is_scaled(tensor):
    """Whether a tensor of the schema has scales."""
    scales = tensor.quantization.scale if tensor.quantization is not None else None
    return scales is not None and len(scales) > 0


def zero_of(tensor):
    """Returns the stored value that stands for zero."""
    points = tensor.quantization.zeroPoint if is_scaled(tensor) else None
    return int(points[0]) if points is not None and len(points) else 0


def stored_values(tensor, data):
    """Returns the numbers that a buffer holds, in one dimension; None for types without.

    A sparse tensor stores its non-zeros, and the zeros that fill up their blocks, only.

    Args:
        tensor: A tensor of the schema.
        data: The bytes of its buffer.
    """
    data = np.asarray(data, np.uint8)
    if tensor.type == schema.TensorType.INT4:
        nibbles = np.stack([data & 15, data >> 4], axis=-1).reshape(-1).astype(np.int8)
        if tensor.sparsity is None:
            nibbles = nibbles[: math.prod(shape_of(tensor))]
        return np.where(nibbles > 7, nibbles - 16, nibbles).astype(np.int8)
    return data.view(NUMPY_TYPES[tensor.type]) if tensor.type in NUMPY_TYPES else None


def dense_values(tensor, data):
    """Returns the numbers of a constant as an array of its shape; None for types without."""
    values = stored_values(tensor, data)
    if values is None:
        return None
    if tensor.sparsity is not None:
        return from_sparse(values, shape_of(tensor), tensor.sparsity)
    return values.reshape(shape_of(tensor))


def from_sparse(values, shape, sparsity):
    """Returns the dense array of sparsely stored values.

    The levels of a sparse tensor are its dimensions in the order in which they were walked, and
    then those inside of a block. A dense level has all its coordinates, a compressed one (CSR)
    lists them.

    Args:
        values: The stored values, in the order of the levels.
        shape: The dense shape.
        sparsity: The `SparsityParametersT` of the tensor.

    Reference: Chou et al., "Format Abstraction for Sparse Tensor Algebra Compilers", 2018,
    https://arxiv.org/abs/1804.10112
    """
    rank = len(shape)
    coordinates = np.zeros((1, 0), np.int64)
    for level in sparsity.dimMetadata:
        parents = np.arange(len(coordinates))
        if level.format == _DENSE:
            children = np.tile(np.arange(level.denseSize), len(parents))
            parents = np.repeat(parents, level.denseSize)
        else:
            children = np.asarray(level.arrayIndices.values)
            parents = np.repeat(parents, np.diff(level.arraySegments.values))
        coordinates = np.column_stack([coordinates[parents], children])
    order = list(map(int, sparsity.traversalOrder))
    coordinates = coordinates[:, np.argsort(order)]
    places = coordinates[:, :rank]
    for i, axis in enumerate(sparsity.blockMap if sparsity.blockMap is not None else []):
        size = sparsity.dimMetadata[order.index(rank + i)].denseSize
        places[:, axis] = places[:, axis] * size + coordinates[:, rank + i]
    dense = np.zeros(shape, values.dtype)
    dense[tuple(places.T)] = values[: len(places)]
    return dense


def most_distinct(values, axis):
    """Returns the largest number of distinct values of a slice along `axis`."""
    rows = np.sort(np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1), axis=1)
    return int(np.max(np.sum(np.diff(rows, axis=1) != 0, axis=1)) + 1)
