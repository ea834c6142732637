"""What is evaluated: a Keras model or a .tflite file, its outputs, and what it costs."""

import pathlib

import keras
import numpy as np

from tfpeft.core import graph
from tfpeft.core.arguments import last_cause
from tfpeft.core.arrays import check_finite, check_numbers, to_numpy
from tfpeft.core.compiling import compiled_parts
from tfpeft.core.inputs import arrange
from tfpeft.core.macs import count_macs
from tfpeft.export.conversion import quantization_settings
from tfpeft.export.tflite import export_tflite
from tfpeft.export.tflite_file import TFLiteFile

_NO_MACS = "no MACs: the graph has loops, or shapes that are not known"


class KerasSubject:
    """A Keras model.

    Args:
        model: The model.
        names: Names for outputs in a list, which all subjects share, in their order; or None.

    Attributes:
        name: The model, for errors.
        names: Those of outputs in a list.
        loss, metrics: What it is compiled with, or None.
    """

    def __init__(self, model, names=None):
        self._model, self.name, self.names = model, model.name, names
        loss, metrics = compiled_parts(model)
        self.loss, self.metrics = self._by_name(loss), metrics
        if metrics:
            self.metrics = [self._by_name(each) for each in metrics]

    def _by_name(self, structure):
        """Returns a dict by `names` of what a list or dict has for outputs in a list."""
        own = graph.output_names(self._model)
        if own is None or self.names is None or len(own) != len(self.names):
            return structure
        if isinstance(structure, dict):
            structure = [structure.get(name) for name in own]
        is_by_output = isinstance(structure, (list, tuple)) and len(structure) == len(own)
        return dict(zip(self.names, structure, strict=True)) if is_by_output else structure

    def predict(self, x):
        """Returns {output: array} for a batch of inputs; the key of one output is None."""
        x = arrange(self._model, x)
        check_finite(x, "data", "inputs")
        if self._model.distribute_strategy.num_replicas_in_sync > 1:
            # Keras's `predict_on_batch` gives each replica the whole batch.
            size = len(keras.tree.flatten(x)[0])
            outputs = self._model.predict(
                keras.tree.map_structure(to_numpy, x), batch_size=size, verbose=0
            )
        else:
            outputs = self._model.predict_on_batch(x)
        by_key = {key: _as_numbers(each) for key, each in graph.outputs_by_key(outputs).items()}
        return _named(by_key, self.names)

    def last_activation(self, output):
        """Returns the name of the activation that makes an output; None if it is not known."""
        if isinstance(graph.output_structure(self._model), (list, tuple)):
            output = _position(output, self.names)
        try:
            return graph.last_activation(self._model, output)
        except (KeyError, AttributeError):  # a graph of another kind
            return None

    def cost(self, x, y, folder):
        """Returns {figure: value} without latency, and the file to be timed, or None.

        Args:
            x, y: Some samples, which calibrate the file of a quantise-aware model.
            folder: Where its file is written to.
        """
        model, notes = self._model, []
        x = arrange(model, x)
        weights = [weight.numpy() for weight in model.weights]
        try:
            aware = quantization_settings(model)
            exported = export_tflite(
                model,
                pathlib.Path(folder),
                quantization="none" if aware is None else aware["quantization"],
                # A pair of inputs alone would pass for (x, y).
                representative_data=(x,) if y is None else (x, y),
            )
            file, size_bytes, gzip_bytes = (
                TFLiteFile(folder),
                exported.size_bytes,
                exported.gzip_bytes,
            )
            if len(file.signatures) > 1:
                notes.append("no latency: its file has a signature per task")
                file = None
        except ValueError as error:  # also of Keras, where it cannot trace the model
            notes.append(f"no .tflite file, so no bytes and no latency: {last_cause(error)}")
            file = size_bytes = gzip_bytes = None
        macs = count_macs(model, x)
        if macs is None:
            notes.append(_NO_MACS)
        found = {
            "parameters": sum(weight.size for weight in weights),
            "nonzero_parameters": sum(int(np.count_nonzero(weight)) for weight in weights),
            "macs": macs,
            "size_bytes": size_bytes,
            "gzip_bytes": gzip_bytes,
            "notes": tuple(notes),
        }
        return found, file


class FileSubject:
    """A .tflite file, or a signature of one; see `KerasSubject`."""

    loss = metrics = None

    def __init__(self, file, signature, names=None):
        self._file, self._signature, self.name = file, signature, str(file.path)
        self._program, self.names = None, names

    def predict(self, x):
        if self._program is None:
            self._program = self._file.on_all_cores(self._signature)
        # An error names the argument of `evaluate`, not of `predict`.
        inputs = self._program.arrange(keras.tree.map_structure(to_numpy, x), "data")
        check_numbers(inputs, "data")
        outputs = self._program.run_arranged(inputs, len(next(iter(inputs.values()))))
        return _named(_by_key(outputs), self.names)

    def last_activation(self, output):
        name, tensors = output, self._program.output_tensors
        if name not in tensors:  # of a model with a list of outputs, or the only output
            name = f"output_{_position(output, self.names)}"
            name = name if name in tensors else None
        return self._file.last_activation(self._signature, name)

    def cost(self, x, y, folder):
        file = self._file
        self._program = None  # its batches need not stay in memory
        macs = file.macs(_first(x, 1), self._signature)
        found = {
            "parameters": file.contents.parameters,
            "nonzero_parameters": file.contents.nonzero_parameters,
            "macs": macs,
            "size_bytes": file.contents.size_bytes,
            "gzip_bytes": file.contents.gzip_bytes,
            "notes": (_NO_MACS,) if macs is None else (),
        }
        return found, file


def _as_numbers(outputs):
    """Returns an array of a type that NumPy computes with, as bfloat16 and float16 are not."""
    outputs = np.asarray(outputs)
    return outputs if outputs.dtype.name in ("float32", "float64") else outputs.astype("float32")


def _named(by_key, names):
    """Returns outputs by the names of those in a list, where their keys are positions."""
    if names is None or list(by_key) != list(range(len(names))):
        return by_key
    return dict(zip(names, by_key.values(), strict=True))


def _position(output, names):
    """Returns the position of an output in a list."""
    return names.index(output) if names is not None and output in names else output


def _by_key(outputs):
    """Returns {output: array} of a file, by the keys that the outputs of its model have."""
    if len(outputs) == 1:
        return {None: next(iter(outputs.values()))}
    names = [f"output_{i}" for i in range(len(outputs))]  # of a model with a list of outputs
    if set(outputs) == set(names):
        return {i: outputs[name] for i, name in enumerate(names)}
    return outputs


def _first(x, count):
    return keras.tree.map_structure(lambda array: array[:count], x)
