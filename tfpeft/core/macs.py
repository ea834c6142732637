"""Multiply-accumulates of a Keras model, counted in its graph."""

import functools
import math

import keras
import tensorflow as tf

_PRODUCTS = (
    *("MatMul", "BatchMatMul", "BatchMatMulV2", "BatchMatMulV3", "Einsum"),
    *("Conv2D", "Conv3D", "DepthwiseConv2dNative", "Conv2DBackpropInput"),
)


def count_macs(model, x):
    """Returns the multiply-accumulates of one sample in convolutions and matrix products.

    They are counted in the graph that the sample runs through, so that every kind of model counts.
    None if the graph has loops, or shapes that are not known, or if TensorFlow does not trace it.
    """
    traced = tf.function(functools.partial(model, training=False))
    inputs = getattr(model, "inputs", None)
    samples = (inputs[0].shape[0] if inputs else None) or 1  # a batch may have a fixed size
    specs = keras.tree.map_structure(
        lambda array: tf.TensorSpec([samples, *array.shape[1:]], array.dtype), x
    )
    try:
        graph = traced.get_concrete_function(specs).graph
    except ValueError:  # a name that TensorFlow does not take, with a space, for example
        return None
    macs = _graph_macs(graph, graph)
    return None if macs is None else macs // samples


def _graph_macs(graph, outer):
    total = 0
    for op in graph.get_operations():
        shapes, output = [], 0
        if op.type in _PRODUCTS:
            if not all(tensor.shape.is_fully_defined() for tensor in (*op.inputs, *op.outputs)):
                return None
            shapes = [tensor.shape.as_list() for tensor in op.inputs]
            output = math.prod(op.outputs[0].shape.as_list())
        match op.type:
            case "MatMul":
                total += output * shapes[0][0 if op.get_attr("transpose_a") else 1]
            case "BatchMatMul" | "BatchMatMulV2" | "BatchMatMulV3":
                total += output * shapes[0][-2 if op.get_attr("adj_x") else -1]
            case "Conv2D" | "Conv3D":
                total += output * math.prod(shapes[1][:-1])
            case "DepthwiseConv2dNative":
                total += output * math.prod(shapes[1][:2])
            case "Conv2DBackpropInput":
                total += math.prod(shapes[2]) * math.prod(shapes[1][:3])
            case "Einsum":
                total += _einsum_macs(op.get_attr("equation").decode(), shapes)
            case "While" | "StatelessWhile":
                return None
            case "PartitionedCall" | "StatefulPartitionedCall":
                called = outer._get_function(op.get_attr("f").name)
                if called is None:  # inside a function that was loaded from a SavedModel
                    return None
                inner = _graph_macs(called.graph, outer)
                if inner is None:
                    return None
                total += inner
    return total


def _einsum_macs(equation, shapes):
    sides = {}
    for letters, shape in zip(equation.split("->")[0].split(","), shapes, strict=True):
        before, _, after = letters.partition("...")
        # The sides of an ellipsis are aligned at the end, and broadcast.
        hidden = range(len(before) + len(after) - len(shape), 0)
        for letter, side in zip([*before, *hidden, *after], shape, strict=True):
            sides[letter] = max(sides.get(letter, 1), side)
    return math.prod(sides.values())
