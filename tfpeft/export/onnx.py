"""A Keras model as an .onnx file, checked in ONNX Runtime before it is kept."""

import contextlib
import logging
import os
import typing
import warnings

import keras
import numpy as np
import tensorflow as tf

from tfpeft.core.arguments import ExportError, InputError, shortened, unexpected
from tfpeft.core.graph import flatten_layers
from tfpeft.core.packages import check_packages
from tfpeft.core.paths import file_to_write, invalid_path
from tfpeft.export.conversion import (
    SIGNATURE,
    in_float32,
    initial_states,
    named_outputs,
    running_on,
)
from tfpeft.export.lost_layers import LayerNames
from tfpeft.export.serving import ServingReport, check_model, write_checked

_PACKAGES = ("onnx", "onnxruntime", "tf2onnx")
_TYPES = {"float": "float32", "double": "float64", "string": "object"}
"""Where ONNX calls a type otherwise than NumPy."""


def export_onnx(
    model: keras.Model,
    path: str | os.PathLike,
    *,
    representative_data: typing.Any = None,
) -> ServingReport:
    """Writes `model` as an .onnx file in float32, and returns a report of what it holds.

    The file is written beside `path` by Keras's own export, run by ONNX Runtime on the processor,
    compared with `model(sample, training=False)`, and then renamed; if anything fails, a file that
    was there before stays. It has a free batch size. Its inputs have the names and the order of the
    model's; its outputs are `output_0`, `output_1`, ... or the names of a dict of outputs. A
    `SharedModel` gets an output per task, as ONNX knows no signatures. `model` stays as it is.

    Needs the packages `onnx`, `onnxruntime` and `tf2onnx`: `pip install tfpeft[onnx]`.

    Args:
        model: A built `keras.Model`. Of one in mixed precision, a clone in float32 is written.
        path: The file, whose name ends in .onnx; missing folders are made.
        representative_data: Typical inputs of the model, as `export_tflite` takes them; up to 200
            samples are compared. Without data, file and model are compared on random inputs.

    Returns:
        A `ServingReport`.

    Raises:
        InputError: for data that is empty, not finite, or not of the model's inputs; without the
            packages.
        ExportError: for operators that ONNX lacks, which are named with their layers; for a file
            whose outputs are not finite, or off by more than 1e-3 of the largest value of a column
            (and of 1).

    What it does not give: a quantized file; layers that take texts; models of more than 2 GB, which
    one file in ONNX's format cannot hold.

    Example:

    ```python
    import keras, tfpeft

    model = keras.Sequential([keras.Input((8,), name="x"), keras.layers.Dense(4)])
    print(tfpeft.export_onnx(model, "model.onnx"))  # model.onnx: ... inputs x (float32, free, 8)
    ```
    """
    check_model(model)
    path = _file(path)
    check_packages(_PACKAGES, "onnx")
    stateful = [layer.name for layer in flatten_layers(model) if getattr(layer, "stateful", False)]
    if stateful:
        raise unexpected(
            "layers without a state between batches, which ONNX cannot keep",
            f"{model.name!r} with stateful=True in {stateful[0]}",
            error=ExportError,
        )
    models, layers = {SIGNATURE: model}, LayerNames(model)

    def write(inputs, specs, partial):
        converted = in_float32(model)
        served = _Flat(converted, inputs)
        scopes = layers.recording(converted)
        with initial_states(converted), scopes, _quiet(), running_on(model, specs):
            served.export(str(partial), format="onnx", verbose=False, input_signature=specs)
        _put_constants(partial, served.constants)

    def open_file(partial, input_names):
        return _OnnxFile(partial, input_names, model, layers)

    return write_checked(
        model, path, representative_data, models=models, write=write, open_file=open_file
    )


def _file(path):
    expected = "a path of a file that ends in .onnx"
    path = file_to_write(path, expected=expected)
    if path.suffix != ".onnx":
        raise invalid_path("`path`", expected, path)
    return path


class _Flat(keras.Model):
    """A model whose inputs are its arguments, which gives an .onnx file their order and names.

    Attributes:
        constants: {name in the graph: value} of the tensors that layers hold outside of variables,
            such as the mean of `Normalization`, after an export.
    """

    def __init__(self, model, inputs):
        super().__init__(name="served")
        self.model = model
        # A function, as Keras turns the dicts among a layer's attributes into a type of its own.
        self.arrange = lambda tensors: keras.tree.pack_sequence_as(inputs, tensors)
        self.constants = {}
        self.built = True

    def call(self, *tensors):
        outputs = named_outputs(self.model(self.arrange(list(tensors)), training=False))
        captures = tf.compat.v1.get_default_graph().captures
        self.constants = {
            inner.name: outer for outer, inner in captures if outer.dtype != tf.resource
        }
        return outputs


def _put_constants(path, constants):
    """Turns inputs of an .onnx file into constants: tf2onnx takes tensors of layers for inputs."""
    import onnx  # late: an optional package

    if not constants:
        return
    file = onnx.load(path)
    for each in [each for each in file.graph.input if each.name in constants]:
        value = constants[each.name]
        value = np.asarray(value.numpy(), object if value.dtype == tf.string else None)
        file.graph.initializer.append(onnx.numpy_helper.from_array(value, each.name))
        file.graph.input.remove(each)
    onnx.save(file, path)


@contextlib.contextmanager
def _quiet():
    """A context without the messages of the conversion, whose errors show in the file."""
    loggers = [logging.getLogger(name) for name in ("tf2onnx", "tensorflow")]
    before = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


class _OnnxFile:
    """An opened .onnx file, as `write_checked` runs it; it has one signature."""

    def __init__(self, path, input_names, model, layers):
        import onnxruntime  # late: an optional package

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4  # what fails is raised, too
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # onnxruntime has a class per status
            raise ExportError(
                f"Cannot convert {model.name!r} to ONNX, expected operators that ONNX has. "
                f"Received: {_unknown_operators(path, layers) or _reason(error)}"
            ) from error
        self._types = {each.name: _numpy_type(each.type) for each in self._session.get_inputs()}
        self._input_names = input_names
        self.outputs = tuple(each.name for each in self._session.get_outputs())

    def signature(self, name):
        return self

    def run(self, arrays):
        """Returns {name: output} in float32 for arrays in the order of the inputs."""
        named = dict(zip(self._input_names, arrays, strict=True))
        feed = {name: named[name].astype(dtype) for name, dtype in self._types.items()}
        try:
            found = self._session.run(None, feed)
        except Exception as error:  # onnxruntime has a class per status
            shapes = ", ".join(str(array.shape) for array in arrays)
            raise unexpected(
                f"inputs of shape {shapes} that the .onnx file runs on",
                _reason(error),
                error=InputError,
            ) from error
        return {
            name: np.asarray(value, "float32")
            for name, value in zip(self.outputs, found, strict=True)
        }


def _numpy_type(name):
    """Returns NumPy's type for one as ONNX Runtime writes it, such as "tensor(float)"."""
    name = name.removeprefix("tensor(").removesuffix(")")
    return _TYPES.get(name, name)


def _reason(error):
    return shortened(str(error).rpartition(" : ")[2], 300)


def _unknown_operators(path, layers):
    """Returns the operators of a file that ONNX lacks, with the layers they come from, in words."""
    import onnx  # late: an optional package

    found = {}
    for node in onnx.load(path, load_external_data=False).graph.node:
        if not onnx.defs.has(node.op_type, node.domain):
            found.setdefault(node.op_type, []).append(layers.layer_of(node.name))
    return ", ".join(
        f"{op} (layers: {', '.join(dict.fromkeys(filter(None, names)))})" if any(names) else op
        for op, names in found.items()
    )
