"""Tiny .tflite files whose kernels are known: int8 with a batch of one, sparse, of floats."""

import functools

import numpy as np
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

SHAPE = (1, 16, 16, 3)


def _few_values(shape, rng):
    """Returns a kernel whose output channels have three values each: 0 in four of five, -1, r."""
    high = rng.uniform(0.2, 0.8, shape[-1])
    values = rng.choice(3, shape, p=(0.8, 0.1, 0.1))
    return np.select([values == 1, values == 2], [-1.0, high], 0.0).astype("float32")


@functools.cache
def kernels():
    """Returns {name: kernel} as Keras has them, output channels last."""
    rng = np.random.default_rng(0)
    return {
        "stem": rng.normal(size=(3, 3, 3, 8)).astype("float32"),
        "first": _few_values((1, 1, 8, 64), rng),
        "depthwise": rng.normal(size=(3, 3, 64, 1)).astype("float32"),
        "second": _few_values((1, 1, 64, 64), rng),
        "head": _few_values((64, 16), rng),
    }


def _network(x):
    """A stem, 1x1 convolutions about a depthwise one, the mean over positions, a head."""
    k = kernels()
    with tf.name_scope("stem"):
        x = tf.pad(x, [[0, 0], [1, 1], [1, 1], [0, 0]])
        x = tf.nn.relu(tf.nn.conv2d(x, k["stem"], 2, "VALID"))
    with tf.name_scope("first"):
        x = tf.nn.relu(tf.nn.conv2d(x, k["first"], 1, "SAME"))
    with tf.name_scope("depthwise"):
        x = tf.nn.depthwise_conv2d(x, k["depthwise"], (1, 1, 1, 1), "SAME")
    with tf.name_scope("second"):
        x = tf.nn.conv2d(x, k["second"], 1, "SAME")
    with tf.name_scope("head"):
        return tf.matmul(tf.reduce_mean(x, axis=(1, 2)), k["head"])


def _with_float_parts(x):
    with tf.name_scope("conv"):
        x = tf.nn.conv2d(x, kernels()["stem"], 2, "SAME")
    with tf.name_scope("sums"):
        x = tf.cumsum(x, axis=1)
    with tf.name_scope("turned"):
        return tf.cumsum(tf.sin(x), axis=2)


def _converted(function, *optimizations, integers=None, ranges=False):
    traced = tf.function(function).get_concrete_function(tf.TensorSpec(SHAPE, name="image"))
    converter = tf.lite.TFLiteConverter.from_concrete_functions([traced])
    converter.optimizations = list(optimizations)
    if ranges:
        samples = np.random.default_rng(0).normal(size=(4, *SHAPE)).astype("float32")
        converter.representative_dataset = lambda: ([sample] for sample in samples)
    if integers is not None:
        converter.inference_input_type = converter.inference_output_type = integers
    return converter.convert()


@functools.cache
def in_int8():
    """The network in int8, its inputs and outputs too."""
    return _converted(_network, tf.lite.Optimize.DEFAULT, integers=tf.int8, ranges=True)


@functools.cache
def in_floats():
    return _converted(_network)


@functools.cache
def in_sparse_form():
    """The network in float32, whose kernels of many zeros are stored in sparse form."""
    return _converted(_network, tf.lite.Optimize.EXPERIMENTAL_SPARSITY)


@functools.cache
def in_dynamic_range():
    return _converted(_network, tf.lite.Optimize.DEFAULT)


@functools.cache
def with_float_parts():
    """A convolution in int8 between float borders, then sums and sines that stay in float."""
    return _converted(_with_float_parts, tf.lite.Optimize.DEFAULT, ranges=True)


def edited(content, edit):
    """Returns the bytes of a file after `edit(model)` has changed its `schema.ModelT`."""
    import flatbuffers

    model = schema.ModelT.InitFromPackedBuf(content)
    edit(model)
    builder = flatbuffers.Builder(1024)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    return bytes(builder.Output())
