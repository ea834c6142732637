"""One signature of an opened .tflite file: its inputs and outputs, and running it."""

import contextlib
import itertools
import keyword
import re

import keras
import numpy as np

from tfpeft.core.arguments import check_positive_integer, unexpected
from tfpeft.core.arrays import invalid_data
from tfpeft.core.inputs import ModelInput, match


class Signature:
    """What an interpreter runs for one signature of its file.

    Args:
        interpreter: An interpreter of the file.
        path: The file, for errors.
        name: The signature; None for a file that has none.
        order: A function of the index of a graph that returns its input tensors in the order of
            the model, or None if it is not known.

    Attributes:
        name: As above.
        graph: Index of the subgraph.
        inputs: {name: shape}, in the order of the file; -1 is a free side.
        input_types: {name: type}, such as "float32".
        outputs: The shapes of the outputs. Where a file has no signature, names are indices.
        output_tensors: {name: index of the tensor} of the outputs.
        batch: The batch size that the file insists on; None if it is free.
    """

    def __init__(self, interpreter, path, name, order):
        self.name = name
        self._interpreter, self._path = interpreter, path
        if name is None:
            self.graph = 0
            self._inputs = dict(enumerate(interpreter.get_input_details()))
            self._outputs = dict(enumerate(interpreter.get_output_details()))
            self._is_ordered, self._is_numbered = True, False
        else:
            runner = interpreter.get_signature_runner(name)
            self.graph = interpreter._interpreter.GetSubgraphIndexFromSignature(name)
            self._inputs = runner.get_input_details()
            self._outputs = runner.get_output_details()
            tensors = order(self.graph)
            self._is_numbered = tensors is None and set(self._inputs) == set(
                _numbered(self._inputs)
            )
            self._inputs, self._is_ordered = _in_order(self._inputs, tensors)
        self.inputs, self.outputs = _shapes(self._inputs), _shapes(self._outputs)
        self.output_tensors = {name: details["index"] for name, details in self._outputs.items()}
        self.input_types = {n: np.dtype(d["dtype"]).name for n, d in self._inputs.items()}
        first_sides = {side for shape in self.inputs.values() for side in shape[:1]}
        self.batch = max(first_sides - {-1}, default=None)

    def arrange(self, x, argument="x"):
        """Returns {name: array} of the inputs, checked.

        A dict is matched by the names of the signature or, where a file has none, those of the
        tensors; a list or tuple by the order of the model, which files made elsewhere do not have.
        """
        known = [_model_input(name, details) for name, details in self._inputs.items()]
        if isinstance(x, dict):
            x = self._by_file_name(_by_name(x), known, argument)
        elif not self._is_ordered:
            names = ", ".join(self._inputs)
            raise invalid_data(argument, f"a dict of {names}, as {self._path} has them", "no names")
        else:
            x = [np.asarray(value) for value in keras.tree.flatten(x)]
        arrays = dict(zip(self._inputs, match(known, x, argument, str(self._path)), strict=True))
        for name, array in arrays.items():
            dtype = np.dtype(self._inputs[name]["dtype"])
            # Text, objects and complex numbers would be cast to floats.
            if not np.can_cast(array.dtype, np.float64) and array.dtype != dtype:
                where = f"{name} of type {array.dtype}"
                raise invalid_data(argument, f"arrays of {dtype}", where)
        lengths = {len(array) for array in arrays.values() if array.ndim}
        if len(lengths) > 1 or 0 in lengths:
            received = f"lengths {', '.join(map(str, sorted(lengths)))}"
            raise invalid_data(argument, "one or more samples, as many of each input", received)
        return arrays

    def _by_file_name(self, x, known, argument):
        """Returns a dict of arrays by names that the file has."""
        names = {name for leaf in known for name in (leaf.name, *leaf.aliases)}
        if self._is_numbered and len(known) > 1 and not set(x) <= names:
            # Whether these are the sorted keys of a dict, or a list of the model, is not known.
            expected = (
                f"a list of {len(known)} arrays in the order of the model's inputs (of a dict of "
                f"inputs: that of its sorted keys), or a dict of {', '.join(self._inputs)}, as "
                f"{self._path} has no other names"
            )
            raise invalid_data(argument, expected, ", ".join(map(str, x)))
        if not set(x) <= names:
            given = dict(zip(x, file_names(x), strict=True))
            are_of_file = set(given.values()) <= names
            x = {
                given[name] if are_of_file or name not in names else name: value
                for name, value in x.items()
            }
        return {name: np.asarray(value) for name, value in x.items()}

    def zeros(self):
        """Returns inputs of zeros; a free side, other than the batch, is a ValueError."""
        return {
            name: np.zeros([*(abs(side) for side in shape[:1]), *shape[1:]])
            for name, shape in self.inputs.items()
        }

    def feed(self, inputs):
        """Sets the inputs, {name: array}; too few samples are filled up with the first one."""
        values = {}
        for name, details in self._inputs.items():
            array = _quantize(inputs[name], details)
            missing = (self.batch or 0) - len(array) if array.ndim else 0
            if missing > 0:
                array = np.concatenate([array, *[array[:1]] * missing])
            values[details["index"]] = array
        with self._errors(values):
            self._set(values)

    def _set(self, values):
        # The public calls that resize, set and run know the first graph only, and a runner
        # of a signature cannot be timed without them.
        inner = self._interpreter._interpreter
        for index, array in values.items():
            inner.ResizeInputTensor(index, np.array(array.shape, "int32"), False, self.graph)
        inner.AllocateTensors(self.graph)
        for index, array in values.items():
            inner.SetTensor(index, array, self.graph)

    def invoke(self):
        """Runs once, on the inputs that are set."""
        with self._errors():
            self._interpreter._interpreter.Invoke(self.graph)

    @contextlib.contextmanager
    def _errors(self, values=None):
        """A context in which errors of the interpreter are InputErrors of one line."""
        try:
            yield
        except (RuntimeError, ValueError) as error:
            shapes = [] if values is None else [array.shape for array in values.values()]
            of = f" of shape {', '.join(map(str, shapes))}" if shapes else ""
            reason = " ".join(str(error).split())
            raise unexpected(
                f"inputs{of} that {self._path} can run on", f"the error {reason}"
            ) from error

    def tensor(self, index):
        """Returns a tensor after a run of `TFLiteFile.observed`; None if it has no value."""
        try:
            return self._interpreter.get_tensor(index, self.graph)
        except (ValueError, RuntimeError):
            return None

    def values(self):
        """Returns {name: values in float32} of the tensors, after a run."""
        found = {d["name"]: (self.tensor(i), d) for i, d in self._details().items()}
        return {n: _dequantize(v, d) for n, (v, d) in found.items() if v is not None}

    def values_of(self, index):
        """Returns the values of one tensor in float32, after a run."""
        return _dequantize(self.tensor(index), self._details()[index])

    def tensor_shapes(self):
        """Returns {index: shape} of all tensors, after a run."""
        return {index: tensor["shape"].tolist() for index, tensor in self._details().items()}

    def _details(self):
        details = self._interpreter.get_tensor_details(self.graph)
        return {tensor["index"]: tensor for tensor in details}

    def run(self, x, batch_size=256):
        """Returns {name: output} for x, in float32, run in batches."""
        check_positive_integer("batch_size", batch_size)
        return self.run_arranged(self.arrange(x), batch_size)

    def run_arranged(self, inputs, batch_size):
        """Returns {name: output} for inputs that `arrange` has returned."""
        samples = len(next(iter(inputs.values())))
        step = self.batch or batch_size
        batches = {name: [] for name in self.outputs}
        for start in range(0, samples, step):
            self.feed({name: array[start : start + step] for name, array in inputs.items()})
            self.invoke()
            for name, details in self._outputs.items():
                output = self._interpreter.get_tensor(details["index"], self.graph)
                batches[name].append(_dequantize(output, details))
        return {name: np.concatenate(parts)[:samples] for name, parts in batches.items()}

    def predict(self, x, batch_size=256):
        """Returns the output for x; of several outputs {name: output}."""
        outputs = self.run(x, batch_size)
        return outputs if len(outputs) > 1 else next(iter(outputs.values()))


def _in_order(inputs, tensors):
    """Returns {name: details} in the order of the model, and whether that is known."""
    if tensors is not None:
        in_order = sorted(inputs.items(), key=lambda item: tensors.index(item[1]["index"]))
        return dict(in_order), True
    numbered = _numbered(inputs)
    if set(numbered) == set(inputs):  # as files of tfpeft 0.1 have them
        return {name: inputs[name] for name in numbered}, True
    return inputs, len(inputs) == 1


def _numbered(inputs):
    return [f"input_{i}" for i in range(len(inputs))]


def file_names(names):
    """Returns the names that inputs have in a file: ones that TensorFlow takes.

    Those that TensorFlow takes for the same one are numbered; the order of `names` is free.
    """
    found, taken = {}, set()
    for name in sorted(names, key=lambda name: (not name.isidentifier(), name)):
        ends = itertools.chain([""], (f"_{i}" for i in itertools.count(1)))
        options = (f"{_file_name(name)}{end}" for end in ends)
        found[name] = next(option for option in options if _folded(option) not in taken)
        taken.add(_folded(found[name]))
    return [found[name] for name in names]


def _folded(name):
    return re.sub(r"[.-]", "_", name).lower()


def _file_name(name):
    name = re.sub(r"[^A-Za-z0-9_.-]", "_", name)
    name = f"input{name}" if name.startswith(("_", ".", "-")) else name
    return f"{name}_" if keyword.iskeyword(name) or name == "self" else name


def _model_input(name, details):
    tensor = re.sub(r":\d+$", "", details["name"]).removeprefix("serving_default_")
    shape = tuple(None if side < 0 else int(side) for side in details["shape_signature"][1:])
    dtype = np.dtype(details["dtype"]).name if not details["quantization"][0] else None
    names = (tensor, details["name"]) if isinstance(name, int) else (name, name.removesuffix("_"))
    return ModelInput(names[0], shape, dtype, names[1:])


def _by_name(x):
    """Returns a dict of the arrays in a nested one, by the names that `export_tflite` gives."""
    found = keras.tree.flatten_with_path(x)
    return {".".join(map(str, path)): value for path, value in found}


def _shapes(tensors):
    return {name: tuple(map(int, details["shape_signature"])) for name, details in tensors.items()}


def _quantize(values, details):
    scale, zero_point = details["quantization"]
    if not scale or np.issubdtype(details["dtype"], np.floating):
        return values.astype(details["dtype"])
    limits = np.iinfo(details["dtype"])
    steps = np.round(values / scale) + zero_point
    return np.clip(steps, limits.min, limits.max).astype(details["dtype"])


def _dequantize(values, details):
    scale, zero_point = details["quantization"]
    if not scale or np.issubdtype(details["dtype"], np.floating):
        return values.astype("float32")
    return (values.astype("float32") - zero_point) * np.float32(scale)
